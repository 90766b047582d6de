"""AJ_RD, the re-detection Jaccard: how well a point is found again after it was out of sight (TAPNext++).

Axes as in the official function: time before points, and flags say *visible*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DIST_THRESHOLDS_PX = (1, 2, 4, 8, 16)
MIN_DURATIONS = (1, 4, 16, 64, 256)


def invisible_run(visible: np.ndarray) -> np.ndarray:
    """``(B, T, N)`` int32: number of frames without sight that end just before frame t (0 at the first frame).

    Args:
        visible: ``(B, T, N)`` bool.
    """
    run = np.zeros(visible.shape, np.int32)
    for t in range(1, visible.shape[1]):
        run[:, t] = np.where(visible[:, t - 1], 0, run[:, t - 1] + 1)
    return run


def find_events(visible: np.ndarray) -> dict[str, np.ndarray]:
    """Reappearances that count: each longer than every earlier one of the same track.

    The first appearance of a point after leading invisibility is one, too.

    Args:
        visible: ``(B, T, N)`` bool.

    Returns:
        ``b, t, n, duration``, each ``(E,)``, ordered by b, then t, then n.
    """
    run = invisible_run(visible)
    # Visible at t after at least one frame out of sight; elsewhere -1 keeps the running maximum below any event.
    duration = np.where(visible & (run > 0), run, -1)
    longest = np.maximum.accumulate(duration, axis=1)
    earlier = np.concatenate([np.full_like(longest[:, :1], -1), longest[:, :-1]], axis=1)
    b, t, n = np.nonzero(duration > earlier)
    return dict(b=b, t=t, n=n, duration=run[b, t, n])


def event_scores(
    events: dict[str, np.ndarray],
    pred_tracks: np.ndarray,
    pred_visible: np.ndarray,
    gt_tracks: np.ndarray,
    gt_visible: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """``(E,)`` float32: Jaccard of one track from the event's frame to the end of the clip; within means ``<=``."""
    distance = np.sqrt(np.square(pred_tracks - gt_tracks).sum(axis=-1))  # (B, T, N)
    within = distance <= threshold
    hit = within & gt_visible & pred_visible
    miss = pred_visible & (~gt_visible | ~within)
    # Sums from t to the end for every t at once: the event's frame then only picks its row.
    true = _sum_to_end(hit)[events['b'], events['t'], events['n']]
    total = _sum_to_end(gt_visible)[events['b'], events['t'], events['n']]
    total = total + _sum_to_end(miss)[events['b'], events['t'], events['n']]
    return (true / total).astype(np.float32)


def _sum_to_end(flags: np.ndarray) -> np.ndarray:
    return np.cumsum(flags[:, ::-1], axis=1, dtype=np.int64)[:, ::-1]


def compute_aj_rd(
    pred_tracks: np.ndarray,
    pred_visible: np.ndarray,
    gt_tracks: np.ndarray,
    gt_visible: np.ndarray,
    *,
    dist_thresholds: tuple[int, ...] = DIST_THRESHOLDS_PX,
    min_durations: tuple[int, ...] = MIN_DURATIONS,
) -> tuple[dict[str, float], dict[str, Any]]:
    """AJ_RD over all events of the batch.

    Query frames play no part. A bin without events is NaN; ``AJ_RD`` is the mean of the bins that have one.

    Args:
        pred_tracks, gt_tracks: ``(B, T, N, 2)`` x, y in px of a 256 x 256 frame.
        pred_visible, gt_visible: ``(B, T, N)`` bool.
        dist_thresholds: Pixels, inclusive.
        min_durations: Frames; bin d holds the events that were out of sight for at least d frames.

    Returns:
        ``(metrics, events)``: metrics ``AJ_RD_D{D}_dmin{d}``, ``AJ_RD_dmin{d}``, ``AJ_RD``; events as
        :func:`find_events` plus ``aj_rd_D{D}`` ``(E,)``.
    """
    gt_visible, pred_visible = np.asarray(gt_visible, bool), np.asarray(pred_visible, bool)
    events = find_events(gt_visible)
    for threshold in dist_thresholds:
        events[f'aj_rd_D{threshold}'] = event_scores(
            events, pred_tracks, pred_visible, gt_tracks, gt_visible, threshold
        )
    return summarise_events(events, dist_thresholds=dist_thresholds, min_durations=min_durations), events


def summarise_events(
    events: dict[str, np.ndarray],
    *,
    dist_thresholds: tuple[int, ...] = DIST_THRESHOLDS_PX,
    min_durations: tuple[int, ...] = MIN_DURATIONS,
) -> dict[str, float]:
    """The metrics of :func:`compute_aj_rd` from events, which may be pooled over several videos."""
    metrics: dict[str, float] = {}
    for minimum in min_durations:
        long_enough = events['duration'] >= minimum
        for threshold in dist_thresholds:
            scores = events[f'aj_rd_D{threshold}'][long_enough]
            metrics[f'AJ_RD_D{threshold}_dmin{minimum}'] = (
                float(scores.mean(dtype=np.float64)) if len(scores) else np.nan
            )
        metrics[f'AJ_RD_dmin{minimum}'] = _nanmean([metrics[f'AJ_RD_D{d}_dmin{minimum}'] for d in dist_thresholds])
    metrics['AJ_RD'] = _nanmean([metrics[f'AJ_RD_dmin{minimum}'] for minimum in min_durations])
    return metrics


def _nanmean(values: list[float]) -> float:
    finite = [value for value in values if not np.isnan(value)]
    return float(np.mean(finite)) if finite else float('nan')
