"""Predictions drawn over video."""

from .classes import draw_classes
from .depth import DepthDrawer, depth_colours, side_by_side
from .masks import MaskDrawer, mask_colours
from .reconstruction import draw_reconstruction
from .tracks import TrackDrawer, contact_sheet, rainbow

__all__ = [
    'DepthDrawer',
    'MaskDrawer',
    'TrackDrawer',
    'contact_sheet',
    'depth_colours',
    'draw_classes',
    'draw_reconstruction',
    'mask_colours',
    'rainbow',
    'side_by_side',
]
