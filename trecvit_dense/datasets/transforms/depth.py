"""Depth may have a size of its own; transforms that move pixels bring it to that of the frames first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from trecvit_dense.structures import DepthMap


def map_depth(depth: DepthMap, move: Callable[[np.ndarray], np.ndarray]) -> DepthMap:
    """``move`` applied to every ``(H, W)`` map of depth and of what is valid; the camera stays as it is."""
    depth_m = np.stack([move(frame) for frame in depth.depth_m])
    valid = np.stack([move(frame) for frame in depth.valid.astype(np.uint8)]).astype(bool)
    return replace(depth, depth_m=depth_m, valid=valid)


def depth_at(depth: DepthMap, size: tuple[int, int]) -> DepthMap:
    """The same depth at ``(H, W)``, nearest pixel, with its intrinsics."""
    rows, columns = depth.depth_m.shape[1:]
    if (rows, columns) == tuple(size):
        return depth
    moved = map_depth(depth, lambda frame: cv2.resize(frame, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
    if depth.intrinsics is not None:
        moved.intrinsics = np.diag([size[1] / columns, size[0] / rows, 1.0]) @ depth.intrinsics
    return moved
