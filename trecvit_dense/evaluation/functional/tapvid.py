"""TAP-Vid metrics and query sampling, equal to the official evaluator (arXiv 2211.03726, section 4).

Here, and only here, the axes follow the benchmark: queries are ``(t, y, x)``, tracks ``(x, y)``, flags say *occluded*.
All positions are in raster pixels of a 256 x 256 frame, whatever the resolution the model ran at.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS_PX = (1, 2, 4, 8, 16)
QUERY_MODES = ('first', 'strided')


def check_query_mode(query_mode: str) -> None:
    """Raises ValueError unless ``query_mode`` is one of :data:`QUERY_MODES`."""
    if query_mode not in QUERY_MODES:
        raise ValueError(f"query_mode is '{query_mode}'; wanted 'first' or 'strided'")


def sample_queries_first(occluded: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    """One query per track that is ever visible, at its first visible frame.

    Args:
        occluded: ``(N, T)`` bool.
        points: ``(N, T, 2)`` x, y in px.

    Returns:
        ``query_points`` ``(M, 3)`` t, y, x; ``target_points`` ``(M, T, 2)``; ``occluded`` ``(M, T)``; ``trackgroup``
        ``(M,)`` (index of the annotated track).
    """
    group = np.flatnonzero((~occluded).any(axis=1))
    frame = np.argmax(~occluded[group], axis=1)
    return _queries(occluded, points, group, frame)


def sample_queries_strided(occluded: np.ndarray, points: np.ndarray, *, stride: int = 5) -> dict[str, np.ndarray]:
    """One query per track at each of the frames ``0, stride, 2 * stride ...`` on which it is visible.

    Arguments and result as :func:`sample_queries_first`; the order is frame, then track.
    """
    frames = np.arange(0, occluded.shape[1], stride)
    visible = ~occluded[:, frames]  # (N, F)
    which, group = np.nonzero(visible.T)
    return _queries(occluded, points, group, frames[which])


def sample_queries(occluded: np.ndarray, points: np.ndarray, query_mode: str) -> dict[str, np.ndarray]:
    """The sampler of that name, see :func:`sample_queries_first` and :func:`sample_queries_strided`."""
    check_query_mode(query_mode)
    sampler = sample_queries_first if query_mode == 'first' else sample_queries_strided
    return sampler(occluded, points)


def _queries(occluded: np.ndarray, points: np.ndarray, group: np.ndarray, frame: np.ndarray) -> dict[str, np.ndarray]:
    xy = points[group, frame]  # (M, 2)
    query = np.stack([frame.astype(xy.dtype), xy[:, 1], xy[:, 0]], axis=-1)
    return dict(query_points=query, target_points=points[group], occluded=occluded[group], trackgroup=group)


def evaluated_frames(query_points: np.ndarray, num_frames: int, query_mode: str) -> np.ndarray:
    """``(..., T)`` bool: ``first`` counts the frames after the query frame, ``strided`` all frames but the query frame.

    Args:
        query_points: ``(..., 3)`` t, y, x; a fractional t rounds half to even.
    """
    check_query_mode(query_mode)
    query_frame = np.round(query_points[..., :1])  # (..., 1)
    frames = np.arange(num_frames)
    return frames > query_frame if query_mode == 'first' else frames != query_frame


def _evaluated_frames_legacy(query_points: np.ndarray, gt_occluded: np.ndarray, query_mode: str) -> np.ndarray:
    """The rule of the Perception Test notebook: its 'first' branch masks leading *tracks* where it means frames."""
    evaluated = evaluated_frames(query_points, gt_occluded.shape[-1], 'strided')
    if query_mode == 'first':
        for row, occluded in zip(evaluated, gt_occluded, strict=True):
            row[: np.argmax(~occluded.all(axis=-1))] = False
    return evaluated


def as_flags(flags: np.ndarray, name: str) -> np.ndarray:
    """Boolean copy of 0/1 flags.

    Raises:
        ValueError: a value is neither 0 nor 1 (a probability or a logit was passed).
    """
    flags = np.asarray(flags)
    if flags.dtype == bool:
        return flags
    if not np.isin(flags, (0, 1)).all():
        raise ValueError(f'{name} holds values other than 0 and 1; wanted flags, threshold probabilities first')
    return flags.astype(bool)


def compute_tapvid_metrics(
    query_points: np.ndarray,
    gt_occluded: np.ndarray,
    gt_tracks: np.ndarray,
    pred_occluded: np.ndarray,
    pred_tracks: np.ndarray,
    query_mode: str,
    *,
    trackwise: bool = False,
    protocol: str = 'tapnet',
) -> dict[str, np.ndarray]:
    """Occlusion accuracy, position accuracy and Jaccard at five thresholds.

    Counts are summed over the points and frames of a video, then divided; a dataset's score is the plain mean over
    videos. There are no guards: a video without any evaluated visible point gives NaN, as the official code does.

    Args:
        query_points: ``(B, N, 3)`` t, y, x in px.
        gt_occluded, pred_occluded: ``(B, N, T)`` bool or 0/1.
        gt_tracks, pred_tracks: ``(B, N, T, 2)`` x, y in px of a 256 x 256 frame.
        query_mode: ``'first'`` or ``'strided'``.
        trackwise: Sum over time only.
        protocol: ``'tapnet'``; ``'cotracker'`` divides the occlusion accuracy by the count of the whole batch (a bug
            that shows for B > 1); ``'perception_test'`` does that too and counts the frames before the query in
            ``'first'`` mode.

    Returns:
        ``occlusion_accuracy``, ``pts_within_{1,2,4,8,16}``, ``jaccard_{1,2,4,8,16}``, ``average_jaccard`` and
        ``average_pts_within_thresh``, each ``(B,)``, or ``(B, N)`` when ``trackwise``.

    Raises:
        ValueError: unknown mode or protocol, flags that are not 0/1.
    """
    check_query_mode(query_mode)
    if protocol not in ('tapnet', 'cotracker', 'perception_test'):
        raise ValueError(f"protocol is '{protocol}'; wanted 'tapnet', 'cotracker' or 'perception_test'")
    gt_occluded, pred_occluded = as_flags(gt_occluded, 'gt_occluded'), as_flags(pred_occluded, 'pred_occluded')
    if protocol == 'perception_test':
        evaluated = _evaluated_frames_legacy(query_points, gt_occluded, query_mode)
    else:
        evaluated = evaluated_frames(query_points, gt_occluded.shape[-1], query_mode)
    squared = np.square(pred_tracks - gt_tracks).sum(axis=-1)  # (B, N, T)
    within = {threshold: squared < np.square(threshold) for threshold in THRESHOLDS_PX}
    oa_axes = None if protocol != 'tapnet' and not trackwise else ((2,) if trackwise else (1, 2))
    return jaccard_metrics(
        gt_occluded, pred_occluded, within, evaluated, axes=(2,) if trackwise else (1, 2), oa_axes=oa_axes
    )


def jaccard_metrics(
    gt_occluded: np.ndarray,
    pred_occluded: np.ndarray,
    within: dict[int, np.ndarray],
    evaluated: np.ndarray,
    *,
    axes: tuple[int, ...],
    oa_axes: tuple[int, ...] | None,
) -> dict[str, np.ndarray]:
    """The counting shared by the 2-D and the 3-D benchmark.

    A visible prediction that lies too far from a visible point costs twice: it is missing from the true positives and
    it is a false positive. That is the benchmark's intent.

    Args:
        gt_occluded, pred_occluded, evaluated: ``(B, N, T)`` bool.
        within: Threshold to ``(B, N, T)`` bool.
        axes: Axes summed over.
        oa_axes: Axes of the denominator of the occlusion accuracy; None: all.
    """
    gt_visible, pred_visible = ~gt_occluded, ~pred_occluded
    agree = ((gt_occluded == pred_occluded) & evaluated).sum(axis=axes)
    visible_count = (gt_visible & evaluated).sum(axis=axes)
    with np.errstate(divide='ignore', invalid='ignore'):
        metrics = {'occlusion_accuracy': agree / evaluated.sum(axis=oa_axes)}
        for threshold, close in within.items():
            correct = close & gt_visible & evaluated
            false = pred_visible & (gt_occluded | ~close) & evaluated
            metrics[f'pts_within_{threshold}'] = correct.sum(axis=axes) / visible_count
            true_count = (correct & pred_visible).sum(axis=axes)
            metrics[f'jaccard_{threshold}'] = true_count / (visible_count + false.sum(axis=axes))
    for name, part in (('average_jaccard', 'jaccard'), ('average_pts_within_thresh', 'pts_within')):
        metrics[name] = np.mean([metrics[f'{part}_{threshold}'] for threshold in within], axis=0)
    return metrics


def zero_motion(query_points: np.ndarray, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The baseline that never moves and is always visible: ``(tracks (..., N, T, 2), occluded (..., N, T))``."""
    xy = query_points[..., None, [2, 1]]  # (..., N, 1, 2)
    shape = (*query_points.shape[:-1], num_frames)
    return np.broadcast_to(xy, (*shape, 2)), np.zeros(shape, bool)


def hidden_later(query_points: np.ndarray, gt_occluded: np.ndarray) -> np.ndarray:
    """``(..., N)`` bool: tracks that are occluded at some frame after their query."""
    after = np.arange(gt_occluded.shape[-1]) > np.round(query_points[..., :1])
    return (gt_occluded & after).any(axis=-1)


def reappearing(query_points: np.ndarray, gt_occluded: np.ndarray) -> np.ndarray:
    """``(..., N)`` bool: tracks that are occluded at some frame after their query and visible again later."""
    num_frames = gt_occluded.shape[-1]
    after = np.arange(num_frames) > np.round(query_points[..., :1])
    was_hidden = np.maximum.accumulate(gt_occluded & after, axis=-1)
    return (was_hidden & ~gt_occluded).any(axis=-1)
