"""Hand-held cameras: where one may stand, what is worth looking at, and how it moves."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ..procedural.motion import heavy_tailed, path
from .world import World, clearance

CLEAR_M = 0.4  # no solid comes nearer to the camera


def orientation(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """``(T, 3, 3)`` camera to world of an OpenCV camera in a world with z up; radians, pitch up and roll clockwise."""
    zero = np.zeros_like(yaw)
    forward = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], -1)
    right = np.stack([np.sin(yaw), -np.cos(yaw), zero], -1)
    down = np.cross(forward, right)
    cosine, sine = np.cos(roll)[:, None], np.sin(roll)[:, None]
    return np.stack([cosine * right + sine * down, cosine * down - sine * right, forward], axis=-1)


def random_intrinsics(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """``(3, 3)``: square pixels, 45 to 75 degrees across the diagonal's root mean side, centre almost in the middle."""
    height, width = size
    focal = np.sqrt(height * width) * np.exp(rng.uniform(np.log(0.8), np.log(1.4)))
    centre = np.array([width, height]) * (0.5 + rng.normal(0, 0.01, 2).clip(-0.03, 0.03))
    return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])


def random_trajectory(
    rng: Generator,
    clock: np.ndarray,
    strength: float,
    start: np.ndarray,
    yaw: float,
    pitch: float,
    reach_m: float,
    scale_m: float,
    travel: float | None = None,
) -> np.ndarray:
    """Walk, pan, tilt, roll and shake from a first view.

    Args:
        strength: Multiplies every speed; 0 fixes the camera.
        start: ``(3,)`` first position.
        reach_m: How far the camera may stray.
        scale_m: Typical distance of the scene; speeds of translation go with it.
        travel: Share of the speed that is walked, the rest is turned, and no clip stands still; None: any share.

    Returns:
        ``(T, 4, 4)`` camera to world.
    """
    frames = len(clock)
    angles, centre = np.zeros((frames, 3)), np.zeros((frames, 3))
    roll = float(np.clip(rng.normal(0, 2.5), -8, 8)) * np.pi / 180
    if strength > 0 and (rng.random() > 0.05 or travel is not None):
        share = rng.dirichlet([1.2, 1.2]) if travel is None else (1 - travel, travel)
        speed = heavy_tailed(rng, 0.014, 0.65, 0.05) * strength
        turn = path(rng, clock, share[0] * speed * 1.3, 2, bound=rng.uniform(0.3, 1.2))
        angles[:, :2] = (turn - turn[0]) * (1, 0.5)
        wobble = path(rng, clock, heavy_tailed(rng, 0.002, 0.8, 0.02) * strength, 1, bound=0.12)
        angles[:, 2] = (wobble - wobble[0])[:, 0]
        walk = path(rng, clock, share[1] * speed * scale_m, 3, bound=reach_m)
        centre = (walk - walk[0]) * (1, 1, 0.4)
        if rng.random() < 0.7:
            angles += rng.standard_normal((frames, 3)) * heavy_tailed(rng, 0.002, 0.7, 0.012) * strength
            centre += rng.standard_normal((frames, 3)) * heavy_tailed(rng, 0.001, 0.7, 0.006) * strength * scale_m
    limits = np.array([-55, 25]) * np.pi / 180
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = orientation(yaw + angles[:, 0], np.clip(pitch + angles[:, 1], *limits), roll + angles[:, 2])
    poses[:, :3, 3] = start + centre
    return poses


def keep_clear(world: World, poses: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The same trajectory, its travel shortened until it stays inside ``low`` .. ``high`` and clear of solids."""
    moved = poses[:, :3, 3] - poses[0, :3, 3]
    for share in (1.0, 0.6, 0.35, 0.2, 0.1, 0.05):
        place = poses[0, :3, 3] + share * moved
        if (place > low).all() and (place < high).all() and clearance(world.solids, world.poses, place).min() > CLEAR_M:
            break
    else:
        place = np.broadcast_to(poses[0, :3, 3], moved.shape)
    kept = poses.copy()
    kept[:, :3, 3] = place
    return kept
