"""Solids that move: they drift, spin, bounce or roll through the free space before the camera."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ..procedural.motion import heavy_tailed, path, rotation
from .furniture import Kit
from .layout import Site
from .world import clearance

_TRIES = 6
_CAMERA_GAP_M = 0.6


def add_movers(kit: Kit, site: Site, clock: np.ndarray, cameras: np.ndarray, count: int, strength: float) -> None:
    """Up to ``count`` solids, each of its own instance, that keep away from the camera ``(T, 4, 4)`` and start free."""
    rng, world = kit.rng, kit.world
    for _ in range(count):
        radius = rng.uniform(0.08, 0.4) * (1 if site.ceiling < 10 else rng.uniform(1, 4))
        for _ in range(_TRIES):
            poses = _way(rng, site, clock, cameras, radius, strength)
            centre = poses[:, :3, 3]
            away = np.linalg.norm(centre[:, None] - cameras[None, :, :3, 3], axis=-1).min()
            free = clearance(world.solids, world.poses, centre)
            if away > 1.8 * radius + _CAMERA_GAP_M and free[0] > radius and np.mean(free > 0.5 * radius) > 0.8:
                site.label += 1
                _build(kit, world.body(poses, label=site.label), radius)
                break


def _way(
    rng: Generator, site: Site, clock: np.ndarray, cameras: np.ndarray, radius: float, strength: float
) -> np.ndarray:
    """``(T, 4, 4)`` body to world."""
    frames = len(clock)
    away = np.exp(rng.uniform(np.log(1.0), np.log(5.0))) * (1 if site.ceiling < 10 else rng.uniform(1, 4))
    start = cameras[rng.integers(frames)] @ np.array([*rng.uniform(-0.4, 0.4, 2) * away, away, 1.0])
    start[2] = radius if rng.random() < 0.4 else max(start[2], radius)
    speed = heavy_tailed(rng, 0.006, 1.0, 0.06) * away * strength
    shift = path(rng, clock, speed, 3, bound=rng.uniform(0.3, 1.5))
    shift = (shift - shift[0]) * (1, 1, rng.choice([0.0, 0.5]))
    if rng.random() < 0.3:  # bounces
        shift[:, 2] += (
            strength * rng.uniform(0.1, 0.6) * np.abs(np.sin(clock * rng.uniform(0.1, 0.4) * max(strength, 0.1)))
        )
    centre = start[:3] + shift
    centre[:, :2] = np.clip(centre[:, :2], site.low + radius, site.high - radius)
    centre[:, 2] = np.clip(centre[:, 2], radius, max(site.ceiling - radius, radius))
    angles = path(rng, clock, heavy_tailed(rng, 0.03, 0.9, 0.2) * strength, 3)
    if rng.random() < 0.3:
        angles[:, :2] = 0
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = rotation(angles + rng.uniform(0, 2 * np.pi, 3) * (rng.random() < 0.6))
    poses[:, :3, 3] = centre
    return poses


def _build(kit: Kit, body: int, radius: float) -> None:
    """A box, ball, cylinder, cone, or a few of them joined, within about ``radius`` of the origin."""
    rng, world = kit.rng, kit.world
    for number in range(int(rng.choice([1, 1, 2, 3]))):
        size = radius * (0.6 if number else 0.75)
        centre = tuple(rng.uniform(-0.4, 0.4, 3) * radius) if number else (0.0, 0.0, 0.0)
        paint = kit.paint('busy', 'busy', 'plain', 'wood', 'carpet', tile=(radius, 4 * radius), fresh=0.8)
        kind = rng.choice(['box', 'box', 'ball', 'column', 'cone'])
        if kind == 'box':
            world.box(body, centre, tuple(size * rng.uniform(0.4, 1, 3)), paint)
        elif kind == 'ball':
            world.ball(
                body, centre, tuple(size * (rng.uniform(0.5, 1, 3) if rng.random() < 0.4 else np.ones(3))), paint
            )
        else:
            top = 1.0 if kind == 'column' else rng.uniform(0, 0.4)
            wide = size * rng.uniform(0.3, 0.8)
            world.column(body, centre, wide, wide * top, size * rng.uniform(0.4, 1), paint)
