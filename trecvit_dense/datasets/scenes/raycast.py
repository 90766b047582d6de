"""Exact ray casting on the CPU: which patch a ray meets first, and how far along the optical axis.

The inverse depth of a plane is affine in the pixel, and so are its texture coordinates times the inverse depth: a
rectangle is tested with five affine functions and no division. Round surfaces solve one quadratic per ray. Every patch
is looked at only inside the bounding box of its projection.
"""

from __future__ import annotations

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
        turn = self.to_world[:, :3, :3]
        self.turn = turn
        # Rays in the coordinates of every patch: start + depth * (direction @ (x, y, 1)).
        self.direction = (turn.transpose(0, 2, 1) @ self.ray) / scene.scale[:, :, None]  # (P, 3, 3)
        self.start = ((self.origin - self.to_world[:, :3, 3])[:, None] @ turn)[:, 0] / scene.scale  # (P, 3)
        self.flat = scene.kind != ROUND
        height = np.where(self.flat & (self.start[:, 2] > 1e-6), self.start[:, 2], 1.0)
        inverse = -self.direction[:, 2] / height[:, None]  # (P, 3): inverse depth of the patch's plane
        self.plane = np.concatenate(
            [self.start[:, :2, None] * inverse[:, None] + self.direction[:, :2], inverse[:, None]], axis=1
        )  # (P, 3, 3) on (x, y, 1): x / depth, y / depth, 1 / depth
        self.facing = ~self.flat | (self.start[:, 2] > 1e-6)

    def bounds(self, height: int, width: int) -> np.ndarray:
        """``(P, 4)`` left, top, right, bottom in pixels; empty (right <= left) where a patch cannot be seen."""
        scene = self.scene
        corners = (_CORNERS * (scene.half * scene.scale)[:, None]) @ self.turn.transpose(0, 2, 1)
        corners = corners + (self.to_world[:, :3, 3] - self.origin)[:, None]
        corners = corners @ self.camera_to_world[:3, :3]  # (P, 8, 3) camera axes
        depth = corners[..., 2]
        ahead = depth > NEAR_M
        with np.errstate(divide='ignore', invalid='ignore'):
            image = (corners @ self.intrinsics.T)[..., :2] / depth[..., None]
        low = np.where(ahead[..., None], image, np.inf).min(1)
        high = np.where(ahead[..., None], image, -np.inf).max(1)
        for n in np.flatnonzero(ahead.any(1) & ~ahead.all(1) & self.facing):  # cut by the near plane
            a, b = corners[n, _EDGES[:, 0]], corners[n, _EDGES[:, 1]]
            cut = (a[:, 2] > NEAR_M) != (b[:, 2] > NEAR_M)
            a, b = a[cut], b[cut]
            share = (NEAR_M - a[:, 2]) / (b[:, 2] - a[:, 2])
            xy = ((a + share[:, None] * (b - a)) @ self.intrinsics.T)[:, :2] / NEAR_M
            low[n], high[n] = np.minimum(low[n], xy.min(0)), np.maximum(high[n], xy.max(0))
        low, high = np.maximum(low, 0), np.minimum(high, (width, height))
        low[~self.facing] = np.inf
        return np.concatenate([low, high], axis=1)

    def rectangle_tests(self) -> np.ndarray:
        """``(P, 5, 3)`` on (x, y, 1): a ray meets the rectangle where all are positive; the last is inverse depth."""
        u, v, inverse = self.plane[:, 0], self.plane[:, 1], self.plane[:, 2]
        reach_u, reach_v = self.scene.half[:, :1] * inverse, self.scene.half[:, 1:2] * inverse
        return np.stack([reach_u - u, reach_u + u, reach_v - v, reach_v + v, inverse], axis=1)

    def raster(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cast rays through a grid of pixel coordinates ``x`` ``(w,)`` and ``y`` ``(h,)``, evenly spaced.

        Returns:
            Inverse depth ``(h, w)`` float32, 0 where nothing is met, and the index of the patch ``(h, w)`` int32,
            P where nothing is met.
        """
        step = x[1] - x[0] if len(x) > 1 else 1.0
        boxes = self.bounds(y[-1] + step, x[-1] + step)
        shift = np.array([x[0], y[0], x[0], y[0]])
        boxes = np.nan_to_num((boxes - shift) / step, posinf=1e6, neginf=-1e6)
        first, last = np.maximum(np.ceil(boxes[:, :2]), 0).astype(int), np.floor(boxes[:, 2:]).astype(int) + 1
        last = np.minimum(last, (len(x), len(y)))
        seen = np.flatnonzero((last > first).all(1))
        x, y = x.astype(np.float32), y.astype(np.float32)
        inverse = np.zeros((len(y), len(x)), np.float32)
        index = np.full(inverse.shape, len(self.flat), np.int32)
        tests = self.rectangle_tests()[seen].astype(np.float32)
        along_x = tests[:, :, 0, None, None] * x  # (S, 5, 1, w)
        along_y = (tests[:, :, 1, None] * y + tests[:, :, 2, None])[..., None]  # (S, 5, h, 1)
        kinds = self.scene.kind[seen]
        radii2 = np.square(self.scene.half[seen, 0]).astype(np.float32)
        rows = zip(seen.tolist(), kinds.tolist(), first[seen].tolist(), last[seen].tolist(), strict=True)
        for k, (n, kind, (x0, y0), (x1, y1)) in enumerate(rows):
            nearest = inverse[y0:y1, x0:x1]
            if kind == ROUND:
                value = self._round(n, x[x0:x1], y[y0:y1, None])
                hit = value > nearest
                np.copyto(nearest, value, where=hit)
            else:
                values = along_x[k, :, :, x0:x1] + along_y[k, :, y0:y1]  # (5, h, w)
                gain = values[4]
                if kind == DISC:
                    u, v = values[1] - values[0], values[3] - values[2]
                    inside = (4 * radii2[k]) * gain * gain - u * u - v * v
                    inside[gain <= 0] = -1
                    gain -= nearest
                    hit = np.minimum(inside, gain) > 0
                else:
                    gain -= nearest
                    hit = np.minimum.reduce(values) > 0
                np.add(nearest, gain, out=nearest, where=hit)
            np.copyto(index[y0:y1, x0:x1], n, where=hit)
        return inverse, index

    def cast(self, xy_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rays through any places ``(N, 2)``: inverse depth ``(N,)`` float64 and patch ``(N,)``, as :meth:`raster`."""
        ones = np.concatenate([xy_px, np.ones((len(xy_px), 1))], axis=1)
        values = self.rectangle_tests() @ ones.T  # (P, 5, N)
        inside = values[:, :4].min(1) > 0
        u, v = values[:, 1] - values[:, 0], values[:, 3] - values[:, 2]
        disc = self.scene.kind == DISC
        reach = 4 * np.square(self.scene.half[:, :1] * values[:, 4])
        inside[disc] = (u * u + v * v < reach)[disc]
        kept = inside & (values[:, 4] > 0) & (self.facing & self.flat)[:, None]
        inverse = np.where(kept, values[:, 4], 0.0)
        for n in np.flatnonzero(~self.flat):
            inverse[n] = self._round(n, xy_px[:, 0], xy_px[:, 1])
        index = inverse.argmax(0)
        nearest = inverse[index, np.arange(len(xy_px))]
        return nearest, np.where(nearest > 0, index, len(self.flat))

    def _round(self, n: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Inverse depth at which rays first meet the round patch ``n``, 0 where they do not; x and y broadcast."""
        kind = x.dtype.type
        k, l, e = (kind(value) for value in self.scene.form[n].tolist())
        (a, b, c), (d, f, g), (p, q, r) = self.direction[n].astype(kind)
        dx, dy, dz = x * a + (y * b + c), x * d + (y * f + g), x * p + (y * q + r)
        ox, oy, oz = self.start[n].astype(kind)
        square = dx * dx + dy * dy + k * (dz * dz)
        half = ox * dx + oy * dy + (k * oz + l / 2) * dz
        constant = ox * ox + oy * oy + k * oz * oz + l * oz + e
        inside = half * half - square * constant
        root = np.sqrt(np.maximum(inside, 0))
        best = np.zeros_like(root)
        reach = kind(self.scene.half[n, 2] * (1 + 1e-6))
        # In inverse depth the roots of c w^2 + 2 h w + s = 0 need no division by the (possibly tiny) square term.
        for sign in (1, -1):
            inverse = (-half + sign * root) / constant
            height = oz * inverse + dz  # local z times inverse depth
            good = (inside > 0) & (inverse > 0) & (inverse < 1 / NEAR_M) & (np.abs(height) <= reach * inverse)
            best = np.where(good & (inverse > best), inverse, best)
        return best
