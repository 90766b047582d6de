"""Point tracks of a static scene from depth and camera poses: lift a point from one frame, see it from the others.

Pixels follow the raster convention: the centre of pixel ``(i, j)`` is ``(j + 0.5, i + 0.5)``, and the intrinsics are
read in it. (A principal point given for integer centres lies half a pixel off; since the same matrix lifts and
projects, a track feels only the difference in depth between its frames, a small part of that half pixel.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# What one frame says about a point.
HIDDEN, VISIBLE, UNKNOWN, CONTRADICTED = range(4)


def unproject(xy_px: np.ndarray, z_m: np.ndarray, intrinsics: np.ndarray, camera_to_world: np.ndarray) -> np.ndarray:
    """World positions ``(N, 3)``, metres, of pixels ``(N, 2)`` with depth ``z_m`` ``(N,)`` along the optical axis."""
    rays = np.concatenate([xy_px, np.ones_like(xy_px[:, :1])], axis=1) @ np.linalg.inv(intrinsics).T
    return (rays * z_m[:, None]) @ camera_to_world[:3, :3].T + camera_to_world[:3, 3]


def project(world_m: np.ndarray, intrinsics: np.ndarray, camera_to_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels ``(N, 2)`` and depth ``(N,)`` of world positions ``(N, 3)``; depth <= 0 is behind the camera."""
    seen = (world_m - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]  # R^T, as row vectors
    image = seen @ intrinsics.T
    z = image[:, 2]
    return image[:, :2] / np.where(z == 0, np.finfo(float).eps, z)[:, None], z


def pick_seeds(
    depth_m: np.ndarray, count: int, rng: np.random.Generator, *, max_step: float = 0.03, radius: int = 3
) -> np.ndarray:
    """Up to ``count`` pixel centres ``(M, 2)``, spread over the frame, on smooth surfaces with known depth.

    Args:
        depth_m: ``(H, W)`` metres, 0 where it is not known.
        max_step: A pixel is taken when depth varies by at most this share of itself within ``radius`` pixels; all
            of these pixels must have a value. It keeps points away from the edges of objects.
    """
    side = 2 * radius + 1
    kernel = np.ones((side, side), np.uint8)
    # Outside the frame counts as unknown, so that the window lies within it.
    nearest = cv2.erode(depth_m, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    smooth = (nearest > 0) & (cv2.dilate(depth_m, kernel) - nearest <= max_step * depth_m)
    rows, columns = np.nonzero(smooth)
    if not len(rows):
        return np.zeros((0, 2))
    order = rng.permutation(len(rows))
    rows, columns = rows[order], columns[order]
    # One pixel per cell first, so that points spread; then a second per cell, and so on.
    cell = np.sqrt(depth_m.size / count)
    cells = (rows // cell).astype(int) * depth_m.shape[1] + (columns // cell).astype(int)
    chosen = np.argsort(_rank_within(cells), kind='stable')[:count]
    return np.stack([columns[chosen], rows[chosen]], axis=1) + 0.5


def _rank_within(groups: np.ndarray) -> np.ndarray:
    """Position of each entry among the entries of its own group, in the order given."""
    order = np.argsort(groups, kind='stable')
    starts = np.r_[0, np.flatnonzero(np.diff(groups[order])) + 1]
    rank = np.empty(len(groups), int)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return rank


def compare(xy_px: np.ndarray, z_m: np.ndarray, depth_m: np.ndarray, tolerance: float) -> np.ndarray:
    """What a frame with ``depth_m`` ``(H, W)`` says of points expected at ``xy_px`` ``(N, 2)``, ``z_m`` ``(N,)``.

    Returns:
        ``(N,)`` of :data:`HIDDEN` (outside the frame, behind the camera, or behind a nearer surface),
        :data:`VISIBLE` (the measured depth agrees within ``tolerance``, relative), :data:`UNKNOWN` (inside, no depth)
        or :data:`CONTRADICTED` (the camera looks through the place where the point should be).
    """
    height, width = depth_m.shape
    inside = (z_m > 0) & (xy_px >= 0).all(axis=1) & (xy_px < (width, height)).all(axis=1)
    status = np.full(len(xy_px), HIDDEN)
    column, row = np.floor(xy_px[inside]).astype(int).T
    measured, expected = depth_m[row, column], z_m[inside]
    ratio = measured / expected
    status[inside] = np.select(
        [measured <= 0, ratio < 1 - tolerance, ratio > 1 + tolerance], [UNKNOWN, HIDDEN, CONTRADICTED], VISIBLE
    )
    return status


@dataclass
class DepthTracks:
    """``xy_px`` ``(N, T, 2)``, ``visible`` ``(N, T)``, and how many of the ``asked`` points were usable."""

    xy_px: np.ndarray
    visible: np.ndarray
    asked: int
    agreeing: int


def tracks_from_depth(
    depth_m: np.ndarray,
    intrinsics: np.ndarray,
    camera_to_world: np.ndarray,
    rng: np.random.Generator,
    *,
    num_points: int,
    seed_frames: Sequence[int] = (0,),
    tolerance: float = 0.04,
    keep_unknown: bool = False,
) -> DepthTracks:
    """Tracks of points picked on ``seed_frames``: at most ``num_points``, drawn at random from those that agree.

    A point is dropped when any frame contradicts it, when it is seen on one frame only, and, unless ``keep_unknown``,
    when it lies inside a frame at a place without depth: nobody could say whether it is visible there.

    Args:
        depth_m: ``(T, H, W)`` metres, 0 where it is not known.
        intrinsics: ``(3, 3)`` px.
        camera_to_world: ``(T, 4, 4)``, x right, y down, z forward, metres.
        tolerance: Largest relative difference between expected and measured depth of a visible point.
    """
    found = [np.zeros((0, len(depth_m), 2))], [np.zeros((0, len(depth_m)), int)]
    for frame in seed_frames:
        seeds = pick_seeds(depth_m[frame], 4 * num_points, rng)
        columns, rows = np.floor(seeds).astype(int).T
        z = depth_m[frame][rows, columns].astype(np.float64)
        world = unproject(seeds, z, intrinsics, camera_to_world[frame])
        views = [project(world, intrinsics, pose) for pose in camera_to_world]
        found[0].append(np.stack([xy for xy, _ in views], axis=1))  # (N, T, 2)
        checks = [compare(xy, z, depth, tolerance) for (xy, z), depth in zip(views, depth_m, strict=True)]
        found[1].append(np.stack(checks, axis=1))
    xy, status = (np.concatenate(parts) for parts in found)
    agreeing = (status != CONTRADICTED).all(axis=1)
    kept = agreeing & ((status == VISIBLE).sum(axis=1) >= 2)
    if not keep_unknown:
        kept &= (status != UNKNOWN).all(axis=1)
    chosen = np.sort(rng.permutation(np.flatnonzero(kept))[:num_points])
    return DepthTracks(xy[chosen], status[chosen] == VISIBLE, len(xy), int(agreeing.sum()))
