"""Backbones: video in, token features and recurrent state out."""

from .trecvit import TRecViT
from .vivit import ViViT
from .xvit import XViT

__all__ = ['TRecViT', 'ViViT', 'XViT']
