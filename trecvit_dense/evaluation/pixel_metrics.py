"""MMEngine metrics of what is painted: hidden patches (masked pre-training) and frames of the past (memorisation)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS
from ..structures import VideoSample
from .functional.pixels import psnr, recall_errors, reconstruction_errors


class _PixelMetric(BaseMetric):
    """Means over videos of the numbers that :meth:`score` gives for each; ``task`` is the head's."""

    def __init__(
        self, dataset_name: str, task: str, *, collect_device: str = 'cpu', collect_dir: str | None = None
    ) -> None:
        super().__init__(collect_device, prefix=dataset_name, collect_dir=collect_dir)
        self.task = task

    def score(self, prediction: Any) -> dict[str, float]:
        raise NotImplementedError

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        """Score each clip; only its numbers are kept."""
        for sample in data_samples:
            if self.task not in sample.predictions:
                raise ValueError(
                    f"video '{sample.name}' has no predictions['{self.task}']; does the model have a head of that name?"
                )
            try:
                self.results.append(self.score(sample.predictions[self.task]))
            except ValueError as error:
                raise ValueError(f"video '{sample.name}': {error}") from None

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        keys = dict.fromkeys(key for result in results for key in result)
        return {key: float(np.mean([result[key] for result in results if key in result])) for key in keys}


@METRICS.register_module()
class ReconstructionMetric(_PixelMetric):
    """Mean squared error of hidden patches in deviations of each, and of what a model must beat.

    ``mse`` is the model; ``mean_patch/mse`` paints each patch's own mean, which is 1 but for ``target_eps`` (and asks
    the truth for that mean); ``copy_visible/mse`` copies, normalised, the last seen patch of the same place, or where
    none has been seen the nearest seen patch of the frame; ``copy_previous/mse`` copies the same place of the frame
    before, hidden or not, which no model is shown.

    Args:
        dataset_name: First part of every key.
        task: Name of the :class:`.MaskedAutoencoderHead` in the model.
    """

    def __init__(self, dataset_name: str = 'masked', task: str = 'reconstruction', **options: Any) -> None:
        super().__init__(dataset_name, task, **options)

    def score(self, prediction: Any) -> dict[str, float]:
        errors = reconstruction_errors(
            prediction.patches, prediction.targets, prediction.hidden, grid=prediction.grid, patch=prediction.patch
        )
        return {'mse' if name == 'model' else f'{name}/mse': value for name, value in errors.items()}


@METRICS.register_module()
class RecallMetric(_PixelMetric):
    """Error of frames seen some time ago, for each distance: ``recall/16/PSNR``, ``recall/16/mse`` and so on.

    ``mean_frame`` answers with the mean of the frames so far, ``copy_current`` with the present frame;
    ``over_mean`` and ``over_copy`` are the model's error in units of theirs. Only frames count that have such a past.

    Args:
        dataset_name: First part of every key.
        task: Name of the :class:`.FrameRecall` in the model.
        peak: Range of the model's input, for PSNR: 1 for ``value_range='unit'``, 2 for ``'signed'``.
    """

    def __init__(
        self, dataset_name: str = 'recall', task: str = 'recall', *, peak: float = 1.0, **options: Any
    ) -> None:
        super().__init__(dataset_name, task, **options)
        self.peak = peak

    def score(self, prediction: Any) -> dict[str, float]:
        errors = recall_errors(prediction.patches, prediction.truth, prediction.asked)
        return {f'{distance}/{name}/mse': value for distance, found in errors.items() for name, value in found.items()}

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        means, metrics = super().compute_metrics(results), {}
        for distance in dict.fromkeys(key.split('/')[0] for key in means):
            errors = {name: means[f'{distance}/{name}/mse'] for name in ('model', 'mean_frame', 'copy_current')}
            metrics.update({f'{distance}/{key}': value for key, value in recall_scores(errors, self.peak).items()})
        return metrics


def recall_scores(errors: dict[str, float], peak: float) -> dict[str, float]:
    """What is reported of the errors at one distance; nan where a baseline makes no error at all."""
    model, mean, copy = errors['model'], errors['mean_frame'], errors['copy_current']
    return {
        'mse': model,
        'PSNR': psnr(model, peak),
        'mean_frame/PSNR': psnr(mean, peak),
        'copy_current/PSNR': psnr(copy, peak),
        'over_mean': model / mean if mean else float('nan'),
        'over_copy': model / copy if copy else float('nan'),
    }
