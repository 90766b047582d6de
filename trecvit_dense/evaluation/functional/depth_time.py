"""Does depth hold still? Consistency between neighbouring frames; lower is steadier.

:func:`tae`: predicted depth of one frame, carried into the next by the true motion of the camera, against what is
predicted there (Chen et al., "Video Depth Anything", arXiv 2501.12375, section 4). :func:`opw`: depth warped by
optical flow (Wang et al., "NVDS", arXiv 2307.08695). :func:`flicker`: by how much the ratio of prediction and truth
changes from frame to frame where the scene stands still; ours. Poses are camera-to-world; camera axes x right, y down,
z forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .depth_alignment import lower_median
from .depth_crops import find_crop
from .depth_protocols import align_video_depth_anything

AGREEMENT = 0.02  # relative difference in depth up to which two frames see the same place
_STEEPNESS = 50.0  # of the weight of a pixel in the difference of its colours


@dataclass(frozen=True)
class Cameras:
    """Where each frame was taken.

    Args:
        intrinsics: ``(3, 3)`` or ``(T, 3, 3)``, pixels of the depth maps.
        camera_to_world: ``(T, 4, 4)``; a frame whose pose is not finite has none.
    """

    intrinsics: np.ndarray
    camera_to_world: np.ndarray

    def at(self, t: int) -> np.ndarray:
        return self.intrinsics[t] if self.intrinsics.ndim == 3 else self.intrinsics

    def known(self, *frames: int) -> bool:
        return all(np.isfinite(self.camera_to_world[t]).all() and np.isfinite(self.at(t)).all() for t in frames)

    def motion(self, a: int, b: int) -> np.ndarray:
        """``(4, 4)``, from the axes of camera ``a`` to those of camera ``b``."""
        return np.linalg.inv(self.camera_to_world[b]) @ self.camera_to_world[a]


def tae(depth_m: np.ndarray, cameras: Cameras) -> float:
    """Temporal alignment error, per cent: mean of :func:`alignment_errors` over the pairs of neighbouring frames.

    Args:
        depth_m: ``(T, H, W)`` aligned, positive. No truth is needed but the poses.

    Returns:
        NaN if no pair overlaps.
    """
    pairs = [alignment_errors(depth_m[t], depth_m[t + 1], cameras, t, t + 1) for t in range(len(depth_m) - 1)]
    return mean_of([error for pair in pairs for error in pair], scale=100)


def alignment_errors(depth_m: np.ndarray, other_m: np.ndarray, cameras: Cameras, t: int, other: int) -> list[float]:
    """Mean relative difference of carried-over and predicted depth, from ``t`` to ``other`` and back.

    Unlike the released program, pixels are lifted from their centres, what falls behind the camera or behind something
    nearer does not count, each frame has its own intrinsics, and a direction without overlap is left out instead of
    counting as perfect.

    Args:
        depth_m, other_m: ``(H, W)`` of the two frames.
    """
    if not cameras.known(t, other):
        return []
    errors: list[float] = []
    for (a, depth), (b, goal) in (((t, depth_m), (other, other_m)), ((other, other_m), (t, depth_m))):
        carried = _carry(*_project(depth, cameras.at(a), cameras.at(b), cameras.motion(a, b)))
        reached = np.isfinite(carried)
        count = np.count_nonzero(reached)
        if count:
            error = np.abs(np.where(reached, carried, goal) - goal) / goal
            errors.append(float(error.sum(dtype=np.float64)) / count)
    return errors


def _carry(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """``(H, W)`` depth of what lands at x, y (px) with depth z: the nearest, or infinity where nothing does."""
    height, width = z.shape
    # A frame of one pixel about the map takes what lands outside, so that nothing has to be sorted out.
    column = (np.clip(x, -1, width) + 1).astype(np.int32)
    row = (np.clip(y, -1, height) + 1).astype(np.int32)
    place = (row * np.int32(width + 2) + column) * (z > 0)
    carried = np.full((height + 2) * (width + 2), np.inf, z.dtype)
    np.minimum.at(carried, place.reshape(-1), z.reshape(-1))
    return carried.reshape(height + 2, width + 2)[1:-1, 1:-1]


def flicker(depth_m: np.ndarray, truth_m: np.ndarray, valid: np.ndarray, cameras: Cameras) -> float:
    """Mean change of ``ln(p / g)`` between the same place in neighbouring frames; 0 for the truth times any constant.

    Args:
        depth_m, truth_m: ``(T, H, W)``, positive where ``valid`` (``(T, H, W)`` bool).

    Returns:
        Mean over the pairs of frames; NaN if none has a place that both see.
    """
    changes: list[float] = []
    for t in range(len(depth_m) - 1):
        before, after = (np.log(depth_m[i]) - log_truth(truth_m[i], valid[i]) for i in (t, t + 1))
        changes += change(before, after, *static_places(truth_m, valid, cameras, t))
    return mean_of(changes)


def static_places(truth_m: np.ndarray, valid: np.ndarray, cameras: Cameras, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of pixels of frame ``t``, and of where the same places are seen in the next frame.

    A place counts if it stands still and is not hidden: carried over by the motion of the camera, its true depth agrees
    within 2 % with that of the pixel in which it lands.
    """
    if not cameras.known(t, t + 1):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    x, y, z = _project(truth_m[t], cameras.at(t), cameras.at(t + 1), cameras.motion(t, t + 1))
    here, there = _landing(np.floor(x), np.floor(y), valid[t] & (z > 0), truth_m.shape[2])
    z = z.reshape(-1)[here]
    seen = valid[t + 1].reshape(-1)[there] & (np.abs(truth_m[t + 1].reshape(-1)[there] - z) <= AGREEMENT * z)
    return here[seen], there[seen]


