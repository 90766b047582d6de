"""Transforms: ``transform(sample, rng) -> sample``; frames, points, masks and depth move together."""

from .annotations import DropAnnotations
from .classification import CropTo, MultiScaleCrop, MultiView, SampleFrames, ShortSide
from .colour import ColorJitter
from .geometry import HorizontalFlip, RandomCrop, Resize, TemporalReverse, TemporalStride
from .long_videos import SpreadClips
from .objects import RandomResizedCrop, ScaleJitter, SelectObjects
from .randaugment import AutoAugment, RandAugment
from .tapnextpp import HomographyAugmentation, RollAugmentation

__all__ = [
    'AutoAugment',
    'ColorJitter',
    'CropTo',
    'DropAnnotations',
    'HomographyAugmentation',
    'HorizontalFlip',
    'MultiScaleCrop',
    'MultiView',
    'RandAugment',
    'RandomCrop',
    'RandomResizedCrop',
    'Resize',
    'RollAugmentation',
    'SampleFrames',
    'ScaleJitter',
    'SelectObjects',
    'ShortSide',
    'SpreadClips',
    'TemporalReverse',
    'TemporalStride',
]
