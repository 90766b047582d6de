"""Predictions drawn over video."""

from .masks import MaskDrawer, mask_colours
from .tracks import TrackDrawer, contact_sheet, rainbow

__all__ = ['MaskDrawer', 'TrackDrawer', 'contact_sheet', 'mask_colours', 'rainbow']
