"""Decoder heads; one file each."""

from .base import Head, PointOutput
from .cost_volume import CostVolumePointHead

__all__ = ['CostVolumePointHead', 'Head', 'PointOutput']
