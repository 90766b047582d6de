"""Memorisation: the questions, their scores, streams, the study from clips to picture, and mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from trecvit_dense import cli
from trecvit_dense.engine.memorisation import Study, model_config, plot_study, run_study, score_model, train_model
from trecvit_dense.evaluation import RecallMetric
from trecvit_dense.evaluation.functional.pixels import psnr, recall_errors, reconstruction_errors
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import VideoSample

TINY = Study(
    steps=3, num_frames=6, size=16, distances=(0, 1, 3), window=3, embed_dim=16, depth=1, train_clips=2, test_clips=2
)


def build(name: str = 'trecvit', question: str = 'ago', study: Study = TINY) -> nn.Module:
    use_scope()
    torch.manual_seed(0)
    return MODELS.build(model_config(study, name, question))


def video(frames: int = 7) -> torch.Tensor:
    return torch.rand(2, frames, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
@pytest.mark.parametrize('question', ['ago', 'first'])
@pytest.mark.parametrize('name', ['trecvit', 'vivit'])
def test_step_is_clip(name: str, question: str) -> None:
    model = build(name, question).eval()
    whole, _ = model.step(video(), model.start(2))
    state, parts = model.start(2), []
    for first, last in ((0, 1), (1, 2), (2, 5), (5, 7)):
        outputs, state = model.step(video()[:, first:last], state)
        parts.append(outputs['recall'].patches)
    torch.testing.assert_close(torch.cat(parts, 1), whole['recall'].patches, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('name', ['trecvit', 'vivit'])
def test_what_lies_before_the_window_cannot_be_known(name: str) -> None:
    """Frame 0 matters to the answer on frame 6 through a recurrent state, and not through a window of 3 frames."""
    model = build(name).eval()
    other = video().clone()
    other[:, 0] = -other[:, 0]
    one, two = (model.step(x, model.start(2))[0]['recall'].patches[:, 6] for x in (video(), other))
    assert torch.equal(one, two) == (name == 'vivit')


@pytest.mark.parametrize('question', ['ago', 'first'])
@pytest.mark.parametrize('name', ['trecvit', 'vivit'])
def test_every_parameter_has_a_gradient(name: str, question: str) -> None:
    model = build(name, question).train()
    model(video(), None, mode='loss')['loss_recall'].backward()
    # ViViT without a class token: the softmax does not see a bias of keys, whose gradient is rounding
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_questions_ask_for_the_right_frames() -> None:
    ago, first = (build(question=question).heads['recall'].asked(5) for question in ('ago', 'first'))
    assert ago.tolist() == [[0, -1, -3], [1, 0, -2], [2, 1, -1], [3, 2, 0], [4, 3, 1]]
    assert first.tolist() == [[0]] * 5
    later = MODELS.build(dict(type='FrameRecall', anchor=2, backbone_channels=(8,), backbone_strides=((4, 4),)))
    assert later.asked(4).tolist() == [[-1], [-1], [2], [2]]


def test_loss_is_zero_for_the_frames_that_were_asked_for() -> None:
    model = build()
    output = model.step(video(), model.start(2))[0]['recall']
    asked = model.heads['recall'].asked(7)
    output.patches = output.truth[:, asked.clamp(min=0)].clone()
    assert model.heads['recall'].loss(output, [], (1, 1))['loss_recall'] == 0
    output.patches[:, 0, 1:] += 5  # frame 0 has no past
    assert model.heads['recall'].loss(output, [], (1, 1))['loss_recall'] == 0
    output.patches[:, 3, 2] += 1
    # one of the four frames that have a frame 3 before them, one of three distances
    torch.testing.assert_close(model.heads['recall'].loss(output, [], (1, 1))['loss_recall'], torch.tensor(1 / 12))


def test_errors_by_hand() -> None:
    """Three frames of one value each: 0, 1, 5; asked for one frame ago."""
    truth = np.array([0.0, 1.0, 5.0]).reshape(3, 1, 1)
    answers = np.array([9.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
    asked = np.arange(3)[:, None] - 1
    found = recall_errors(answers, truth, asked)
    assert found == {
        1: dict(model=0.125, mean_frame=pytest.approx(((0.5 - 0) ** 2 + (2 - 1) ** 2) / 2), copy_current=(1 + 16) / 2)
    }
    assert recall_errors(answers, truth, asked, first=2)[1]['model'] == 0
    assert psnr(0.01) == pytest.approx(20) and psnr(0.04, 2.0) == pytest.approx(20) and psnr(0.0) == float('inf')


def test_copies_of_seen_patches_by_hand() -> None:
    """Four places in a row, two frames: the last seen patch of the place, else the nearest of the frame."""
    targets = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])[..., None]
    hidden = np.array([[False, True, True, True], [True, False, True, True]])
    found = reconstruction_errors(np.zeros_like(targets), targets, hidden, grid=(1, 4), patch=(8, 8))
    # frame 0 copies 1, 1, 1 for 2, 3, 4; frame 1 copies 1 (seen before), 6, 6 for 5, 7, 8
    assert found['copy_visible'] == pytest.approx(np.mean([1, 4, 9, 16, 1, 4]))
    assert found['copy_previous'] == 16 and found['model'] == found['mean_patch'] == np.mean([4, 9, 16, 25, 49, 64])
    with pytest.raises(ValueError, match='no patch is hidden'):
        reconstruction_errors(targets, targets, np.zeros_like(hidden), grid=(1, 4), patch=(8, 8))


def test_metric_through_the_model() -> None:
    model = build().eval()
    frames = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), dtype=np.uint8)
    data = dict(inputs=[torch.from_numpy(frames).permute(0, 3, 1, 2)], data_samples=[VideoSample(frames, name='clip')])
    metric = RecallMetric(peak=2.0)
    metric.process(None, model.test_step(data))
    found = metric.evaluate(1)
    assert {'recall/0/PSNR', 'recall/3/over_mean', 'recall/1/copy_current/PSNR'} <= set(found)
    assert found['recall/1/mse'] == pytest.approx(4 / 10 ** (found['recall/1/PSNR'] / 10))
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    assert score_model(model, clip)[3]['PSNR'] == pytest.approx(found['recall/3/PSNR'], rel=1e-4)


def test_a_recurrent_model_learns_what_the_present_does_not_show() -> None:
    """Clips of grey frames of one random value each: after training, the frame before is remembered, not guessed."""
    study = Study(**{**vars(TINY), 'steps': 120, 'num_frames': 5, 'distances': (1,), 'batch_size': 8, 'size': 8})
    values = torch.randint(0, 256, (64, 10, 1, 1, 1), generator=torch.Generator().manual_seed(0))
    clips = values.expand(-1, -1, 3, 8, 8).to(torch.uint8)
    model = build(study=study)
    before = score_model(model, clips[:8])[1]['over_mean']
    train_model(model, clips, study)
    after = score_model(model, clips[:8])[1]
    assert after['over_mean'] < 0.5 < before and after['over_copy'] < 0.3


def test_study_and_picture() -> None:
    result = run_study(TINY)
    assert [(c['model'], c['question']) for c in result['curves']] == [
        ('trecvit', 'ago'), ('vivit', 'ago'), ('trecvit', 'first'), ('vivit', 'first'),
    ]  # fmt: skip
    by_name = {(curve['model'], curve['question']): curve for curve in result['curves']}
    assert list(by_name['vivit', 'ago']['scores']) == [0, 1, 3]
    assert list(by_name['trecvit', 'first']['scores']) == list(range(12)), 'tests are twice as long'
    assert all(curve['steps'] == 3 and curve['state_bytes'] > 0 for curve in result['curves'])
    assert len(plot_study(result).axes) == 2


def test_both_models_have_about_the_same_size() -> None:
    sizes = [sum(p.numel() for p in build(name, study=Study()).backbone.parameters()) for name in ('trecvit', 'vivit')]
    assert max(sizes) < 1.1 * min(sizes)


def test_tool_writes_numbers_and_picture(tmp_path, capsys) -> None:
    options = '--steps 1 --frames 3 --distances 0 2 --window 2 --size 16 --clips 1 --test-clips 1 --models trecvit'
    out = tmp_path / 'm.json'
    assert cli.run(cli.main, ['memorisation', *options.split(), '--out', str(out)]) == 0
    found = json.loads(out.read_text())
    assert found['curves'][0]['scores']['0']['copy_current/PSNR'] is None, 'no error at all has no number of decibels'
    assert found['curves'][0]['scores']['2']['PSNR'] > 0 and (tmp_path / 'm.png').stat().st_size > 1000
    assert 'trecvit, frame N ago' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--distances', '30'], 'clips of 20 frames say nothing about 30 frames ago'),
        (['--steps', '0'], 'steps is 0; wanted at least 1'),
        (['--size', '20'], 'size is 20; wanted a multiple of 8'),
        (['--seconds', '0'], 'seconds is 0'),
        (['--out', 'curve.png'], 'wanted a name ending in .json'),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str, capsys) -> None:
    assert cli.run(cli.main, ['memorisation', *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_questions_that_cannot_be_asked() -> None:
    place = dict(type='FrameRecall', backbone_channels=(8,), backbone_strides=((8, 8),))
    for options in (dict(), dict(distances=(1,), anchor=0)):
        with pytest.raises(ValueError, match='wanted one of the two'):
            MODELS.build(place | options)
    with pytest.raises(ValueError, match='ascending'):
        MODELS.build(place | dict(distances=(2, 1)))
    with pytest.raises(ValueError, match=r'FrameRecall predicts whole patches.*\(2.5, 8\) px apart'):
        MODELS.build(place | dict(distances=(1,), backbone_strides=((2.5, 8),)))
    model = build()
    with pytest.raises(ValueError, match='clips of 3 frames say nothing about 3 frames ago'):
        model(video(3), None, mode='loss')