def log_truth(truth_m: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """``(H, W)`` logarithm of depth; 0 where it is not valid."""
    return np.log(np.where(valid, truth_m, truth_m.dtype.type(1)))


def change(before: np.ndarray, after: np.ndarray, here: np.ndarray, there: np.ndarray) -> list[float]:
    """Mean change of ``ln(p / g)``, ``(H, W)`` each, over the places of :func:`static_places`, if there are any."""
    if not len(here):
        return []
    return [float(np.abs(after.reshape(-1)[there] - before.reshape(-1)[here]).mean(dtype=np.float64))]


def mean_of(values: Sequence[float], *, scale: float = 1.0) -> float:
    """NaN of nothing."""
    return scale * float(np.mean(values)) if len(values) else float('nan')


def opw(depth_m: np.ndarray, video: np.ndarray, flow_to_previous: np.ndarray, *, official: bool = False) -> float:
    """Warping error over a clip: depth of the previous frame, carried along by optical flow, against that of this one.

    Args:
        depth_m: ``(T, H, W)``.
        video: ``(T, H, W, 3)`` uint8.
        flow_to_previous: ``(T - 1, H, W, 2)`` px, x then y, from frames 1, 2, ... to the one before.
        official: Colours are 0..255, so that hardly a pixel has any weight, and the sum is divided by T as released.
            Otherwise colours are 0..1, and it is the mean over the T - 1 pairs.
    """
    total = 0.0
    for t in range(1, len(depth_m)):
        before, after = (frame.astype(np.float32) / (1 if official else 255) for frame in video[t - 1 : t + 1])
        weight = colour_weight(before, after, flow_to_previous[t - 1])
        total += warping_error(depth_m[t - 1], depth_m[t], weight, flow_to_previous[t - 1])
    pairs = len(depth_m) - 1
    return total / (len(depth_m) if official else pairs) if pairs > 0 else float('nan')


def warping_error(before: np.ndarray, after: np.ndarray, weight: np.ndarray, flow: np.ndarray) -> float:
    """OPW of one pair: 10 times the weighted mean difference of depth, each less its median and over its deviation.

    Args:
        before, after: ``(H, W)`` depth.
        weight: ``(H, W)``, see :func:`colour_weight`.
        flow: ``(H, W, 2)`` px, from ``after`` to ``before``.
    """
    difference = np.abs(_normalised(after) - _normalised(warp(before, flow)))
    return 10 * float((weight * difference).mean(dtype=np.float64))


def colour_weight(before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """``(H, W)`` in 0..3: how well the colours ``(H, W, 3)`` of a pixel agree with those that the flow points at."""
    return np.exp(-np.float32(_STEEPNESS) * (after - warp(before, flow)) ** 2).sum(-1)


def warp(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """``(H, W)`` or ``(H, W, C)`` sampled at ``pixel + flow``: bilinear, zero outside; float32."""
    height, width = flow.shape[:2]
    x, y = (
        flow[..., 0] + np.arange(width, dtype=np.float32),
        flow[..., 1] + np.arange(height, dtype=np.float32)[:, None],
    )
    # There and back through -1..1 as grid_sample does: the last bits matter where colours are steep.
    x, y = (
        (2 * c / np.float32(n - 1) - 1 + 1) / np.float32(2) * np.float32(n - 1) for c, n in ((x, width), (y, height))
    )
    left, top = np.floor(x), np.floor(y)
    out = np.zeros((height, width, *values.shape[2:]), np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = left + dx, top + dy
            share = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            share = np.where(inside, share, 0).reshape(height, width, *(1,) * (values.ndim - 2))
            places = [np.where(inside, c, 0).astype(np.int64) for c in (row, column)]
            out += share * values[places[0], places[1]]
    return out


def official_tae(
    disparity: np.ndarray,
    truth_m: np.ndarray,
    intrinsics: np.ndarray,
    camera_to_world: np.ndarray,
    *,
    cap_m: float = 10.0,
    crop: Sequence[int] | str | None = 'scannet',
    crop_prediction: bool = False,
) -> float:
    """Video Depth Anything's ``eval_tae.py`` of one clip, per cent, with its alignment.

    Args:
        disparity: ``(T, h, w)``.
        truth_m: ``(T, H, W)``; only for the alignment.
        intrinsics: Of the whole frame: the program does not move the principal point by the crop.
        crop: Of the truth; of the prediction as well if ``crop_prediction``.
    """
    if crop_prediction:
        a, b, c, d = find_crop(crop, disparity.shape[1:])
        disparity = disparity[:, a:b, c:d]
    rows = find_crop(crop, truth_m.shape[1:])
    depth, _, _ = align_video_depth_anything(disparity, truth_m, cap_m=cap_m, crop=rows)
    cameras, total = Cameras(np.asarray(intrinsics), np.asarray(camera_to_world)), 0.0
    for t in range(len(depth) - 1):
        total += sum(official_errors(depth[t], depth[t + 1], cameras, t, t + 1))
    pairs = len(depth) - 1
    return 100 * total / (2 * pairs) if pairs else float('nan')


def official_errors(depth_m: np.ndarray, other_m: np.ndarray, cameras: Cameras, t: int, other: int) -> list[float]:
    """:func:`alignment_errors` as released: both directions with the intrinsics of frame ``t``."""
    there, back = cameras.motion(t, other), cameras.motion(other, t)
    return [
        official_pair_error(depth_m, other_m, cameras.at(t), there[:3, :3], there[:3, 3]),
        official_pair_error(other_m, depth_m, cameras.at(t), back[:3, :3], back[:3, 3]),
    ]


def official_pair_error(
    depth: np.ndarray,
    depth_other: np.ndarray,
    intrinsics: np.ndarray,
    rotation: np.ndarray,
    translation: np.ndarray,
    mask: np.ndarray | None = None,
) -> float:
    """``tae_torch`` of the program: what is carried over last wins, behind the camera counts, no overlap is 0."""
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation, np.reshape(translation, 3)
    x, y, z = _project(depth.astype(np.float64), intrinsics, intrinsics, motion, centre=0.0)
    here, there = _landing(np.round(x), np.round(y), np.ones(depth.shape, bool), depth.shape[1])
    carried = np.zeros(depth.size)
    carried[there] = z.reshape(-1)[here]
    other = depth_other.reshape(-1).astype(np.float64)
    compared = (carried > 0) & (other > 0)
    if mask is not None:
        compared &= mask.reshape(-1)
    return float(np.mean(np.abs(carried - other)[compared] / other[compared])) if compared.any() else 0.0


def _project(
    depth_m: np.ndarray, intrinsics: np.ndarray, intrinsics_other: np.ndarray, motion: np.ndarray, centre: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y (px) and depth of each pixel ``(H, W)`` in another camera; ``centre`` is that of the first pixel."""
    height, width = depth_m.shape
    # K' R K^-1 applied to (x, y, 1) is affine in x and y: a row and a column instead of a product per pixel.
    rays = (intrinsics_other @ motion[:3, :3] @ np.linalg.inv(intrinsics)).astype(depth_m.dtype)
    offset = (intrinsics_other @ motion[:3, 3]).astype(depth_m.dtype)
    columns = np.arange(width, dtype=depth_m.dtype) + depth_m.dtype.type(centre)
    rows = np.arange(height, dtype=depth_m.dtype)[:, None] + depth_m.dtype.type(centre)
    u, v, z = (
        depth_m * ((ray[0] * columns + ray[2]) + ray[1] * rows) + shift for ray, shift in zip(rays, offset, strict=True)
    )
    z = np.where(z == 0, np.finfo(z.dtype).tiny, z)
    return u / z, v / z, z


def _landing(column: np.ndarray, row: np.ndarray, usable: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of the usable pixels that land within the frame, and of where they land."""
    height = column.shape[0]
    inside = usable & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    here = np.flatnonzero(inside)
    column, row = column.reshape(-1)[here], row.reshape(-1)[here]
    return here, row.astype(np.int64) * width + column.astype(np.int64)


def _normalised(depth: np.ndarray) -> np.ndarray:
    """Less its median, over its mean deviation from it."""
    centred = depth - lower_median(depth.reshape(-1))
    return centred / max(float(np.abs(centred).mean(dtype=np.float64)), 1e-6)
