"""The metrics of classification and regression: keys, views, windows, baselines, the table, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from trecvit_dense.cli import run
from trecvit_dense.cli.test import main
from trecvit_dense.evaluation import ClassificationMetric, RegressionMetric, format_table
from trecvit_dense.evaluation.functional.classification import (
    aggregate_views,
    lvu_accuracy,
    lvu_like_target,
    lvu_mse,
    lvu_view_target,
    mean_class_accuracy,
    softmax,
    topk_accuracy,
    topk_hits,
)
from trecvit_dense.structures import VideoSample

NAMES = ('left', 'right', 'up', 'down', 'still', 'a/b')


def make_sample(logits, label, name='clip', task='classification', **meta) -> VideoSample:
    """Logits ``(V, C)`` as the model's answer."""
    logits = torch.as_tensor(np.asarray(logits), dtype=torch.float32)
    sample = VideoSample(np.zeros((2, 4, 4, 3), np.uint8), label=label, name=name, meta=meta)
    sample.predictions[task] = dict(view_logits=logits, view_probs=logits.softmax(-1))
    return sample


def one_hot(label: int, classes: int = len(NAMES)) -> np.ndarray:
    return 4 * np.eye(classes)[[label]]


def evaluate(*samples: VideoSample, classes=NAMES, **options) -> dict[str, float]:
    metric = ClassificationMetric('toy', **options)
    metric.dataset_meta = dict(classes=classes)
    metric.process(None, samples)
    return metric.evaluate(len(samples))


# ---- functional


def test_ties_are_broken_by_lot():
    scores, labels = np.array([[1.0, 1, 1, 1], [3, 2, 2, 0]]), np.array([3, 2])
    np.testing.assert_allclose(topk_hits(scores, labels, 1), [0.25, 0])
    np.testing.assert_allclose(topk_hits(scores, labels, 2), [0.5, 0.5])
    np.testing.assert_allclose(topk_hits(scores, labels, 2, ties='optimistic'), [1, 1])
    np.testing.assert_allclose(topk_hits(scores, labels, 2, ties='pessimistic'), [0, 0])
    np.testing.assert_allclose(topk_hits(scores, labels, 4), [1, 1])
    for rule in ('mmaction', 'slowfast'):
        assert topk_hits(scores, labels, 3, ties=rule)[1] == 1
    assert topk_hits(np.array([[np.nan, 1.0]]), np.array([0]), 1) == 0
    assert topk_hits(np.array([[np.nan, 1.0]]), np.array([1]), 1) == 0  # who else may be better is not known
    with pytest.raises(ValueError, match='label 4 is no class; wanted 0 to 3'):
        topk_hits(scores, np.array([0, 4]))


def test_aggregations_differ_where_they_should():
    logits = np.array([[9.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]])
    assert aggregate_views(logits, 'mean_logits').argmax() == 0
    assert aggregate_views(softmax(logits), 'mean_probs').argmax() == 1
    assert aggregate_views(softmax(logits), 'max_probs').argmax() == 0
    np.testing.assert_allclose(aggregate_views(logits, 'sum_logits'), 4 * aggregate_views(logits, 'mean_logits'))
    with pytest.raises(ValueError, match="aggregation is 'vote'"):
        aggregate_views(logits, 'vote')


def test_mean_class_accuracy_counts_classes_alike():
    scores, labels = np.eye(4)[[0, 0, 0, 3]], np.array([0, 0, 0, 1])
    assert topk_accuracy(scores, labels) == 0.75
    assert mean_class_accuracy(scores, labels) == 0.5
    assert mean_class_accuracy(scores, labels, class_set='labels_and_predictions') == pytest.approx(1 / 3)


def test_lvu_rules():
    """Softmaxes of all windows of a film are summed; one sure window does not outvote by its logits."""
    logits = np.array([[9.0, 0], [0, 1], [0, 1], [0, 1], [0, 2]])
    assert lvu_accuracy(logits, ['a'] * 4 + ['b'], [1, 1, 1, 1, 1]) == 1
    assert lvu_accuracy(logits, ['a'] * 4 + ['b'], [0, 0, 0, 0, 1]) == 0.5
    assert lvu_mse(np.array([1.0, 3, 5]), ['a', 'b', 'a'], [2, 2, 2]) == pytest.approx(1)  # errors 1 and 1
    with pytest.raises(ValueError, match="windows of video 'a' have the labels 0 and 1"):
        lvu_accuracy(logits, ['a'] * 5, [0, 0, 0, 0, 1])
    assert lvu_like_target(9, 1) == pytest.approx(9 - 9.138220535629456)
    assert lvu_view_target(np.e**12) == pytest.approx(12 - 11.76425435683139)
    for bad in (lambda: lvu_like_target(0, 0), lambda: lvu_view_target(0)):
        with pytest.raises(ValueError, match='wanted at least'):
            bad()


