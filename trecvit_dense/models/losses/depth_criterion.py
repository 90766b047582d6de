"""All losses of a depth head over a batch: truth of any size, dense or sparse, from clips that have some."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trecvit_dense.models.depth_truth import focal_px, truth_scale
from trecvit_dense.models.heads.base import DepthOutput
from trecvit_dense.models.layers.motion_parallax import FOCAL
from trecvit_dense.structures import VideoSample

from .depth_loss import (
    confidence_loss,
    gradient_loss,
    level_loss,
    masked_median,
    normalise,
    silog_loss,
    ssi_loss,
    temporal_gradient_loss,
)

WEIGHTS = dict(silog=1.0, ssi=1.0, gradient=0.5, temporal=0.5, confidence=0.2, level=0.0)
INVARIANCES, ALIGNMENTS = ('scale', 'affine'), ('median', 'least_squares')


class DepthCriterion:
    """Losses by name, weighted.

    Args:
        kind: ``'disparity'`` or ``'depth'``.
        invariance: Of relative depth: ``'affine'`` forgives scale and shift of the disparity, ``'scale'`` scale alone.
        per_frame: Forgive each frame its own scale and shift; else the clip has to be steady.
        trim: Share of the largest residuals that ``ssi`` leaves out.
        alignment: How ``ssi`` forgives scale and shift: ``'median'`` or ``'least_squares'``.
        limits_m: Least and greatest metric depth.
        canonical_focal_px: Metric truth is converted to a camera of this focal length.
        weights: Changes to ``WEIGHTS``; 0 leaves a loss out, as ``level`` is, which teaches relative disparity that is
            true in metres how large things are, so that one frame can be told from the next.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(
        self,
        kind: str,
        *,
        invariance: str = 'affine',
        per_frame: bool = False,
        trim: float = 0.0,
        alignment: str = 'median',
        limits_m: tuple[float, float] = (0.01, 80.0),
        canonical_focal_px: float | None = None,
        weights: dict[str, float] | None = None,
    ) -> None:
        for name, value, known in (('invariance', invariance, INVARIANCES), ('alignment', alignment, ALIGNMENTS)):
            if value not in known:
                raise ValueError(f"{name} is '{value}'; wanted {' or '.join(map(repr, known))}")
        unknown = set(weights or {}) - set(WEIGHTS)
        if unknown:
            raise ValueError(f"loss_weights names '{min(unknown)}'; wanted some of {', '.join(WEIGHTS)}")
        self.kind, self.affine = kind, kind == 'disparity' and invariance == 'affine'
        # A level is that of relative disparity; the SILog of metres tells one already.
        self.levelled = kind == 'disparity' and not self.affine
        self.per_frame, self.trim, self.alignment = per_frame, trim, alignment
        self.limits_m, self.canonical_focal_px = limits_m, canonical_focal_px
        self.weights = WEIGHTS | (weights or {})

    def __call__(
        self, output: DepthOutput, samples: Sequence[VideoSample], scale: tuple[float, float]
    ) -> dict[str, Tensor]:
        """Mean over the clips that have depth; ``scale`` is model-input pixels per pixel of the video.

        Raises:
            ValueError: a sample whose depth is nowhere valid, or valid where it is not a positive number.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for row, sample in enumerate(samples):
            if sample.depth is not None:
                by_size.setdefault((*sample.depth.depth_m.shape, *sample.size), []).append(row)
        found: dict[str, list[Tensor]] = {}
        for rows in by_size.values():
            for name, values in self._losses(output, rows, [samples[row] for row in rows], scale).items():
                found.setdefault(name, []).append(values)
        nothing = self._nothing(output)
        return {
            f'loss_{name}': self.weights[name] * (torch.cat(found[name]).mean() if name in found else nothing)
            for name in self._names(output)
        }

    def to_canonical(self, sample: VideoSample, scale: tuple[float, float]) -> float:
        """Metres for the canonical camera per metre of the sample; 1 where no camera is known."""
        focal = focal_px(sample, scale) if self.canonical_focal_px is not None else None
        return self.canonical_focal_px / focal if focal else 1.0

    def _names(self, output: DepthOutput) -> list[str]:
        there = dict(
            silog=not self.affine,
            ssi=True,
            gradient=True,
            temporal=True,
            confidence=output.confidence_logits is not None,
            level=self.levelled,
        )
        return [name for name, made in there.items() if made and self.weights[name]]

    @staticmethod
    def _nothing(output: DepthOutput) -> Tensor:
        """Zero that depends on everything: no parameter may be without a gradient where processes share them."""
        parts = [output.log_values]
        if output.confidence_logits is not None:
            parts.append(output.confidence_logits)
        return sum(part.sum() * 0 for part in parts)

    def _losses(
        self, output: DepthOutput, rows: list[int], samples: list[VideoSample], scale: tuple[float, float]
    ) -> dict[str, Tensor]:
        """``(B',)`` of each name, for clips whose truth has one size."""
        ratio = truth_scale(samples[0], scale)
        chosen = DepthOutput(output.log_values[rows], self.kind, output.stride)
        if output.confidence_logits is not None:
            chosen.confidence_logits = output.confidence_logits[rows]
        depth, valid = self._truth(samples, scale, output.log_values.device)
        chosen = chosen.at_size(tuple(depth.shape[2:]), ratio)
        log_truth = depth.log() if self.kind == 'depth' else -depth.log()
        losses = {}
        if self.affine:
            prediction, truth = normalise(chosen.values, log_truth.exp(), valid, self.alignment, self.per_frame)
        else:
            focus = 0.85 if self.kind == 'depth' else 1.0
            losses['silog'] = silog_loss(chosen.log_values, log_truth, valid, variance_focus=focus)
            prediction, truth = chosen.log_values, log_truth
            if self.kind == 'disparity':
                offset = masked_median((prediction - truth).detach(), valid)
                prediction = prediction - offset[:, None, None, None]
        residual = prediction - truth
        losses |= dict(
            ssi=ssi_loss(prediction, truth, valid, trim=self.trim),
            gradient=gradient_loss(residual, valid),
            temporal=temporal_gradient_loss(prediction, truth, valid),
        )
        if self.levelled and self.weights['level']:
            losses['level'] = level_loss(chosen.log_values, self._levelled(log_truth, samples, scale), valid)
        if chosen.confidence_logits is not None:
            losses['confidence'] = confidence_loss(residual.detach(), chosen.confidence_logits, valid)
        return losses

    @staticmethod
    def _levelled(log_truth: Tensor, samples: list[VideoSample], scale: tuple[float, float]) -> Tensor:
        """Log disparity ``(B, T, H', W')`` as a camera of focal length ``FOCAL`` would have it, where one is known."""
        shifts = []
        for sample in samples:
            focal = focal_px(sample, scale)
            root = (sample.size[0] * scale[1] * sample.size[1] * scale[0]) ** 0.5
            shifts.append(math.log(focal / root / FOCAL) if focal else 0.0)
        return log_truth + log_truth.new_tensor(shifts)[:, None, None, None]

    def _truth(
        self, samples: list[VideoSample], scale: tuple[float, float], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Metres ``(B, T, H', W')``, 1 where nothing is known, and where something is."""
        depths, valids = [], []
        for sample in samples:
            depth, valid = sample.depth.depth_m, sample.depth.valid
            if not valid.any():
                raise ValueError(f"sample '{sample.name}' has no pixel with valid depth; leave such clips out")
            if not (depth[valid] > 0).all() or not np.isfinite(depth[valid]).all():
                raise ValueError(
                    f"sample '{sample.name}': depth is said to be valid where it is zero, negative or not a number; "
                    f'wanted metres above 0, and valid = False elsewhere'
                )
            depth = np.where(valid, depth, 1.0).astype(np.float32)
            if self.kind == 'depth':
                depth = np.clip(depth * np.float32(self.to_canonical(sample, scale)), *self.limits_m)
            depths.append(torch.from_numpy(depth))
            valids.append(torch.from_numpy(np.ascontiguousarray(valid)))
        return torch.stack(depths).to(device), torch.stack(valids).to(device)
