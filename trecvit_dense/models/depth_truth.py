"""What a sample says about depth, as the losses of a depth head want it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trecvit_dense.structures import DepthMap, VideoSample

_AGREEMENT = 0.05  # relative; a cell whose depth the frame before contradicts has moved by itself or was hidden


def truth_scale(sample: VideoSample, scale: tuple[float, float]) -> tuple[float, float]:
    """Model-input pixels per pixel of the truth, ``(x, y)``; ``scale`` is that per pixel of the video."""
    height, width = sample.depth.depth_m.shape[1:]
    return scale[0] * sample.size[1] / width, scale[1] * sample.size[0] / height


def focal_px(sample: VideoSample, scale: tuple[float, float]) -> float | None:
    """Mean focal length in pixels of the model input, or None when the sample does not say."""
    if sample.depth is None or sample.depth.intrinsics is None:
        return None
    ratio = truth_scale(sample, scale)
    matrices = sample.depth.intrinsics.reshape(-1, 3, 3)
    return float((matrices[:, 0, 0] * ratio[0] + matrices[:, 1, 1] * ratio[1]).mean() / 2)


def motion_to_previous(
    depth: DepthMap, grid: tuple[int, int], stride: int, scale: tuple[float, float]
) -> tuple[Tensor, Tensor] | None:
    """Where the static scene in each cell lay one frame before.

    Args:
        grid: ``(h, w)`` cells of ``stride`` model-input pixels.
        scale: Model-input pixels per pixel of the truth, ``(x, y)``.

    Returns:
        ``(T, h, w, 2)`` displacement x, y in cells and ``(T, h, w)`` bool, cells for which it is known: never on
        frame 0, nor where the depth of the frame before disagrees. None without poses or intrinsics.
    """
    if depth.camera_to_world is None or depth.intrinsics is None:
        return None
    time, height, width = depth.depth_m.shape
    matrices = np.broadcast_to(depth.intrinsics.reshape(-1, 3, 3), (time, 3, 3)).astype(np.float64)
    ratio = np.array(scale, np.float64)
    y, x = np.mgrid[: grid[0], : grid[1]]
    cells = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride / ratio  # (N, 2) pixels of the truth
    row, column = _pixel(cells, height, width)
    here = depth.depth_m[:, row, column].astype(np.float64)  # (T, N)
    inside = (cells < (width, height)).all(1)
    motion, known = np.zeros((time, len(cells), 2)), np.zeros((time, len(cells)), bool)
    rays = np.concatenate([cells, np.ones((len(cells), 1))], 1)
    for t in range(1, time):
        to_previous = np.linalg.inv(depth.camera_to_world[t - 1]) @ depth.camera_to_world[t]
        points = (rays @ np.linalg.inv(matrices[t]).T) * here[t][:, None]
        points = points @ to_previous[:3, :3].T + to_previous[:3, 3]
        image = points @ matrices[t - 1].T
        seen = image[:, 2] > 1e-3
        xy = image[:, :2] / np.where(seen, image[:, 2], 1)[:, None]
        seen &= ((xy >= 0) & (xy < (width, height))).all(1) & inside & depth.valid[t, row, column]
        there = _pixel(np.where(seen[:, None], xy, 0), height, width)
        before = depth.depth_m[(t - 1, *there)]
        seen &= depth.valid[(t - 1, *there)] & (np.abs(before - points[:, 2]) < _AGREEMENT * points[:, 2])
        motion[t], known[t] = np.where(seen[:, None], (xy - cells) * ratio / stride, 0), seen
    shape = (time, *grid)
    return torch.from_numpy(motion.reshape(*shape, 2)).float(), torch.from_numpy(known.reshape(shape))


def _pixel(xy: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixel that holds a point."""
    return np.clip(xy[:, 1].astype(int), 0, height - 1), np.clip(xy[:, 0].astype(int), 0, width - 1)
