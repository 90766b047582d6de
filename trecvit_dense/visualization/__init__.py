"""Predictions drawn over video."""

from .tracks import TrackDrawer, contact_sheet, rainbow

__all__ = ['TrackDrawer', 'contact_sheet', 'rainbow']
