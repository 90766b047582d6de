"""MMEngine metrics of point tracking: thin wrappers around ``functional``. Every key carries the protocol.

``tapvid/first/256/AJ`` is the model, ``tapvid/first/256/zero_motion/AJ`` a prediction that never moves, and
``tapvid/first/256/reset/AJ`` the model with its memory cleared before every frame (when that was predicted, too).
``.../lucas_kanade/AJ`` is the classic tracker, on request.
``.../occluded/...`` counts only the points that were hidden at some time after their query, ``.../reappear/...`` those
of them that came back.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS
from ..structures import PointTracks, VideoSample
from .functional.tapvid import (
    THRESHOLDS_PX,
    check_query_mode,
    compute_tapvid_metrics,
    hidden_later,
    reappearing,
    zero_motion,
)

NAN_POLICIES = ('exclude', 'official')
_OTHERS = ('lucas_kanade', 'reset')  # beside the model's: predictions['points_<name>']
_SUBSETS = {'occluded': hidden_later, 'reappear': reappearing}
_SHORT = {'average_jaccard': 'AJ', 'average_pts_within_thresh': 'delta_avg', 'occlusion_accuracy': 'OA'}
_SHORT.update(
    {f'jaccard_{d}': f'jaccard_{d}' for d in THRESHOLDS_PX}, **{f'pts_within_{d}': f'delta_{d}' for d in THRESHOLDS_PX}
)


def point_predictions(sample: VideoSample) -> dict[str, PointTracks]:
    """``'model'`` and, when they were predicted, ``'reset'`` and ``'lucas_kanade'``, checked against the ground truth.

    Raises:
        ValueError: ground truth or prediction is missing, or they do not fit.
    """
    if sample.points is None or sample.points.query_txy is None:
        raise ValueError(f"video '{sample.name}' has no annotated points with queries; use a point-tracking dataset")
    if 'points' not in sample.predictions:
        raise ValueError(
            f"video '{sample.name}' has no predictions['points']; does the model have a head named points?"
        )
    found = {'model': sample.predictions['points']}
    for other in _OTHERS:
        if f'points_{other}' in sample.predictions:
            found[other] = sample.predictions[f'points_{other}']
    for tracks in found.values():
        if tracks.xy_px.shape != sample.points.xy_px.shape:
            raise ValueError(
                f"video '{sample.name}': prediction has shape {tracks.xy_px.shape}, ground truth "
                f'{sample.points.xy_px.shape}; wanted one predicted row per query'
            )
    return found


def at_resolution(xy_px: np.ndarray, size: tuple[int, int], resolution: int) -> np.ndarray:
    """``(..., 2)`` px of an ``(H, W)`` frame to px of a square one, by the plain ratio that the benchmark uses."""
    if tuple(size) == (resolution, resolution):
        return xy_px
    return xy_px * np.array([resolution / size[1], resolution / size[0]])


def mean_over_videos(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Every key's plain mean; each video weighs the same."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}


def check_nan_policy(nan_policy: str) -> None:
    if nan_policy not in NAN_POLICIES:
        raise ValueError(f"nan_policy is '{nan_policy}'; wanted 'exclude' or 'official'")


@METRICS.register_module()
class TapVidMetric(BaseMetric):
    """TAP-Vid: AJ, position accuracy (delta) and occlusion accuracy, with a zero-motion baseline beside the model.

    Args:
        dataset_name: First part of every key.
        query_mode: ``'first'`` or ``'strided'``. None: what each sample's ``meta['query_mode']`` says.
        resolution: Side in px of the square on which errors are measured; the benchmark's thresholds mean 256.
        nan_policy: A video without any visible point to evaluate has no score. ``'exclude'`` leaves it out and names it
            in a warning; ``'official'`` lets it turn the mean into NaN, as the official code does.
        per_video: Also report ``.../per_video/<name>/AJ`` and so on.
    """

    task = 'points'

    def __init__(
        self,
        dataset_name: str = 'tapvid',
        *,
        query_mode: str | None = None,
        resolution: int = 256,
        nan_policy: str = 'exclude',
        per_video: bool = False,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix=dataset_name, collect_dir=collect_dir)
        if query_mode is not None:
            check_query_mode(query_mode)
        check_nan_policy(nan_policy)
        self.query_mode, self.resolution, self.nan_policy, self.per_video = (
            query_mode,
            resolution,
            nan_policy,
            per_video,
        )

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        """Score each video; only its numbers are kept."""
        for sample in data_samples:
            mode = self.query_mode or sample.meta.get('query_mode', 'first')
            check_query_mode(mode)
            self.results.append(score_video(sample, mode, self.resolution))

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for mode in sorted({result['mode'] for result in results}):
            chosen = [result for result in results if result['mode'] == mode]
            summary = self._summarise(chosen)
            metrics.update({f'{mode}/{self.resolution}/{key}': value for key, value in summary.items()})
        return metrics

    def _summarise(self, results: list[dict[str, Any]]) -> dict[str, float]:
        results = self._defined(results)
        metrics = dict(num_videos=len(results), num_points=sum(result['num_points'] for result in results))
        for subset in ('all', *_SUBSETS):
            counted = [result for result in results if result[subset]]
            part = '' if subset == 'all' else f'{subset}/'
            for method in dict.fromkeys(name for result in counted for name in result[subset]):
                rows = [result[subset][method] for result in counted if method in result[subset]]
                prefix = part if method == 'model' else f'{method}/{part}'
                metrics.update({prefix + key: value for key, value in mean_over_videos(rows).items()})
            if part and counted:
                metrics[f'{part}num_points'] = sum(result['counts'][subset] for result in counted)
        if self.per_video:
            metrics.update(_per_video(results))
        return metrics

    def _defined(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.nan_policy == 'official':
            return results
        # The zero-motion row depends on the annotation alone, so a bad prediction cannot take a video out.
        empty = [result for result in results if np.isnan(list(result['all']['zero_motion'].values())).any()]
        if empty:
            names = ', '.join(result['name'] for result in empty)
            warnings.warn(f'left out of the mean, no visible point to evaluate: {names}', stacklevel=2)
        return [result for result in results if not any(result is other for other in empty)]


def score_video(sample: VideoSample, query_mode: str, resolution: int) -> dict[str, Any]:
    """Numbers of one video: ``'all'`` and each subset map a method (model, zero_motion, reset) to its metrics."""
    truth, size = sample.points, sample.size
    predictions = point_predictions(sample)
    # The benchmark's axes: query (t, y, x), flags say occluded, one leading batch axis.
    query_xy = at_resolution(truth.query_txy[:, 1:], size, resolution)
    query = np.stack([truth.query_txy[:, 0], query_xy[:, 1], query_xy[:, 0]], axis=-1)
    target, occluded = at_resolution(truth.xy_px, size, resolution), ~truth.visible
    still_xy, still_occluded = zero_motion(query, target.shape[1])
    methods = {
        name: (~np.asarray(tracks.visible, bool), at_resolution(np.asarray(tracks.xy_px), size, resolution))
        for name, tracks in predictions.items()
    }
    methods['zero_motion'] = (still_occluded, still_xy)
    chosen = {subset: choose(query, occluded) for subset, choose in _SUBSETS.items()}

    def scores(rows: np.ndarray) -> dict[str, dict[str, float]]:
        if not rows.any():
            return {}
        fixed = [array[rows][None] for array in (query, occluded, target)]
        return {
            name: _shorten(compute_tapvid_metrics(*fixed, *(array[rows][None] for array in arrays), query_mode))
            for name, arrays in methods.items()
        }

    everything = scores(np.ones(len(query), bool)) or {name: dict.fromkeys(_SHORT.values(), np.nan) for name in methods}
    return dict(
        name=sample.name,
        mode=query_mode,
        num_points=len(query),
        counts={subset: int(rows.sum()) for subset, rows in chosen.items()},
        all=everything,
        **{subset: scores(rows) for subset, rows in chosen.items()},
    )


def _shorten(metrics: dict[str, np.ndarray]) -> dict[str, float]:
    return {short: float(metrics[long][0]) for long, short in _SHORT.items()}


def _per_video(results: list[dict[str, Any]]) -> dict[str, float]:
    metrics = {}
    for result in results:
        for method, row in result['all'].items():
            part = '' if method == 'model' else f'{method}/'
            metrics.update({f'per_video/{result["name"]}/{part}{key}': row[key] for key in ('AJ', 'delta_avg', 'OA')})
    return metrics
