"""Exact tracks: a point is pinned to rest coordinates of a layer and mapped to every frame; alpha hides it or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.random import Generator

from ...structures import PointTracks
from .layers import Layer

if TYPE_CHECKING:
    from .scene import ClipSpec

_FAR = 20  # frames; what would be seen at grazing angles lies so far away that float32 loses its digits
_EDGE_SHARE = 0.2
_PICK_FRAMES = 8  # points are picked on at most so many frames; each costs a look at the whole instance map


def sample_tracks(rng: Generator, layers: list[Layer], labels: np.ndarray, spec: ClipSpec) -> PointTracks:
    """``spec.num_points`` tracks, each visible on at least one frame.

    A point is first picked where it can be seen: a frame, an object or the background, a place (some near the edges
    of objects). ``query_mode='first'`` asks for it on its first visible frame, ``'random'`` on any visible one.
    """
    solid = [layer for layer in layers if layer.solid]
    xy, frames = picks(rng, labels, spec)
    owners = topmost(solid, xy, frames)
    tracks, visible = track(solid, xy, frames, owners, spec.num_frames, spec.size)
    visible[np.arange(len(xy)), frames] = True  # it was picked because it is seen there; rounding may say otherwise
    return asked_tracks(rng, tracks, visible, spec.query_mode)


def asked_tracks(rng: Generator, tracks: np.ndarray, visible: np.ndarray, query_mode: str) -> PointTracks:
    """Tracks ``(N, T, 2)`` with a query each, on a frame on which the point is ``visible`` ``(N, T)``."""
    if query_mode == 'first':
        query = visible.argmax(axis=1)
    else:
        query = np.where(visible, rng.random(visible.shape), -1).argmax(axis=1)
    txy = np.concatenate([query[:, None], tracks[np.arange(len(tracks)), query]], axis=1)
    return PointTracks(tracks.astype(np.float32), visible, txy.astype(np.float32))


def picks(rng: Generator, labels: np.ndarray, spec: ClipSpec) -> tuple[np.ndarray, np.ndarray]:
    """``(N, 2)`` sub-pixel places and ``(N,)`` frames; half of the frames are the first one when that is the query."""
    count = spec.num_points
    chosen = rng.integers(0, len(labels), _PICK_FRAMES)
    when = chosen[rng.integers(0, _PICK_FRAMES, count)]
    if spec.query_mode == 'first':
        when[rng.random(count) < 0.6] = 0
    when.sort()
    xy = np.empty((count, 2))
    start = 0
    for t in np.unique(when):
        stop = start + int((when == t).sum())
        xy[start:stop] = _places(rng, labels[t], stop - start, spec.object_fraction)
        start = stop
    order = rng.permutation(count)
    return xy[order], when[order]


def _places(rng: Generator, labels: np.ndarray, count: int, object_fraction: float) -> np.ndarray:
    """``(count, 2)`` pixel coordinates: objects each as likely as any other, then the background."""
    height, width = labels.shape
    objects = [int(i) for i in np.flatnonzero(np.bincount(labels.ravel())) if i]
    wanted = np.zeros(count, int)
    if objects:
        on_object = rng.random(count) < object_fraction
        wanted[on_object] = rng.choice(objects, int(on_object.sum()))
    by_edge = rng.random(count) < _EDGE_SHARE
    edge = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
    pixel = rng.integers(0, height * width, count)  # anywhere, where nothing better is found
    for instance in set(wanted.tolist()):
        chosen = labels == instance
        for mine, where in (((wanted == instance) & ~by_edge, chosen), ((wanted == instance) & by_edge, chosen & edge)):
            inside = np.flatnonzero(where)
            if len(inside) and mine.any():
                pixel[mine] = inside[rng.integers(0, len(inside), int(mine.sum()))]
    return np.stack([pixel % width, pixel // width], axis=1) + rng.random((count, 2))


def topmost(layers: list[Layer], xy_px: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Index of the nearest layer over each place ``(N, 2)`` at its frame ``(N,)``; ``layers`` from far to near."""
    owners = np.zeros(len(xy_px), int)
    for index, layer in enumerate(layers):
        owners[layer.alpha_at(layer.to_rest(xy_px, frames)) > 0.5] = index
    return owners


def track(
    layers: list[Layer],
    xy_px: np.ndarray,
    frames: np.ndarray,
    owners: np.ndarray,
    num_frames: int,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Follow places ``(N, 2)`` seen at ``frames`` ``(N,)`` on layers ``owners`` ``(N,)``.

    Returns:
        ``(N, T, 2)`` float64 pixels and ``(N, T)`` visible: inside the frame, no nearer layer with alpha over 0.5.
    """
    times = np.arange(num_frames)
    tracks = np.empty((len(xy_px), num_frames, 2))
    for index in np.unique(owners):
        mine = owners == index
        rest = layers[index].to_rest(xy_px[mine], frames[mine])
        tracks[mine] = layers[index].to_image(rest[:, None], times)
    height, width = size
    tracks = tracks.clip(-_FAR * max(size), _FAR * max(size))
    inside = (tracks >= 0).all(-1) & (tracks[..., 0] < width) & (tracks[..., 1] < height)
    visible = inside.copy()
    for index in range(1, len(layers)):
        below = np.flatnonzero((owners < index) & visible.any(1))
        if len(below):
            layer = layers[index]
            visible[below] &= layer.alpha_at(layer.to_rest(tracks[below], times)) <= 0.5
    return tracks, visible
