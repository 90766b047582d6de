"""The demo: outputs that agree with each other, and one line and nothing left behind for every mistake."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.inference.tiny import tiny_config, tiny_model
from tests.io.videos import make_video, numbered_frame
from trecvit_dense.checkpoints.io import save_model
from trecvit_dense.cli import run
from trecvit_dense.cli.demo import main
from trecvit_dense.inference import Predictor
from trecvit_dense.io import FrameSource


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_model(tiny_model(), tiny_config(), path, {})
    return str(path)


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(make_video(tmp_path / 'in.mp4', 12, size=(72, 50)))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / 'out').mkdir()
    return tmp_path / 'out' / 'tracks.mp4'


def files(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


def demo(video: str, checkpoint: str, out: Path, *more: str) -> int:
    words = ['points', video, '--checkpoint', checkpoint, '--out', str(out), '--device', 'cpu', *more]
    return run(main, words)


def test_video_npz_and_csv_agree(video: str, checkpoint: str, out: Path, capsys: pytest.CaptureFixture) -> None:
    assert demo(video, checkpoint, out, '--points', '10,20', '3,40.5,60', '--frame', '1', '--sheet', '4') == 0
    assert files(out) == ['tracks.csv', 'tracks.mp4', 'tracks.npz', 'tracks.png']
    drawn = FrameSource.open(out)
    assert drawn.num_frames == 12 and drawn.size == (72, 50) and drawn.fps == 25
    query = np.array([[1, 10, 20], [3, 40.5, 60]], np.float32)
    expected = Predictor(checkpoint, device='cpu').points(video, query)
    with np.load(out.with_suffix('.npz'), allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved['query_txy'], query)
        np.testing.assert_array_equal(saved['tracks'], expected.xy_px)
        np.testing.assert_array_equal(saved['visible'], expected.visible)
        assert saved['size'].tolist() == [72, 50] and saved['fps'] == 25
    rows = list(csv.reader(out.with_suffix('.csv').read_text().splitlines()))
    assert rows[0] == ['frame', 'id', 'x', 'y', 'visible'] and len(rows) == 1 + 11 + 9
    assert 'tracks.mp4' in capsys.readouterr().out


def test_grid_max_frames_and_folder(tmp_path: Path, checkpoint: str, out: Path) -> None:
    (tmp_path / 'frames').mkdir()
    for index in range(9):
        cv2.imwrite(str(tmp_path / 'frames' / f'{index}.png'), numbered_frame(index))
    more = ('--grid', '3', '--max-frames', '5', '--show-every', '2', '--trail', '3')
    assert demo(str(tmp_path / 'frames'), checkpoint, out, *more) == 0
    assert FrameSource.open(out).num_frames == 5
    with np.load(out.with_suffix('.npz')) as saved:
        assert saved['tracks'].shape == (9, 5, 2)


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        (['--points', '60,10'], ['query 0', 'outside the frame', '50x72']),
        (['--points', '10,10', '--frame', '12'], ['frame 12', 'frames 0 to 11']),
        (['--points', '10,10', '--frame', '5', '--max-frames', '5'], ['frames 0 to 4']),
        (['--points', '10;10'], ["point '10;10'", 'x,y']),
        (['--points', '1,1', '--grid', '3'], ['--points', '--grid']),
        (['--points', '-1,10'], ['query 0', 'x=-1', 'outside the frame']),
        (['--points', 'nan,1'], ['not a number']),
        (['--grid', '0'], ['grid is 0']),
        (['--show-every', '0'], ['--show-every is 0']),
        (['--device', 'warp'], ['warp']),
        (['--checkpoint', 'nothing.safetensors'], ['nothing.safetensors']),
    ],
)
def test_mistakes_in_options(
    video: str, checkpoint: str, out: Path, capsys: pytest.CaptureFixture, more: list[str], words: list[str]
) -> None:
    assert demo(video, checkpoint, out, *more) == 2
    one_line_error(capsys, words)
    assert files(out) == []


def one_line_error(capsys: pytest.CaptureFixture, words: list[str]) -> None:
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith('demo ')]  # the progress bar
    assert len(lines) == 1 and lines[0].startswith('error: '), lines
    for word in words:
        assert word in lines[0]


def bad_file(kind: str, folder: Path) -> Path:
    path = folder / f'{kind}.mp4'
    if kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'text':
        path.write_text('no video')
    elif kind == 'tiny':
        np_path = folder / 'tiny.png'
        cv2.imwrite(str(np_path), np.zeros((1, 1, 3), np.uint8))
        return np_path
    elif kind in ('index_first', 'index_last'):
        data = make_video(path, 30, faststart=kind == 'index_first').read_bytes()
        path.write_bytes(data[: int(0.7 * len(data))])
    elif kind == 'corrupt':
        data = bytearray(make_video(path, 60, size=(240, 320)).read_bytes())
        data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
        path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('missing', ['no such file']),
        ('empty', ['empty']),
        ('text', ['not a video']),
        ('tiny', ['1x1', 'patch']),
        ('index_first', ['truncated']),
        ('index_last', ['truncated']),
        ('corrupt', ['damaged', 'frame']),
    ],
)
def test_bad_videos(
    tmp_path: Path, checkpoint: str, out: Path, capsys: pytest.CaptureFixture, kind: str, words: list[str]
) -> None:
    assert demo(str(bad_file(kind, tmp_path)), checkpoint, out, '--grid', '2') == 2
    one_line_error(capsys, [kind if kind != 'tiny' else 'frame', *words])
    assert files(out) == []


def test_targets(video: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for out, words in (
        (tmp_path / 'out.txt', ["'.txt'"]),
        (tmp_path / 'nowhere' / 'out.mp4', ['does not exist']),
        (Path(video), ['the video that is read']),
    ):
        assert demo(video, checkpoint, out) == 2
        one_line_error(capsys, words)
    assert [path.name for path in tmp_path.iterdir()] == ['in.mp4']


def test_interrupt_leaves_nothing_but_a_camera_keeps_its_recording(
    checkpoint: str, video: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [numbered_frame(index) for index in range(4)]

    class Capture:
        def __init__(self, index: int) -> None:
            self.left = list(frames)

        def read(self) -> tuple[bool, np.ndarray]:
            if not self.left:
                raise KeyboardInterrupt
            return True, self.left.pop(0)

        def get(self, key: int) -> float:
            return 20.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, 'VideoCapture', Capture)
    assert demo('camera:0', checkpoint, out, '--grid', '2') == 0
    assert FrameSource.open(out).num_frames == 4 and FrameSource.open(out).fps == 20
    with np.load(out.with_suffix('.npz')) as saved:
        assert saved['tracks'].shape == (4, 4, 2)
    for name in files(out):
        (out.parent / name).unlink()
    monkeypatch.setattr(FrameSource.open(video).__class__, '__iter__', lambda self: stop())
    assert demo(video, checkpoint, out, '--grid', '2') == 130
    assert files(out) == []


def stop():
    yield numbered_frame(0, (72, 50))
    raise KeyboardInterrupt


def test_tool_from_another_folder(tmp_path: Path) -> None:
    tool = Path(__file__).resolve().parents[2] / 'tools' / 'demo.py'
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    command = [sys.executable, str(tool), 'points', '--help']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '--grid' in done.stdout
