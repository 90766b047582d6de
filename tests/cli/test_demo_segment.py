"""demo segment: video and PNGs agree with the Predictor; a mistake is one line and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.cli.test_demo import bad_file, files, one_line_error
from tests.inference.tiny import square_mask, tiny_config, tiny_model
from tests.io.videos import make_video, numbered_frame
from trecvit_dense.checkpoints.io import save_model
from trecvit_dense.cli import run
from trecvit_dense.cli.demo import main
from trecvit_dense.inference import Predictor
from trecvit_dense.io import FrameSource, read_mask, write_mask

SIZE = (72, 50)
LABELS = square_mask(SIZE, (10, 10), 20).astype(np.uint8) * 4 + square_mask(SIZE, (45, 20), 18).astype(np.uint8)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_model(tiny_model('masks'), tiny_config('masks'), path, {})
    return str(path)


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(make_video(tmp_path / 'in.mp4', 9, size=SIZE))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / 'out').mkdir()
    return tmp_path / 'out' / 'objects.mp4'


def segment(video: str, checkpoint: str, out: Path, *more: str) -> int:
    return run(main, ['segment', video, '--checkpoint', checkpoint, '--out', str(out), '--device', 'cpu', *more])


def first_png(folder: Path, labels: np.ndarray = LABELS) -> str:
    write_mask(folder / 'first.png', labels)
    return str(folder / 'first.png')


def test_video_and_pngs(tmp_path: Path, video: str, checkpoint: str, out: Path, capsys: pytest.CaptureFixture) -> None:
    more = ['--mask', first_png(tmp_path), '--box', '1,2,12,9', '--box', '30,2,45,9', '--point', '40.5,60']
    more += ['--frame', '2', '--sheet', '4']
    for _ in range(2):  # a second run replaces what the first one wrote
        assert segment(video, checkpoint, out, *more) == 0
    assert files(out) == ['objects', 'objects.mp4', 'objects.png']
    drawn = FrameSource.open(out)
    assert drawn.num_frames == 9 and drawn.size == SIZE and drawn.fps == 25
    names = sorted(path.name for path in out.with_suffix('').iterdir())
    assert names == [f'{index:05d}.png' for index in range(9)]
    saved = np.stack([read_mask(out.with_suffix('') / name) for name in names])
    given = dict(boxes=[(1, 2, 12, 9), (30, 2, 45, 9)], points=[(40.5, 60)], frame=2)
    expected = Predictor(checkpoint, device='cpu').masks(video, LABELS, **given)
    np.testing.assert_array_equal(saved, expected.labels)
    assert expected.ids == [1, 2, 3, 4, 5] and not saved[:2].any() and saved[2].any()
    with Image.open(out.with_suffix('') / names[0]) as picture:
        assert picture.mode == 'P' and picture.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    assert '5 objects on 9 frames' in capsys.readouterr().out


def test_folder_of_frames_and_a_place_for_the_masks(tmp_path: Path, checkpoint: str, out: Path) -> None:
    (tmp_path / 'frames').mkdir()
    for index in range(6):
        cv2.imwrite(str(tmp_path / 'frames' / f'{index}.png'), numbered_frame(index))
    Image.fromarray(square_mask((48, 64)).astype(np.uint8) * 255).save(tmp_path / 'gray.png')  # as in DAVIS 2016
    more = ('--mask', str(tmp_path / 'gray.png'), '--save-masks', str(tmp_path / 'here'), '--max-frames', '4')
    assert segment(str(tmp_path / 'frames'), checkpoint, out, *more) == 0
    assert files(out) == ['objects.mp4'] and len(list((tmp_path / 'here').iterdir())) == 4
    assert set(np.unique(read_mask(tmp_path / 'here' / '00000.png'))) == {0, 1}


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        ([], ['no object', '--mask', '--box', '--point']),
        (['--box', '1,2,3'], ["box '1,2,3'", '4 numbers']),
        (['--box', '5,5,5,9'], ['box 5, 5, 5, 9 is empty']),
        (['--box', '60,5,70,9'], ['outside the frame of 50x72']),
        (['--point', '1;2'], ["point '1;2'", '2 numbers']),
        (['--point', '-1,5'], ['point -1, 5 is outside']),
        (['--point', '5,5', '--frame', '9'], ['frame 9', 'frames 0 to 8']),
        (['--point', '5,5', '--frame', '5', '--max-frames', '5'], ['frames 0 to 4']),
        (['--point', '5,5', '--opacity', '2'], ['opacity is 2']),
        (['--point', '5,5', '--sheet', '0'], ['--sheet is 0']),
        (['--point', '5,5', '--device', 'warp'], ['warp']),
        (['--point', '5,5', '--checkpoint', 'nothing.safetensors'], ['nothing.safetensors']),
        (['--point', '5,5', '--save-masks', 'no/where'], ['no/where', 'does not exist']),
        (['--mask', 'nothing.png'], ['nothing.png']),
    ],
)
def test_mistakes_in_options(
    video: str, checkpoint: str, out: Path, capsys: pytest.CaptureFixture, more: list[str], words: list[str]
) -> None:
    assert segment(video, checkpoint, out, *more) == 2
    one_line_error(capsys, words)
    assert files(out) == []


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('size', ['first.png', '20x10 px', 'the frame 50x72']),
        ('empty', ['first.png', 'the mask is empty']),
        ('rgb', ['first.png', '3 channels', 'palette']),
        ('deep', ['first.png', '300']),
        ('text', ['first.png', 'not an image']),
    ],
)
def test_bad_masks(
    tmp_path: Path, video: str, checkpoint: str, out: Path, capsys: pytest.CaptureFixture, kind: str, words: list[str]
) -> None:
    path = tmp_path / 'first.png'
    pictures = dict(
        size=np.ones((10, 20), np.uint8),
        empty=np.zeros(SIZE, np.uint8),
        rgb=np.ones((*SIZE, 3), np.uint8),
        deep=np.full(SIZE, 300, np.uint16),
    )
    path.write_text('no picture') if kind == 'text' else Image.fromarray(pictures[kind]).save(path)
    assert segment(video, checkpoint, out, '--mask', str(path)) == 2
    one_line_error(capsys, words)
    assert files(out) == []


def test_truncated_video_leaves_nothing(
    tmp_path: Path, checkpoint: str, out: Path, capsys: pytest.CaptureFixture
) -> None:
    assert segment(str(bad_file('index_first', tmp_path)), checkpoint, out, '--point', '5,5') == 2
    one_line_error(capsys, ['truncated'])
    assert files(out) == []


def test_a_folder_with_other_things_is_refused(
    video: str, checkpoint: str, out: Path, capsys: pytest.CaptureFixture
) -> None:
    out.with_suffix('').mkdir()
    (out.with_suffix('') / 'notes.txt').write_text('mine')
    assert segment(video, checkpoint, out, '--point', '5,5') == 2
    one_line_error(capsys, ['objects', 'not empty'])
    assert files(out) == ['objects'] and (out.with_suffix('') / 'notes.txt').exists()


def test_a_model_without_masks(tmp_path: Path, video: str, out: Path, capsys: pytest.CaptureFixture) -> None:
    points = tmp_path / 'points.safetensors'
    save_model(tiny_model('volume'), tiny_config('volume'), points, {})
    assert segment(video, str(points), out, '--point', '5,5') == 2
    one_line_error(capsys, ['points.safetensors does not segment objects', 'heads are: points'])
    assert files(out) == []


def test_interrupt_leaves_nothing(video: str, checkpoint: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self):
        yield numbered_frame(0, SIZE)
        raise KeyboardInterrupt

    monkeypatch.setattr(FrameSource.open(video).__class__, '__iter__', stop)
    assert segment(video, checkpoint, out, '--point', '5,5') == 130
    assert files(out) == []
