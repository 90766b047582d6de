"""Frames cut into patches of pixels, which is what masked pre-training and recall predict."""

from __future__ import annotations

import torch
from torch import Tensor


def patch_grid(
    input_size: tuple[int, int], stride: tuple[float, float], *, who: str = 'the head'
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid ``(h, w)`` of whole patches in an ``(H, W)`` input, and the patch's size in pixels.

    Raises:
        ValueError: the stride is no whole number of pixels, or no patch fits.
    """
    patch = (int(stride[0]), int(stride[1]))
    if patch != tuple(stride) or min(patch) < 1:
        raise ValueError(f'{who} predicts whole patches of pixels, but the tokens are {tuple(stride)} px apart')
    grid = (input_size[0] // patch[0], input_size[1] // patch[1])
    if 0 in grid:
        raise ValueError(f'a frame of {input_size[0]}x{input_size[1]} px has no whole patch of {patch}; enlarge it')
    return grid, patch


def to_patches(video: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """``(B, T, 3, H, W)`` to ``(B, T, h * w, patch_y * patch_x * 3)``, raster order; a remainder is dropped."""
    video = video[..., : grid[0] * patch[0], : grid[1] * patch[1]]
    batch, time, channels = video.shape[:3]
    cells = video.reshape(batch, time, channels, grid[0], patch[0], grid[1], patch[1])
    return cells.permute(0, 1, 3, 5, 4, 6, 2).reshape(batch, time, grid[0] * grid[1], -1)


def from_patches(patches: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """The way back: ``(B, T, 3, h * patch_y, w * patch_x)``."""
    cells = patches.view(*patches.shape[:2], *grid, *patch, -1)  # (B, T, h, w, py, px, 3)
    return cells.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def normalise_patches(patches: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Each patch less its mean, over ``sqrt(variance + eps)`` (MAE, arXiv 2111.06377, section 3); mean and that root.

    Args:
        patches: ``(..., P)``, all values of a patch together, colours included.
        eps: In squared units of the input; a flat patch has nothing but noise, which this keeps small.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    deviation = torch.sqrt(patches.var(dim=-1, keepdim=True) + eps)
    return (patches - mean) / deviation, mean, deviation
