"""Mask losses against plain loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.models.losses.mask_loss import (
    MaskLoss,
    hardest_mean,
    sample_points,
    target_distribution,
    uncertain_points,
)
from trecvit_dense.registry import MODELS, use_scope

BATCH, TIME, OBJECTS, SIZE = 2, 4, 3, (5, 7)


def case(seed: int = 0) -> dict[str, torch.Tensor]:
    """Slot 2 of the second video is empty; slot 1 of the first is given on frame 2, and is not followed before."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, OBJECTS + 1, (BATCH, TIME, *SIZE), generator=generator)
    shares = torch.stack([labels == slot + 1 for slot in range(OBJECTS)], 2).float()
    active = torch.ones(BATCH, TIME, OBJECTS, dtype=torch.bool)
    active[1, :, 2] = False
    active[0, :2, 1] = False
    given = torch.zeros_like(active)
    given[:, 0] = active[:, 0]
    given[0, 2, 1] = True
    return dict(
        probabilities=torch.rand(BATCH, TIME, OBJECTS + 1, *SIZE, generator=generator).softmax(2),
        active=active,
        given=given,
        shares=shares,
        known=torch.rand(BATCH, TIME, *SIZE, generator=generator) < 0.8,
    )


def naive(case: dict[str, torch.Tensor], fraction: float = 1.0) -> tuple[float, float]:
    p, active, given, shares, known = (part.numpy() for part in case.values())
    entropies, dices = [], []
    for b in range(BATCH):
        for t in range(TIME):
            followed = [k for k in range(OBJECTS) if active[b, t, k]]
            judged = [k for k in followed if not given[b, t, k]]
            frame = []
            for y in range(SIZE[0]):
                for x in range(SIZE[1]):
                    if not known[b, t, y, x] or not judged:
                        continue
                    truth = next((k for k in followed if shares[b, t, k, y, x]), None)
                    if truth is not None and given[b, t, truth]:
                        continue
                    total = p[b, t, 0, y, x] + sum(p[b, t, k + 1, y, x] for k in followed)
                    frame.append(-np.log(p[b, t, 0 if truth is None else truth + 1, y, x] / total))
            if frame:
                entropies += sorted(frame, reverse=True)[: max(int(len(frame) * fraction), 1)]
            total = p[b, t, 0] + sum(p[b, t, k + 1] for k in followed)
            for k in judged:
                q, g, there = p[b, t, k + 1] / total, shares[b, t, k], known[b, t]
                dices.append(1 - (2 * (q * g)[there].sum() + 1) / (q[there].sum() + g[there].sum() + 1))
    return float(np.mean(entropies)), float(np.mean(dices))


@pytest.mark.parametrize('fraction', [1.0, 0.3])
def test_equal_to_loops(fraction: float) -> None:
    parts = case()
    found = MaskLoss(hardest=fraction, warm_up=(0, 0), ce_weight=2.0)(**parts)
    ce, dice = naive(parts, fraction)
    assert found['loss_ce'].item() == pytest.approx(2 * ce, rel=1e-5)
    assert found['loss_dice'].item() == pytest.approx(dice, rel=1e-5)


def test_what_does_not_count_changes_nothing() -> None:
    """Void cells, inactive slots and frames on which objects were just given."""
    parts = case()
    loss = MaskLoss()
    wanted = loss(**parts)
    other = case(1)
    changed = {key: value.clone() for key, value in parts.items()}
    void = ~parts['known'][:, :, None]
    changed['shares'] = torch.where(void, other['shares'], parts['shares'])
    changed['probabilities'] = torch.where(void, other['probabilities'], parts['probabilities'])
    changed['probabilities'][:, 0] = other['probabilities'][:, 0]  # every object that is followed was given here
    changed['probabilities'][1, :, 3] += 1.0  # the empty slot
    for key, value in loss(**changed).items():
        assert value.item() == pytest.approx(wanted[key].item(), rel=1e-5)


