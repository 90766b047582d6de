"""Every kind of source, exact frame numbers, and one clear line for every file that is not what it says."""

from __future__ import annotations

import pickle
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.io.videos import make_video, number_of, numbered_frame
from trecvit_dense.io import FrameSource, VideoError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / 'video.mp4')


def write_image(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image[:, :, ::-1])
    return path


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert '\n' not in message
    for word in words:
        assert word in message


def test_file_iterates_in_order_and_again(video: Path) -> None:
    with FrameSource.open(video) as source:
        assert (source.size, source.fps, source.num_frames, source.live) == ((48, 64), 25.0, 30, False)
        for _ in range(2):
            frames = list(source)
            assert [number_of(frame) for frame in frames] == list(range(30))
            assert frames[0].dtype == np.uint8 and frames[0].shape == (48, 64, 3)


@pytest.mark.parametrize(
    ('name', 'codec'),
    [('a.mp4', 'libx264'), ('a.mov', 'libx264'), ('a.mkv', 'libx264'), ('a.ts', 'libx264'), ('a.webm', 'libvpx-vp9')],
)
def test_read_is_exact_at_variable_rate(tmp_path: Path, name: str, codec: str) -> None:
    rng = np.random.default_rng(0)
    pts = np.cumsum(rng.integers(1, 12, 30)).tolist()
    source = FrameSource.open(make_video(tmp_path / name, pts=pts, codec=codec))
    assert source.num_frames == 30
    assert source.fps == pytest.approx(29 / ((pts[-1] - pts[0]) / 100), rel=0.02)
    assert [number_of(source.read(int(index))) for index in (0, 1, 2, 15, 16, 3, -1)] == [0, 1, 2, 15, 16, 3, 29]
    order = rng.permutation(30).tolist()
    assert [number_of(source.read(index)) for index in order] == order


def test_raw_stream_without_times_is_counted(tmp_path: Path, video: Path) -> None:
    raw = tmp_path / 'raw.h264'
    remux(video, raw)
    source = FrameSource.open(raw)
    assert [number_of(source.read(index)) for index in (3, 9, 0)] == [3, 9, 0]


def test_recording_cut_between_key_frames(tmp_path: Path) -> None:
    data = make_video(tmp_path / 'whole.ts', 60, size=(120, 160), gop=15).read_bytes()
    (tmp_path / 'cut.ts').write_bytes(data[188 * 10 :])
    source = FrameSource.open(tmp_path / 'cut.ts')
    numbers = [number_of(frame) for frame in source]
    assert numbers == list(range(15, 60)) and source.num_frames == 45
    assert [number_of(source.read(index)) for index in (20, 0, 44)] == [35, 15, 59]


def test_edit_list_hides_frames(tmp_path: Path, video: Path) -> None:
    cut = tmp_path / 'cut.mp4'
    remux(video, cut, shift_s=-0.2)
    source = FrameSource.open(cut)
    numbers = [number_of(frame) for frame in source]
    assert numbers == list(range(5, 30)) and source.num_frames == 25
    assert [number_of(source.read(index)) for index in (3, 0, 20)] == [8, 5, 25]


