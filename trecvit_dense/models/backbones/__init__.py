"""Backbones: video in, token features and recurrent state out."""

from .mobile_former import MobileFormer
from .rgb_difference import RGBDifference
from .stored_features import StoredFeatures
from .trecvit import TRecViT
from .video_mobile_former import VideoMobileFormer
from .vis4mer import ViS4mer
from .vivit import ViViT
from .xvit import XViT

__all__ = [
    'MobileFormer',
    'RGBDifference',
    'StoredFeatures',
    'TRecViT',
    'ViS4mer',
    'ViViT',
    'VideoMobileFormer',
    'XViT',
]
