"""MMEngine metric of one number per video, such as LVU's ratio of likes: mean squared error over videos.

``lvu_like_ratio/mean/MSE`` is the model, the mean over the windows of each video; ``.../constant/MSE`` the best
constant, which knows the mean of the targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS
from ..structures import VideoSample
from .classification_metric import sample_video
from .functional import classification as rules


@METRICS.register_module()
class RegressionMetric(BaseMetric):
    """MSE and MAE of the mean prediction over the views, and over the windows, of a video.

    Args:
        dataset_name: First part of every key.
        windows: Samples with the same ``meta['video']`` are windows of one video, as in LVU.

    Raises:
        ValueError: (later) a sample without target or prediction.
    """

    def __init__(
        self,
        dataset_name: str = 'regression',
        *,
        windows: bool = False,
        task: str = 'regression',
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix=dataset_name, collect_dir=collect_dir)
        self.windows, self.task = windows, task

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        for sample in data_samples:
            values, target = sample_values(sample, self.task)
            video = sample_video(sample) if self.windows else sample.name
            self.results.append(dict(video=video, sum=float(values.sum()), count=len(values), target=target))

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        if not results:
            return {}
        # Without windows every row is a video of its own, whatever its name.
        videos = [result['video'] if self.windows else str(index) for index, result in enumerate(results)]
        counts = [result['count'] for result in results]
        means = np.array([result['sum'] for result in results]) / counts
        names, found = rules.aggregate_windows(means, videos, counts, aggregation='mean')
        targets = np.array(rules.one_per_video(names, videos, [result['target'] for result in results]))
        error, constant = found - targets, targets - targets.mean()
        values = {
            'MSE': np.mean(error**2),
            'MAE': np.mean(np.abs(error)),
            'constant/MSE': np.mean(constant**2),
            'constant/MAE': np.mean(np.abs(targets - np.median(targets))),
            'num_videos': len(names),
        }
        return {f'mean/{key}': float(value) for key, value in values.items()}


def sample_values(sample: VideoSample, task: str) -> tuple[np.ndarray, float]:
    """``(V,)`` predictions of the views, and the target.

    Raises:
        ValueError: one of them is missing.
    """
    if sample.meta.get('target') is None:
        raise ValueError(f"video '{sample.name}' has no meta['target']; use a data set for regression")
    if task not in sample.predictions:
        raise ValueError(
            f"video '{sample.name}' has no predictions['{task}']; does the model have a head named {task}?"
        )
    return np.asarray(sample.predictions[task]['view_values'].cpu(), np.float64), float(sample.meta['target'])