def remux(source: Path, target: Path, shift_s: float = 0.0) -> None:
    with av.open(str(source)) as reader, av.open(str(target), 'w') as writer:
        stream = reader.streams.video[0]
        out = writer.add_stream_from_template(stream)
        for packet in reader.demux(stream):
            if packet.dts is not None:
                shift = int(shift_s / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, out
                writer.mux(packet)


@pytest.mark.parametrize(('degrees', 'corner'), [(90, (-8, 0)), (-90, (0, -8)), (180, (-8, -8))])
def test_rotation_is_applied(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    source = FrameSource.open(make_video(tmp_path / 'turned.mp4', 2, rotation=degrees))
    frame = next(iter(source))
    assert source.rotation in (degrees, degrees - 360, degrees + 360)
    assert source.size == frame.shape[:2] == ((48, 64) if degrees == 180 else (64, 48))
    y, x = corner
    assert frame[y : y + 8 or None, x : x + 8 or None].mean() > 200
    np.testing.assert_array_equal(source.read(0), frame)


@pytest.mark.parametrize('share', [0.5, 0.8, 0.99])
def test_truncated_index_first(tmp_path: Path, video: Path, share: float) -> None:
    data = video.read_bytes()
    assert data.index(b'moov') < data.index(b'mdat')
    (tmp_path / 'cut.mp4').write_bytes(data[: int(share * len(data))])
    with pytest.raises(VideoError) as error:
        FrameSource.open(tmp_path / 'cut.mp4')
    one_line(error, 'cut.mp4', 'truncated')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_truncated_index_last(tmp_path: Path, share: float) -> None:
    data = make_video(tmp_path / 'whole.mp4', faststart=False).read_bytes()
    (tmp_path / 'cut.mp4').write_bytes(data[: int(share * len(data))])
    with pytest.raises(VideoError) as error:
        FrameSource.open(tmp_path / 'cut.mp4')
    one_line(error, 'cut.mp4', 'truncated')


@pytest.mark.parametrize('name', ['a.webm', 'a.mkv'])
def test_truncated_matroska(tmp_path: Path, name: str) -> None:
    codec = 'libvpx-vp9' if name.endswith('webm') else 'libx264'
    data = make_video(tmp_path / name, codec=codec).read_bytes()
    (tmp_path / f'cut_{name}').write_bytes(data[: int(0.6 * len(data))])
    with pytest.raises(VideoError) as error:
        list(FrameSource.open(tmp_path / f'cut_{name}'))
    one_line(error, f'cut_{name}')


def test_corrupt_middle_raises_and_names_the_frame(tmp_path: Path) -> None:
    data = bytearray(make_video(tmp_path / 'good.mp4', 60, size=(240, 320)).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    (tmp_path / 'bad.mp4').write_bytes(data)
    with pytest.raises(VideoError) as error:
        list(FrameSource.open(tmp_path / 'bad.mp4'))
    one_line(error, 'bad.mp4', 'frame', '60')


def test_not_videos(tmp_path: Path) -> None:
    (tmp_path / 'empty.mp4').write_bytes(b'')
    (tmp_path / 'text.mp4').write_text('this is no video\n' * 50)
    (tmp_path / 'folder').mkdir()
    with av.open(str(tmp_path / 'sound.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name, words in dict(
        **{'empty.mp4': ('empty',), 'text.mp4': ('not a video',), 'folder': ('no images',)},
        **{'sound.mp4': ('no video stream',), '*.png': ('no images',)},
    ).items():
        with pytest.raises(VideoError) as error:
            FrameSource.open(tmp_path / name)
        one_line(error, name, *words)


def test_missing_file_and_camera_hint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'nothing\.mp4: no such file'):
        FrameSource.open(tmp_path / 'nothing.mp4')
    with pytest.raises(FileNotFoundError, match='camera:7'):
        FrameSource.open('7')
    with pytest.raises(TypeError, match='no video'):
        FrameSource.open(None)


def test_image_folder_in_natural_order(tmp_path: Path) -> None:
    for index in range(12):
        write_image(tmp_path / f'frame{index}.png', numbered_frame(index))
    (tmp_path / 'notes.txt').write_text('not an image')
    for source in (FrameSource.open(tmp_path), FrameSource.open(str(tmp_path / 'frame*.png'))):
        assert [number_of(frame) for frame in source] == list(range(12))
        assert source.num_frames == 12 and number_of(source.read(10)) == 10
    assert FrameSource.open(tmp_path / 'frame3.png').num_frames == 1


def test_image_folder_faults_name_the_file(tmp_path: Path) -> None:
    write_image(tmp_path / '1.png', numbered_frame(0))
    write_image(tmp_path / '2.png', numbered_frame(1, (40, 64)))
    with pytest.raises(VideoError) as error:
        list(FrameSource.open(tmp_path))
    one_line(error, '2.png', '64x40', '64x48')
    (tmp_path / '2.png').write_bytes(b'no image')
    with pytest.raises(VideoError, match=r'2\.png: not an image'):
        list(FrameSource.open(tmp_path))


@pytest.mark.parametrize('pix_fmt', ['gray', 'yuva420p', 'gray16le'])
def test_grey_and_alpha(tmp_path: Path, pix_fmt: str) -> None:
    source = FrameSource.open(make_video(tmp_path / 'a.mkv', 3, codec='ffv1', pix_fmt=pix_fmt))
    frames = list(source)
    assert [number_of(frame) for frame in frames] == [0, 1, 2] and frames[0].shape == (48, 64, 3)


def test_odd_and_tiny_sizes(tmp_path: Path) -> None:
    for size in ((1, 1), (33, 47)):
        source = FrameSource.open(make_video(tmp_path / 'a.mkv', 2, codec='ffv1', size=size, pix_fmt='bgr0'))
        assert source.size == size and [frame.shape for frame in source] == [(*size, 3)] * 2


def test_arrays() -> None:
    video = np.stack([numbered_frame(index) for index in range(4)])
    source = FrameSource.open(video, fps=10)
    assert (source.size, source.fps, len(source)) == ((48, 64), 10, 4)
    np.testing.assert_array_equal(np.stack(list(source)), video)
    assert next(iter(FrameSource.open(video[..., 0]))).shape == (48, 64, 3)
    for wrong in (video.astype(np.float32), video[:0], video[..., :2]):
        with pytest.raises(VideoError):
            FrameSource.open(wrong)
    with pytest.raises(IndexError, match='frames 0 to 3'):
        source.read(4)


def test_camera_that_is_not_there() -> None:
    with pytest.raises(VideoError, match='camera:97'):
        FrameSource.open('camera:97')


def test_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    class Capture:
        def __init__(self, index: int) -> None:
            self.left = [numbered_frame(number)[:, :, ::-1] for number in range(3)]

        def read(self) -> tuple[bool, np.ndarray | None]:
            return (True, self.left.pop(0)) if self.left else (False, None)

        def get(self, key: int) -> float:
            return 0.0

        def release(self) -> None:
            self.left = []

    monkeypatch.setattr(cv2, 'VideoCapture', Capture)
    with FrameSource.open(0) as source:
        assert source.live and source.num_frames is None and source.size == (48, 64) and source.fps == 30
        assert [number_of(frame) for frame in source] == [0, 1, 2]
        with pytest.raises(VideoError, match='iterate'):
            source.read(0)


def test_source_goes_to_another_process(video: Path) -> None:
    source = FrameSource.open(video)
    source.read(5)
    assert number_of(pickle.loads(pickle.dumps(source)).read(7)) == 7
