"""Losses of depth: metric and relative, in space and in time, on whatever pixels have truth.

Every function takes ``(T, H, W)`` maps of one clip and a mask of the pixels that count; without any it returns zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def silog_loss(log_prediction: Tensor, log_truth: Tensor, valid: Tensor, *, variance_focus: float = 0.85) -> Tensor:
    """Scale-invariant logarithmic error, the root of ``mean(d^2) - focus * mean(d)^2`` (Eigen et al., NeurIPS 2014).

    Args:
        variance_focus: 1 ignores the scale of the whole clip, 0 does not forgive it at all.
    """
    difference = (log_prediction - log_truth)[valid]
    if not len(difference):
        return log_prediction.sum() * 0
    variance = difference.square().mean() - variance_focus * difference.mean().square()
    return (variance + 1e-6).sqrt()


def align_median(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Shift (median) and scale (mean distance from it) of a map: MiDaS (TPAMI 2020), equation 5."""
    chosen = values[valid]
    shift = chosen.median()
    return shift, (chosen - shift).abs().mean().clamp(min=1e-6)


def align_least_squares(prediction: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift that bring ``prediction`` nearest to ``truth``: MiDaS, equation 4."""
    p, g = prediction[valid], truth[valid]
    centred = p - p.mean()
    scale = (centred * g).mean() / centred.square().mean().clamp(min=1e-8)
    return scale, g.mean() - scale * p.mean()


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
        pairs = [
            normalise(p, g, v, alignment) if v.any() else (p, g)
            for p, g, v in zip(prediction, truth, valid, strict=True)
        ]
        return torch.stack([p for p, _ in pairs]), torch.stack([g for _, g in pairs])
    shift, scale = align_median(truth, valid)
    truth = (truth - shift) / scale
    if alignment == 'median':
        shift, scale = align_median(prediction, valid)
        return (prediction - shift) / scale, truth
    scale, shift = align_least_squares(prediction, truth, valid)
    return prediction * scale + shift, truth


def ssi_loss(prediction: Tensor, truth: Tensor, valid: Tensor, *, trim: float = 0.0) -> Tensor:
    """Mean distance of normalised maps, without the largest ``trim`` share: MiDaS, equations 6 and 7."""
    distance = (prediction - truth).abs()[valid]
    if not len(distance):
        return prediction.sum() * 0
    if trim:
        distance = distance.sort().values[: max(1, round(len(distance) * (1 - trim)))]
    return distance.mean()


def gradient_loss(residual: Tensor, valid: Tensor, *, num_scales: int = 4) -> Tensor:
    """Spatial gradients of what is left over, at several resolutions: MiDaS, equation 11."""
    total = residual.sum() * 0
    for level in range(num_scales):
        part, mask = (maps[:, :: 2**level, :: 2**level] for maps in (residual, valid))
        for axis in (1, 2):
            if part.shape[axis] > 1:
                both = _head(mask, axis) & _tail(mask, axis)
                total = total + masked_mean((_tail(part, axis) - _head(part, axis)).abs(), both)
    return total / num_scales


def temporal_gradient_loss(prediction: Tensor, truth: Tensor, valid: Tensor, *, threshold: float = 0.05) -> Tensor:
    """Change from frame to frame where the truth hardly changes: Video Depth Anything (CVPR 2025), section 3.3.

    Args:
        prediction, truth: In one scale and shift for the clip; ``threshold`` is in their unit.
    """
    if len(truth) < 2:
        return prediction.sum() * 0
    change = _tail(truth, 0) - _head(truth, 0)
    still = _head(valid, 0) & _tail(valid, 0) & (change.abs() < threshold)
    return masked_mean((_tail(prediction, 0) - _head(prediction, 0) - change).abs(), still)


def confidence_loss(residual: Tensor, logits: Tensor, valid: Tensor, *, alpha: float = 0.2) -> Tensor:
    """Residuals weighted by ``c = 1 + exp(logit)``, at the price of ``-alpha ln c``: DUSt3R (CVPR 2024), equation 4."""
    price = torch.nn.functional.softplus(logits)  # ln c
    return masked_mean(residual.abs() * price.exp() - alpha * price, valid)


def motion_loss(logits: Tensor, displacement: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of the shifts between neighbouring frames.

    Args:
        logits: ``(T, S, h, w)`` of all shifts of a square window, row by row.
        displacement: ``(T, h, w, 2)`` true x, y in cells.
        known: ``(T, h, w)`` bool.
    """
    side = round(logits.shape[1] ** 0.5)
    radius = side // 2
    known = known & (displacement.abs() < radius).all(-1)
    if not known.any():
        return logits.sum() * 0
    chosen = logits.permute(0, 2, 3, 1)[known].log_softmax(-1)  # (N, S)
    place = displacement[known] + radius
    corner = place.floor()
    rest, corner, total = place - corner, corner.long(), 0.0
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (rest[:, 0] if dx else 1 - rest[:, 0]) * (rest[:, 1] if dy else 1 - rest[:, 1])
            index = (corner[:, 1] + dy).clamp(max=side - 1) * side + (corner[:, 0] + dx).clamp(max=side - 1)
            total = total - weight * chosen.gather(1, index[:, None])[:, 0]
    return total.mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over ``mask``; zero, with a gradient of zero, where it is empty. Values outside it may be anything."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def _head(values: Tensor, axis: int) -> Tensor:
    return values.narrow(axis, 0, values.shape[axis] - 1)


def _tail(values: Tensor, axis: int) -> Tensor:
    return values.narrow(axis, 1, values.shape[axis] - 1)
