"""Procedural video: textures, shapes, motion, rendering and exact tracks, each in one file."""

from .scene import CLASSES, ClipSpec, render_clip

__all__ = ['CLASSES', 'ClipSpec', 'render_clip']
