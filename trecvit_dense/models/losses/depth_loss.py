"""Losses of depth: metric and relative, in space and in time, on whatever pixels have truth.

Maps are ``(B, T, H, W)``, with a mask of the pixels that count. A loss is a number for every clip, ``(B,)``; where
nothing counts it is zero, with a gradient of zero, and what lies outside the mask may be anything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA = 0.2  # of the confidence: the price of saying nothing, which is the largest residual that can be said


def silog_loss(log_prediction: Tensor, log_truth: Tensor, valid: Tensor, *, variance_focus: float = 0.85) -> Tensor:
    """Scale-invariant logarithmic error, the root of ``mean(d^2) - focus * mean(d)^2`` (Eigen et al., NeurIPS 2014).

    Args:
        variance_focus: 1 ignores the scale of the whole clip, 0 does not forgive it at all.
    """
    difference = torch.where(valid, log_prediction - log_truth, 0)
    mean = masked_mean(difference, valid)
    variance = masked_mean((difference - mean[:, None, None, None]).square(), valid)
    total = variance + (1 - variance_focus) * mean.square()
    return torch.where(valid.flatten(1).any(1), (total + 1e-6).sqrt(), total * 0)


def masked_median(values: Tensor, valid: Tensor) -> Tensor:
    """Median of every clip, ``(B,)``; 0 where nothing counts."""
    return torch.where(valid, values, torch.nan).flatten(1).nanmedian(1).values.nan_to_num(0.0)


def align_median(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Shift (median) and scale (mean distance from it) of a map: MiDaS (TPAMI 2020), equation 5."""
    shift = masked_median(values, valid)
    return shift, masked_mean((values - shift[:, None, None, None]).abs(), valid).clamp(min=1e-6)


def align_least_squares(prediction: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift that bring ``prediction`` nearest to ``truth``: MiDaS, equation 4."""
    p, g = masked_mean(prediction, valid), masked_mean(truth, valid)
    centred = prediction - p[:, None, None, None]
    scale = masked_mean(centred * truth, valid) / masked_mean(centred.square(), valid).clamp(min=1e-8)
    return scale, g - scale * p


def normalise(
    prediction: Tensor, truth: Tensor, valid: Tensor, alignment: str, per_frame: bool = False
) -> tuple[Tensor, Tensor]:
    """Both maps where their scale and shift no longer matter.

    Args:
        alignment: ``'median'``: each to median 0 and mean distance 1 by itself; ``'least_squares'``: truth likewise,
            the prediction fitted to it.
        per_frame: Every frame on its own; else one scale and shift for the clip, which then have to be steady.
    """
    if per_frame:
        frames = (part.flatten(0, 1)[:, None] for part in (prediction, truth, valid))
        return tuple(part.view_as(truth) for part in normalise(*frames, alignment))

    def undo(values: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return (values - shift[:, None, None, None]) / scale[:, None, None, None]

    truth = undo(truth, *align_median(truth, valid))
    if alignment == 'median':
        return undo(prediction, *align_median(prediction, valid)), truth
    scale, shift = align_least_squares(prediction, truth, valid)
    return prediction * scale[:, None, None, None] + shift[:, None, None, None], truth


def ssi_loss(prediction: Tensor, truth: Tensor, valid: Tensor, *, trim: float = 0.0) -> Tensor:
    """Mean distance of normalised maps, without the largest ``trim`` share: MiDaS, equations 6 and 7."""
    distance = torch.where(valid, prediction - truth, 0).abs()
    if trim:
        ordered = torch.where(valid, distance.detach(), torch.inf).flatten(1).sort(1).values
        kept = (valid.flatten(1).sum(1) * (1 - trim)).round().long().clamp(min=1)
        limit = ordered.gather(1, kept[:, None] - 1)[:, 0]
        valid = valid & (distance <= limit[:, None, None, None])
    return masked_mean(distance, valid)


def gradient_loss(residual: Tensor, valid: Tensor, *, num_scales: int = 4) -> Tensor:
    """Spatial gradients of what is left over, at several resolutions: MiDaS, equation 11."""
    total = masked_mean(residual, valid) * 0
    for level in range(num_scales):
        part, mask = (maps[..., :: 2**level, :: 2**level] for maps in (residual, valid))
        for axis in (2, 3):
            both = _head(mask, axis) & _tail(mask, axis)
            total = total + masked_mean((_tail(part, axis) - _head(part, axis)).abs(), both)
    return total / num_scales


def temporal_gradient_loss(prediction: Tensor, truth: Tensor, valid: Tensor, *, threshold: float = 0.05) -> Tensor:
    """Change from frame to frame where the truth hardly changes: Video Depth Anything (CVPR 2025), section 3.3.

    Args:
        prediction, truth: In one scale and shift for the clip; ``threshold`` is in their unit.
    """
    change = _tail(truth, 1) - _head(truth, 1)
    still = _head(valid, 1) & _tail(valid, 1) & (change.abs() < threshold)
    return masked_mean((_tail(prediction, 1) - _head(prediction, 1) - change).abs(), still)


def level_loss(prediction: Tensor, truth: Tensor, valid: Tensor, *, beta: float = 0.1) -> Tensor:
    """How far the mean of a frame is from that of the truth, both logarithms: smooth L1, quadratic below ``beta``."""
    count = valid.sum((2, 3))
    apart = torch.where(valid, prediction - truth, 0).sum((2, 3)) / count.clamp(min=1)  # (B, T)
    return masked_mean(F.smooth_l1_loss(apart, torch.zeros_like(apart), beta=beta, reduction='none'), count > 0)


def confidence_loss(residual: Tensor, logits: Tensor, valid: Tensor, *, alpha: float = ALPHA) -> Tensor:
    """Residuals weighted by ``c = 1 + exp(logit)``, at the price of ``-alpha ln c``: DUSt3R (CVPR 2024), equation 4."""
    price = F.softplus(logits)  # ln c
    return masked_mean(residual.abs() * price.exp() - alpha * price, valid)


def expected_residual(logits: Tensor, *, alpha: float = ALPHA) -> Tensor:
    """The residual that ``logits`` of :func:`confidence_loss` expect: ``c = alpha / |residual|`` costs least; at most
    ``alpha``."""
    return alpha * torch.sigmoid(-logits)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of every clip over ``mask``, ``(B,)``; zero, with a gradient of zero, where it is empty."""
    return torch.where(mask, values, 0).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def _head(values: Tensor, axis: int) -> Tensor:
    return values.narrow(axis, 0, values.shape[axis] - 1)


def _tail(values: Tensor, axis: int) -> Tensor:
    return values.narrow(axis, 1, values.shape[axis] - 1)
