"""Backbones, heads, losses and the perceiver that joins them. Importing this registers all of them."""

from . import backbones, heads, losses
from .perceiver import VideoPerceiver
from .preprocessor import VideoPreprocessor

__all__ = ['VideoPerceiver', 'VideoPreprocessor', 'backbones', 'heads', 'losses']