def test_nothing_to_judge_is_zero_with_a_gradient() -> None:
    parts = case()
    parts['known'] = torch.zeros_like(parts['known'])
    parts['probabilities'].requires_grad_()
    for options in ({}, dict(num_points=8), dict(hardest=0.2, warm_up=(0, 0))):
        losses = MaskLoss(**options)(**parts)
        assert all(value == 0 for value in losses.values())
        sum(losses.values()).backward()


def test_losses_are_zero_at_the_truth() -> None:
    parts = case()
    parts['probabilities'] = target_distribution(parts['shares'], parts['active'])
    assert all(value < 1e-6 for value in MaskLoss()(**parts).values())


def test_many_points_agree_with_all_cells() -> None:
    """Maps that change slowly: the mean over sampled points is that over cells."""
    torch.manual_seed(0)
    ramp = torch.linspace(0.1, 0.9, 24).expand(1, 2, 1, 24, 24)
    parts = dict(
        probabilities=torch.cat([1 - ramp, ramp], 2),
        active=torch.ones(1, 2, 1, dtype=torch.bool),
        given=torch.zeros(1, 2, 1, dtype=torch.bool),
        shares=ramp.flip(-1),
        known=torch.ones(1, 2, 24, 24, dtype=torch.bool),
    )
    wanted = MaskLoss()(**parts)
    found = MaskLoss(num_points=20000, importance=0.0)(**parts)
    assert found['loss_ce'].item() == pytest.approx(wanted['loss_ce'].item(), rel=0.02)
    assert found['loss_dice'].item() == pytest.approx(wanted['loss_dice'].item(), rel=0.02)


def test_points_are_where_labels_are_close() -> None:
    """One column of doubt in a sure map; the other half is void."""
    p = torch.full((1, 2, 16, 16), 0.01)
    p[:, 0] = 0.99
    p[:, :, :, 4] = 0.5
    counted = torch.zeros(1, 16, 16, dtype=torch.bool)
    counted[..., :8] = True
    generator = torch.Generator().manual_seed(0)
    xy = uncertain_points(p, counted, 200, oversample=10.0, importance=0.5, generator=generator)
    near = ((xy[0, :, 0] * 16 - 4.5).abs() < 1).float()
    assert near[:100].mean() == 1 and near[100:].mean() < 0.3
    assert ((xy >= 0) & (xy <= 1)).all() and xy.shape == (1, 200, 2)


def test_points_are_read_at_cell_centres() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    xy = torch.tensor([[[0.5 / 4, 0.5 / 3], [1.5 / 4, 2.5 / 3], [1 / 4, 0.5 / 3]]])
    torch.testing.assert_close(sample_points(maps, xy)[0, 0], torch.tensor([0.0, 9.0, 0.5]))


def test_warm_up_of_the_hardest_share() -> None:
    use_scope()
    loss = MODELS.build(dict(type='MaskLoss', hardest=0.2, warm_up=(2, 6))).train()
    assert [round(loss.fraction(i), 6) for i in (0, 1, 2, 4, 6, 100)] == [1, 1, 1, 0.6, 0.2, 0.2]
    values = [loss(**case())['loss_ce'].item() for _ in range(7)]
    assert values[0] == values[2] < values[4] < values[6]
    other = MaskLoss(hardest=0.2, warm_up=(2, 6))
    other.load_state_dict(loss.state_dict())
    assert int(other.iteration) == 7
    other.eval()(**case())
    assert int(other.iteration) == 7


def test_hardest_mean_takes_each_frame_alone() -> None:
    values = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]]])
    counted = torch.tensor([[[True, True, True, True], [True, True, False, False]]])
    assert hardest_mean(values, counted, 0.5) == pytest.approx((4 + 3 + 20) / 3)
    assert hardest_mean(values, counted & False, 0.5) == 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(hardest=0.0), 'hardest is 0.0'),
        (dict(warm_up=(5, 1)), r'warm_up is \(5, 1\)'),
        (dict(importance=1.5), 'importance is 1.5'),
        (dict(oversample=0.5), 'oversample 0.5'),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskLoss(**options)
