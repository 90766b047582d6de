"""How things move: random paths, a pinhole camera, planes in space, and a non-rigid warp with both directions exact.

Every layer is a textured plane. A *rest* coordinate (pixels, origin at the layer's centre) goes to the image by

    rest --(warp, non-rigid)--> bent --(in-plane affine)--> plane --(pose)--> world --(camera)--> image,

of which all but the warp is one homography per frame. The warp is given by its inverse, ``rest = bent + e(bent, t)``,
which is what rendering needs; points solve it by fixed-point iteration (``e`` is a contraction).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

# Calibrated: with it, zero motion has a TAP-Vid delta_avg of about 0.14 on the default clips.
_GAIN = 2.7
_MAX_TURN = 0.3  # radians of pan and tilt; keeps the horizon of slanted backgrounds out of sight


def heavy_tailed(rng: Generator, median: float, sigma: float, limit: float) -> float:
    """A log-normal draw, cut at ``limit``: most things are slow, a few very fast."""
    return float(min(median * np.exp(sigma * rng.standard_normal()), limit))


def path(rng: Generator, clock: np.ndarray, speed: float, dims: int, *, bound: float | None = None) -> np.ndarray:
    """A random smooth path.

    Args:
        clock: ``(T,)`` time in reference frames, evenly spaced.
        speed: Typical distance per reference frame.
        bound: Softly keep every coordinate within ``bound`` of the middle: what leaves comes back.

    Returns:
        ``(T, dims)``; not anchored at zero when bounded.
    """
    weights = rng.dirichlet([1.6, 0.7, 0.7])
    direction = rng.standard_normal(dims)
    velocity = weights[0] * direction / (np.linalg.norm(direction) + 1e-6) * np.ones((len(clock), 1))
    for _ in range(int(rng.integers(1, 3))):  # swinging
        period, phase = np.exp(rng.uniform(np.log(8), np.log(100))), rng.uniform(0, 2 * np.pi, dims)
        velocity = velocity + weights[1] * rng.standard_normal(dims) * np.cos(
            clock[:, None] * (2 * np.pi / period) + phase
        )
    spacing = rng.uniform(5, 25)  # pushed about: velocity knots joined by lines
    knots = np.arange(clock[0], clock[-1] + 2 * spacing, spacing)
    pushes = rng.standard_normal((len(knots), dims))
    velocity = velocity + weights[2] * np.stack([np.interp(clock, knots, pushes[:, d]) for d in range(dims)], axis=1)
    if rng.random() < 0.3:  # sudden moves, about one in 24 frames
        for when in rng.uniform(clock[0], clock[-1] + 1, 1 + rng.poisson((clock[-1] - clock[0]) / 24)):
            width = rng.uniform(0.7, 2.0)
            bump = np.exp(-0.5 * ((clock - when) / width) ** 2)
            velocity = velocity + bump[:, None] * rng.standard_normal(dims) * rng.uniform(0.5, 4.0)
    if rng.random() < 0.2:  # stops, and goes on
        phase, period = rng.uniform(0, 2 * np.pi), rng.uniform(20, 60)
        velocity = velocity * np.clip(2 * np.sin(clock * (2 * np.pi / period) + phase) + 0.5, 0, 1)[:, None]
    interval = clock[1] - clock[0] if len(clock) > 1 else 1.0
    position = np.cumsum(velocity * (_GAIN * speed * interval), axis=0)
    position = position - position[0]
    if bound is None:
        return position
    return bound * np.sin(position / bound + rng.uniform(-0.5, 0.5, dims))


def rotation(angles: np.ndarray) -> np.ndarray:
    """``(T, 3)`` pitch, yaw, roll in radians -> ``(T, 3, 3)``, roll applied first."""
    matrices = []
    for axis in range(3):
        cosine, sine = np.cos(angles[:, axis]), np.sin(angles[:, axis])
        matrix = np.zeros((len(angles), 3, 3))
        i, j = (axis + 1) % 3, (axis + 2) % 3
        matrix[:, axis, axis] = 1
        matrix[:, i, i], matrix[:, i, j], matrix[:, j, i], matrix[:, j, j] = cosine, -sine, sine, cosine
        matrices.append(matrix)
    return matrices[1] @ matrices[0] @ matrices[2]


@dataclass
class Camera:
    """Pinhole camera over T frames.

    Args:
        intrinsics: ``(T, 3, 3)`` pixels.
        world_to_camera: ``(T, 3, 4)`` metres.
    """

    intrinsics: np.ndarray
    world_to_camera: np.ndarray

    @property
    def projection(self) -> np.ndarray:
        """``(T, 3, 4)``."""
        return self.intrinsics @ self.world_to_camera

    @property
    def camera_to_world(self) -> np.ndarray:
        """``(T, 4, 4)``."""
        bottom = np.broadcast_to(np.array([0.0, 0, 0, 1]), (len(self.intrinsics), 1, 4))
        return np.linalg.inv(np.concatenate([self.world_to_camera, bottom], axis=1))


def random_camera(
    rng: Generator,
    size: tuple[int, int],
    clock: np.ndarray,
    strength: float,
    depths_m: np.ndarray,
    *,
    zooms: bool = True,
) -> Camera:
    """Pan, tilt, roll, zoom, travel (hence parallax) and shake; one clip in fourteen has a fixed camera.

    Args:
        strength: Multiplies every speed; 0 fixes the camera.
        depths_m: Of the layers. Travel moves a thing at their median as fast as pan does, and stays before the nearest.
        zooms: False keeps the intrinsics the same on every frame.
    """
    height, width = size
    side = float(np.sqrt(height * width))
    focal = side * rng.uniform(0.8, 1.8)
    frames = len(clock)
    angles, centre, zoom = np.zeros((frames, 3)), np.zeros((frames, 3)), np.zeros(frames)
    if rng.random() > 0.07 and strength > 0:
        pan, travel = rng.dirichlet([1.0, 1.0]) * heavy_tailed(rng, 0.009, 0.8, 0.06) * strength * side
        reach = side * rng.uniform(0.2, 0.6)
        turn = path(rng, clock, pan / focal, 2, bound=min(reach / focal, _MAX_TURN))
        angles[:, :2] = turn - turn[0]
        if rng.random() < 0.6:
            angles[:, 2] = path(
                rng, clock, heavy_tailed(rng, 0.003, 1.0, 0.04) * strength, 1, bound=rng.uniform(0.1, 0.6)
            )[:, 0]
        scale = float(np.median(depths_m)) / focal
        forward = 0.25 * float(np.min(depths_m))
        centre[:, :2] = path(rng, clock, travel * scale, 2, bound=reach * scale)
        centre[:, 2] = path(rng, clock, travel * scale * rng.uniform(0, 2), 1, bound=forward)[:, 0]
        if rng.random() < 0.4 and zooms:
            zoom = path(rng, clock, heavy_tailed(rng, 0.003, 1.0, 0.03) * strength, 1, bound=0.35)[:, 0]
        if rng.random() < 0.35:  # a hand-held camera shakes
            shake = rng.standard_normal((frames, 3)) * heavy_tailed(rng, 0.0015, 0.8, 0.012) * strength * side / focal
            angles += shake * (1, 1, 0.5)
    intrinsics = np.zeros((frames, 3, 3))
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal * np.exp(zoom)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1
    turn = rotation(angles)
    return Camera(intrinsics, np.concatenate([turn, -turn @ centre[..., None]], axis=2))


def affine(offset: np.ndarray, angle: np.ndarray, log_scale: np.ndarray, shear: np.ndarray) -> np.ndarray:
    """``(T, 3, 3)`` from ``(T, 2)`` offset, ``(T,)`` angle in radians, ``(T, 2)`` log scale and ``(T,)`` shear."""
    matrix = np.zeros((len(offset), 3, 3))
    cosine, sine = np.cos(angle), np.sin(angle)
    scale = np.exp(log_scale)
    stretch = np.zeros((len(offset), 2, 2))
    stretch[:, 0, 0], stretch[:, 1, 1], stretch[:, 0, 1] = scale[:, 0], scale[:, 1], shear * scale[:, 0]
    turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], 1)
    matrix[:, :2, :2] = turn @ stretch
    matrix[:, :2, 2] = offset
    matrix[:, 2, 2] = 1
    return matrix


def plane_pose(centre_m: np.ndarray, tilt: np.ndarray, metres_per_px: float) -> np.ndarray:
    """``(T, 4, 3)``: homogeneous plane coordinates in pixels -> homogeneous world point in metres.

    Args:
        centre_m: ``(3,)`` world position of the plane's origin.
        tilt: ``(T, 2)`` rotation about x and y, radians.
    """
    turn = rotation(np.concatenate([tilt, np.zeros((len(tilt), 1))], axis=1))
    pose = np.zeros((len(tilt), 4, 3))
    pose[:, :3, :2] = turn[:, :, :2] * metres_per_px
    pose[:, :3, 2] = centre_m
    pose[:, 3, 2] = 1
    return pose


@dataclass
class Warp:
    """Non-rigid motion: ``rest = bent + e(bent, t)`` with ``e`` a sum of K plane waves.

    Args:
        amplitude: ``(K, 2)`` pixels.
        wave: ``(K, 2)`` radians per pixel; ``sum |amplitude| |wave| < 0.5`` makes ``e`` a contraction.
        phase: ``(T, K)`` radians.
        envelope: ``(T, K)`` in [-1, 1].
    """

    amplitude: np.ndarray
    wave: np.ndarray
    phase: np.ndarray
    envelope: np.ndarray

    def shift(self, bent: np.ndarray, frames: np.ndarray | int) -> np.ndarray:
        """``e`` at ``bent`` ``(..., 2)``; ``frames`` broadcasts against ``(...)``."""
        total = np.zeros_like(bent)
        for k in range(len(self.amplitude)):
            value = np.sin(bent @ self.wave[k] + self.phase[frames, k]) * self.envelope[frames, k]
            total += value[..., None] * self.amplitude[k]
        return total

    def shift_maps(self, x: np.ndarray, y: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """``e`` on float32 coordinate maps ``(h, w)`` of one frame; the same sum, written for speed."""
        dx, dy = np.zeros_like(x), np.zeros_like(y)
        for k, ((ax, ay), (kx, ky)) in enumerate(zip(self.amplitude.tolist(), self.wave.tolist(), strict=True)):
            value = np.sin(x * np.float32(kx) + y * np.float32(ky) + np.float32(self.phase[frame, k] % (2 * np.pi)))
            gain = float(self.envelope[frame, k])
            dx += value * np.float32(ax * gain)
            dy += value * np.float32(ay * gain)
        return dx, dy

    def bend(self, rest: np.ndarray, frames: np.ndarray | int) -> np.ndarray:
        """The inverse, ``rest -> bent``: the error halves at least in every iteration, under 1e-4 px at the end."""
        bent = rest.copy()
        for _ in range(18):
            bent = rest - self.shift(bent, frames)
        return bent

    @property
    def reach(self) -> float:
        """Largest possible shift, pixels."""
        return float(np.linalg.norm(self.amplitude, axis=1).sum())


def random_warp(rng: Generator, clock: np.ndarray, radius: float, strength: float) -> Warp:
    """Waves about as long as the layer (bending) or shorter (rippling); travelling or standing.

    Args:
        radius: Pixels, sets the wave lengths.
        strength: 1 for the usual range; the contraction bound holds at any value.
    """
    count = int(rng.integers(1, 4))
    length = radius * np.exp(rng.uniform(np.log(0.8), np.log(5.0), count))
    direction, push = rng.uniform(0, 2 * np.pi, count), rng.uniform(0, 2 * np.pi, count)
    wave = np.stack([np.cos(direction), np.sin(direction)], 1) * (2 * np.pi / length)[:, None]
    slope = rng.dirichlet(np.ones(count)) * min(strength * rng.uniform(0.08, 0.45), 0.45)
    amplitude = np.stack([np.cos(push), np.sin(push)], 1) * (slope * length / (2 * np.pi))[:, None]
    rate = rng.standard_normal(count) * (2 * np.pi / rng.uniform(15, 80, count)) * (rng.random(count) < 0.7)
    swing = 2 * np.pi / rng.uniform(10, 80, count)
    phase = clock[:, None] * rate + rng.uniform(0, 2 * np.pi, count)
    envelope = np.where(rng.random(count) < 0.7, np.sin(clock[:, None] * swing + rng.uniform(0, 2 * np.pi, count)), 1.0)
    return Warp(amplitude, wave, phase, np.broadcast_to(envelope, phase.shape).copy())
