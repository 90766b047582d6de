"""Backbones, heads, losses and the perceiver that joins them. Importing this registers all of them."""

from . import backbones, heads, losses
from .batch_augment import MixVideos, RandomErasing
from .feature_preprocessor import FeaturePreprocessor
from .perceiver import VideoPerceiver
from .preprocessor import VideoPreprocessor

__all__ = [
    'FeaturePreprocessor',
    'MixVideos',
    'RandomErasing',
    'VideoPerceiver',
    'VideoPreprocessor',
    'backbones',
    'heads',
    'losses',
]
