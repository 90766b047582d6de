"""Losses, one small file per task."""

from .mask_loss import MaskLoss
from .point_loss import TAPNextLoss

__all__ = ['MaskLoss', 'TAPNextLoss']
