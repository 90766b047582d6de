"""Masks on cells, and reading them from another frame through the affinity of features."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 8_000_000  # affinities that are held at once where no gradient is wanted


def cover(masks: Tensor, stride: int) -> Tensor:
    """``(..., H, W)`` masks in [0, 1] to the share of every cell that they cover, ``(..., h, w)``."""
    flat = masks.float().flatten(0, -3)[:, None]
    pooled = F.avg_pool2d(flat, stride, ceil_mode=True, count_include_pad=False)
    return pooled[:, 0].view(*masks.shape[:-2], *pooled.shape[-2:])


def split_cells(masks: Tensor) -> Tensor:
    """``(B, K, 2h, 2w)`` to the four quarters of every cell, ``(B, K, h * w, 4)``."""
    batch, count, height, width = masks.shape
    cells = masks.view(batch, count, height // 2, 2, width // 2, 2).permute(0, 1, 2, 4, 3, 5)
    return cells.reshape(batch, count, -1, 4)


def merge_cells(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Inverse of :func:`split_cells`; ``size`` is ``(h, w)``."""
    batch, count = cells.shape[:2]
    masks = cells.view(batch, count, *size, 2, 2).permute(0, 1, 2, 4, 3, 5)
    return masks.reshape(batch, count, 2 * size[0], 2 * size[1])


def cell_places(size: tuple[int, int], device: torch.device) -> Tensor:
    """``(h * w, 2)`` column and row of every cell."""
    y, x = torch.meshgrid(*(torch.arange(n, device=device, dtype=torch.float32) for n in size), indexing='ij')
    return torch.stack([x, y], -1).flatten(0, 1)


@lru_cache(maxsize=8)
def nearby(size: tuple[int, int], radius: int, device: torch.device) -> Tensor:
    """``(N, N)`` bool: which cells of an ``(h, w)`` grid lie within ``radius`` rows and columns of each other."""
    places = cell_places(size, device)
    return ((places[:, None] - places).abs() <= radius).all(-1)


def read_masks(
    keys: Tensor, past_keys: Tensor, past_masks: Tensor, scale: Tensor, *, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of the past, where the features of the present say.

    Args:
        keys, past_keys: ``(B, C, h, w)`` of unit length.
        past_masks: ``(B, K, N, 4)`` quarters of cells.
        scale: Inverse temperature of the affinity.
        allowed: ``(N, N)`` bool, present by past.

    Returns:
        ``(B, K, N, 4)`` mean of the past masks under the affinity; ``(B, K, 2, h, w)``: how well the best of the object
        and of all else agree, as soft maxima of the cosine (about 1 where a cell is found again); ``(B, 2, h, w)``: how
        far each cell has come, x and y in cells, the mean under the affinity.
    """
    size = keys.shape[-2:]
    query, key = keys.flatten(2).transpose(1, 2), past_keys.flatten(2)  # (B, N, C), (B, C, N)
    batch, count, cells, _ = past_masks.shape
    values = past_masks.permute(0, 2, 1, 3).flatten(2)  # (B, N, K*4)
    places = cell_places(size, values.device)  # (N, 2)
    values = torch.cat([values, places.expand(batch, -1, -1), torch.ones_like(values[..., :1])], -1)
    rows = query.shape[1]
    if not torch.is_grad_enabled() and rows * cells * batch > CHUNK:
        rows = max(CHUNK // (cells * batch), 1)
    parts = []
    for first in range(0, query.shape[1], rows):
        affinity = ((query[:, first : first + rows] @ key - 1) * scale).exp()
        if allowed is not None:
            affinity = affinity * allowed[first : first + rows]
        parts.append(affinity @ values)
    read, came_from, total = torch.cat(parts, 1).split([4 * count, 2, 1], -1)  # (B, N, K*4), (B, N, 2), (B, N, 1)
    motion = places - came_from / (total + 1e-6)
    read = read.unflatten(-1, (count, 4)).transpose(1, 2)  # (B, K, N, 4)
    total = total[:, None] + 1e-6  # (B, 1, N, 1)
    inside = read.mean(-1)
    mass = torch.stack([inside, total[..., 0] - inside], 2).clamp(min=1e-6)  # (B, K, 2, N)
    return (
        read / total,
        (1 + mass.log() / scale).unflatten(-1, size),
        motion.transpose(1, 2).unflatten(-1, size),
    )
