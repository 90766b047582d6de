"""Perception Test, single point tracking (arXiv 2305.13786): labels and results as JSON objects, one number.

In the files a track is ``{'id', 'frame_ids': [n], 'points': [[y ...], [x ...]]}`` with coordinates in 0..1: row 0 is y.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .tapvid import compute_tapvid_metrics


def dense_track(track: dict[str, Any], num_frames: int, *, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Spread a listed track over the frames of its video.

    Returns:
        ``xy (T, 2)`` in 0..1, zero on frames that are not listed, and ``listed (T,)`` bool.

    Raises:
        ValueError: the points are not two rows of the length of ``frame_ids``, or a frame lies outside the video.
    """
    frames, points = np.asarray(track['frame_ids'], int), np.asarray(track['points'], float)
    if points.shape != (2, len(frames)):
        raise ValueError(f'{where}: points has shape {points.shape}; wanted (2, {len(frames)}): a row of y, a row of x')
    if len(frames) and not (0 <= frames.min() and frames.max() < num_frames):
        raise ValueError(
            f'{where}: frame_ids run from {frames.min()} to {frames.max()}; the video has {num_frames} frames'
        )
    xy, listed = np.zeros((num_frames, 2)), np.zeros(num_frames, bool)
    xy[frames], listed[frames] = points[::-1].T, True
    return xy, listed


def video_arrays(label: dict[str, Any], result: dict[str, Any], *, name: str) -> dict[str, np.ndarray]:
    """Arguments of :func:`compute_tapvid_metrics` for one video, with B = 1 and coordinates times 256.

    The benchmark's rules: an annotated point is occluded on frames that it does not list; the query is its first
    frame; a prediction is visible on every frame, at (0, 0) where it lists none; a prediction's id is the position of
    its label.
    """
    num_frames = int(label['metadata']['num_frames'])
    truths, predictions = label['point_tracking'], result['point_tracking']
    rows = []
    for number, prediction in enumerate(predictions):
        where = f'{name}, result {number}'
        if not 0 <= prediction['id'] < len(truths):
            raise ValueError(f'{where}: id is {prediction["id"]}; the labels have {len(truths)} points')
        truth = truths[prediction['id']]
        gt_xy, seen = dense_track(truth, num_frames, where=f'{name}, label {prediction["id"]}')
        rows.append((gt_xy, seen, dense_track(prediction, num_frames, where=where)[0]))
    gt_xy, seen, pred_xy = (np.stack(column)[None] for column in zip(*rows, strict=True))  # (1, N, T, ...)
    query = np.zeros((1, len(rows), 3))
    query[..., 0] = np.argmax(seen, axis=-1)
    return dict(
        query_points=query,
        gt_occluded=~seen,
        gt_tracks=gt_xy * 256,
        pred_occluded=np.zeros_like(seen),
        pred_tracks=pred_xy * 256,
    )


def score_perception_test(
    labels: dict[str, Any], results: dict[str, Any], *, protocol: str = 'perception_test'
) -> dict[str, float]:
    """Mean Jaccard over videos, and over those with a still and with a moving camera.

    Args:
        labels, results: Contents of the two JSON files, by video.
        protocol: ``'perception_test'`` as the benchmark's notebook; ``'tapnet'`` leaves out frames before the query.

    Returns:
        ``average_jaccard``, ``average_jaccard_static``, ``average_jaccard_moving`` (NaN where there is no such video).

    Raises:
        ValueError: results name a video without labels, or hold no track for one.
    """
    scores: dict[str, list[float]] = {'': [], '_static': [], '_moving': []}
    for name, result in results.items():
        if name not in labels:
            raise ValueError(
                f"results hold the video '{name}', which the labels do not; pass the labels of the same split"
            )
        if not result.get('point_tracking'):
            raise ValueError(f"results of '{name}' hold no point track; wanted a non-empty list point_tracking")
        arrays = video_arrays(labels[name], result, name=name)
        score = float(compute_tapvid_metrics(**arrays, query_mode='first', protocol=protocol)['average_jaccard'][0])
        scores[''].append(score)
        scores['_moving' if labels[name]['metadata'].get('is_camera_moving') else '_static'].append(score)
    return {f'average_jaccard{key}': float(np.mean(v)) if v else float('nan') for key, v in scores.items()}
