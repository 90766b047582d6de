"""demo depth and demo all: pictures and numbers agree with the Predictor; a mistake is one line and leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.cli.test_demo import bad_file, files, one_line_error
from tests.inference.tiny import square_mask, tiny_config, tiny_model
from tests.io.test_point_cloud import read_ply
from tests.io.videos import make_video, numbered_frame
from trecvit_dense.checkpoints.io import save_model
from trecvit_dense.cli import run
from trecvit_dense.cli.demo import main
from trecvit_dense.inference import Predictor
from trecvit_dense.io import FrameSource, read_mask, read_saved_depth, write_mask

SIZE, FRAMES, GAP = (72, 50), 9, 4
HEADS = ('depth', 'metric', 'all', 'volume')


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp('weights')
    for head in HEADS:
        save_model(tiny_model(head), tiny_config(head), folder / f'{head}.safetensors', {})
    return {head: str(folder / f'{head}.safetensors') for head in HEADS}


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(make_video(tmp_path / 'in.mp4', FRAMES, size=SIZE))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / 'out').mkdir()
    return tmp_path / 'out' / 'deep.mp4'


@pytest.fixture
def camera(tmp_path: Path) -> str:
    (tmp_path / 'K.txt').write_text('60 0 25\n0 60 36\n0 0 1\n')
    return str(tmp_path / 'K.txt')


def demo(task: str, video: str, checkpoint: str, out: Path, *more: str) -> int:
    return run(main, [task, video, '--checkpoint', checkpoint, '--out', str(out), '--device', 'cpu', *more])


def test_side_by_side_and_npz(video: str, checkpoints: dict, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # a second run replaces what the first one wrote
        assert (
            demo('depth', video, checkpoints['depth'], out, '--save', 'npz', '--dtype', 'float32', '--sheet', '4') == 0
        )
    assert files(out) == ['deep.mp4', 'deep.npz', 'deep.png']
    drawn = FrameSource.open(out)
    assert drawn.num_frames == FRAMES and drawn.size == (SIZE[0], 2 * SIZE[1] + GAP) and drawn.fps == 25
    left = np.stack(list(drawn))[:, :, : SIZE[1] - 2].astype(float)
    assert np.abs(left - np.stack(list(FrameSource.open(video)))[:, :, : SIZE[1] - 2]).mean() < 6
    expected = Predictor(checkpoints['depth'], device='cpu').depth(video)
    with np.load(out.with_suffix('.npz'), allow_pickle=False) as saved:
        np.testing.assert_allclose(saved['disparity'], expected.values, rtol=1e-5)
        assert saved['kind'] == 'disparity' and saved['fps'] == 25
    assert 'relative disparity on 9 frames' in capsys.readouterr().out


@pytest.mark.parametrize('head', ['depth', 'metric'])
def test_png(video: str, checkpoints: dict, out: Path, head: str) -> None:
    for _ in range(2):
        assert demo('depth', video, checkpoints[head], out, '--save', 'png', '--max-frames', '4') == 0
    assert files(out) == ['deep', 'deep.mp4']
    expected = Predictor(checkpoints[head], device='cpu').depth(video, max_frames=4).values
    about = json.loads((out.with_suffix('') / 'depth.json').read_text())
    step = max(code['scale'] for code in about['codes'])
    assert about['frames'] == 4 and (head == 'depth' or step == 0.001)
    read = np.stack(list(read_saved_depth(out.with_suffix(''))))
    there = ~np.isnan(read)
    np.testing.assert_allclose(read[there], expected[there], atol=0.51 * step, rtol=1e-5)
    assert there.all() or (head == 'metric' and (expected[~there] > 65).all())


def test_point_clouds(video: str, checkpoints: dict, out: Path, camera: str) -> None:
    more = ('--intrinsics', camera, '--ply', '0', '8')
    assert demo('depth', video, checkpoints['metric'], out, *more) == 0
    assert files(out) == ['deep.mp4', 'deep_00000.ply', 'deep_00008.ply']
    lines, metric, _ = read_ply(out.with_name('deep_00008.ply'))
    assert 'unit: metres' in lines[2]
    depth = Predictor(checkpoints['metric'], device='cpu').depth(video).values[8]
    assert np.isin(metric[:, 2], depth).all() and len(metric) > 20  # random weights: rough, and edges are left out
    assert demo('depth', video, checkpoints['depth'], out, *more, '--up-to-scale') == 0
    assert 'unit: none' in read_ply(out.with_name('deep_00000.ply'))[0][2]
    assert demo('depth', video, checkpoints['depth'], out, *more, '--scale-shift', '0.5', '0.1') == 0
    disparity = Predictor(checkpoints['depth'], device='cpu').depth(video).values[0]
    nearest = read_ply(out.with_name('deep_00000.ply'))[1][:, 2].min()
    assert nearest >= 1 / (0.5 * disparity.max() + 0.1) * 0.999


def test_all_in_one_pass(
    tmp_path: Path, video: str, checkpoints: dict, out: Path, capsys: pytest.CaptureFixture
) -> None:
    mask = square_mask(SIZE, (10, 10), 20).astype(np.uint8) * 4
    write_mask(tmp_path / 'first.png', mask)
    more = ['--grid', '3', '--mask', str(tmp_path / 'first.png'), '--box', '30,40,45,60', '--frame', '1']
    assert demo('all', video, checkpoints['all'], out, *more, '--save', 'png') == 0
    assert files(out) == ['deep.csv', 'deep.mp4', 'deep.npz', 'deep_depth', 'deep_masks']
    assert FrameSource.open(out).size == (SIZE[0], 2 * SIZE[1] + GAP)
    predictor = Predictor(checkpoints['all'], device='cpu')
    with np.load(out.with_suffix('.npz')) as saved:
        np.testing.assert_allclose(saved['tracks'], predictor.points(video, grid=3, frame=1).xy_px, atol=1e-3)
    masks = np.stack([read_mask(out.parent / 'deep_masks' / f'{index:05d}.png') for index in range(FRAMES)])
    np.testing.assert_array_equal(masks, predictor.masks(video, mask, boxes=[(30, 40, 45, 60)], frame=1).labels)
    depth, expected = np.stack(list(read_saved_depth(out.parent / 'deep_depth'))), predictor.depth(video).values
    np.testing.assert_allclose(depth, expected, atol=1e-4 * expected.max())
    assert '2 objects, 9 points, relative disparity on 9 frames' in capsys.readouterr().out


def test_all_without_objects(video: str, checkpoints: dict, out: Path) -> None:
    assert demo('all', video, checkpoints['all'], out, '--max-frames', '3') == 0
    assert files(out) == ['deep.csv', 'deep.mp4', 'deep.npz']
    with np.load(out.with_suffix('.npz')) as saved:
        assert saved['tracks'].shape == (144, 3, 2)


@pytest.mark.parametrize(
    ('task', 'head', 'more', 'words'),
    [
        ('depth', 'volume', [], ['volume.safetensors does not estimate depth', 'heads are: points']),
        ('all', 'volume', [], ['volume.safetensors does not estimate depth', 'heads are: points']),
        ('all', 'depth', [], ['depth.safetensors does not track points', 'heads are: depth']),
        ('depth', 'metric', ['--ply', '0'], ['--ply needs --intrinsics']),
        ('depth', 'metric', ['--up-to-scale'], ['wanted --ply']),
        ('depth', 'metric', ['--ply', '0', '--intrinsics', 'K', '--up-to-scale'], ['depth is in metres']),
        ('depth', 'depth', ['--ply', '0', '--intrinsics', 'K'], ['relative', '--scale-shift', '--up-to-scale']),
        (
            'depth', 'depth', ['--ply', '0', '--intrinsics', 'K', '--scale-shift', '1', '0', '--up-to-scale'],
            ['both --scale-shift and --up-to-scale'],
        ),
        ('depth', 'depth', ['--ply', '0', '--intrinsics', 'K', '--scale-shift', '-1', '0'], ['wanted a scale above 0']),
        ('depth', 'depth', ['--ply', '0', '--intrinsics', 'K', '--scale-shift', '1', '-99'], ['behind the camera']),
        ('depth', 'metric', ['--ply', '9', '--intrinsics', 'K'], ['--ply 9', 'frames 0 to 8']),
        ('depth', 'metric', ['--ply', '-1', '--intrinsics', 'K'], ['frame -1']),
        ('depth', 'metric', ['--ply', '5', '--intrinsics', 'K', '--max-frames', '5'], ['frames 0 to 4']),
        ('depth', 'metric', ['--intrinsics', 'nothing.txt'], ['nothing.txt', 'no such file']),
        ('depth', 'metric', ['--save', 'png', '--units-per-metre', '0'], ['units_per_metre is 0']),
        ('depth', 'depth', ['--max-frames', '0'], ['max_frames is 0']),
        ('depth', 'depth', ['--sheet', '0'], ['--sheet is 0']),
        ('depth', 'depth', ['--checkpoint', 'nothing.safetensors'], ['nothing.safetensors']),
        ('all', 'all', ['--grid', '0'], ['grid is 0']),
        ('all', 'all', ['--box', '60,5,70,9'], ['outside the frame of 50x72']),
        ('all', 'all', ['--frame', '9'], ['frame 9', 'frames 0 to 8']),
        ('all', 'all', ['--trail', '0'], ['--trail is 0']),
    ],
)  # fmt: skip
def test_mistakes(
    video: str, checkpoints: dict, out: Path, camera: str, capsys: pytest.CaptureFixture,
    task: str, head: str, more: list[str], words: list[str],
) -> None:  # fmt: skip
    assert demo(task, video, checkpoints[head], out, *(camera if word == 'K' else word for word in more)) == 2
    one_line_error(capsys, words)
    assert files(out) == []


@pytest.mark.parametrize('text', ['1 2 3', 'focal', '600 600 250 360', '60 0 25\n0 60 36\n0 1 0\n'])
def test_wrong_intrinsics(
    tmp_path: Path, video: str, checkpoints: dict, out: Path, capsys: pytest.CaptureFixture, text: str
) -> None:
    (tmp_path / 'K.txt').write_text(text)
    more = ('--ply', '0', '--intrinsics', str(tmp_path / 'K.txt'))
    assert demo('depth', video, checkpoints['metric'], out, *more) == 2
    one_line_error(capsys, ['K.txt'])
    assert files(out) == []


def test_the_focal_length_that_is_missing(
    tmp_path: Path, video: str, out: Path, camera: str, capsys: pytest.CaptureFixture
) -> None:
    config = tiny_config('metric')
    config['heads']['depth'] = dict(config['heads']['depth'], canonical_focal_px=50.0)
    save_model(tiny_model('metric'), config, tmp_path / 'focal.safetensors', {})
    for more, wanted in (((), True), (('--intrinsics', camera), False)):
        assert demo('depth', video, str(tmp_path / 'focal.safetensors'), out, *more) == 0
        assert ('focal length of 50 px' in capsys.readouterr().err) == wanted


def test_broken_videos_and_interrupts_leave_nothing(
    tmp_path: Path, video: str, checkpoints: dict, out: Path, camera: str,
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    more = ('--save', 'npz', '--ply', '0', '--intrinsics', camera)
    assert demo('depth', str(bad_file('index_first', tmp_path)), checkpoints['metric'], out, *more) == 2
    one_line_error(capsys, ['truncated'])
    assert files(out) == []

    def stop(self):
        yield numbered_frame(0, SIZE)
        raise KeyboardInterrupt

    monkeypatch.setattr(FrameSource.open(video).__class__, '__iter__', stop)
    for save in ('npz', 'png'):
        assert demo('all', video, checkpoints['all'], out, '--save', save) == 130
        assert files(out) == []


def test_a_camera_keeps_its_recording(
    checkpoints: dict, out: Path, camera: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Ctrl-C comes before the second point cloud that was asked for."""
    frames = [numbered_frame(index, SIZE) for index in range(4)]

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
    more = ('--save', 'png', '--intrinsics', camera, '--ply', '1', '50')
    assert demo('depth', 'camera:0', checkpoints['metric'], out, *more) == 0
    assert files(out) == ['deep', 'deep.mp4', 'deep_00001.ply']
    assert FrameSource.open(out).num_frames == 4 == sum(1 for _ in read_saved_depth(out.with_suffix('')))
    assert '00050.ply' not in capsys.readouterr().out
