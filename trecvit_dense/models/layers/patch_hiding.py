"""Which patches of a stream are hidden: the same for the same seed, however the stream is cut into calls."""

from __future__ import annotations

import torch
from torch import Tensor

# Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators": the mixer of SplitMix64.
_GOLDEN, _MIX_1, _MIX_2 = (value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw_hidden(
    seed: Tensor, frame: Tensor, *, num_frames: int, num_patches: int, ratio: float, masking: str
) -> Tensor:
    """``(B, T, N)`` bool, True where hidden; every frame hides ``round(ratio * N)`` patches, but neither none nor all.

    Args:
        seed: ``(B,)`` int64.
        frame: ``(B,)`` int64, number of the first frame in its stream.
        masking: ``'tube'``: the same places on all frames of a stream (VideoMAE, arXiv 2203.12602, section 3.3).
            ``'random'``: others on every frame.

    Raises:
        ValueError: a frame of one patch, which is hidden or is not.
    """
    if num_patches < 2:
        raise ValueError('hiding patches needs frames of at least two; enlarge the input or use smaller patches')
    count = min(max(round(ratio * num_patches), 1), num_patches - 1)
    frames = frame[:, None] + torch.arange(num_frames, device=frame.device)  # (B, T)
    if masking == 'tube':
        frames = torch.zeros_like(frames[:, :1])
    places = torch.arange(num_patches, device=seed.device)
    noise = _mix(_mix(_mix(seed)[:, None] + frames)[..., None] + places)  # (B, T or 1, N)
    chosen = noise.argsort(dim=-1, stable=True)[..., :count]
    hidden = torch.zeros_like(noise, dtype=torch.bool).scatter(-1, chosen, True)
    return hidden.expand(-1, num_frames, -1)


def _mix(x: Tensor) -> Tensor:
    """Whole numbers to well-spread whole numbers, on any device alike."""
    x = x * _GOLDEN + _GOLDEN
    x = (x ^ (x >> 30)) * _MIX_1
    x = (x ^ (x >> 27)) * _MIX_2
    return x ^ (x >> 31)
