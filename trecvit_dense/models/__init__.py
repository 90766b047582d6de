"""Backbones, heads, losses and the perceiver that joins them. Importing this registers all of them."""

from . import backbones, heads, losses
from .batch_augment import MixVideos, RandomErasing
from .perceiver import VideoPerceiver
from .preprocessor import VideoPreprocessor

__all__ = ['MixVideos', 'RandomErasing', 'VideoPerceiver', 'VideoPreprocessor', 'backbones', 'heads', 'losses']
