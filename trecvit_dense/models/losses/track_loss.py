"""Losses of a tracker that refines positions over a cost volume. Shapes ``(B, T, Q, ...)``, pixels of the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` under ``weight``; zero where nothing counts."""
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def sequence_loss(
    estimates: Tensor, target: Tensor, weight: Tensor, decay: float = 0.8, knee_px: float = 3.0
) -> Tensor:
    """Distance of every refinement, later ones weighing more (RAFT, arXiv 2003.12039, section 3.3).

    Args:
        estimates: ``(B, T, Q, K, 2)``.
        target: ``(B, T, Q, 2)``.
        weight: ``(B, T, Q)``.
        knee_px: Beyond this error the loss grows only as a logarithm: precision is what the metrics count, and a lost
            point must not drown the others.
    """
    distance = (estimates - target[..., None, :]).square().sum(-1).add(1e-2).sqrt()  # (B, T, Q, K)
    robust = torch.where(distance < knee_px, distance, knee_px * (1 + torch.log(distance.clamp(min=knee_px) / knee_px)))
    steps = estimates.shape[-2]
    gains = decay ** torch.arange(steps - 1, -1, -1, device=target.device, dtype=target.dtype)
    return masked_mean((robust * gains).sum(-1) / gains.sum(), weight) / 4


def visibility_loss(logits: Tensor, visible: Tensor, counted: Tensor) -> Tensor:
    """Binary cross-entropy over the counted point-frames ``(B, T, Q)``."""
    return masked_mean(F.binary_cross_entropy_with_logits(logits, visible.to(logits.dtype), reduction='none'), counted)


def hypothesis_loss(logits: Tensor, xy: Tensor, target: Tensor, counted: Tensor, *, radius: float) -> Tensor:
    """Binary cross-entropy of 'within ``radius`` pixels of the truth'; the positions are taken as given."""
    near = (xy.detach() - target).square().sum(-1) < radius**2
    values = F.binary_cross_entropy_with_logits(logits, near.to(logits.dtype), reduction='none')
    return masked_mean(values, counted.expand_as(values))


def cost_volume_loss(
    volumes: list[tuple[Tensor, float]], temperature: Tensor, target: Tensor, counted: Tensor
) -> Tensor:
    """Cross-entropy of the frame-wide match against the true cell, the mass split bilinearly over its four neighbours.

    Args:
        volumes: Cosines ``(B, T, Q, h, w)`` and their stride in pixels.
        temperature: Factor of the cosines.
        target: ``(B, T, Q, 2)`` pixels.
        counted: ``(B, T, Q)`` bool.
    """
    total = target.new_zeros(())
    truth = target[counted]  # (M, 2)
    for volume, stride in volumes:
        height, width = volume.shape[-2:]
        log_p = F.log_softmax(volume[counted].flatten(1).float() * temperature, -1)  # (M, h*w)
        cell = (truth / stride - 0.5).clamp(min=0)
        x0, y0 = cell[:, 0].floor().clamp(max=width - 1), cell[:, 1].floor().clamp(max=height - 1)
        fx, fy = cell[:, 0] - x0, cell[:, 1] - y0
        expected = 0
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            mass = (fx if dx else 1 - fx).clamp(0, 1) * (fy if dy else 1 - fy).clamp(0, 1)
            index = (y0 + dy).clamp(max=height - 1) * width + (x0 + dx).clamp(max=width - 1)
            expected = expected + mass * log_p.gather(1, index.long()[:, None])[:, 0]
        total = total - expected.sum() / max(len(truth), 1)
    return total / len(volumes)
