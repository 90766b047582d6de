"""Cross-entropy with labels, or with the mixtures of labels that mixup and cutmix make."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from trecvit_dense.structures import VideoSample

LABEL_WEIGHTS = 'label_weights'  # in VideoSample.meta: {class: weight}, in place of the one label of the sample


def label_weights(sample: VideoSample) -> dict[int, float]:
    """Class to weight, summing to 1: what was mixed, else the label.

    Raises:
        ValueError: a sample without a label.
    """
    if LABEL_WEIGHTS in sample.meta:
        return sample.meta[LABEL_WEIGHTS]
    if sample.label is None:
        raise ValueError(f"sample '{sample.name}' has no label; classification trains on labelled videos only")
    return {sample.label: 1.0}


def class_targets(samples: Sequence[VideoSample], num_classes: int, device: torch.device | str = 'cpu') -> Tensor:
    """``(B, num_classes)`` float32 distributions over the classes.

    Raises:
        ValueError: a sample without a label, with one that is no class, or cut into views.
    """
    targets = torch.zeros(len(samples), num_classes)
    for row, sample in zip(targets, samples, strict=True):
        if 'views' in sample.meta:
            raise ValueError(
                f"sample '{sample.name}' is cut into views, which are for testing; train with SampleFrames"
            )
        for label, weight in label_weights(sample).items():
            check_label(label, num_classes, sample.name)
            row[int(label)] += weight
    return targets.to(device)


def check_label(label: object, num_classes: int, name: str) -> None:
    """Raises ValueError when ``label`` of the video ``name`` is none of ``num_classes`` classes."""
    if not isinstance(label, Integral) or not 0 <= label < num_classes:
        raise ValueError(
            f"sample '{name}' has label {label!r}; the head has {num_classes} classes, wanted a whole number from 0 to "
            f'{num_classes - 1} (num_classes of the head, or the class list of the data set)'
        )


def classification_loss(logits: Tensor, samples: Sequence[VideoSample], *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of ``logits`` ``(B, C)``; smoothing mixes every target with the uniform one."""
    targets = class_targets(samples, logits.shape[-1], logits.device)
    return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)


def mix_labels(first: VideoSample, second: VideoSample, share: float) -> dict[int, float]:
    """:func:`label_weights` of a video of which ``share`` is the first one and the rest the second one."""
    mixed: dict[int, float] = {}
    for sample, weight in ((first, share), (second, 1 - share)):
        for label, part in label_weights(sample).items():
            mixed[label] = mixed.get(label, 0.0) + weight * part
    return mixed
