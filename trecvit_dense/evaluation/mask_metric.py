"""MMEngine metric of video object segmentation: J and F by the rules of a benchmark, beside what must be beaten.

``davis/J&F`` is the model; ``davis/copy_first/J&F`` copies the given mask of each object to every later frame;
``davis/label_propagation/J&F`` and ``davis/reset/J&F`` are other predictions, when they were made.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric

from ..io.mask_file import write_mask
from ..registry import METRICS
from ..structures import ObjectMasks, VideoSample
from .functional.vos import ObjectScores
from .mask_protocols import Groups, SequenceFacts, check_decay, find_protocol, report

_OTHERS = ('label_propagation', 'reset')  # beside the model's: predictions['masks_<name>']


@METRICS.register_module()
class MaskMetric(BaseMetric):
    """J, F and J&F with recall and decay over all objects, or what the protocol reports instead.

    An object counts from the frame after the one on which it was given, on frames that carry truth
    (``masks.annotated``). Predictions of another size than the truth are resized to it, nearest neighbour.

    Args:
        dataset_name: First part of every key. None: that of the protocol.
        protocol: ``'davis2017-semi'``, ``'davis2016'``, ``'davis2017-unsupervised'``, ``'youtubevos'``, ``'mose'``,
            ``'mosev2'`` or ``'lvos'``; docs/evaluate_masks.md says what each does.
        per_sequence: Also report ``.../per_sequence/<name>/J`` and so on.
        save_dir: Write the model's masks as palette PNGs, ``<save_dir>/<sequence>/<frame>.png``, as servers take them.
        seen, unseen: Categories (youtubevos) or videos (lvos). One of the two will do; for lvos
            ``meta['unseen']`` of the samples will, too.
        decay: ``'sound'`` or ``'official'``, see :func:`.functional.davis.statistics`.

    Raises:
        ValueError: unknown protocol or rule; later, a sample without truth or prediction, or that does not fit.
    """

    task = 'masks'

    def __init__(
        self,
        dataset_name: str | None = None,
        *,
        protocol: str = 'davis2017-semi',
        per_sequence: bool = False,
        save_dir: str | None = None,
        seen: Sequence[str] | None = None,
        unseen: Sequence[str] | None = None,
        decay: str = 'sound',
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        self.protocol = find_protocol(protocol)
        check_decay(decay)
        parts = (dataset_name or self.protocol.dataset, self.protocol.key)
        super().__init__(collect_device, prefix='/'.join(part for part in parts if part), collect_dir=collect_dir)
        self.per_sequence, self.decay = per_sequence, decay
        self.save_dir = Path(save_dir) if save_dir else None
        self.groups = Groups(*(None if names is None else set(names) for names in (seen, unseen)))

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        """Score each video, and write its masks if wanted; only numbers are kept."""
        for sample in data_samples:
            predictions = mask_predictions(sample)
            if self.save_dir is not None:
                save_masks(predictions['model'], sample, self.save_dir)
            rows = {}
            frames = annotated_frames(sample.masks)
            if len(frames) >= self.protocol.least:
                predictions['copy_first'] = CopyFirst(sample.masks)
                rows = {name: self._score(sample, masks, frames) for name, masks in predictions.items()}
            self.results.append(dict(name=sample.name, unseen=sample.meta.get('unseen'), rows=rows))

    def _score(self, sample: VideoSample, labels: Any, frames: list[int]) -> list[ObjectScores]:
        truth, facts = sample.masks, sequence_facts(sample, frames)
        try:
            return self.protocol.score(Chosen(truth.labels, frames), Chosen(labels, frames), facts)
        except ValueError as error:
            raise ValueError(f"video '{sample.name}': {error}") from None

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        empty = [result['name'] for result in results if not any(result['rows'].values())]
        if empty:
            warnings.warn(f'not scored, too few annotated frames after the given one: {", ".join(empty)}', stacklevel=2)
        metrics: dict[str, float] = {}
        methods = dict.fromkeys(method for result in results for method in result['rows'])
        for method in methods:
            scores = {result['name']: result['rows'].get(method, []) for result in results}
            options = dict(decay=self.decay, per_sequence=self.per_sequence)
            values = report(self.protocol, scores, self._groups(results), **options)
            if method != 'model':
                values = {_baseline_key(method, k): v for k, v in values.items() if not k.startswith('num_')}
            metrics.update(values)
        return metrics or dict(num_sequences=0, num_objects=0)

    def _groups(self, results: list[dict[str, Any]]) -> Groups:
        known = [result['name'] for result in results if result['unseen']]
        if self.groups.unseen is None and self.groups.seen is None and known:
            return Groups(unseen=known)
        return self.groups


def _baseline_key(method: str, key: str) -> str:
    """``copy_first/J``, but ``per_sequence/<name>/copy_first/J``."""
    if key.startswith('per_sequence/'):
        head, _, tail = key.rpartition('/')
        return f'{head}/{method}/{tail}'
    return f'{method}/{key}'


def mask_predictions(sample: VideoSample) -> dict[str, np.ndarray]:
    """``(T, H, W)`` labels in the size of the truth: ``'model'`` and other predictions that were made.

    Raises:
        ValueError: truth or prediction is missing, or they do not fit.
    """
    if sample.masks is None:
        raise ValueError(f"video '{sample.name}' has no object masks; use a data set of segmentation")
    if 'masks' not in sample.predictions:
        raise ValueError(f"video '{sample.name}' has no predictions['masks']; does the model have a head named masks?")
    found = {'model': sample.predictions['masks']}
    found.update(
        {name: sample.predictions[f'masks_{name}'] for name in _OTHERS if f'masks_{name}' in sample.predictions}
    )
    shape = sample.masks.labels.shape
    for masks in found.values():
        if masks.labels.ndim != 3 or len(masks.labels) != shape[0]:
            raise ValueError(
                f"video '{sample.name}': prediction has shape {masks.labels.shape}, truth {shape}; wanted one mask a "
                f'frame'
            )
    return {name: resize_labels(masks.labels, shape[1:]) for name, masks in found.items()}


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``(T, H, W)`` ids at another ``(H, W)``, nearest neighbour."""
    if labels.shape[1:] == tuple(size):
        return labels
    # INTER_NEAREST_EXACT takes the pixel under the centre; plain INTER_NEAREST is shifted by half a pixel.
    return np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for frame in labels])


