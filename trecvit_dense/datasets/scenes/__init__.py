"""Ray-cast textured 3-D scenes: rooms and open ground, each stage in one file."""

from .clip import CLASSES, SceneSpec, render_scene_clip

__all__ = ['CLASSES', 'SceneSpec', 'render_scene_clip']
