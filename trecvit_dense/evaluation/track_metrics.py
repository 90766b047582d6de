"""MMEngine metrics of long tracks: AJ_RD (re-detection) and PointOdyssey."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS
from ..structures import PointTracks, VideoSample
from .functional import aj_rd, point_odyssey
from .functional.tapvid import zero_motion
from .tapvid_metric import at_resolution, check_nan_policy, mean_over_videos, point_predictions


@METRICS.register_module()
class AJRDMetric(BaseMetric):
    """AJ_RD: is a point found again after it was out of sight? Keys ``<dataset>/aj_rd/256/AJ_RD`` and per bin.

    Args:
        dataset_name: First part of every key.
        resolution: Side in px of the square on which errors are measured.
        pool: ``'events'``: every reappearance of the data set weighs the same; ``'videos'``: every video that has one
            does. The authors publish the function for one batch and not how they pool a data set.
    """

    task = 'points'

    def __init__(
        self,
        dataset_name: str = 'tapvid',
        *,
        resolution: int = 256,
        pool: str = 'events',
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix=f'{dataset_name}/aj_rd/{resolution}', collect_dir=collect_dir)
        if pool not in ('events', 'videos'):
            raise ValueError(f"pool is '{pool}'; wanted 'events' or 'videos'")
        self.resolution, self.pool = resolution, pool

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        """Find and score the reappearances of each video; only their numbers are kept."""
        for sample in data_samples:
            truth = self._arrays(sample.points, sample)
            events = {
                name: aj_rd.compute_aj_rd(*self._arrays(tracks, sample), *truth)[1]
                for name, tracks in point_predictions(sample).items()
            }
            self.results.append(events)

    def _arrays(self, tracks: PointTracks, sample: VideoSample) -> tuple[np.ndarray, np.ndarray]:
        """``(1, T, N, 2)`` and ``(1, T, N)``: time before points."""
        xy = at_resolution(np.asarray(tracks.xy_px, np.float32), sample.size, self.resolution).astype(np.float32)
        return xy.transpose(1, 0, 2)[None], np.asarray(tracks.visible, bool).T[None]

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for method in dict.fromkeys(name for result in results for name in result):
            videos = [result[method] for result in results if method in result]
            prefix = '' if method == 'model' else f'{method}/'
            metrics.update({prefix + key: value for key, value in self._pooled(videos).items()})
        metrics['num_events'] = sum(len(result['model']['duration']) for result in results)
        return metrics

    def _pooled(self, videos: list[dict[str, np.ndarray]]) -> dict[str, float]:
        if self.pool == 'events':
            return aj_rd.summarise_events({key: np.concatenate([video[key] for video in videos]) for key in videos[0]})
        rows = [aj_rd.summarise_events(video) for video in videos]
        return {key: _mean_of_defined([row[key] for row in rows]) for key in rows[0]}


def _mean_of_defined(values: list[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float('nan')


@METRICS.register_module()
class PointOdysseyMetric(BaseMetric):
    """PointOdyssey: position accuracy, survival and median error, keys ``pointodyssey/pips2/256/d_avg`` and so on.

    The weights of the frames come from ``sample.meta['valid']`` ``(N, T)``; without it every frame counts.

    Args:
        dataset_name: First part of every key.
        variant: ``'pips2'``, the benchmark's own evaluator, or ``'cotracker'``.
        survival_threshold_px: None: the variant's own, 16 and 50. The paper says 50, the benchmark's code 16.
        nan_policy: ``'exclude'`` leaves videos with an undefined value out of that value's mean, with a warning that
            names them; ``'official'`` lets the mean be NaN.
    """

    task = 'points'

    def __init__(
        self,
        dataset_name: str = 'pointodyssey',
        *,
        variant: str = 'pips2',
        survival_threshold_px: float | None = None,
        nan_policy: str = 'exclude',
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix=f'{dataset_name}/{variant}/256', collect_dir=collect_dir)
        if variant not in ('pips2', 'cotracker'):
            raise ValueError(f"variant is '{variant}'; wanted 'pips2' or 'cotracker'")
        check_nan_policy(nan_policy)
        self.variant, self.nan_policy = variant, nan_policy
        self.options = {} if survival_threshold_px is None else dict(survival_threshold_px=survival_threshold_px)

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        """Score each video; only its numbers are kept."""
        for sample in data_samples:
            truth = sample.points
            tracks = {name: tracks.xy_px for name, tracks in point_predictions(sample).items()}
            tracks['zero_motion'] = zero_motion(truth.query_txy[:, [0, 2, 1]], sample.num_frames)[0]
            scores = {name: self._score(xy, sample) for name, xy in tracks.items()}
            self.results.append(dict(name=sample.name, scores=scores))

    def _score(self, xy_px: np.ndarray, sample: VideoSample) -> dict[str, float]:
        truth = sample.points
        flags = sample.meta.get('valid', np.ones_like(truth.visible)) if self.variant == 'pips2' else truth.visible
        score = point_odyssey.pips2_metrics if self.variant == 'pips2' else point_odyssey.cotracker_metrics
        gt, pred = truth.xy_px.transpose(1, 0, 2), np.asarray(xy_px).transpose(1, 0, 2)  # (T, N, 2)
        return score(gt, pred, np.asarray(flags).T, image_size=sample.size, **self.options)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        metrics: dict[str, float] = dict(num_videos=len(results))
        for method in dict.fromkeys(name for result in results for name in result['scores']):
            rows = [result['scores'][method] for result in results if method in result['scores']]
            means = mean_over_videos(rows)
            if self.nan_policy == 'exclude':
                means = {key: _mean_of_defined([row[key] for row in rows]) for key in means}
            prefix = '' if method == 'model' else f'{method}/'
            metrics.update({prefix + key: value for key, value in means.items()})
        undefined = [result['name'] for result in results if np.isnan(list(result['scores']['model'].values())).any()]
        if undefined and self.nan_policy == 'exclude':
            warnings.warn(f'left out of a mean, it is undefined there: {", ".join(undefined)}', stacklevel=2)
        return metrics
