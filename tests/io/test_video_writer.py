"""Written video reads back; whatever goes wrong leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.io.videos import number_of, numbered_frame
from trecvit_dense.io import FrameSource, VideoWriter, atomic_path


@pytest.mark.parametrize('size', [(48, 64), (33, 47), (1, 1)])
@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_round_trip_pads_odd_sizes(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    path = tmp_path / f'out{suffix}'
    with VideoWriter(path, 29.97) as writer:
        for index in range(5):
            writer.write(np.full((*size, 3), 16 + 30 * index, np.uint8))
    source = FrameSource.open(path)
    assert source.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert source.num_frames == 5 and source.fps == pytest.approx(29.97, rel=1e-3)
    means = [frame.mean() for frame in source]
    assert np.abs(np.array(means) - (16 + 30 * np.arange(5))).max() < 4
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_plays_in_browsers(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / 'out.mp4', 25) as writer:
        for index in range(12):
            writer.write(numbered_frame(index))
    data = (tmp_path / 'out.mp4').read_bytes()
    assert data.index(b'moov') < data.index(b'mdat')
    with av.open(str(tmp_path / 'out.mp4')) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ('h264', 'yuv420p')
    assert [number_of(frame) for frame in FrameSource.open(tmp_path / 'out.mp4')] == list(range(12))


def test_exception_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / 'out.mp4'
    path.write_bytes(b'old')
    with pytest.raises(RuntimeError), VideoWriter(path, 25) as writer:
        writer.write(numbered_frame(0))
        raise RuntimeError
    assert path.read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 1


def test_wrong_frames_leave_nothing(tmp_path: Path) -> None:
    for frames in ([], [numbered_frame(0), numbered_frame(1, (40, 40))], [np.zeros((8, 8, 3))]):
        with pytest.raises(ValueError, match='frame'), VideoWriter(tmp_path / 'out.mp4', 25) as writer:
            for frame in frames:
                writer.write(frame)
        assert not list(tmp_path.iterdir())


def test_wrong_targets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.avi'"):
        VideoWriter(tmp_path / 'out.avi', 25)
    with pytest.raises(ValueError, match='fps is 0'):
        VideoWriter(tmp_path / 'out.mp4', 0)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        VideoWriter(tmp_path / 'nowhere' / 'out.mp4', 25)


def test_atomic_path(tmp_path: Path) -> None:
    with atomic_path(tmp_path / 'a.txt') as path:
        path.write_text('whole')
        path.chmod(0o600)
        assert not (tmp_path / 'a.txt').exists()
    (tmp_path / 'ordinary').touch()
    assert (tmp_path / 'a.txt').stat().st_mode == (tmp_path / 'ordinary').stat().st_mode
    (tmp_path / 'ordinary').unlink()
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / 'a.txt') as path:
        path.write_text('half')
        raise KeyboardInterrupt
    assert (tmp_path / 'a.txt').read_text() == 'whole' and len(list(tmp_path.iterdir())) == 1
