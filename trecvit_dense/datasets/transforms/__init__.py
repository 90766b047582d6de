"""Transforms: ``transform(sample, rng) -> sample``; frames, points, masks and depth move together."""

from .annotations import DropAnnotations
from .colour import ColorJitter
from .geometry import HorizontalFlip, RandomCrop, Resize, TemporalReverse, TemporalStride
from .objects import RandomResizedCrop, ScaleJitter, SelectObjects
from .tapnextpp import HomographyAugmentation, RollAugmentation

__all__ = [
    'ColorJitter',
    'DropAnnotations',
    'HomographyAugmentation',
    'HorizontalFlip',
    'RandomCrop',
    'RandomResizedCrop',
    'Resize',
    'RollAugmentation',
    'ScaleJitter',
    'SelectObjects',
    'TemporalReverse',
    'TemporalStride',
]
