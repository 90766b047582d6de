"""Losses of depth: what they forgive, what they see, and that pixels without truth never matter."""

from __future__ import annotations

import pytest
import torch

from trecvit_dense.models.losses.depth_loss import (
    align_least_squares,
    confidence_loss,
    expected_residual,
    gradient_loss,
    masked_mean,
    normalise,
    silog_loss,
    ssi_loss,
    temporal_gradient_loss,
)


@pytest.fixture
def clip() -> tuple[torch.Tensor, torch.Tensor]:
    """Disparity ``(B, T, H, W)`` and where it is known."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(2, 4, 12, 16, generator=generator) + 0.2
    return truth, torch.rand(2, 4, 12, 16, generator=generator) > 0.3


@pytest.mark.parametrize('alignment', ['median', 'least_squares'])
def test_scale_and_shift_are_forgiven(clip, alignment):
    truth, valid = clip
    prediction, target = normalise(3 * truth + 2, truth, valid, alignment)
    assert ssi_loss(prediction, target, valid).max() < 1e-5
    assert gradient_loss(prediction - target, valid).max() < 1e-5
    assert temporal_gradient_loss(prediction, target, valid, threshold=9.0).max() < 1e-5


@pytest.mark.parametrize('alignment', ['median', 'least_squares'])
def test_a_clip_must_be_steady_unless_frames_are_free(clip, alignment):
    truth, valid = clip
    wobble = truth * torch.tensor([1.0, 2.0, 0.5, 1.5]).view(1, -1, 1, 1)
    steady = ssi_loss(*normalise(wobble, truth, valid, alignment), valid)
    free = ssi_loss(*normalise(wobble, truth, valid, alignment, per_frame=True), valid)
    assert steady.min() > 0.1 > 1e-4 > free.max()


def test_least_squares_finds_scale_and_shift(clip):
    truth, valid = clip
    scale, shift = align_least_squares(truth, 3 * truth + 2, valid)
    torch.testing.assert_close(torch.stack([scale, shift], 1), torch.tensor([[3.0, 2.0]] * 2), atol=1e-4, rtol=0)


def test_silog_forgives_scale_by_its_focus(clip):
    truth, valid = clip
    log = truth.log()
    for focus in (1.0, 0.85, 0.0):
        expected = torch.full((2,), (1 - focus + 1e-6) ** 0.5)
        found = silog_loss(log + 1, log, valid, variance_focus=focus)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_trimming_leaves_the_worst_out():
    truth = torch.zeros(1, 1, 1, 10)
    prediction = torch.tensor([[[[0.1] * 8 + [9.0, 9.0]]]])
    valid = torch.ones(1, 1, 1, 10, dtype=torch.bool)
    assert ssi_loss(prediction, truth, valid, trim=0.2).item() == pytest.approx(0.1)
    assert ssi_loss(prediction, truth, valid).item() == pytest.approx((0.8 + 18) / 10)


def test_gradient_counts_neighbours_that_both_have_truth():
    residual = torch.tensor([[[[0.0, 1.0, 9.0, 1.0]]]])
    valid = torch.tensor([[[[True, True, False, True]]]])
    assert gradient_loss(residual, valid, num_scales=1).item() == pytest.approx(1.0)


def test_temporal_gradient_looks_where_the_truth_stands_still():
    truth = torch.tensor([[[[1.0, 1.0]], [[1.0, 2.0]]]])
    prediction = torch.tensor([[[[1.0, 1.0]], [[1.3, 9.0]]]])
    valid = torch.ones(1, 2, 1, 2, dtype=torch.bool)
    assert temporal_gradient_loss(prediction, truth, valid).item() == pytest.approx(0.3)


def test_confidence_falls_where_residuals_are_large():
    residual = torch.tensor([[[[0.01, 2.0]]]])
    valid = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    logits = torch.zeros(1, 1, 1, 2, requires_grad=True)
    confidence_loss(residual, logits, valid).sum().backward()
    assert logits.grad[0, 0, 0, 0] < 0 < logits.grad[0, 0, 0, 1]


def test_what_a_confidence_expects_is_the_residual_for_which_it_costs_least():
    residual = torch.tensor([0.02, 0.1, 0.15, 3.0]).view(1, 1, 1, 4)
    logits = torch.zeros(1, 1, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        confidence_loss(residual, logits, residual > 0).sum().backward()
        optimizer.step()
    wanted = torch.tensor([0.02, 0.1, 0.15, 0.2])  # no more than alpha can be said
    torch.testing.assert_close(expected_residual(logits.detach()).flatten(), wanted, atol=0.002, rtol=0)


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
        total.sum().backward()
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
    sum(parts).sum().backward()
    assert all((part == 0).all() for part in parts)
    assert leaf.grad.abs().max() == 0
