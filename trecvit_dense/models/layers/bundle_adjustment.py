"""Bundle adjustment: poses of a few frames and inverse depths of many points, from where the points were seen.

The newest frame is the reference: points are rays of it with one unknown each. Levenberg-Marquardt on robust errors,
the depths eliminated first (Triggs, McLauchlan, Hartley and Fitzgibbon, 2000). float64 NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass
class Bundle:
    """Points of the newest frame and where they were in K older ones, in units of rays and standard deviations."""

    rays: np.ndarray  # (n, 3)
    moved: np.ndarray  # (n, K, 2)
    weight: np.ndarray  # (n, K) 0 where not seen
    scale: float  # one over the standard deviation of a place, at depth 1


@dataclass
class Solution:
    """Motion of points to every older frame, and how far away the points are."""

    rotation: np.ndarray  # (K, 3, 3)
    travel: np.ndarray  # (K, 3)
    inverse: np.ndarray  # (n,)
    cost: float = np.inf
    information: np.ndarray | None = None  # (n,) one over the variance of ``inverse``, the poses as they are


def adjusted(bundle: Bundle, start: Solution, *, freedom: float = 1.0, steps: int = 6) -> Solution:
    """Levenberg-Marquardt on all poses and depths.

    Args:
        freedom: Standard deviation of inverse depth where nothing tells, as a share of the typical one.
        steps: Most steps.
    """
    middle = float(np.median(start.inverse))
    prior = 1 / (freedom * middle) ** 2
    now, damping = replace(start, cost=_cost(bundle, start, middle, prior)), 1e-3
    for _ in range(steps):
        normal = _normal_equations(bundle, now, middle, prior)
        for _ in range(4):
            moved = _moved(now, _step(normal, damping), 0.02 * middle)
            moved.cost = _cost(bundle, moved, middle, prior)
            if moved.cost < now.cost:
                break
            damping *= 8
        else:
            break
        settled = now.cost - moved.cost < 1e-3 * now.cost
        now, damping = moved, max(damping / 5, 1e-6)
        if settled:
            break
    return replace(now, information=_normal_equations(bundle, now, middle, prior).by_depth)


def turned_by(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors ``(K, 3)`` to matrices ``(K, 3, 3)`` (Rodrigues)."""
    angle = np.maximum(np.linalg.norm(vectors, axis=-1), 1e-12)[:, None, None]
    x, y, z = (vectors / angle[:, 0]).T
    axis = np.zeros((len(vectors), 3, 3))  # the matrix of the cross product with the axis
    axis[:, 0, 1], axis[:, 0, 2], axis[:, 1, 2] = -z, y, -x
    axis -= axis.swapaxes(1, 2)
    return np.eye(3) + np.sin(angle) * axis + (1 - np.cos(angle)) * (axis @ axis)


def rescaled(solution: Solution, ratio: float) -> Solution:
    """The same pictures from a world ``ratio`` times as small."""
    inverse, information = solution.inverse * ratio, solution.information / ratio**2
    return replace(solution, inverse=inverse, travel=solution.travel / ratio, information=information)


