"""From the levels of a backbone to one map: reassembly and fusion of the Dense Prediction Transformer.

Ranftl, Bochkovskiy, Koltun: Vision Transformers for Dense Prediction (ICCV 2021), section 3 and figure 1. A level
need not come from a plain transformer: one that has a stride of its own keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.structures import Features

from .feature_pyramid import check_cells


def assign_levels(strides: Sequence[float], scales: Sequence[int]) -> list[list[int]]:
    """Which levels feed which scale.

    Levels of one stride (blocks of a plain transformer) are spread over the scales, early blocks to fine ones; levels
    of several strides go where they fit best. A scale without a level is made from the last one.
    """
    sources: list[list[int]] = [[] for _ in scales]
    for index, stride in enumerate(strides):
        if len(set(strides)) == 1:
            place = round(index * (len(scales) - 1) / max(len(strides) - 1, 1)) if len(strides) > 1 else None
        else:
            place = min(range(len(scales)), key=lambda k: abs(scales[k] / stride - stride / scales[k]))
        if place is not None:
            sources[place].append(index)
    return [found or [len(strides) - 1] for found in sources]


class Reassemble(nn.Module):
    """Levels of a backbone to maps at the strides ``scales``, ``widths`` channels each.

    A coarser level is unfolded by a transposed convolution (each token tells its cells apart), a finer one is reduced
    by a strided one.

    Raises:
        ValueError: the level of the finest scale does not divide into its cells.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[tuple[float, float]],
        *,
        scales: Sequence[int],
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        self.scales, strides = tuple(scales), [stride[0] for stride in in_strides]
        self.sources = assign_levels(strides, self.scales)
        check_cells([in_strides[self.sources[0][0]]], self.scales[0])  # coarser maps are resized to the finest
        used = sorted({index for found in self.sources for index in found})
        self.norms = nn.ModuleDict({str(index): nn.LayerNorm(in_channels[index]) for index in used})
        self.projections = nn.ModuleList(
            nn.ModuleList(_resampler(in_channels[index], width, strides[index] / scale) for index in found)
            for found, scale, width in zip(self.sources, self.scales, widths, strict=True)
        )

    def forward(self, features: Features) -> list[Tensor]:
        """Maps ``(B * T, C, h, w)``, one per scale; their sizes are those of the input over the scale, rounded up."""
        maps = {}
        for index, norm in self.norms.items():
            level = features.levels[int(index)]
            tokens = norm(level.tokens).unflatten(2, level.grid)  # (B, T, h, w, C)
            maps[int(index)] = tokens.flatten(0, 1).permute(0, 3, 1, 2)
        return [
            sum(_fit([project(maps[index]) for index, project in zip(found, projections, strict=True)]))
            for found, projections in zip(self.sources, self.projections, strict=True)
        ]


def _resampler(in_channels: int, width: int, ratio: float) -> nn.Module:
    """A map whose stride is ``ratio`` times the wanted one, to the wanted one."""
    if ratio >= 1.5:
        factor = round(ratio)
        return nn.ConvTranspose2d(in_channels, width, factor, stride=factor)
    if ratio <= 0.75:
        factor = round(1 / ratio)
        return nn.Conv2d(in_channels, width, factor + 1, stride=factor, padding=factor // 2)
    return nn.Conv2d(in_channels, width, 1)


def _fit(maps: list[Tensor]) -> list[Tensor]:
    """All at the size of the first; they differ by a cell where a side is no multiple of a stride."""
    return [maps[0], *(resize(part, maps[0]) for part in maps[1:])]


def resize(maps: Tensor, like: Tensor) -> Tensor:
    """``maps`` at the height and width of ``like``, bilinear."""
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return F.interpolate(maps, like.shape[-2:], mode='bilinear', align_corners=False)


class ResidualUnit(nn.Module):
    """Norm, then two 3 x 3 convolutions before which a ReLU stands, and a shortcut.

    DPT has no norm here; without it a head from scratch takes twice the steps to fit the same clips.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.second(F.relu(self.first(F.relu(self.norm(maps)))))


class PyramidFusion(nn.Module):
    """Maps from fine to coarse and back: each is refined, added to what came from its neighbour, and refined again.

    The way from coarse to fine is DPT's. The way before it makes coarse maps from what the fine ones show, which a
    shallow stem, or a backbone that was trained for something else and stays as it is, has not done.

    Args:
        widths: Channels of the maps, finest first.
        encode: False leaves the first way out.
    """

    def __init__(self, widths: Sequence[int], *, encode: bool = True) -> None:
        super().__init__()
        finer = zip(widths[:-1], widths[1:], strict=True)
        self.down = nn.ModuleList(nn.Conv2d(fine, width, 3, stride=2, padding=1) for fine, width in finer if encode)
        self.encode = nn.ModuleList(ResidualUnit(width) for width in widths if encode)
        self.lateral = nn.ModuleList(ResidualUnit(width) for width in widths[:-1])
        self.merge = nn.ModuleList(ResidualUnit(width) for width in widths)
        self.narrow = nn.ModuleList(
            nn.Conv2d(below, width, 1) for width, below in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(B, C, h, w)``, finest first, to one like the finest."""
        if self.encode:
            maps = self._encode(maps)
        fused = self.merge[-1](maps[-1])
        for index in reversed(range(len(self.lateral))):
            below = resize(self.narrow[index](fused), maps[index])  # the 1 x 1 convolution first: it is cheaper small
            fused = self.merge[index](self.lateral[index](maps[index]) + below)
        return fused

    def _encode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        encoded = [self.encode[0](maps[0])]
        for level, unit, down in zip(maps[1:], self.encode[1:], self.down, strict=True):
            encoded.append(unit(level + resize(down(F.relu(encoded[-1])), level)))
        return encoded
