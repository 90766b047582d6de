"""Masked pre-training as a picture: what the model was shown, what it painted, and what was there."""

from __future__ import annotations

from typing import Any

import numpy as np

from .tracks import contact_sheet

_COVER = 127  # grey of a hidden patch


def draw_reconstruction(
    reconstruction: Any, *, num_frames: int = 6, value_range: str = 'unit', width: int | None = 128
) -> np.ndarray:
    """``(H, W, 3)`` uint8: three rows (shown, painted, true) of frames spread over the video.

    A model paints normalised patches, so the painted row takes mean and deviation of each hidden patch from the truth,
    as MAE's own pictures do; seen patches are shown as they are.

    Args:
        reconstruction: ``patches, targets (T, N, P)``, ``mean, deviation (T, N, 1)``, ``hidden (T, N)``, ``grid`` and
            ``patch``, as :class:`trecvit_dense.models.heads.masked_autoencoder.Reconstruction` has them.
        num_frames: Columns, at most.
        value_range: Of the model's input, see the preprocessor.
        width: Of a frame in the picture, pixels; None: as it is.

    Raises:
        ValueError: an unknown range.
    """
    if value_range not in ('unit', 'signed'):
        raise ValueError(f"value_range is '{value_range}'; wanted 'unit' or 'signed'")
    total = len(reconstruction.targets)
    chosen = np.unique(np.linspace(0, total - 1, min(num_frames, total)).round().astype(int))
    shape = (*reconstruction.grid, *reconstruction.patch)
    mean, deviation = reconstruction.mean[chosen], reconstruction.deviation[chosen]
    true, painted = (
        _pixels(patches[chosen] * deviation + mean, value_range)
        for patches in (reconstruction.targets, reconstruction.patches)
    )
    hidden = reconstruction.hidden[chosen][..., None]
    rows = (np.where(hidden, np.uint8(_COVER), true), np.where(hidden, painted, true), true)
    frames = [_frame(patches, shape) for row in rows for patches in row]
    return contact_sheet(frames, columns=len(chosen), width=width)


def _pixels(values: np.ndarray, value_range: str) -> np.ndarray:
    scaled = (values + 1) * 127.5 if value_range == 'signed' else values * 255
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _frame(patches: np.ndarray, shape: tuple[int, int, int, int]) -> np.ndarray:
    """``(N, P)`` to ``(H, W, 3)``."""
    rows, columns, height, width = shape
    cells = patches.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(cells.reshape(rows * height, columns * width, 3))
