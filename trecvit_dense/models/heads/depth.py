"""Dense depth from several levels of a backbone: relative (disparity) or metric (metres), frame after frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trecvit_dense.models.layers.context_blocks import ContextBlocks
from trecvit_dense.models.layers.dense_fusion import PyramidFusion, Reassemble
from trecvit_dense.models.layers.depth_filter import DepthFilter
from trecvit_dense.models.layers.motion_parallax import MotionParallax
from trecvit_dense.models.losses.depth_criterion import DepthCriterion
from trecvit_dense.models.losses.depth_loss import expected_residual
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import DepthPrediction, Features, RecurrentState, VideoSample

from .base import DepthOutput, Head

KINDS = ('disparity', 'depth')


@MODELS.register_module()
class DPTDepthHead(Head):
    """Depth by reassembly and fusion of levels (DPT, ICCV 2021), joined, if wanted, with depth by motion.

    The head works on every backbone: what it learns, it learns from features alone, single pictures or clips. With
    ``parallax`` it also reads the frames in grey when it is used: looks say how large and how far things are, and
    motion, in closed form, what moves how far and how that changes (see
    :class:`trecvit_dense.models.layers.motion_parallax.MotionParallax`). Nothing of that is trained, and in training it
    is left out. What is steady through time is so because the state carries it: that of the backbone, that of
    ``context``, the map of depth from motion, and the last answer.

    Args:
        kind: ``'disparity'``: one over depth, relative; ``'depth'``: metres.
        scales: Strides of the maps that are fused, ascending; the output has the first one.
        widths: Channels of each, or one number for all.
        parallax: Options of :class:`.MotionParallax`; None: looks alone.
        motion_share: With ``parallax``, how far relief from motion counts where it is trusted and agrees with looks;
            with ``confidence``, looks that are not sure of themselves give way.
        steadiness: With ``parallax``, the greatest share of a value that is carried over from the last frame where it
            can be followed; 0 carries the level alone (see :class:`.DepthFilter`).
        context: ``dict(stride=..., depth=2, num_heads=4)``: TRecViT blocks of the head's own at one scale
            (:class:`trecvit_dense.models.layers.context_blocks.ContextBlocks`); None: none.
        encode: Carry fine maps down to coarse ones first (see :class:`.PyramidFusion`): for backbones that stay as they
            are, or whose levels come from a shallow stem.
        confidence: Also say how sure each value is.
        invariance: Of the relative loss: ``'affine'`` forgives scale and shift of the disparity (truth from stereo
            films), ``'scale'`` forgives scale alone (truth in metres).
        per_frame: Forgive each frame its own scale and shift; else the clip has to be steady.
        trim: Share of the largest residuals that the ``ssi`` loss leaves out.
        alignment: How ``ssi`` forgives: ``'median'`` or ``'least_squares'``.
        max_depth_m, min_depth_m: Limits of metric depth.
        canonical_focal_px: Metric depth as seen by a camera of this focal length, in pixels of the model input; samples
            with intrinsics are converted (Metric3D, ICCV 2023, section 3.1). None: as it is.
        loss_weights: Changes to :data:`.depth_criterion.WEIGHTS`.

    Raises:
        ValueError: unknown kind, invariance, alignment or loss, or a stride that no scale has.
    """

    def __init__(
        self,
        *,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...],
        kind: str = 'disparity',
        scales: Sequence[int] = (4, 8, 16, 32),
        widths: int | Sequence[int] = 128,
        parallax: dict[str, Any] | None = None,
        motion_share: float = 0.7,
        steadiness: float = 0.0,
        context: dict[str, int] | None = None,
        encode: bool = False,
        confidence: bool = False,
        invariance: str = 'affine',
        per_frame: bool = False,
        trim: float = 0.0,
        alignment: str = 'median',
        max_depth_m: float = 80.0,
        min_depth_m: float = 0.01,
        canonical_focal_px: float | None = None,
        loss_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        if kind not in KINDS:
            raise ValueError(f"kind is '{kind}'; wanted {' or '.join(map(repr, KINDS))}")
        if not 0 < min_depth_m < max_depth_m:
            raise ValueError(f'depth between {min_depth_m} and {max_depth_m} m; wanted two numbers, the smaller first')
        widths = [widths] * len(scales) if isinstance(widths, int) else list(widths)
        self.kind, self.canonical_focal_px = kind, canonical_focal_px
        # Disparity has no unit, but beyond this exp means nothing.
        self.log_limits = (math.log(min_depth_m), math.log(max_depth_m)) if kind == 'depth' else (-12.0, 12.0)
        self.criterion = DepthCriterion(
            kind,
            invariance=invariance,
            per_frame=per_frame,
            trim=trim,
            alignment=alignment,
            limits_m=(min_depth_m, max_depth_m),
            canonical_focal_px=canonical_focal_px,
            weights=loss_weights,
        )
        self.scales, self.stride = tuple(scales), int(scales[0])
        self.reassemble = Reassemble(backbone_channels, backbone_strides, scales=self.scales, widths=widths)
        self.parallax = None if parallax is None else MotionParallax(**parallax)
        self.filter = DepthFilter(motion_share, steadiness)
        self.context_index, self.context = None, None
        if context is not None:
            options = dict(context)
            self.context_index = self._index_of('context', options.pop('stride', 16))
            self.context = ContextBlocks(widths[self.context_index], **options)
        self.fusion = PyramidFusion(widths, encode=encode)
        self.out = nn.Sequential(
            nn.Conv2d(widths[0], widths[0], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[0], 2 if confidence else 1, 1),
        )
        nn.init.normal_(self.out[-1].weight, std=0.1)
        nn.init.zeros_(self.out[-1].bias)

    @property
    def reads_grey(self) -> bool:
        """Motion is measured when the head is used; training needs no frames."""
        return self.parallax is not None and not self.training

    def _index_of(self, name: str, stride: int) -> int:
        if stride not in self.scales:
            raise ValueError(f'{name} has stride {stride}; wanted one of the scales {self.scales}')
        return self.scales.index(stride)

    def forget(self, state: RecurrentState) -> RecurrentState:
        """Nothing is asked for, so nothing is kept."""
        return RecurrentState()

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[DepthOutput, RecurrentState]:
        """Depth of the frames in ``features``, at stride ``scales[0]``."""
        batch, time = features.levels[-1].tokens.shape[:2]
        maps, new_state = self.reassemble(features), RecurrentState()
        if self.context is not None:
            chosen = maps[self.context_index].unflatten(0, (batch, time))
            chosen, memory = self.context(chosen, state.scope('context'))
            maps[self.context_index] = chosen.flatten(0, 1)
            new_state.put('context', memory)
        decoded = self.out(self.fusion(maps)).unflatten(0, (batch, time)).float()  # (B, T, 1 or 2, h, w)
        values = decoded[:, :, 0]
        confidence = decoded[:, :, 1] if decoded.shape[2] > 1 else None
        if self.reads_grey:
            found, memory = self.parallax(features.grey, tuple(values.shape[-2:]), state.scope('parallax'))
            new_state.put('parallax', memory)
            sign = 1 if self.kind == 'disparity' else -1
            error = None if confidence is None else expected_residual(confidence).mean((2, 3))
            values, memory = self.filter(sign * values, found, state.scope('filter'), error)
            new_state.put('filter', memory)
            values = sign * values
        values = values.clamp(*self.log_limits)
        return DepthOutput(values, self.kind, self.stride, confidence), new_state

    # -------------------------------------------------------------------------------------------------- loss

    def loss(self, output: DepthOutput, samples: list[VideoSample], scale: tuple[float, float]) -> dict[str, Tensor]:
        """Mean over the clips that have depth; every pixel with truth counts, however few there are.

        Raises:
            ValueError: a sample whose depth is nowhere valid, or valid where it is not a positive number.
        """
        return self.criterion(output, samples, scale)

    # ----------------------------------------------------------------------------------------------- predict

    @torch.no_grad()
    def predict(self, outputs: list[DepthOutput], sample: VideoSample, scale: tuple[float, float]) -> DepthPrediction:
        """Disparity or metres at the size of the sample's video."""
        parts: dict[str, list[Any]] = dict(values=[], confidence=[])
        for output in outputs:
            full = output.at_size(sample.size, scale)
            parts['values'].append(full.values[0].cpu().numpy())
            if full.confidence is not None:
                parts['confidence'].append(full.confidence[0].cpu().numpy())
        values = np.concatenate(parts['values'])
        if self.kind == 'depth':
            values = values / self.criterion.to_canonical(sample, scale)
        confidence = np.concatenate(parts['confidence']) if parts['confidence'] else None
        return DepthPrediction(values.astype(np.float32, copy=False), self.kind, confidence)
