"""Errors of painted patches, beside those of answers that need no model. Numpy alone."""

from __future__ import annotations

import math

import numpy as np


def reconstruction_errors(
    patches: np.ndarray, targets: np.ndarray, hidden: np.ndarray, *, grid: tuple[int, int], patch: tuple[int, int]
) -> dict[str, float]:
    """Mean squared error over hidden patches, in deviations of each patch.

    Args:
        patches, targets: ``(T, N, P)``, normalised per patch.
        hidden: ``(T, N)`` bool.
        grid: ``(h, w)``, ``h * w = N``.
        patch: ``(y, x)`` pixels of a patch, which say what the nearest one is.

    Returns:
        ``model``; ``mean_patch``; ``copy_visible``; and ``copy_previous`` over frames that have one before them (left
        out for a single frame).

    Raises:
        ValueError: nothing is hidden, or a frame shows nothing at all.
    """
    if not hidden.any():
        raise ValueError('no patch is hidden, so there is nothing to score')
    truth = targets[hidden].astype(np.float64)
    errors = {
        'model': _mse(patches[hidden], truth),
        'mean_patch': float(np.mean(truth**2)),
        'copy_visible': _mse(_last_seen(targets, hidden, grid, patch)[hidden], truth),
    }
    if hidden[1:].any():
        errors['copy_previous'] = _mse(targets[:-1][hidden[1:]], targets[1:][hidden[1:]])
    return errors


def recall_errors(
    patches: np.ndarray, truth: np.ndarray, asked: np.ndarray, *, first: int = 0
) -> dict[int, dict[str, float]]:
    """Mean squared error by distance: of ``model``, ``mean_frame`` and ``copy_current``.

    Args:
        patches: ``(T, D, N, P)`` answers.
        truth: ``(T, N, P)`` the frames.
        asked: ``(T, D)`` number of the frame that an answer is about, not after frame t; negative: none.
        first: Answers on earlier frames do not count.

    Returns:
        Distance in frames, ascending, to errors.
    """
    truth = truth.astype(np.float64)
    running = truth.cumsum(axis=0) / np.arange(1, len(truth) + 1)[:, None, None]  # of what has been seen so far
    rows: dict[int, list[list[float]]] = {}
    for frame, index in np.argwhere(asked >= 0):
        if frame >= first:
            wanted = truth[asked[frame, index]]
            guesses = (patches[frame, index], running[frame], truth[frame])
            rows.setdefault(int(frame - asked[frame, index]), []).append([_mse(x, wanted) for x in guesses])
    names = ('model', 'mean_frame', 'copy_current')
    return {d: dict(zip(names, np.mean(rows[d], axis=0).tolist(), strict=True)) for d in sorted(rows)}


def psnr(mse: float, peak: float = 1.0) -> float:
    """Decibels; infinite where nothing is wrong."""
    return 10 * math.log10(peak**2 / mse) if mse > 0 else math.inf


def _mse(guess: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean((guess.astype(np.float64) - truth) ** 2))


def _last_seen(targets: np.ndarray, hidden: np.ndarray, grid: tuple[int, int], patch: tuple[int, int]) -> np.ndarray:
    """For every place and frame its last seen patch, or where there is none the nearest seen one of the frame."""
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    places = np.stack([rows * patch[0], columns * patch[1]], axis=1).astype(np.float64)  # (N, 2) pixels
    distances = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    copied, last = np.empty_like(targets), np.full(hidden.shape[1], -1)
    for frame, covered in enumerate(hidden):
        last[~covered] = frame
        seen = np.flatnonzero(~covered)
        if not len(seen):
            raise ValueError(f'frame {frame} shows no patch at all')
        near = targets[frame, seen[distances[:, seen].argmin(axis=1)]]
        own = targets[np.maximum(last, 0), np.arange(len(last))]
        copied[frame] = np.where((last >= 0)[:, None], own, near)
    return copied