def _linearised(bundle: Bundle, at: Solution) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors ``(n, K, 2)`` in standard deviations, and their slopes by pose ``(n, K, 2, 6)`` and inverse depth ``(n, K,
    2)``."""
    turned = _turned(bundle.rays, at.rotation)
    there = turned + at.inverse[:, None, None] * at.travel
    x, y, z = np.moveaxis(turned, -1, 0)
    size = bundle.scale / there[..., 2].clip(min=0.05)
    place = there[..., :2] * (size / bundle.scale)[..., None]
    right, down = size * place[..., 0], size * place[..., 1]
    by_there = np.zeros((*place.shape, 3))
    by_there[..., 0, 0] = by_there[..., 1, 1] = size
    by_there[..., 0, 2], by_there[..., 1, 2] = -right, -down
    by_pose = np.empty((*place.shape, 6))  # a . (w x p) = w . (p x a)
    by_pose[..., 0, 0], by_pose[..., 0, 1], by_pose[..., 0, 2] = -y * right, z * size + x * right, -y * size
    by_pose[..., 1, 0], by_pose[..., 1, 1], by_pose[..., 1, 2] = -y * down - z * size, x * down, x * size
    by_pose[..., 3:] = by_there * at.inverse[:, None, None, None]
    by_depth = (by_there @ at.travel[:, :, None])[..., 0]
    return (place - bundle.moved) * bundle.scale, by_pose, by_depth


def _turned(rays: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """``(n, 3)`` by ``(K, 3, 3)``; ``(n, K, 3)``."""
    return (rays @ rotation.reshape(-1, 3).T).reshape(len(rays), -1, 3)


def _cost(bundle: Bundle, at: Solution, middle: float, prior: float) -> float:
    there = _turned(bundle.rays, at.rotation) + at.inverse[:, None, None] * at.travel
    error = (there[..., :2] / there[..., 2:].clip(min=0.05) - bundle.moved) * bundle.scale
    square = (error**2).sum(-1)
    return float((4 * np.log1p(square / 4) * bundle.weight).sum() + prior * ((at.inverse - middle) ** 2).sum())


@dataclass
class _Normal:
    """Normal equations with blocks by pose, by depth and between."""

    by_pose: np.ndarray  # (K, 6, 6)
    by_depth: np.ndarray  # (n,)
    between: np.ndarray  # (n, K * 6)
    slope_pose: np.ndarray  # (K * 6,)
    slope_depth: np.ndarray  # (n,)


def _normal_equations(bundle: Bundle, at: Solution, middle: float, prior: float) -> _Normal:
    error, by_pose, by_depth = _linearised(bundle, at)
    weight = bundle.weight / (1 + (error**2).sum(-1) / 4)
    weighted = by_pose * weight[..., None, None]
    return _Normal(
        by_pose=_products(weighted, by_pose),
        by_depth=(weight[..., None] * by_depth**2).sum((1, 2)) + prior,
        between=(by_depth[..., None, :] @ weighted).reshape(len(error), -1),
        slope_pose=(error[..., None, :] @ weighted).sum((0, 2)).ravel(),
        slope_depth=(weight[..., None] * by_depth * error).sum((1, 2)) + prior * (at.inverse - middle),
    )


def _products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two ``(n, K, 2, 6)``, summed over n and the axes of the picture; ``(K, 6, 6)``."""
    rows, columns = (part.swapaxes(0, 1).reshape(part.shape[1], -1, 6) for part in (first, second))
    return rows.swapaxes(1, 2) @ columns


def _step(normal: _Normal, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """Change of the poses ``(K, 6)`` and of the depths ``(n,)``, the depths eliminated first (Schur)."""
    by_depth, count = normal.by_depth * (1 + damping), len(normal.by_pose)
    square = -normal.between.T @ (normal.between / by_depth[:, None])
    for k in range(count):
        block = slice(6 * k, 6 * k + 6)
        square[block, block] += normal.by_pose[k] + damping * np.diag(np.diag(normal.by_pose[k])) + 1e-6 * np.eye(6)
    slope = normal.slope_pose - normal.between.T @ (normal.slope_depth / by_depth)
    try:
        poses = -np.linalg.solve(square, slope)
    except np.linalg.LinAlgError:  # no step; more damping follows
        poses = np.zeros_like(slope)
    depths = -(normal.slope_depth + normal.between @ poses) / by_depth
    return poses.reshape(count, 6).clip(-0.3, 0.3), depths


def _moved(at: Solution, change: tuple[np.ndarray, np.ndarray], least: float) -> Solution:
    poses, depths = change
    rotation = turned_by(poses[:, :3]) @ at.rotation
    return Solution(rotation, at.travel + poses[:, 3:], (at.inverse + depths).clip(min=least))


def poses_alone(bundle: Bundle, start: Solution, steps: int = 5) -> Solution:
    """Every pose by itself, from depths that are known to a tenth: a point may slide along its epipolar line as far."""
    at, identity = start, np.eye(6)
    for _ in range(steps):
        error, by_pose, by_depth = _linearised(bundle, at)
        slide = (0.1 * at.inverse)[:, None, None] * by_depth  # (n, K, 2)
        slide = slide.clip(-1e4, 1e4)
        share = slide / (1 + (slide**2).sum(-1, keepdims=True))
        left = error - slide * (share * error).sum(-1, keepdims=True)
        free = by_pose - slide[..., None] * (share[..., None, :] @ by_pose)
        square = (left * error).sum(-1)
        free = free * (bundle.weight / (1 + square / 9))[..., None, None]
        normal = _products(by_pose, free)
        slope = (error[..., None, :] @ free).sum((0, 2))
        size = np.trace(normal, axis1=1, axis2=2)[:, None, None] / 6
        step = -np.linalg.solve(normal + (1e-4 * size + 1e-6) * identity, slope[..., None])[..., 0].clip(-0.3, 0.3)
        at = replace(at, rotation=turned_by(step[:, :3]) @ at.rotation, travel=at.travel + step[:, 3:])
        at.cost = float((9 * np.log1p(square / 9) * bundle.weight).sum())
    return at
