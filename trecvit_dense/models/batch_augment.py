"""Augmentation of whole batches, on the model's device, in normalised space: mixup, cutmix, random erasing.

Each is ``augment(video, samples, rng) -> (video, samples)`` with ``video`` ``(B, T, 3, H, W)`` normalised; what is
given is left as it was. :class:`trecvit_dense.models.VideoPreprocessor` runs them in training.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trecvit_dense.models.losses.classification import LABEL_WEIGHTS, mix_labels
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import VideoSample

Box = tuple[int, int, int, int]  # top, left, height, width, in pixels
_TRIES = 10


@MODELS.register_module()
class MixVideos:
    """Mixup (arXiv 1710.09412) or cutmix (1905.04899) of the videos of a batch with each other, and of their labels.

    One share is drawn for a batch, from ``Beta(alpha, alpha)``, and a random order of the videos gives each its
    partner. Mixup adds the two videos up; cutmix puts a box of the partner, the same in all frames, in the video, and
    the labels follow the area. Labels then stand in ``meta['label_weights']``, where the losses look first.

    Args:
        mixup_alpha: Of mixup (0.4 in XViT's Kinetics recipe); 0: no mixup.
        cutmix_alpha: Of cutmix; 0: no cutmix.
        cutmix_share: Probability of cutmix where both are on.
        p: Probability that a batch is mixed at all.

    Raises:
        ValueError: a number out of range; on call, a sample without a label, or with annotations other than a label,
            which cannot be mixed.
    """

    def __init__(
        self, *, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0, cutmix_share: float = 0.5, p: float = 1.0
    ) -> None:
        for name, value in dict(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha).items():
            if not 0 <= value < float('inf'):
                raise ValueError(f'MixVideos: {name} is {value}; wanted 0 (off) or a positive number')
        if not mixup_alpha and not cutmix_alpha:
            raise ValueError('MixVideos: mixup_alpha and cutmix_alpha are both 0; wanted at least one of them')
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.p, self.cutmix_share = probability('MixVideos', p=p), probability('MixVideos', cutmix_share=cutmix_share)

    def __call__(
        self, video: Tensor, samples: list[VideoSample], rng: np.random.Generator
    ) -> tuple[Tensor, list[VideoSample]]:
        if rng.random() >= self.p:
            return video, samples
        check_label_alone('MixVideos', samples)
        cut = self.cutmix_alpha > 0 and (not self.mixup_alpha or rng.random() < self.cutmix_share)
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        share, order = float(rng.beta(alpha, alpha)), rng.permutation(len(samples))
        other = video[torch.from_numpy(order).to(video.device)]
        if cut:
            box = box_of_area(video.shape[-2:], 1 - share, rng)
            video, share = put_box(video, other, box), 1 - box[2] * box[3] / (video.shape[-2] * video.shape[-1])
        else:
            video = share * video + (1 - share) * other
        return video, [mixed_sample(a, samples[b], share) for a, b in zip(samples, order, strict=True)]


@MODELS.register_module()
class RandomErasing:
    """Random erasing (arXiv 1708.04896): a box of each clip, the same in all frames, becomes 0 in normalised space.

    Points, masks and depth stay as they are: they say what was there.

    Args:
        p: Probability for a clip (XViT's SSv2 recipe: 0.5).
        area: Least and greatest share of the frame.
        aspect: Least ``h / w`` of the box; the greatest is its inverse.
        value: What is written.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self, *, p: float = 0.5, area: tuple[float, float] = (0.02, 1 / 3), aspect: float = 0.3, value: float = 0.0
    ) -> None:
        if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect <= 1:
            raise ValueError(
                f'RandomErasing: area {tuple(area)}, aspect {aspect}; wanted two shares in (0, 1], the smaller first, '
                f'and an aspect in (0, 1]'
            )
        self.p, self.area, self.aspect, self.value = probability('RandomErasing', p=p), tuple(area), aspect, value

    def __call__(
        self, video: Tensor, samples: list[VideoSample], rng: np.random.Generator
    ) -> tuple[Tensor, list[VideoSample]]:
        boxes = [self.draw(tuple(video.shape[-2:]), rng) if rng.random() < self.p else None for _ in range(len(video))]
        if any(boxes):
            video = video.clone()
        for clip, box in zip(video, boxes, strict=True):
            if box is not None:
                top, left, height, width = box
                clip[..., top : top + height, left : left + width] = self.value
        return video, samples

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Box | None:
        """A box in a frame of ``(H, W)``; None where none was found that fits."""
        for _ in range(_TRIES):
            area = rng.uniform(*self.area) * size[0] * size[1]
            aspect = np.exp(rng.uniform(np.log(self.aspect), -np.log(self.aspect)))
            height, width = max(1, round(np.sqrt(area * aspect))), max(1, round(np.sqrt(area / aspect)))
            if height <= size[0] and width <= size[1]:
                top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
                return top, left, height, width
        return None


# ---- what they are made of


def probability(who: str, **value: float) -> float:
    """The one number given by name; raises ValueError outside [0, 1]."""
    ((name, number),) = value.items()
    if not 0 <= number <= 1:
        raise ValueError(f'{who}: {name} is {number}; wanted a probability in [0, 1]')
    return number


def box_of_area(size: tuple[int, int], area: float, rng: np.random.Generator) -> Box:
    """A box of the frame's aspect that covers the share ``area``, about a random pixel, cut off at the border."""
    height, width = size
    rows, columns = height * np.sqrt(area), width * np.sqrt(area)
    y, x = rng.integers(height), rng.integers(width)
    top, bottom = (int(np.clip(round(y + side * rows / 2), 0, height)) for side in (-1, 1))
    left, right = (int(np.clip(round(x + side * columns / 2), 0, width)) for side in (-1, 1))
    return top, left, bottom - top, right - left


def put_box(video: Tensor, other: Tensor, box: Box) -> Tensor:
    """``video`` with a box of ``other``, the same in all frames."""
    top, left, height, width = box
    mixed = video.clone()
    mixed[..., top : top + height, left : left + width] = other[..., top : top + height, left : left + width]
    return mixed


def mixed_sample(sample: VideoSample, other: VideoSample, share: float) -> VideoSample:
    """``sample`` with the weights of both labels; its ``video`` stays that of the first."""
    return replace(sample, meta={**sample.meta, LABEL_WEIGHTS: mix_labels(sample, other, share)})


def check_label_alone(who: str, samples: list[VideoSample]) -> None:
    """Raises ValueError for a sample with points, masks or depth: after ``who`` they would be wrong."""
    for sample in samples:
        found = sample.annotated
        if found:
            raise ValueError(
                f"{who}: sample '{sample.name}' has {' and '.join(found)}, which would be wrong afterwards; put "
                f"dict(type='DropAnnotations', kinds={found}) before it (in the pipeline of the data set)"
            )