# ---- the metric


def test_keys_carry_views_and_aggregation():
    logits = np.zeros((12, 6))
    logits[0, 2], logits[1:, 0] = 30, 1
    metrics = evaluate(make_sample(logits, 0, views=(4, 3)), aggregation=['mean_probs', 'mean_logits'])
    assert metrics['toy/4x3/mean_probs/top1'] == 1 and metrics['toy/4x3/mean_logits/top1'] == 0
    assert metrics['toy/4x3/mean_logits/top5'] == 1 and metrics['toy/4x3/mean_logits/num_videos'] == 1
    single = evaluate(make_sample(one_hot(1), 1))
    assert single['toy/1x1/mean_probs/top1'] == 1
    assert single['toy/1x1/mean_probs/chance/top1'] == pytest.approx(1 / 6)
    assert single['toy/1x1/mean_probs/chance/top5'] == pytest.approx(5 / 6)


def test_few_classes_have_no_top5():
    metrics = evaluate(make_sample(one_hot(1, 4), 1), classes=None)
    assert not any(key.endswith('top5') for key in metrics)
    assert metrics['toy/1x1/mean_probs/top1'] == 1


def test_baselines_and_worst_classes():
    samples = [make_sample(one_hot(0), 0, f'l{i}') for i in range(3)]
    samples += [make_sample(one_hot(0), 1, 'r0'), make_sample(one_hot(1), 1, 'r1'), make_sample(one_hot(2), 5, 'x')]
    samples[0].predictions['classification_reset'] = make_sample(one_hot(3), 0).predictions['classification']
    metrics = {key.removeprefix('toy/1x1/mean_probs/'): value for key, value in evaluate(*samples, worst=2).items()}
    assert metrics['top1'] == pytest.approx(4 / 6) and metrics['mean_class_accuracy'] == pytest.approx(0.5)
    assert metrics['majority/top1'] == 0.5 and metrics['majority/mean_class_accuracy'] == pytest.approx(1 / 3)
    assert metrics['per_class/a/b/accuracy'] == 0 and metrics['per_class/a/b/mistaken_for/up'] == 1
    assert metrics['per_class/right/accuracy'] == 0.5 and metrics['per_class/right/mistaken_for/left'] == 0.5
    assert 'per_class/left/accuracy' not in metrics and metrics['reset/top1'] == 0
    assert 'per_class/left/accuracy' in ''.join(evaluate(*samples, per_class=True))


def test_names_come_from_the_samples_too():
    metrics = evaluate(make_sample(one_hot(0), 2, class_name='leap'), classes=None)
    assert metrics['toy/1x1/mean_probs/per_class/leap/mistaken_for/0'] == 1


def test_windows_of_a_video_are_one_answer():
    logits = np.array([[9.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]])
    samples = [make_sample(row[None], 1, f'w{i}', video='film') for i, row in enumerate(logits)]
    samples.append(make_sample(logits[:1], 1, 'w0', video='other'))
    metrics = evaluate(*samples, windows=True, aggregation=['sum_probs', 'mean_logits'], classes=None)
    assert metrics['toy/windows/sum_probs/num_videos'] == 2
    assert metrics['toy/windows/sum_probs/top1'] == 0.5 and metrics['toy/windows/mean_logits/top1'] == 0
    assert metrics['toy/windows/sum_probs/top1'] == lvu_accuracy(
        np.concatenate([logits, logits[:1]]), ['a'] * 4 + ['b'], [1] * 5
    )


def test_windows_weigh_their_views():
    """A mean over windows of several views each is the mean over all views."""
    rng = np.random.default_rng(0)
    views = rng.normal(size=(7, 6))
    parts = [make_sample(views[:5], 1, video='a', views=(5, 1)), make_sample(views[5:], 1, video='a', views=(2, 1))]
    metric = ClassificationMetric('toy', 'mean_logits', windows=True)
    metric.process(None, parts)
    scores, _ = metric._videos(metric.results, 'model', 'mean_logits')
    np.testing.assert_allclose(scores[0], views.mean(0), rtol=1e-5)


