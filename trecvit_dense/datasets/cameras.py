"""Cameras as the data sets write them, as ours: x right, y down, z forward; camera to world, metres."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Columns are our camera axes in those of the data set.
FORWARD_RIGHT_DOWN = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # TartanAir: x forward, y right, z down
LEFT_UP_FORWARD = np.diag([-1.0, -1, 1])  # PyTorch3D: x left, y up, z forward


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """``(3, 3)`` px."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def poses_from_quaternions(position_m: np.ndarray, xyzw: np.ndarray) -> np.ndarray:
    """``(T, 4, 4)`` from ``(T, 3)`` and quaternions ``(T, 4)`` x, y, z, w of any length."""
    x, y, z, w = (xyzw / np.linalg.norm(xyzw, axis=1, keepdims=True)).T
    poses = np.tile(np.eye(4), (len(xyzw), 1, 1))
    poses[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1)
    poses[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1)
    poses[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1)
    poses[:, :3, 3] = position_m
    return poses


def turned_axes(poses: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The same motion ``(T, 4, 4)`` where camera and world have our axes; ``axes`` ``(3, 3)`` as above."""
    change = np.eye(4)
    change[:3, :3] = axes
    return change.T @ poses @ change


def camera_to_world(world_to_camera: np.ndarray) -> np.ndarray:
    """Inverse of ``(T, 4, 4)`` or ``(T, 3, 4)`` whose rotations may be rounded: the nearest rotation is taken."""
    u, _, v = np.linalg.svd(world_to_camera[:, :3, :3].astype(np.float64))
    turn = u @ v
    poses = np.tile(np.eye(4), (len(world_to_camera), 1, 1))
    poses[:, :3, :3] = turn.transpose(0, 2, 1)
    poses[:, :3, 3] = -np.einsum('tji,tj->ti', turn, world_to_camera[:, :3, 3].astype(np.float64))
    return poses


def is_rigid(poses: np.ndarray) -> np.ndarray:
    """``(T,)`` bool: which of ``(T, 4, 4)`` are a rotation and a position; lost poses hold NaN or infinity."""
    finite = np.isfinite(poses).all(axis=(1, 2))
    poses = np.where(finite[:, None, None], poses, 0.0)
    turn = poses[:, :3, :3]
    rigid = finite & (np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) < 1e-2)
    return rigid & (np.linalg.det(turn) > 0) & (np.abs(poses[:, 3] - (0, 0, 0, 1)).max(axis=1) < 1e-6)


def read_table(path: Path, columns: int, *, header: int = 0) -> np.ndarray:
    """``(N, columns)`` numbers; lines that start with # are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else than a table of numbers with so many a line.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        table = np.loadtxt(path, ndmin=2, skiprows=header)
    except ValueError as error:
        raise ValueError(f'{path}: not a table of numbers ({" ".join(str(error).split())})') from None
    if table.size == 0 or table.shape[1] != columns:
        raise ValueError(f'{path}: {table.shape[1] if table.size else 0} numbers a line; wanted {columns}')
    return table
