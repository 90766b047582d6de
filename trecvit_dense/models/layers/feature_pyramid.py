"""One pyramid of matching features from whatever levels a backbone gives."""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.structures import Features


def sample_maps(maps: Tensor, xy_px: Tensor, stride: float) -> Tensor:
    """Bilinear samples of ``maps (B, C, h, w)`` at ``xy_px (B, Q, 2)``, clamped at the border: ``(B, Q, C)``."""
    size = xy_px.new_tensor([maps.shape[-1], maps.shape[-2]])
    grid = (xy_px / (stride * size) * 2 - 1)[:, :, None]  # (B, Q, 1, 2)
    sampled = F.grid_sample(maps.float(), grid, padding_mode='border', align_corners=False)  # (B, C, Q, 1)
    return sampled[..., 0].transpose(1, 2)


def check_cells(strides: Iterable[tuple[float, float]], wanted: int) -> None:
    """Refuse levels that cannot be brought to cells of ``wanted`` pixels without shifting what they show.

    Raises:
        ValueError: tokens that are not square, or whose side is neither a multiple nor a fraction of ``wanted``.
    """
    for y, x in strides:
        if y != x or (y % wanted and wanted % y):
            raise ValueError(
                f'a level has one token per {y:g}x{x:g} px, which makes no cells of {wanted} px; wanted square tokens '
                f'with a side that is a multiple or a fraction of {wanted}'
            )


class FeaturePyramid(nn.Module):
    """Backbone levels, merged at one stride and pooled: unit-length features at ``stride * 2**l``.

    Coarser tokens are unfolded to the target stride by a linear map (each token tells its cells apart), finer ones
    pooled.

    Raises:
        ValueError: see :func:`check_cells`.
    """

    def __init__(
        self,
        in_channels: tuple[int, ...],
        in_strides: tuple[tuple[float, float], ...],
        channels: int,
        stride: int,
        num_levels: int,
    ) -> None:
        super().__init__()
        check_cells(in_strides, stride)
        self.stride, self.num_levels, self.channels = stride, num_levels, channels
        self.cells = [max(round(level_stride[0] / stride), 1) for level_stride in in_strides]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in in_channels)
        self.laterals = nn.ModuleList(
            nn.Linear(width, channels * cells**2) for width, cells in zip(in_channels, self.cells, strict=True)
        )
        self.mix = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, features: Features) -> list[Tensor]:
        """List of ``(B, T, C, h, w)``, one per pyramid level."""
        if len(features.levels) != len(self.laterals):
            raise ValueError(
                f'the head was built for {len(self.laterals)} feature levels; the backbone gave {len(features.levels)}'
            )
        total = None
        for level, norm, lateral, cells in zip(features.levels, self.norms, self.laterals, self.cells, strict=True):
            batch, time = level.tokens.shape[:2]
            height, width = level.grid
            tokens = lateral(norm(level.tokens)).view(batch * time, height, width, cells, cells, self.channels)
            tokens = tokens.transpose(2, 3).reshape(batch * time, height * cells, width * cells, self.channels)
            maps = tokens.permute(0, 3, 1, 2)  # (B*T, C, h, w), channels last in memory: what the convolution wants
            if level.stride[0] < self.stride:
                maps = F.avg_pool2d(maps, round(self.stride / level.stride[0]))
            total = maps if total is None else total + maps
        maps = total + self.mix(total)
        pyramid = []
        for index in range(self.num_levels):
            if index:
                maps = F.avg_pool2d(maps, 2, ceil_mode=True, count_include_pad=False)
            unit = F.normalize(maps.float(), dim=1, eps=1e-4)
            pyramid.append(unit.unflatten(0, (batch, time)))
        return pyramid
