"""PointOdyssey metrics (arXiv 2307.15055, section 5) in the two published variants, and the official choice of tracks.

``pips2``: the benchmark authors' evaluator. ``cotracker``: Co-Tracker's, also used on DynamicReplica. They differ in
scale, in the frames that count and in the survival threshold, so their numbers do not compare.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS_PX = (1, 2, 4, 8, 16)
_EPSILON = np.float32(1e-6)


def pips2_metrics(
    gt_tracks: np.ndarray,
    pred_tracks: np.ndarray,
    valid: np.ndarray,
    *,
    image_size: tuple[int, int],
    survival_threshold_px: float = 16.0,
) -> dict[str, float]:
    """Position accuracy, survival and median error of one video; queries are at frame 0.

    Args:
        gt_tracks, pred_tracks: ``(T, N, 2)`` x, y in px of the evaluated image.
        valid: ``(T, N)`` weights 0/1: frames on which the annotation can be trusted, seen or not.
        image_size: ``(H, W)`` px of the evaluated image; errors are measured on 256 x 256.
        survival_threshold_px: A track is lost for good once its error exceeds it. The evaluator's code says 16, the
            paper 50.

    Returns:
        ``d_{1,2,4,8,16}``, ``d_avg``, ``survival`` in percent and ``median_l2`` in px (NaN when a track has no valid
        frame).
    """
    height, width = image_size
    scale = np.array([width / 256, height / 256], np.float32)
    error = _norm((np.asarray(pred_tracks, np.float32) - np.asarray(gt_tracks, np.float32)) / scale)  # (T, N)
    valid = np.asarray(valid, np.float32)
    metrics = {}
    for threshold in THRESHOLDS_PX:
        # The query frame carries no weight; a clip of one frame therefore scores 0.
        metrics[f'd_{threshold}'] = _weighted(error[1:] < threshold, valid[1:]) * 100
    metrics['d_avg'] = float(np.mean([metrics[f'd_{threshold}'] for threshold in THRESHOLDS_PX]))
    metrics['survival'] = float(_alive((error > survival_threshold_px) & (valid > 0)).mean()) * 100
    metrics['median_l2'] = _median_error(error, valid)
    return metrics


def cotracker_metrics(
    gt_tracks: np.ndarray,
    pred_tracks: np.ndarray,
    visible: np.ndarray,
    *,
    image_size: tuple[int, int],
    survival_threshold_px: float = 50.0,
) -> dict[str, float]:
    """Accuracy on occluded, visible and all frames after each track's first sight, and survival (percent).

    Args:
        gt_tracks, pred_tracks: ``(T, N, 2)`` x, y in px.
        visible: ``(T, N)`` 0/1.
        image_size: ``(H, W)`` px.
        survival_threshold_px: On 256 x 256; only frames on which the point is visible can lose it.

    Returns:
        ``accuracy_occ_{D}``, ``accuracy_vis_{D}``, ``accuracy_{D}``, their means ``accuracy_occ``, ``accuracy_vis``,
        ``accuracy``, and ``survival``.
    """
    height, width = image_size
    scale = np.array([(width - 1) / 255, (height - 1) / 255], np.float32)
    error = _norm((np.asarray(pred_tracks, np.float32) - np.asarray(gt_tracks, np.float32)) / scale)  # (T, N)
    seen = np.asarray(visible) > 0
    counted = np.arange(len(seen))[:, None] > np.argmax(seen, axis=0)
    metrics = {}
    for threshold in THRESHOLDS_PX:
        close = error < threshold
        metrics[f'accuracy_occ_{threshold}'] = _weighted(close, counted & ~seen) * 100
        metrics[f'accuracy_vis_{threshold}'] = _weighted(close, counted & seen) * 100
        metrics[f'accuracy_{threshold}'] = _weighted(close, counted) * 100
    for name in ('accuracy_occ', 'accuracy_vis', 'accuracy'):
        metrics[name] = float(np.mean([metrics[f'{name}_{threshold}'] for threshold in THRESHOLDS_PX]))
    metrics['survival'] = float(_alive((error > survival_threshold_px) & seen).mean()) * 100
    return metrics


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(vectors).sum(axis=-1))


def _weighted(flags: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean in float32 with the evaluators' epsilon in the denominator."""
    weights = weights.astype(np.float32)
    total = (flags * weights).sum(dtype=np.float32)
    return float(total / (_EPSILON + weights.sum(dtype=np.float32)))


def _alive(lost: np.ndarray) -> np.ndarray:
    """``(T, N)`` float32, 1 until the first frame on which a track is lost."""
    return 1 - np.maximum.accumulate(lost, axis=0).astype(np.float32)


def _median_error(error: np.ndarray, valid: np.ndarray) -> float:
    medians = []
    for column, weights in zip(error.T, valid.T, strict=True):
        counted = column[weights > 0]
        medians.append(np.median(counted) if len(counted) else np.nan)
    return float(np.mean(medians)) if medians else float('nan')


def select_tracks(
    tracks: np.ndarray,
    visible: np.ndarray,
    valid: np.ndarray,
    *,
    num_tracks: int,
    image_size: tuple[int, int] = (540, 960),
    min_frames: int = 8,
    max_motion_px: float = 512.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The tracks that the official full-sequence loader evaluates.

    Kept: visible and valid at frame 0, good on at least ``min_frames`` frames, never faster than ``max_motion_px`` a
    frame; of those, ``num_tracks`` at evenly spaced indices. Coordinates are clamped to 32 px around the image.

    Args:
        tracks: ``(T, N, 2)`` x, y in px; NaN and infinity make a frame invalid.
        visible, valid: ``(T, N)`` 0/1.
        image_size: ``(H, W)`` px of the annotation.

    Returns:
        ``(tracks, visible, valid, indices)`` of the chosen tracks, ``(T, M, 2)``, ``(T, M)`` float32 twice, ``(M,)``.
    """
    height, width = image_size
    finite = np.isfinite(tracks).all(axis=-1)
    tracks = np.where(finite[..., None], tracks, 0)
    x, y = tracks[..., 0], tracks[..., 1]
    good = finite & (x >= 1) & (x <= width - 2) & (y >= 1) & (y <= height - 2)
    visible, valid = (visible > 0) & good, (valid > 0) & good
    motion = _norm(np.diff(tracks, axis=0)).max(axis=0, initial=0)
    keep = visible[0] & valid[0] & ((visible & valid).sum(axis=0) >= min_frames) & (motion < max_motion_px)
    indices = np.flatnonzero(keep)
    chosen = np.linspace(0, len(indices) - 1, min(num_tracks, len(indices))).astype(int)
    indices = indices[chosen]
    limit = np.array([width + 32, height + 32])
    tracks = np.clip(tracks[:, indices].astype(np.float64), -32, limit)
    return tracks, visible[:, indices].astype(np.float32), valid[:, indices].astype(np.float32), indices
