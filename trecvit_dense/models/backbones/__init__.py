"""Backbones: video in, token features and recurrent state out."""

from .trecvit import TRecViT

__all__ = ['TRecViT']
