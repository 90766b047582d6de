"""Exact tracks: a ray finds the surface under a pixel, the surface's body carries the point, rays say who sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from ...structures import PointTracks
from ..procedural.tracks import asked_tracks, picks
from .raycast import NEAR_M, View
from .world import Scene

if TYPE_CHECKING:
    from .clip import SceneSpec

_FAR = 20  # frames
_SAME = 2e-3  # relative difference of depth up to which two surfaces are one


def scene_tracks(
    rng: Generator,
    scene: Scene,
    views: list[View],
    labels: np.ndarray,
    valid: np.ndarray,
    spec: SceneSpec,
) -> PointTracks:
    """``spec.num_points`` tracks, each visible on at least one frame; never of the sky.

    Args:
        views: One per frame.
        labels, valid: ``(T, H, W)`` instances, and where there is a surface.
    """
    xy, frames = _on_surfaces(rng, *picks(rng, labels, spec), valid)
    body, local = np.zeros(len(xy), int), np.zeros((len(xy), 4))
    patch = np.zeros(len(xy), int)
    for t in np.unique(frames):
        chosen = np.flatnonzero(frames == t)
        inverse, found = views[t].cast(xy[chosen])
        # A pick in the half pixel between a surface and the sky goes to the pixel's centre, where the surface is.
        lost = chosen[inverse == 0]
        if len(lost):
            xy[lost] = np.floor(xy[lost]) + 0.5
            inverse, found = views[t].cast(xy[chosen])
        found = np.minimum(found, len(scene.kind) - 1)
        ray = np.concatenate([xy[chosen], np.ones((len(chosen), 1))], axis=1) @ views[t].ray.T
        world = views[t].origin + ray / np.maximum(inverse, 1e-6)[:, None]
        body[chosen], patch[chosen] = scene.body[found], found
        inside = np.linalg.inv(scene.poses[t, body[chosen]])
        local[chosen] = (inside @ np.concatenate([world, np.ones((len(world), 1))], axis=1)[..., None])[..., 0]
    tracks, visible = follow(scene, views, body, patch, local, spec.size)
    visible[np.arange(len(xy)), frames] = True  # it was picked because it is seen there; rounding may say otherwise
    return asked_tracks(rng, tracks, visible, spec.query_mode)


def follow(
    scene: Scene, views: list[View], body: np.ndarray, patch: np.ndarray, local: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Places ``(N, T, 2)`` in pixels and visibility ``(N, T)`` of points ``local`` ``(N, 4)`` fixed to bodies."""
    height, width = size
    tracks, visible = np.zeros((len(local), len(views), 2)), np.zeros((len(local), len(views)), bool)
    for t, view in enumerate(views):
        world = (scene.poses[t, body] @ local[..., None])[:, :3, 0]
        camera = (world - view.origin) @ view.camera_to_world[:3, :3]
        depth = camera[:, 2]
        image = camera @ view.intrinsics.T
        xy = image[:, :2] / np.maximum(depth, 1e-3)[:, None]
        tracks[:, t] = xy.clip(-_FAR * max(size), _FAR * max(size))
        inside = (depth > NEAR_M) & (xy >= 0).all(1) & (xy[:, 0] < width) & (xy[:, 1] < height)
        inverse, found = view.cast(xy[inside])
        same = (found == patch[inside]) | (inverse * depth[inside] < 1 + _SAME)
        visible[inside, t] = same & (inverse * depth[inside] < 1.02)
    return tracks, visible


def _on_surfaces(
    rng: Generator, xy: np.ndarray, frames: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places that fell on the sky move to some surface, on the same frame if it shows one."""
    column, row = xy.astype(int).T
    for n in np.flatnonzero(~valid[frames, row, column]):
        if not valid[frames[n]].any():
            frames[n] = valid.any(axis=(1, 2)).argmax()
        there = np.flatnonzero(valid[frames[n]])
        if len(there):
            pixel = there[rng.integers(len(there))]
            xy[n] = pixel % valid.shape[2] + 0.5, pixel // valid.shape[2] + 0.5
    return xy, frames
