"""Exact ray casting on the CPU: which patch a ray meets first, and how far along the optical axis.

The inverse depth of a plane is affine in the pixel, and so are its texture coordinates times the inverse depth: a
rectangle is tested with five affine functions and no division. Round surfaces solve one quadratic per ray. Every patch
is looked at only inside the bounding box of its projection.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .world import DISC, ROUND, Scene

NEAR_M = 0.1
_CORNERS = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing='ij'), axis=-1).reshape(8, 3).astype(float)
_EDGES = np.array([(a, b) for a in range(8) for b in range(a) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 2])


class View:
    """A scene from one camera at one time.

    Args:
        scene: The scene.
        frame: Index of the frame.
        intrinsics: ``(3, 3)`` pixels.
        camera_to_world: ``(4, 4)``, OpenCV camera axes.
    """

    def __init__(self, scene: Scene, frame: int, intrinsics: np.ndarray, camera_to_world: np.ndarray) -> None:
        self.scene = scene
        self.intrinsics, self.camera_to_world = intrinsics, camera_to_world
        self.origin = camera_to_world[:3, 3]
        self.ray = camera_to_world[:3, :3] @ np.linalg.inv(intrinsics)  # pixel (x, y, 1) -> direction with z = 1
        self.to_world = scene.poses[frame, scene.body] @ scene.frame  # (P, 4, 4)
        self.turn = self.to_world[:, :3, :3]
        # Rays in the coordinates of every patch: start + depth * (direction @ (x, y, 1)).
        self.direction = (self.turn.transpose(0, 2, 1) @ self.ray) / scene.scale[:, :, None]  # (P, 3, 3)
        self.start = ((self.origin - self.to_world[:, :3, 3])[:, None] @ self.turn)[:, 0] / scene.scale  # (P, 3)
        self.flat = scene.kind != ROUND
        self.facing = ~self.flat | (self.start[:, 2] > 1e-6)
        height = np.where(self.flat & self.facing, self.start[:, 2], 1.0)
        inverse = -self.direction[:, 2] / height[:, None]  # (P, 3): inverse depth of the patch's plane
        self.plane = np.concatenate(
            [self.start[:, :2, None] * inverse[:, None] + self.direction[:, :2], inverse[:, None]], axis=1
        )  # (P, 3, 3) on (x, y, 1): x / depth, y / depth, 1 / depth

    @cached_property
    def bounds(self) -> np.ndarray:
        """``(P, 4)`` left, top, right, bottom in pixels; infinite, upside down, where a patch cannot be seen."""
        scene = self.scene
        corners = (_CORNERS * (scene.half * scene.scale)[:, None]) @ self.turn.transpose(0, 2, 1)
        corners = corners + (self.to_world[:, :3, 3] - self.origin)[:, None]
        corners = corners @ self.camera_to_world[:3, :3]  # (P, 8, 3) camera axes
        ahead = corners[..., 2] > NEAR_M
        image = corners @ self.intrinsics.T
        image = image[..., :2] / np.where(ahead, corners[..., 2], 1.0)[..., None]
        low = np.where(ahead[..., None], image, np.inf).min(1)
        high = np.where(ahead[..., None], image, -np.inf).max(1)
        cut = np.flatnonzero(ahead.any(1) & ~ahead.all(1) & self.facing)
        if len(cut):  # where edges pass through the near plane
            a, b = corners[cut][:, _EDGES[:, 0]], corners[cut][:, _EDGES[:, 1]]  # (C, 12, 3)
            crossing = (a[..., 2] > NEAR_M) != (b[..., 2] > NEAR_M)
            share = (NEAR_M - a[..., 2]) / np.where(crossing, b[..., 2] - a[..., 2], 1.0)
            image = ((a + share[..., None] * (b - a)) @ self.intrinsics.T)[..., :2] / NEAR_M
            low[cut] = np.minimum(low[cut], np.where(crossing[..., None], image, np.inf).min(1))
            high[cut] = np.maximum(high[cut], np.where(crossing[..., None], image, -np.inf).max(1))
        low[~self.facing] = np.inf
        high[~self.facing] = -np.inf
        return np.concatenate([low, high], axis=1)

    @cached_property
    def rectangle_tests(self) -> np.ndarray:
        """``(P, 5, 3)`` on (x, y, 1): a ray meets the rectangle where all are positive; the last is inverse depth."""
        u, v, inverse = self.plane[:, 0], self.plane[:, 1], self.plane[:, 2]
        reach_u, reach_v = self.scene.half[:, :1] * inverse, self.scene.half[:, 1:2] * inverse
        return np.stack([reach_u - u, reach_u + u, reach_v - v, reach_v + v, inverse], axis=1)

    @cached_property
    def reach(self) -> np.ndarray:
        """``(P,)`` how far a round patch extends along its z axis."""
        return self.scene.half[:, 2] * (1 + 1e-6)

    def raster(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cast rays through grids of pixel coordinates, all with the same even spacing.

        Args:
            x, y: ``(G, w)`` and ``(G, h)`` coordinates of G grids, or ``(w,)`` and ``(h,)`` of one.

        Returns:
            Inverse depth ``(G, h, w)`` or ``(h, w)`` float32, 0 where nothing is met, and the patch's index, int32,
            P where nothing is met.
        """
        if x.ndim == 1:
            inverse, index = self.raster(x[None], y[None])
            return inverse[0], index[0]
        step = x[0, 1] - x[0, 0] if x.shape[1] > 1 else 1.0
        count = np.array([x.shape[1], y.shape[1]])
        start = np.array([x[:, 0], y[:, 0]])  # (2, G)
        first = np.ceil(np.clip((self.bounds[:, :2] - start.max(1)) / step, 0, count)).astype(int)
        last = np.floor(np.clip((self.bounds[:, 2:] - start.min(1)) / step, -1, count - 1)).astype(int) + 1
        seen = np.flatnonzero((last > first).all(1))
        x, y = x.astype(np.float32)[:, None], y.astype(np.float32)[..., None]  # (G, 1, w), (G, h, 1)
        inverse = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
        index = np.full(inverse.shape, len(self.flat), np.int32)
        tests = self.rectangle_tests[seen].astype(np.float32)
        along_x = tests[:, :, 0, None, None, None] * x  # (S, 5, G, 1, w)
        along_y = tests[:, :, 1, None, None, None] * y + tests[:, :, 2, None, None, None]  # (S, 5, G, h, 1)
        radii2 = 4 * np.square(self.scene.half[seen, 0]).astype(np.float32)
        rows = (seen.tolist(), self.scene.kind[seen].tolist(), first[seen].tolist(), last[seen].tolist())
        for k, (n, kind, (x0, y0), (x1, y1)) in enumerate(zip(*rows, strict=True)):
            nearest = inverse[:, y0:y1, x0:x1]
            if kind == ROUND:
                value = _round(
                    self.start[n].astype(np.float32),
                    self.direction[n].astype(np.float32),
                    self.scene.form[n].astype(np.float32),
                    np.float32(self.reach[n]),
                    x[..., x0:x1],
                    y[:, y0:y1],
                )
                hit = value > nearest
                np.copyto(nearest, value, where=hit)
            else:
                values = along_x[k, ..., x0:x1] + along_y[k, :, :, y0:y1]  # (5, G, h, w)
                gain = values[4]
                if kind == DISC:
                    u, v = values[1] - values[0], values[3] - values[2]
                    inside = radii2[k] * gain * gain - u * u - v * v
                    inside[gain <= 0] = -1
                    gain -= nearest
                    hit = np.minimum(inside, gain) > 0
                else:
                    gain -= nearest
                    hit = np.minimum.reduce(values) > 0
                np.add(nearest, gain, out=nearest, where=hit)
            np.copyto(index[:, y0:y1, x0:x1], n, where=hit)
        return inverse, index

    def cast(self, xy_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rays through any places ``(N, 2)``: inverse depth ``(N,)`` float64 and patch ``(N,)``, as :meth:`raster`."""
        low, high = self.bounds[:, None, :2], self.bounds[:, None, 2:]
        patch, ray = np.nonzero(((xy_px >= low) & (xy_px <= high)).all(-1))  # pairs worth a test
        x, y = xy_px[ray, 0], xy_px[ray, 1]
        tests = self.rectangle_tests[patch]  # (K, 5, 3)
        values = tests[..., 0] * x[:, None] + tests[..., 1] * y[:, None] + tests[..., 2]
        inverse, half = values[:, 4].copy(), self.scene.half[patch, 0]
        kind = self.scene.kind[patch]
        u, v = values[:, 1] - values[:, 0], values[:, 3] - values[:, 2]
        inside = np.where(kind == DISC, u * u + v * v < 4 * np.square(half * inverse), values[:, :4].min(1) > 0)
        inverse[~inside] = 0
        bent = np.flatnonzero(kind == ROUND)
        if len(bent):
            n = patch[bent]
            start, form = self.start[n].T, self.scene.form[n].T
            inverse[bent] = _round(start, self.direction[n].transpose(1, 2, 0), form, self.reach[n], x[bent], y[bent])
        nearest, index = np.zeros(len(xy_px)), np.full(len(xy_px), len(self.flat))
        order = np.argsort(inverse, kind='stable')
        order = order[inverse[order] > 0]
        nearest[ray[order]], index[ray[order]] = inverse[order], patch[order]  # the nearest is written last
        return nearest, index


def _round(
    start: np.ndarray, direction: np.ndarray, form: np.ndarray, reach: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Inverse depth at which rays first meet a round patch, 0 where they do not.

    Args:
        start: ``(3, ...)`` of the ray, in the patch's coordinates.
        direction: ``(3, 3, ...)`` on (x, y, 1).
        form: ``(3, ...)`` k, l, e of the surface.
        reach: ``(...)`` half extent along z.
        x, y: Pixels. Everything broadcasts.
    """
    (a, b, c), (d, e, f), (g, h, i) = direction
    dx, dy, dz = x * a + (y * b + c), x * d + (y * e + f), x * g + (y * h + i)
    ox, oy, oz = start
    bend, lean, offset = form
    square = dx * dx + dy * dy + bend * (dz * dz)
    half = ox * dx + oy * dy + (bend * oz + lean / 2) * dz
    constant = ox * ox + oy * oy + bend * oz * oz + lean * oz + offset
    inside = half * half - square * constant
    root = np.sqrt(np.maximum(inside, 0))
    # In inverse depth the roots of c w^2 + 2 h w + s = 0 need no division by the (possibly tiny) square term.
    best = np.zeros_like(root)
    for sign in (1, -1) if np.min(bend) < 0 else (1,):  # only a cone's nearer root can lie on its other half
        inverse = (sign * root - half) / constant
        good = (inside > 0) & (inverse > best) & (inverse < 1 / NEAR_M)
        good &= np.abs(oz * inverse + dz) <= reach * inverse  # local z times inverse depth
        best = np.where(good, inverse, best)
    return best
