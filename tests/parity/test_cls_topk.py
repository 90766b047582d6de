"""Top-k, mean class accuracy and the aggregation of views against SlowFast's TestMeter and mmaction2's functions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.goldens import Golden, golden_files
from trecvit_dense.evaluation.functional.classification import (
    aggregate_views,
    aggregate_windows,
    mean_class_accuracy,
    softmax,
    topk_accuracy,
    topk_hits,
)

EXACT = dict(rtol=0, atol=1e-15)
FLOAT32 = dict(rtol=1e-6, atol=1e-6)  # the scores themselves


@pytest.mark.parametrize('path', golden_files('cls_topk'))
def test_cls_topk(path):
    golden = Golden(path)
    labels = golden['labels']
    assert golden['clip_logits'].shape[1] == int(golden['num_clips'])
    compare_slowfast(golden, labels)
    compare_mmaction(golden, labels)
    compare_ties(golden)
    golden.assert_all_compared()


def compare_slowfast(golden: Golden, labels: np.ndarray) -> None:
    """Views come in any order and are told apart by their number; percents are written with two decimals."""
    probs, clips = golden['clip_probs'], int(golden['num_clips'])
    for how in ('sum', 'max'):
        scores = aggregate_views(probs, f'{how}_probs')
        np.testing.assert_allclose(scores, golden[f'slowfast/{how}/video_preds'], **FLOAT32)
        order = golden[f'slowfast/{how}/order']
        videos = [str(view // clips) for view in order]
        names, shuffled = aggregate_windows(
            probs.reshape(-1, probs.shape[-1])[order], videos, aggregation=f'{how}_probs'
        )
        np.testing.assert_allclose(shuffled, scores[[int(name) for name in names]], rtol=1e-12)
        official = golden[f'slowfast/{how}/video_preds']  # float32 sums in the order of arrival: ties fall by rounding
        shown = [f'{100 * topk_accuracy(official, labels, k, ties="slowfast"):.2f}' for k in (1, 5)]
        assert shown == [str(golden[f'slowfast/{how}/top{k}']) for k in (1, 5)]
        hits = [topk_hits(official, labels, k, ties='slowfast').sum() for k in (1, 5)]
        counts = golden[f'slowfast/{how}/counts']
        assert counts[0] == hits[0] and counts[1] in (hits[1], len(labels))  # the format does not say which


def compare_mmaction(golden: Golden, labels: np.ndarray) -> None:
    logits = golden['clip_logits']
    for name, scores in (
        ('score', aggregate_views(logits, 'mean_logits')),
        ('prob', aggregate_views(softmax(logits), 'mean_probs')),
    ):
        official = golden[f'mmaction/{name}/avg']
        np.testing.assert_allclose(scores, official, **FLOAT32)
        found = [topk_accuracy(official, labels, k, ties='mmaction') for k in (1, 5)]
        np.testing.assert_allclose(found, golden[f'mmaction/{name}/top1_5'], **EXACT)
        accuracy = mean_class_accuracy(official, labels, class_set='labels_and_predictions')
        np.testing.assert_allclose(accuracy, golden[f'mmaction/{name}/mean_class_acc'], **EXACT)


def compare_ties(golden: Golden) -> None:
    """How ties fall in mmaction2 depends on the processor: it lies between our best and worst."""
    scores, labels = golden['ties/scores'], golden['ties/labels']
    mmaction, slowfast = golden['ties/mmaction_top1_2_3'], golden['ties/slowfast_correct_1_2_3']
    for k in (1, 2, 3):
        assert topk_hits(scores, labels, k, ties='slowfast').sum() == slowfast[k - 1]
        worst, best = (topk_hits(scores, labels, k, ties=rule).sum() for rule in ('pessimistic', 'optimistic'))
        assert worst <= topk_hits(scores, labels, k).sum() <= best
        for hits in (slowfast[k - 1], mmaction[k - 1] * len(labels)):
            assert worst - 1e-12 <= hits <= best + 1e-12
