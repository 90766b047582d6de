"""Decoder heads; one file each."""

from .base import Head, PointOutput
from .cost_volume import CostVolumePointHead
from .tapnext import TAPNextHead

__all__ = ['CostVolumePointHead', 'Head', 'PointOutput', 'TAPNextHead']
