"""Point losses against the official ones: per element (JAX) and as scalars (torch, its unmasked mean included)."""

from __future__ import annotations

import pytest
import torch

from tests.parity.goldens import Golden, assert_close_max, golden_files
from trecvit_dense.models.losses.point_loss import (
    certainty_bce,
    coordinate_cross_entropy,
    huber_distance,
    weighted_mean,
)
from trecvit_dense.registry import MODELS


@pytest.mark.parametrize('path', golden_files('tapnext_losses_'))
def test_tapnext_losses(path) -> None:
    golden = Golden(path)
    config = golden.config
    target = golden.tensor('target_points').transpose(1, 2).flip(-1)  # (B, Q, T, xy) -> (B, T, Q, yx)
    visible = golden.tensor('visible').transpose(1, 2)[..., 0]
    logits = golden.tensor('track_logits').unflatten(-1, (2, config['num_bins']))
    tracks = golden.tensor('pred_tracks')
    unit = config['pixel_size'] / config['num_bins']

    huber = huber_distance(tracks, target, extent=config['pixel_size'], unit=unit, delta=config['huber_delta'])
    entropy = coordinate_cross_entropy(logits, target, bin_size=unit)
    certainty = certainty_bce(
        golden.tensor('certainty_logits')[..., 0], tracks, target, threshold=config['certainty_threshold']
    )
    for name, values in dict(huber=huber, coordinate_ce=entropy, certainty=certainty).items():
        assert_close_max(values[..., None], golden[f'jax/{name}_values'], name=name)
        if f'jax/{name}_masked_mean' in golden:
            assert_close_max(weighted_mean(values, visible), golden[f'jax/{name}_masked_mean'], name=f'{name} mean')

    weights = dict(
        huber_weight=config['huber_weight'],
        ce_weight=config['ce_weight'],
        visibility_weight=config['visibility_weight'],
        huber_delta=config['huber_delta'],
    )
    official = MODELS.build(dict(type='TAPNextLoss', official_unmasked_ce=True, **weights))
    estimate = dict(yx=tracks, logits=logits, visible_logits=golden.tensor('visible_logits')[..., 0])
    terms = official.terms(estimate, target, visible, None, unit)
    assert_close_max(terms['huber'], golden['torch/huber'], name='torch huber')
    assert_close_max(terms['ce'], golden['torch/coordinate_softmax'], name='torch ce')
    assert_close_max(terms['visibility'], golden['torch/visibility_bce'], name='torch visibility')
    losses = official([estimate], target, visible, bin_size=unit)
    assert_close_max(torch.stack(list(losses.values())).sum(), golden['torch/total'], name='torch total')
    sound = MODELS.build(dict(type='TAPNextLoss', **weights)).terms(estimate, target, visible, None, unit)
    assert_close_max(sound['ce'], golden['jax/coordinate_ce_masked_mean'], name='sound ce')
    golden.assert_all_compared()
