"""Backbones: video in, token features and recurrent state out."""

from .mobile_former import MobileFormer
from .trecvit import TRecViT
from .video_mobile_former import VideoMobileFormer
from .vivit import ViViT
from .xvit import XViT

__all__ = ['MobileFormer', 'TRecViT', 'ViViT', 'VideoMobileFormer', 'XViT']