def annotated_frames(masks: ObjectMasks) -> list[int]:
    """Indices of the frames that carry truth."""
    annotated = np.ones(len(masks.labels), bool) if masks.annotated is None else masks.annotated
    return np.flatnonzero(annotated).tolist()


def sequence_facts(sample: VideoSample, frames: list[int]) -> SequenceFacts:
    """What the protocols need, with frame indices among the annotated ones."""
    names = sample.meta.get('frame_names') or [str(t) for t in range(len(sample.masks.labels))]
    given = sample.masks.first_frame or [0] * len(sample.masks.ids)
    # The first annotated frame from the given one on: an object may be given on a frame without truth.
    first = {i: int(np.searchsorted(frames, t)) for i, t in zip(sample.masks.ids, given, strict=True)}
    return SequenceFacts(
        sample.name,
        [names[t] for t in frames],
        first,
        sample.meta.get('categories') or {},
        sample.meta.get('frame_range') or None,
        sample.masks.ids,
    )


class Chosen:
    """Some frames of a video."""

    def __init__(self, labels: Any, frames: list[int]) -> None:
        self.labels, self.frames = labels, frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, t: int) -> np.ndarray:
        return self.labels[self.frames[t]]


class CopyFirst:
    """The given mask of each object on every later frame; where two meet, the one that was given later."""

    def __init__(self, masks: ObjectMasks) -> None:
        first = masks.first_frame or [0] * len(masks.ids)
        self.given = sorted(zip(first, masks.ids, strict=True))
        self.labels = masks.labels

    def __getitem__(self, t: int) -> np.ndarray:
        copied = np.zeros_like(self.labels[0])
        for start, object_id in self.given:
            if start <= t:
                copied[self.labels[start] == object_id] = object_id
        return copied


def save_masks(labels: np.ndarray, sample: VideoSample, folder: Path) -> None:
    """``<folder>/<sequence>/<frame>.png``, palette PNGs; only the frames that a server wants, where that is known."""
    names = sample.meta.get('frame_names') or [f'{t:05d}' for t in range(len(labels))]
    wanted = sample.meta.get('output_names')
    target = folder / sample.name
    target.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(names, labels, strict=True):
        if wanted is None or name in wanted:
            write_mask(target / f'{name}.png', frame)