def test_the_table_shows_chance_and_the_worst_classes():
    samples = [make_sample(one_hot(0), 1, 'r'), make_sample(one_hot(0), 0, 'l')]
    table = format_table(evaluate(*samples) | {'other': 1.0})
    lines = table.splitlines()
    assert lines[0] == 'toy/1x1/mean_probs: 2 videos, 6 classes'
    assert [line.split('  ')[0] for line in lines[2:5]] == ['model', 'chance', 'most frequent class']
    assert any('right' in line and '0.000' in line and 'left 1.000' in line for line in lines)
    assert 'per_class' not in table and lines[-1].split() == ['other', '1.000']


def test_regression():
    def sample(values, target, **meta):
        found = VideoSample(np.zeros((2, 4, 4, 3), np.uint8), name='v', meta=dict(target=target, **meta))
        found.predictions['regression'] = dict(view_values=torch.tensor(values))
        return found

    def run_metric(*samples, **options):
        metric = RegressionMetric('lvu', **options)
        metric.process(None, samples)
        return metric.evaluate(len(samples))

    metrics = run_metric(sample([1.0, 3.0], 1.0), sample([0.0], 3.0))
    assert metrics['lvu/mean/MSE'] == 5 and metrics['lvu/mean/MAE'] == 2 and metrics['lvu/mean/constant/MSE'] == 1
    windows = [sample([1.0], 2.0, video='a'), sample([5.0], 2.0, video='a'), sample([1.0], 1.0, video='b')]
    metrics = run_metric(*windows, windows=True)
    assert metrics['lvu/mean/MSE'] == 0.5 and metrics['lvu/mean/num_videos'] == 2
    assert 'best constant' in format_table(metrics)
    with pytest.raises(ValueError, match=r"no meta\['target'\]"):
        run_metric(sample([1.0], None))


@pytest.mark.parametrize(
    ('sample', 'options', 'words'),
    [
        (make_sample(one_hot(0), None), {}, "'clip' has no label"),
        (make_sample(one_hot(0), 6), {}, 'has label 6; the model knows 6 classes, wanted 0 to 5'),
        (VideoSample(np.zeros((1, 4, 4, 3), np.uint8), label=0), {}, 'does the model have a head named classification'),
        (make_sample(one_hot(0), 0), dict(windows=True), r"no meta\['video'\]"),
        (make_sample(one_hot(0), 0), dict(aggregation='vote'), "aggregation is 'vote'"),
        (make_sample(one_hot(0), 0), dict(topk=(0,)), r'topk is \(0,\)'),
    ],
)
def test_refusals(sample, options, words):
    with pytest.raises(ValueError, match=words):
        evaluate(sample, **options)


# ---- with the program


def test_trecvit_test_evaluates_views(tmp_path, capsys):
    from trecvit_dense.checkpoints import save_model
    from trecvit_dense.registry import MODELS, use_scope

    use_scope()
    model = dict(
        type='VideoPerceiver',
        backbone=dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=16, patch_size=8, image_size=32),
        heads=dict(classification=dict(type='ClassificationHead', num_classes=12, rep_size=8, pool='gap')),
    )
    save_model(MODELS.build(model), model, tmp_path / 'm.safetensors', {})
    (tmp_path / 'c.py').write_text(
        "model = dict(type='VideoPerceiver')\n"
        "data = dict(type='SyntheticMotionClassesDataset', length=3, size=(40, 56), num_frames=9, split='test',\n"
        "    pipeline=[dict(type='MultiView', num_frames=4, size=32, clips=2, crops=3)])\n"
        'test_dataloader = dict(batch_size=1, num_workers=0, dataset=data,\n'
        "    sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='pseudo_collate'))\n"
        "test_evaluator = dict(type='ClassificationMetric', dataset_name='motion', per_class=True)\n"
    )
    argv = [str(tmp_path / 'c.py'), str(tmp_path / 'm.safetensors'), '--out', str(tmp_path / 'r.json'), '--device=cpu']
    assert run(main, [*argv, '--reset-state']) == 0
    metrics = json.loads((tmp_path / 'r.json').read_text())
    assert metrics['motion/2x3/mean_probs/num_videos'] == 3 and 0 <= metrics['motion/2x3/mean_probs/reset/top1'] <= 1
    printed = capsys.readouterr().out
    assert 'motion/2x3/mean_probs: 3 videos, 12 classes' in printed and 'state reset' in printed
