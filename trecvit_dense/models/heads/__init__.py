"""Decoder heads; one file each."""

from .base import Head, PointOutput
from .classification import ClassificationHead
from .cost_volume import CostVolumePointHead
from .tapnext import TAPNextHead

__all__ = ['ClassificationHead', 'CostVolumePointHead', 'Head', 'PointOutput', 'TAPNextHead']
