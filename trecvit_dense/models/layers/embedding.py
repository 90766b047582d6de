"""From pixels to tokens: patch embedding, convolutional stem, and spatial position tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kept import Kept


def lecun_normal_(weight: Tensor) -> Tensor:
    """Truncated normal (at two deviations) with variance ``1 / fan_in``, as flax initialises convolutions and Dense."""
    fan_in = weight[0].numel()
    std = fan_in**-0.5 / 0.87962566103423978  # the truncation takes away this factor
    return nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def sincos2d(grid: tuple[int, int], dim: int, *, device: torch.device | str | None = None) -> Tensor:
    """Sine-cosine table ``(1, h * w, dim)``, columns before rows (MoCo v3, arXiv 2104.02057, section 5).

    With ``q = dim / 4`` and ``w_i = 10000^(-i / (q - 1))`` a token at row y, column x is
    ``[sin(x w), cos(x w), sin(y w), cos(y w)]``.

    Raises:
        ValueError: ``dim`` is not a multiple of 4, or below 8.
    """
    if dim % 4 or dim < 8:
        raise ValueError(f'sincos2d positions need an embed_dim that is a multiple of 4 and at least 8, not {dim}')
    quarter = dim // 4
    omega = 10000.0 ** (-torch.arange(quarter, device=device, dtype=torch.float32) / (quarter - 1))
    y = torch.arange(grid[0], device=device, dtype=torch.float32)[:, None] * omega  # (h, q)
    x = torch.arange(grid[1], device=device, dtype=torch.float32)[:, None] * omega  # (w, q)
    rows = torch.cat([y.sin(), y.cos()], dim=-1)[:, None].expand(-1, grid[1], -1)
    columns = torch.cat([x.sin(), x.cos()], dim=-1)[None].expand(grid[0], -1, -1)
    return torch.cat([columns, rows], dim=-1).reshape(1, -1, dim)  # (1, h * w, dim)


def interpolate_table(table: Tensor, native: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Bicubic resize of a position table ``(1, h * w, C)`` to another grid, in float32; itself at the native grid.

    As the official torch TAPNext does for other resolutions: ``align_corners=False``, no antialiasing.
    """
    if tuple(native) == tuple(grid):
        return table
    maps = table.float().view(1, *native, -1).permute(0, 3, 1, 2)  # (1, C, h, w)
    maps = F.interpolate(maps, size=tuple(grid), mode='bicubic', align_corners=False)
    return maps.flatten(2).transpose(1, 2)  # (1, h' * w', C)


class LearnedPosition(nn.Module):
    """Learned table for one grid, interpolated to any other."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.table = nn.Parameter(torch.empty(1, grid[0] * grid[1], dim))
        nn.init.normal_(self.table, std=dim**-0.5)
        self.kept = Kept()

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """``(1, h * w, C)`` for a grid ``(h, w)``."""
        if tuple(grid) == self.grid:
            return self.table
        return self.kept.get(tuple(grid), [self.table], lambda: interpolate_table(self.table, self.grid, grid))


class SinCosPosition(nn.Module):
    """:func:`sincos2d` as a module without parameters."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        sincos2d((1, 1), dim, device='cpu')  # says at once when the width does not fit
        self.dim = dim
        self.register_buffer('_device', torch.empty(0), persistent=False)
        self.kept = Kept()

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """``(1, h * w, C)`` for a grid ``(h, w)``."""
        device = self._device.device
        return self.kept.get(tuple(grid), [self._device], lambda: sincos2d(grid, self.dim, device=device))


class PatchEmbed(nn.Module):
    """Non-overlapping patches through one convolution (ViT, arXiv 2010.11929); a remainder at the border is dropped."""

    def __init__(self, embed_dim: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)
        lecun_normal_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``(B * T, 3, H, W)`` to ``(B * T, h, w, C)`` and no intermediate maps."""
        # Channels last in memory, too: every layer would copy its input, 5 % of the time of a backbone of size B.
        return self.proj(frames).permute(0, 2, 3, 1).contiguous(), []


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of ``(B, C, H, W)``: no pixel sees another, so no frame and no border does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StemStage(nn.Module):
    """Halve the resolution (3x3, stride 2), then, if ``residual``, one residual 3x3 convolution."""

    def __init__(self, channels_in: int, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1)
        self.norm = ChannelNorm(channels, eps=1e-6)
        self.residual_norm = ChannelNorm(channels, eps=1e-6) if residual else None
        self.residual = nn.Conv2d(channels, channels, 3, padding=1) if residual else None
        for conv in (self.down, self.residual):
            if conv is not None:
                lecun_normal_(conv.weight)
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.down(x)))
        return x if self.residual is None else x + self.residual(F.relu(self.residual_norm(x)))


class ConvStem(nn.Module):
    """Stride-2 convolutions down to the patch size instead of one large one (Xiao et al. 2021, arXiv 2106.14881).

    Every frame goes through alone, so the stem needs no state. Works in ``channels_last``, in which the tokens
    ``(B * T, h, w, C)`` are a view of the last map.

    Args:
        embed_dim: Token width.
        patch_size: Stride of the tokens; a power of two, the same both ways.
        channels: Width of each stage, at strides 2, 4, ... ``patch_size``; None doubles up to ``embed_dim``.
        levels: Strides whose maps are returned beside the tokens.
    """

    def __init__(
        self,
        embed_dim: int,
        patch_size: tuple[int, int],
        *,
        channels: tuple[int, ...] | None = None,
        levels: tuple[int, ...] = (4,),
    ) -> None:
        super().__init__()
        stride = patch_size[0]
        stages = int(math.log2(stride)) if stride > 0 else 0
        if patch_size[1] != stride or stride < 2 or 2**stages != stride:
            raise ValueError(f"stem='conv' needs a square patch_size that is a power of two, not {tuple(patch_size)}")
        if channels is None:
            channels = tuple(max(embed_dim >> (stages - 1 - i), 16) for i in range(stages))
        if len(channels) != stages:
            raise ValueError(f'stem_channels has {len(channels)} widths; patch_size {stride} needs {stages}')
        known = [2 ** (i + 1) for i in range(stages)]
        if any(level not in known for level in levels) or list(levels) != sorted(set(levels)):
            raise ValueError(f'stem_levels is {tuple(levels)}; wanted ascending strides out of {known}')
        self.levels = tuple(levels)
        self.level_channels = tuple(channels[known.index(level)] for level in levels)
        # No residual at stride 2: a third of the stem's time for the least informative map.
        self.stages = nn.ModuleList(
            StemStage(a, b, residual=index > 0)
            for index, (a, b) in enumerate(zip((3, *channels), channels, strict=False))
        )
        self.proj = nn.Conv2d(channels[-1], embed_dim, 1)
        lecun_normal_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``(B * T, 3, H, W)`` to tokens ``(B * T, h, w, C)`` and the maps ``(B * T, h', w', C')`` of ``levels``."""
        x = frames.contiguous(memory_format=torch.channels_last)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if 2 ** (index + 1) in self.levels:
                maps.append(x.permute(0, 2, 3, 1))
        return self.proj(x).permute(0, 2, 3, 1), maps
