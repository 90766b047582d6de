"""Losses of depth: what they forgive, what they see, and that pixels without truth never matter."""

from __future__ import annotations

import pytest
import torch

from trecvit_dense.models.losses.depth_loss import (
    align_least_squares,
    confidence_loss,
    gradient_loss,
    masked_mean,
    motion_loss,
    normalise,
    silog_loss,
    ssi_loss,
    temporal_gradient_loss,
)


@pytest.fixture
def clip() -> tuple[torch.Tensor, torch.Tensor]:
    """Disparity ``(T, H, W)`` and where it is known."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(4, 12, 16, generator=generator) + 0.2
    return truth, torch.rand(4, 12, 16, generator=generator) > 0.3


@pytest.mark.parametrize('alignment', ['median', 'least_squares'])
def test_scale_and_shift_are_forgiven(clip, alignment):
    truth, valid = clip
    prediction, target = normalise(3 * truth + 2, truth, valid, alignment)
    assert ssi_loss(prediction, target, valid) < 1e-5
    assert gradient_loss(prediction - target, valid) < 1e-5
    assert temporal_gradient_loss(prediction, target, valid, threshold=9.0) < 1e-5


@pytest.mark.parametrize('alignment', ['median', 'least_squares'])
def test_a_clip_must_be_steady_unless_frames_are_free(clip, alignment):
    truth, valid = clip
    wobble = truth * torch.tensor([1.0, 2.0, 0.5, 1.5]).view(-1, 1, 1)
    steady = ssi_loss(*normalise(wobble, truth, valid, alignment), valid)
    free = ssi_loss(*normalise(wobble, truth, valid, alignment, per_frame=True), valid)
    assert steady > 0.1 > 1e-4 > free


def test_least_squares_finds_scale_and_shift(clip):
    truth, valid = clip
    scale, shift = align_least_squares(truth, 3 * truth + 2, valid)
    torch.testing.assert_close(torch.stack([scale, shift]), torch.tensor([3.0, 2.0]), atol=1e-4, rtol=0)


def test_silog_forgives_scale_by_its_focus(clip):
    truth, valid = clip
    log = truth.log()
    assert silog_loss(log + 1, log, valid, variance_focus=1.0) < 2e-3
    torch.testing.assert_close(
        silog_loss(log + 1, log, valid, variance_focus=0.0), torch.tensor(1.0), atol=1e-4, rtol=0
    )
    expected = (0.15 + 1e-6) ** 0.5
    assert silog_loss(log + 1, log, valid, variance_focus=0.85).item() == pytest.approx(expected, rel=1e-3)


def test_trimming_leaves_the_worst_out():
    truth = torch.zeros(1, 1, 10)
    prediction = torch.tensor([[[0.1] * 8 + [9.0, 9.0]]])
    valid = torch.ones(1, 1, 10, dtype=torch.bool)
    assert ssi_loss(prediction, truth, valid, trim=0.2).item() == pytest.approx(0.1)
    assert ssi_loss(prediction, truth, valid).item() == pytest.approx((0.8 + 18) / 10)


def test_gradient_counts_neighbours_that_both_have_truth():
    residual = torch.tensor([[[0.0, 1.0, 9.0, 1.0]]])
    valid = torch.tensor([[[True, True, False, True]]])
    assert gradient_loss(residual, valid, num_scales=1).item() == pytest.approx(1.0)


def test_temporal_gradient_looks_where_the_truth_stands_still():
    truth = torch.tensor([[[1.0, 1.0]], [[1.0, 2.0]]])
    prediction = torch.tensor([[[1.0, 1.0]], [[1.3, 9.0]]])
    valid = torch.ones(2, 1, 2, dtype=torch.bool)
    assert temporal_gradient_loss(prediction, truth, valid).item() == pytest.approx(0.3)


def test_confidence_falls_where_residuals_are_large():
    residual = torch.tensor([[[0.01, 2.0]]])
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    logits = torch.zeros(1, 1, 2, requires_grad=True)
    confidence_loss(residual, logits, valid).backward()
    assert logits.grad[0, 0, 0] < 0 < logits.grad[0, 0, 1]


def test_motion_is_the_true_shift():
    """Logits that say where the truth lies cost nothing; half-way between two shifts both are right."""
    logits = torch.full((1, 25, 1, 2), -30.0)
    logits[0, 1 * 5 + 3, 0, 0] = 30.0  # y -1, x +1
    logits[0, [2 * 5 + 2, 2 * 5 + 3], 0, 1] = 30.0  # x 0 and +1
    displacement = torch.tensor([[[[1.0, -1.0], [0.5, 0.0]]]])
    known = torch.ones(1, 1, 2, dtype=torch.bool)
    assert motion_loss(logits, displacement, known).item() == pytest.approx(
        0.5 * torch.tensor(2.0).log().item(), abs=1e-3
    )
    assert motion_loss(logits, displacement + 7, known) == 0


@pytest.mark.parametrize('fill', [float('nan'), float('inf'), 0.0, -1e9])
def test_pixels_without_truth_never_matter(clip, fill):
    truth, valid = clip
    prediction = (truth * 1.3 + 0.1).clone()
    dirty = torch.where(valid, truth, torch.tensor(fill))
    losses = []
    for target in (truth, dirty):
        leaf = prediction.clone().requires_grad_()
        residual = torch.where(valid, leaf - target, 0)
        total = ssi_loss(leaf, target, valid) + masked_mean(residual.abs(), valid) + silog_loss(leaf, target, valid)
        total.backward()
        losses.append((total.detach(), leaf.grad))
    torch.testing.assert_close(losses[0], losses[1])


def test_nothing_valid_costs_nothing(clip):
    truth, valid = clip
    leaf = truth.clone().requires_grad_()
    nothing = torch.zeros_like(valid)
    parts = [
        silog_loss(leaf, truth, nothing),
        ssi_loss(leaf, truth, nothing),
        gradient_loss(leaf - truth, nothing),
        temporal_gradient_loss(leaf, truth, nothing),
        confidence_loss(leaf - truth, leaf, nothing),
    ]
    sum(parts).backward()
    assert all(part == 0 for part in parts)
    assert leaf.grad.abs().max() == 0
