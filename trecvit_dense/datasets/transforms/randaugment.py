"""RandAugment (arXiv 1909.13719) and AutoAugment (1805.09501) for video: what is drawn, is drawn once for a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trecvit_dense.registry import TRANSFORMS, nearest
from trecvit_dense.structures import VideoSample

from .clip_operations import OPERATIONS

RANDAUGMENT_OPERATIONS = tuple(name for name in OPERATIONS if name not in ('Invert', 'SolarizeAdd'))
FULL_MAGNITUDE = 10.0  # the scale of both papers; RandAugment also goes beyond it, to 30
_SIGNED = ('Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY')
_FACTORS = ('Color', 'Contrast', 'Brightness', 'Sharpness')

# AutoAugment's policy "v0" for ImageNet, as published with EfficientNet: pairs of (operation, probability, magnitude).
POLICY_V0 = (
    (('Equalize', 0.8, 1), ('ShearY', 0.8, 4)),
    (('Color', 0.4, 9), ('Equalize', 0.6, 3)),
    (('Color', 0.4, 1), ('Rotate', 0.6, 8)),
    (('Solarize', 0.8, 3), ('Equalize', 0.4, 7)),
    (('Solarize', 0.4, 2), ('Solarize', 0.6, 2)),
    (('Color', 0.2, 0), ('Equalize', 0.8, 8)),
    (('Equalize', 0.4, 8), ('SolarizeAdd', 0.8, 3)),
    (('ShearX', 0.2, 9), ('Rotate', 0.6, 8)),
    (('Color', 0.6, 1), ('Equalize', 1.0, 2)),
    (('Invert', 0.4, 9), ('Rotate', 0.6, 0)),
    (('Equalize', 1.0, 9), ('ShearY', 0.6, 3)),
    (('Color', 0.4, 7), ('Equalize', 0.6, 0)),
    (('Posterize', 0.4, 6), ('AutoContrast', 0.4, 7)),
    (('Solarize', 0.6, 8), ('Color', 0.6, 9)),
    (('Solarize', 0.2, 4), ('Rotate', 0.8, 9)),
    (('Rotate', 1.0, 7), ('TranslateY', 0.8, 9)),
    (('ShearX', 0.0, 0), ('Solarize', 0.8, 4)),
    (('ShearY', 0.8, 0), ('Color', 0.6, 4)),
    (('Color', 1.0, 0), ('Rotate', 0.6, 2)),
    (('Equalize', 0.8, 4), ('Equalize', 0.0, 8)),
    (('Equalize', 1.0, 4), ('AutoContrast', 0.6, 2)),
    (('ShearY', 0.4, 7), ('SolarizeAdd', 0.6, 7)),
    (('Posterize', 0.8, 2), ('Solarize', 0.6, 10)),
    (('Solarize', 0.6, 8), ('Equalize', 0.6, 1)),
    (('Color', 0.8, 6), ('Rotate', 0.4, 5)),
)


@TRANSFORMS.register_module()
class RandAugment:
    """``num_operations`` random operations in a row, all of one ``magnitude``, the same on every frame.

    Every operation grows with the magnitude here (posterise, solarise and the four factors do not in the papers'
    programs, where some fade; the usual recipes ``rand-m9-...-inc1`` have it as here).

    Args:
        num_operations: N of the paper.
        magnitude: M of the paper: 10 is AutoAugment's greatest, and up to 30 was tried.
        magnitude_std: Of a normal distribution about it, drawn for each operation; 0 as in the paper.
        p: Probability of each operation that is drawn.
        operations: To draw from; the paper's 14 by default. Leave movements out where the class is a direction or a
            sense of rotation and large magnitudes could turn one into the other.

    Raises:
        ValueError: a number out of range or an unknown operation; on call, points, masks or depth where operations
            move pixels.
    """

    def __init__(
        self,
        num_operations: int = 2,
        magnitude: float = 9,
        *,
        magnitude_std: float = 0.0,
        p: float = 1.0,
        operations: Sequence[str] = RANDAUGMENT_OPERATIONS,
    ) -> None:
        if num_operations < 1 or not 0 <= magnitude <= 30 or magnitude_std < 0 or not 0 <= p <= 1:
            raise ValueError(
                f'RandAugment: num_operations {num_operations}, magnitude {magnitude}, magnitude_std {magnitude_std}, '
                f'p {p}; wanted 1 or more, 0 to 30, 0 or more, and a probability'
            )
        unknown = [name for name in operations if name not in OPERATIONS]
        if unknown or not operations:
            name = unknown[0] if unknown else ''
            hint = nearest(name, list(OPERATIONS))
            raise ValueError(f"RandAugment: operations names '{name}'; wanted some of {', '.join(OPERATIONS)}{hint}")
        self.num_operations, self.magnitude, self.magnitude_std = num_operations, magnitude, magnitude_std
        self.p, self.operations = p, tuple(operations)

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        check_nothing_moves('RandAugment', sample, self.operations)
        video = sample.video
        for _ in range(self.num_operations):
            name = self.operations[int(rng.integers(len(self.operations)))]
            magnitude = float(np.clip(rng.normal(self.magnitude, self.magnitude_std), 0, 30))
            sign = 1 if rng.random() < 0.5 else -1
            if rng.random() < self.p:
                video = OPERATIONS[name](video, growing_amount(name, magnitude, sign))
        return replace(sample, video=video)


@TRANSFORMS.register_module()
class AutoAugment:
    """One of the 25 pairs of operations of policy ``v0``, the same on every frame; XViT's recipe.

    Args:
        policy: ``'v0'``.

    Raises:
        ValueError: another policy; on call, points, masks or depth, since operations move pixels.
    """

    def __init__(self, policy: str = 'v0') -> None:
        if policy != 'v0':
            raise ValueError(f"AutoAugment: policy is '{policy}'; wanted 'v0'")
        self.policy = POLICY_V0

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        check_nothing_moves('AutoAugment', sample, OPERATIONS)
        video = sample.video
        for name, p, magnitude in self.policy[int(rng.integers(len(self.policy)))]:
            sign = 1 if rng.random() < 0.5 else -1
            if rng.random() < p:
                video = OPERATIONS[name](video, published_amount(name, magnitude, sign))
        return replace(sample, video=video)


# ---- from magnitudes to amounts


def growing_amount(name: str, magnitude: float, sign: int) -> float:
    """What an operation of ``magnitude`` takes, so that it changes more the greater it is; ``sign`` is 1 or -1."""
    share = magnitude / FULL_MAGNITUDE
    if name in _FACTORS:
        return max(1 + sign * 0.9 * share, 0.1)
    if name == 'Posterize':
        return 8 - min(int(4 * share + 0.5), 7)
    if name == 'Solarize':
        return max(256 - int(256 * share), 0)
    return _shared_amount(name, share, sign)


def published_amount(name: str, magnitude: float, sign: int) -> float:
    """What AutoAugment's program makes of ``magnitude``: factors from 0.1 to 1.9, solarise and posterise that fade."""
    share = magnitude / FULL_MAGNITUDE
    if name in _FACTORS:
        return 0.1 + 1.8 * share
    if name == 'Posterize':
        return int(4 * share)
    if name == 'Solarize':
        return int(256 * share)
    return _shared_amount(name, share, sign)


def _shared_amount(name: str, share: float, sign: int) -> float:
    full = dict(Rotate=30.0, ShearX=0.3, ShearY=0.3, TranslateX=0.45, TranslateY=0.45, SolarizeAdd=110.0)
    return full.get(name, 0.0) * share * (sign if name in _SIGNED else 1)


def check_nothing_moves(who: str, sample: VideoSample, operations: Sequence[str]) -> None:
    """Raises ValueError where annotations would stay behind the pixels that some operation moves."""
    found = sample.annotated
    if found and any(name in _SIGNED for name in operations):
        raise ValueError(
            f"{who}: sample '{sample.name}' has {' and '.join(found)}, which do not move with the pixels; put "
            f"dict(type='DropAnnotations', kinds={found}) before it, or choose operations without "
            f'{", ".join(_SIGNED)}'
        )
