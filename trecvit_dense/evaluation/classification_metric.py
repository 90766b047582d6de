"""MMEngine metric of classification: top-k and mean class accuracy under a named aggregation of the views.

The key says it all: ``kinetics400/4x3/mean_probs/top1`` is the model on 4 clips x 3 crops of each video, whose
probabilities were averaged; ``.../chance/top1`` an answer by lot, ``.../majority/top1`` the most frequent label,
``.../reset/top1`` the model with its state cleared before every frame, when that was predicted, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS
from ..structures import VideoSample
from .functional import classification as rules

METHODS = ('model', 'reset')
WINDOWS = 'windows'  # stands in the key in place of clips x crops where windows of a video are one answer


@METRICS.register_module()
class ClassificationMetric(BaseMetric):
    """Top-k accuracy and mean class accuracy, with chance and the worst classes beside them.

    Args:
        dataset_name: First part of every key.
        aggregation: How views become one answer, one name or several: see
            :func:`.functional.classification.aggregate_views`.
        topk: Which k are reported; those that no model can miss, k of k classes, are left out.
        windows: Samples with the same ``meta['video']`` are windows of one video, as in LVU, where
            ``aggregation='sum_probs'`` is the rule.
        ties: See :func:`.functional.classification.topk_hits`.
        class_set: See :func:`.functional.classification.mean_class_accuracy`.
        worst: Report this many classes with the lowest accuracy, and what they are mostly taken for.
        per_class: Report all classes.

    Raises:
        ValueError: an unknown rule; later, a sample without label or prediction, or whose label is no class.
    """

    def __init__(
        self,
        dataset_name: str = 'classification',
        aggregation: str | Sequence[str] = 'mean_probs',
        *,
        topk: Sequence[int] = (1, 5),
        windows: bool = False,
        ties: str = 'expected',
        class_set: str = 'labels',
        worst: int = 5,
        per_class: bool = False,
        task: str = 'classification',
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix=dataset_name, collect_dir=collect_dir)
        self.aggregations = (aggregation,) if isinstance(aggregation, str) else tuple(aggregation)
        for name in self.aggregations:
            rules.check_name('aggregation', name, rules.AGGREGATIONS)
        rules.check_name('ties', ties, rules.TIES)
        rules.check_name('class_set', class_set, rules.CLASS_SETS)
        if not topk or min(topk) < 1 or worst < 0:
            raise ValueError(f'topk is {tuple(topk)}, worst is {worst}; wanted numbers from 1, and 0 or more classes')
        self.topk, self.windows, self.ties, self.class_set = tuple(topk), windows, ties, class_set
        self.worst, self.per_class, self.task = worst, per_class, task

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        """Keep the scores of each video."""
        for sample in data_samples:
            self.results.append(
                dict(
                    video=sample_video(sample) if self.windows else sample.name,
                    label=int(sample.label) if sample.label is not None else None,
                    class_name=sample.meta.get('class_name'),
                    protocol=WINDOWS if self.windows else 'x'.join(map(str, sample.meta.get('views', (1, 1)))),
                    scores=self._scores(sample),
                )
            )

    def _scores(self, sample: VideoSample) -> dict[str, dict[str, Any]]:
        """Method to aggregation to ``(C,)``, and the number of views."""
        found = {}
        for method, prediction in class_predictions(sample, self.task).items():
            views = {kind: np.asarray(prediction[f'view_{kind}'].cpu(), np.float64) for kind in ('probs', 'logits')}
            found[method] = dict(num_views=len(views['probs']))
            for name in self.aggregations:
                found[method][name] = rules.aggregate_views(views[name.rpartition('_')[2]], name).astype(np.float32)
        return found

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for protocol in dict.fromkeys(result['protocol'] for result in results):
            chosen = [result for result in results if result['protocol'] == protocol]
            for name in self.aggregations:
                values = self._summarise(chosen, name)
                metrics.update({f'{protocol}/{name}/{key}': value for key, value in values.items()})
        return metrics

    def _summarise(self, results: list[dict[str, Any]], aggregation: str) -> dict[str, float]:
        names = class_names(results, (self.dataset_meta or {}).get('classes'))
        values: dict[str, float] = {}
        for method in METHODS:
            rows = [result for result in results if method in result['scores']]
            if not rows:
                continue
            scores, labels = self._videos(rows, method, aggregation)
            if method == 'model':
                values.update(num_videos=len(labels), num_classes=scores.shape[1])
                values.update(self._baselines(labels, scores.shape[1]))
                values.update(class_report(scores, labels, names, None if self.per_class else self.worst))
            prefix = '' if method == 'model' else f'{method}/'
            values.update({prefix + key: value for key, value in self._accuracies(scores, labels).items()})
        return values

    def _videos(self, rows: list[dict[str, Any]], method: str, aggregation: str) -> tuple[np.ndarray, np.ndarray]:
        """``(N, C)`` scores and ``(N,)`` labels, one row per video."""
        scores = np.stack([row['scores'][method][aggregation] for row in rows]).astype(np.float64)
        labels = [row['label'] for row in rows]
        if self.windows:
            videos, counts = [row['video'] for row in rows], [row['scores'][method]['num_views'] for row in rows]
            names, scores = rules.aggregate_windows(scores, videos, counts, aggregation=aggregation)
            labels = rules.one_per_video(names, videos, labels)
        return scores, np.array(labels, np.int64)

    def _accuracies(self, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        values = {
            f'top{k}': rules.topk_accuracy(scores, labels, k, ties=self.ties) for k in self._reported(scores.shape[1])
        }
        return values | dict(mean_class_accuracy=rules.mean_class_accuracy(scores, labels, class_set=self.class_set))

    def _baselines(self, labels: np.ndarray, num_classes: int) -> dict[str, float]:
        values = {}
        for k in self._reported(num_classes):
            values[f'chance/top{k}'] = rules.chance_accuracy(num_classes, k)
            values[f'majority/top{k}'] = rules.majority_accuracy(labels, k)
        values['chance/mean_class_accuracy'] = rules.chance_accuracy(num_classes)
        values['majority/mean_class_accuracy'] = 1 / len(np.unique(labels))
        return values

    def _reported(self, num_classes: int) -> list[int]:
        return [k for k in self.topk if k == 1 or k < num_classes]


def class_predictions(sample: VideoSample, task: str = 'classification') -> dict[str, dict[str, Any]]:
    """``'model'`` and, if it was made, ``'reset'``, of a labelled sample.

    Raises:
        ValueError: label or prediction is missing, or the label is no class of the model.
    """
    if sample.label is None:
        raise ValueError(f"video '{sample.name}' has no label; use a data set with labels")
    if task not in sample.predictions:
        raise ValueError(
            f"video '{sample.name}' has no predictions['{task}']; does the model have a head named {task}?"
        )
    found = {'model': sample.predictions[task]}
    if f'{task}_reset' in sample.predictions:
        found['reset'] = sample.predictions[f'{task}_reset']
    classes = found['model']['view_probs'].shape[-1]
    if not 0 <= sample.label < classes:
        raise ValueError(
            f"video '{sample.name}' has label {sample.label}; the model knows {classes} classes, wanted 0 to "
            f'{classes - 1}: do model and data set belong together?'
        )
    return found


def sample_video(sample: VideoSample) -> str:
    """Which video a window is from."""
    if 'video' not in sample.meta:
        raise ValueError(f"sample '{sample.name}' has no meta['video']; wanted it where windows are put together")
    return str(sample.meta['video'])


def class_names(results: list[dict[str, Any]], classes: Sequence[str] | None) -> dict[int, str]:
    """Label to name, as far as the data set or its samples say."""
    names = {result['label']: result['class_name'] for result in results if result['class_name'] is not None}
    return names | dict(enumerate(classes or ()))


def class_report(
    scores: np.ndarray, labels: np.ndarray, names: dict[int, str], worst: int | None = None
) -> dict[str, float]:
    """``per_class/<name>/{accuracy, num_videos}`` and ``.../mistaken_for/<other>``, the share of the commonest mistake.

    Args:
        worst: Only this many classes, those with the lowest accuracy; None: all.
    """
    matrix = rules.confusion_matrix(scores, labels)
    counts = matrix.sum(axis=1)
    present = np.flatnonzero(counts)
    accuracy = np.diag(matrix)[present] / counts[present]
    chosen = present[np.argsort(accuracy, kind='stable')][:worst]
    values: dict[str, float] = {}
    for label in chosen.tolist():
        prefix, row = f'per_class/{names.get(label, label)}', matrix[label].astype(np.float64) / counts[label]
        values[f'{prefix}/accuracy'], values[f'{prefix}/num_videos'] = float(row[label]), int(counts[label])
        row[label] = 0
        if row.max() > 0:
            other = int(row.argmax())
            values[f'{prefix}/mistaken_for/{names.get(other, other)}'] = float(row[other])
    return values
