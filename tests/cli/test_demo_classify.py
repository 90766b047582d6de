"""demo classify: pictures, table and printed lines agree with the Predictor; a mistake is one line and no file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.test_demo import bad_file, files, one_line_error
from tests.inference.tiny import BACKBONE, tiny_config, tiny_model
from tests.io.videos import make_video
from trecvit_dense.checkpoints.io import save_model
from trecvit_dense.cli import run
from trecvit_dense.cli.demo import main
from trecvit_dense.inference import Predictor
from trecvit_dense.io import FrameSource
from trecvit_dense.models.heads import ClassificationHead
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.visualization import draw_classes

SIZE, FRAMES, NAMES = (72, 50), 30, tuple(f'a rather long name {i}' for i in range(7))
WHOLE_CLIPS = dict(type='ViViT', embed_dim=32, depth=1, num_heads=2, mlp_dim=32, num_frames=8, image_size=64)


def config(names: tuple[str, ...] | None = NAMES, backbone: dict = BACKBONE) -> dict:
    head = dict(type='ClassificationHead', num_classes=7, rep_size=8, pool='gap', classes=names)
    preprocessor = dict(type='VideoPreprocessor', input_size=(64, 64))
    return dict(
        type='VideoPerceiver', data_preprocessor=preprocessor, backbone=backbone, heads=dict(classification=head)
    )


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    use_scope()
    folder = tmp_path_factory.mktemp('weights')
    found = {}
    for name, cfg in dict(
        named=config(), nameless=config(None), clips=config(backbone=WHOLE_CLIPS), volume=tiny_config('volume')
    ).items():
        torch.manual_seed(0)
        model = tiny_model('volume') if name == 'volume' else MODELS.build(cfg)
        if name != 'volume':
            torch.nn.init.normal_(model.heads['classification'].classifier.weight, std=5)  # sure of itself
        found[name] = str(save_model(model, cfg, folder / f'{name}.safetensors', {}))
    return found


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(make_video(tmp_path / 'in.mp4', FRAMES, size=SIZE))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / 'out').mkdir()
    return tmp_path / 'out' / 'named.mp4'


def demo(video: str, checkpoint: str, *more: str) -> int:
    return run(main, ['classify', video, '--checkpoint', checkpoint, '--device', 'cpu', *more])


def test_printed_once_a_second_and_for_the_whole_video(video: str, checkpoints: dict, capsys) -> None:
    assert demo(video, checkpoints['named'], '--top', '2') == 0
    lines = capsys.readouterr().out.splitlines()
    answer = Predictor(checkpoints['named'], device='cpu').classify(video)
    (first, sure), (second, less) = answer.top(2)
    assert lines[-1] == f'30 frames: {first} {sure:.2f}, {second} {less:.2f}'
    assert len(lines) == 2 and lines[0].strip().startswith('1.0 s') and first in NAMES


def test_drawn_and_saved(video: str, checkpoints: dict, out: Path, capsys) -> None:
    for _ in range(2):  # a second run replaces what the first one wrote
        assert demo(video, checkpoints['named'], '--out', str(out), '--top', '3', '--sheet', '4') == 0
    assert files(out) == ['named.csv', 'named.mp4', 'named.png']
    rows = list(csv.DictReader(out.with_suffix('.csv').read_text().splitlines()))
    assert len(rows) == 3 * FRAMES and [row['rank'] for row in rows[:4]] == ['1', '2', '3', '1']
    predictor = Predictor(checkpoints['named'], device='cpu')
    for frame, result in enumerate(predictor.stream_classes(video)):
        best = int(result.class_probs.argmax())
        assert rows[3 * frame]['class'] == NAMES[best]
        assert float(rows[3 * frame]['probability']) == pytest.approx(result.class_probs[best], abs=1e-4)
    assert FrameSource.open(out).num_frames == FRAMES and FrameSource.open(out).size == SIZE
    drawn, plain = (np.stack(list(FrameSource.open(path))).astype(float) for path in (out, video))
    changed = np.abs(drawn - plain).mean((0, 3))
    assert changed[-10:, 5:25].mean() > 30 > 10 > changed[:10].mean()
    assert 'a rather long name' in capsys.readouterr().out


def test_the_answer_on_a_frame_knows_nothing_of_later_ones(video: str, checkpoints: dict) -> None:
    predictor = Predictor(checkpoints['named'], device='cpu')
    whole = [result.class_probs for result in predictor.stream_classes(video, max_frames=6)]
    for count in (1, 4):
        part = predictor.classify(video, max_frames=count)
        np.testing.assert_allclose(whole[count - 1], part.probs, rtol=1e-5)
    assert not np.allclose(whole[0], whole[-1], rtol=1e-3)


def test_clips_and_strides(video: str, checkpoints: dict) -> None:
    """Every answer of a clip is that of its frames as a video of their own."""
    predictor, frames = Predictor(checkpoints['named'], device='cpu'), np.stack(list(FrameSource.open(video)))
    probs = np.stack([result.class_probs for result in predictor.stream_classes(video, clip=4, every=3)])
    assert probs.shape == (FRAMES, 7)
    for first in (0, 12):
        alone = predictor.classify(frames[first : first + 12 : 3]).probs
        np.testing.assert_allclose(probs[first : first + 12], np.repeat(alone[None], 12, 0), rtol=1e-4)
    np.testing.assert_allclose(predictor.classify(video, clip=4, every=3).probs, probs.mean(0), rtol=1e-5)
    last = predictor.classify(frames[[24, 27, 27, 27]]).probs  # the last frame stands in
    np.testing.assert_allclose(probs[-1], last, rtol=1e-4)
    every = [result.class_probs for result in predictor.stream_classes(video, every=5)]
    assert (every[4] == every[0]).all() and (every[5] != every[4]).any()


def test_models_that_look_both_ways_read_clips(video: str, checkpoints: dict, out: Path) -> None:
    assert demo(video, checkpoints['clips'], '--out', str(out)) == 0
    rows = list(csv.DictReader(out.with_suffix('.csv').read_text().splitlines()))
    best = [row['probability'] for row in rows if row['rank'] == '1']
    assert all(len(set(best[first : first + 8])) == 1 for first in (0, 8, 16))
    predictor, frames = Predictor(checkpoints['clips'], device='cpu'), np.stack(list(FrameSource.open(video)))
    probs = next(iter(predictor.stream_classes(video))).class_probs
    np.testing.assert_allclose(probs, predictor.classify(frames[:8]).probs, rtol=1e-4)
    assert not predictor.answers_for_all_so_far() and predictor.classify(video, clip=4).probs.shape == (7,)


def test_classes_without_names(video: str, checkpoints: dict, capsys) -> None:
    assert demo(video, checkpoints['nameless'], '--top', '1', '--max-frames', '3') == 0
    label = int(Predictor(checkpoints['nameless'], device='cpu').classify(video, max_frames=3).probs.argmax())
    assert capsys.readouterr().out.startswith(f'3 frames: class {label} ')


@pytest.mark.parametrize(
    ('checkpoint', 'more', 'words'),
    [
        ('volume', [], ['volume.safetensors does not classify videos', 'heads are: points']),
        ('named', ['--top', '0'], ['--top is 0']),
        ('named', ['--clip', '0'], ['--clip is 0']),
        ('named', ['--every', '0'], ['--every is 0']),
        ('named', ['--max-frames', '0'], ['max_frames is 0']),
        ('named', ['--checkpoint', 'nothing.safetensors'], ['nothing.safetensors']),
    ],
)
def test_mistakes(video: str, checkpoints: dict, out: Path, capsys, checkpoint: str, more: list, words: list) -> None:
    for where in ([], ['--out', str(out)]):
        assert demo(video, checkpoints[checkpoint], *where, *more) == 2
        one_line_error(capsys, words)
    assert files(out) == []


def test_broken_videos_leave_nothing(tmp_path: Path, video: str, checkpoints: dict, out: Path, capsys) -> None:
    assert demo(str(bad_file('index_first', tmp_path)), checkpoints['named'], '--out', str(out)) == 2
    one_line_error(capsys, ['truncated'])
    assert demo(video, checkpoints['named'], '--sheet', '3') == 2
    one_line_error(capsys, ['--sheet', 'wanted --out'])
    assert files(out) == []


@pytest.mark.parametrize('size', [(8, 8), (50, 72), (72, 50), (480, 640), (20, 400)])
def test_drawing_at_any_size(size) -> None:
    picture = np.full((*size, 3), 90, np.uint8)
    drawn = draw_classes(picture, [('first', 0.7), ('Grüße, the second', 0.2), ('third' * 30, 0.1)])
    assert drawn.shape == picture.shape and (picture == 90).all()
    assert draw_classes(picture, []).shape == picture.shape
    if min(size) >= 50:
        assert (drawn != 90).any() and (drawn[: size[0] // 3] == 90).all()


@pytest.mark.parametrize(
    ('classes', 'words'),
    [
        (['a', 'b'], 'classes has 2 names; num_classes is 3'),
        (['a', 'b', 'a'], "classes names 'a' twice"),
        ('abc', "classes is the text 'abc'"),
    ],
)
def test_names_that_do_not_fit(classes, words) -> None:
    with pytest.raises(ValueError, match=words):
        ClassificationHead(3, classes=classes, backbone_channels=(8,))
