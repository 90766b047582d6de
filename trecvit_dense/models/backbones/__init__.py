"""Backbones: video in, token features and recurrent state out."""

from .trecvit import TRecViT
from .vivit import ViViT

__all__ = ['TRecViT', 'ViViT']
