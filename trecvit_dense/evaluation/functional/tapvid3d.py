"""TAPVid-3D metrics (arXiv 2407.05921, section 4): the 2-D counts on distances in metres.

The threshold of a point is a pixel threshold projected back to the depth of its annotation. Unlike the 2-D benchmark,
no frame is left out, not even the query's.
"""

from __future__ import annotations

import numpy as np

from .tapvid import THRESHOLDS_PX, as_flags, jaccard_metrics

SCALINGS = ('median', 'mean', 'median_on_queries', 'per_trajectory', 'reproduce_2d', 'none')


def scale_factor(
    gt_tracks: np.ndarray,
    pred_tracks: np.ndarray,
    hidden: np.ndarray,
    scaling: str,
    *,
    query_frames: np.ndarray | None = None,
) -> np.ndarray:
    """What the prediction is multiplied by to match the scale of the annotation, broadcastable to ``(B, N, T, 1)``.

    Args:
        gt_tracks, pred_tracks: ``(B, N, T, 3)`` metres in camera axes.
        hidden: ``(B, N, T)`` bool, occluded in the annotation or in the prediction.
        scaling: ``median``, ``mean``: ratio of the median (mean) distances to the camera. ``median_on_queries``: the
            same on the query frames only. ``per_trajectory``: depths agree on the query frame. ``reproduce_2d``:
            depths agree everywhere, which leaves the error in the image. ``none``: 1.
        query_frames: ``(B, N)`` int, needed by ``per_trajectory`` and ``median_on_queries``.

    Raises:
        ValueError: unknown scaling, or query frames are missing.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"scaling is '{scaling}'; wanted one of {', '.join(SCALINGS)}")
    if scaling in ('per_trajectory', 'median_on_queries') and query_frames is None:
        raise ValueError(f"scaling '{scaling}' reads the query frames; pass query_points")
    if scaling == 'none':
        return np.ones((1, 1, 1, 1))
    if scaling == 'reproduce_2d':
        return gt_tracks[..., 2:] / pred_tracks[..., 2:]
    if scaling == 'per_trajectory':
        gt_depth, pred_depth = (_at_frames(tracks[..., 2], query_frames) for tracks in (gt_tracks, pred_tracks))
        return (np.maximum(gt_depth, 1e-12) / np.maximum(pred_depth, 1e-12))[..., None]
    gt_norm, pred_norm = (
        np.where(hidden, np.nan, np.sqrt(np.maximum(np.square(tracks).sum(axis=-1), 1e-12)))
        for tracks in (gt_tracks, pred_tracks)
    )
    if scaling == 'median_on_queries':
        gt_norm, pred_norm = _at_frames(gt_norm, query_frames), _at_frames(pred_norm, query_frames)
    centre = np.nanmean if scaling == 'mean' else np.nanmedian
    return (centre(gt_norm, axis=(1, 2), keepdims=True) / centre(pred_norm, axis=(1, 2), keepdims=True))[..., None]


def _at_frames(values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, frames[..., None], axis=-1)  # (B, N, 1)


def compute_tapvid3d_metrics(
    gt_occluded: np.ndarray,
    gt_tracks: np.ndarray,
    pred_occluded: np.ndarray,
    pred_tracks: np.ndarray,
    intrinsics: np.ndarray,
    *,
    scaling: str = 'median',
    query_points: np.ndarray | None = None,
    trackwise: bool = False,
) -> dict[str, np.ndarray]:
    """The metrics of :func:`~trecvit_dense.evaluation.functional.tapvid.compute_tapvid_metrics`, in 3-D.

    Args:
        gt_occluded, pred_occluded: ``(B, N, T)`` bool or 0/1.
        gt_tracks, pred_tracks: ``(B, N, T, 3)`` metres in camera axes.
        intrinsics: ``(B, 4)`` or ``(4,)`` px: fx, fy, cx, cy; thresholds use ``sqrt(fx * fy)``.
        scaling: See :func:`scale_factor`.
        query_points: ``(B, N, 3)``, t first; read by two of the scalings.
        trackwise: Sum over time only.
    """
    gt_occluded, pred_occluded = as_flags(gt_occluded, 'gt_occluded'), as_flags(pred_occluded, 'pred_occluded')
    frames = None if query_points is None else np.round(query_points[..., 0]).astype(int)
    factor = scale_factor(gt_tracks, pred_tracks, gt_occluded | pred_occluded, scaling, query_frames=frames)
    squared = np.square(pred_tracks * factor - gt_tracks).sum(axis=-1)  # (B, N, T)
    focal = np.sqrt(intrinsics[..., 0] * intrinsics[..., 1])[..., None, None]
    metres_per_px = gt_tracks[..., 2] / focal
    within = {threshold: squared < np.square(threshold * metres_per_px) for threshold in THRESHOLDS_PX}
    axes = (2,) if trackwise else (1, 2)
    everything = np.ones(gt_occluded.shape, bool)
    return jaccard_metrics(gt_occluded, pred_occluded, within, everything, axes=axes, oa_axes=axes)
