"""A layer: one textured plane that renders a frame and maps points between texture and image, both ways."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from .motion import Warp

_FAR = 1e6  # pixels


@dataclass
class Layer:
    """One plane of the scene.

    Args:
        texture: ``(h, w, 4)`` uint8, colour premultiplied by alpha.
        homographies: ``(T, 3, 3)`` bent rest coordinates -> image pixels, third coordinate the depth in metres.
        instance: Object id; 0 is the background.
        texels: Texels per rest pixel.
        warp: Non-rigid motion, or None.
        endless: The texture is mirrored over the whole plane (backgrounds).
        solid: False for shadows and haze, which are drawn but hide nothing.
    """

    texture: np.ndarray
    homographies: np.ndarray
    instance: int = 0
    texels: float = 1.0
    warp: Warp | None = None
    endless: bool = False
    solid: bool = True
    inverses: np.ndarray = field(init=False)
    velocity: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.inverses = np.linalg.inv(self.homographies)
        centre = self.homographies[:, :2, 2] / self.homographies[:, 2:, 2]
        self.velocity = np.gradient(centre, axis=0) if len(centre) > 1 else np.zeros_like(centre)

    @cached_property
    def centre(self) -> np.ndarray:
        """Texel coordinate ``(x, y)`` of the rest origin."""
        return np.array([self.texture.shape[1], self.texture.shape[0]]) / 2

    def to_rest(self, xy_px: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Image ``(..., 2)`` -> rest pixels; ``frames`` broadcasts against ``(...)``."""
        bent = _project(self.inverses[frames], xy_px)
        return bent if self.warp is None else bent + self.warp.shift(bent, frames)

    def to_image(self, rest: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Rest ``(..., 2)`` -> image pixels; the exact inverse of :meth:`to_rest`."""
        shape = np.broadcast_shapes(rest.shape[:-1], np.shape(frames))
        rest = np.broadcast_to(rest, (*shape, 2))
        return _project(self.homographies[frames], rest if self.warp is None else self.warp.bend(rest, frames))

    def alpha_at(self, rest: np.ndarray) -> np.ndarray:
        """Alpha in [0, 1] at rest coordinates ``(..., 2)``, bilinear as the renderer reads it."""
        if self.endless:
            return np.ones(rest.shape[:-1], np.float32)
        texel = (rest * self.texels + self.centre - 0.5).astype(np.float32).reshape(-1, 1, 2)
        texel = np.clip(np.nan_to_num(texel, nan=-9.0), -9, max(self.texture.shape[:2]) + 9)
        alpha = np.empty(len(texel), np.float32)
        for start in range(0, len(texel), 30000):  # cv2.remap takes maps of at most 32767 rows
            rows = slice(start, start + 30000)
            alpha[rows] = cv2.remap(self._alpha32, texel[rows], None, cv2.INTER_LINEAR, borderValue=0)[:, 0]
        return alpha.reshape(rest.shape[:-1])

    @cached_property
    def _alpha32(self) -> np.ndarray:
        return self.texture[..., 3].astype(np.float32) * (1 / 255)

    def box(self, frame: int, size: tuple[int, int], pad: float = 0.0) -> tuple[int, int, int, int] | None:
        """``(x0, y0, x1, y1)`` pixels that the layer may cover, or None."""
        height, width = size
        if self.endless:
            return 0, 0, width, height
        left, top, right, bottom = self._bounds[frame].tolist()
        x0, y0 = max(math.floor(left - pad), 0), max(math.floor(top - pad), 0)
        x1, y1 = min(math.ceil(right + pad), width), min(math.ceil(bottom + pad), height)
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    @cached_property
    def _bounds(self) -> np.ndarray:
        """``(T, 4)`` left, top, right, bottom of the projected texture."""
        half = self.centre / self.texels + (0 if self.warp is None else self.warp.reach)
        corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        image = _project(self.homographies[:, None], corners)
        bounds = np.concatenate([image.min(axis=1), image.max(axis=1)], axis=1)
        depth = self.homographies[:, 2, :2] @ corners.T + self.homographies[:, 2, 2:]
        bounds[depth.min(axis=1) <= 0] = [-_FAR, -_FAR, _FAR, _FAR]  # reaches behind the camera: could be anywhere
        return bounds

    def draw(self, frame: int, box: tuple[int, int, int, int]) -> np.ndarray:
        """Premultiplied RGBA ``(h, w, 4)`` uint8 inside ``box``."""
        x0, y0, x1, y1 = box
        mode = cv2.BORDER_REFLECT if self.endless else cv2.BORDER_CONSTANT
        if self.warp is None:
            texel_to_rest = _scale_shift(1 / self.texels, (0.5 - self.centre) / self.texels)
            matrix = _scale_shift(1, (-0.5 - x0, -0.5 - y0)) @ self.homographies[frame] @ texel_to_rest
            return cv2.warpPerspective(
                self.texture, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=mode
            )
        inverse = self.inverses[frame]
        x = np.arange(x0, x1, dtype=np.float32)[None] + np.float32(0.5)
        y = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5)
        (a, b, c), (d, e, f), (g, h, i) = inverse.astype(np.float32)
        weight = 1 / (x * g + (y * h + i))
        bent_x, bent_y = (x * a + (y * b + c)) * weight, (x * d + (y * e + f)) * weight
        shift_x, shift_y = self.warp.shift_maps(bent_x, bent_y, frame)
        texels, offset = np.float32(self.texels), (self.centre - 0.5).astype(np.float32)
        map_x, map_y = (bent_x + shift_x) * texels + offset[0], (bent_y + shift_y) * texels + offset[1]
        return cv2.remap(self.texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=mode)

    def smear(self, patch: np.ndarray, blur_px: np.ndarray) -> np.ndarray:
        """Motion blur: a box along ``blur_px`` ``(2,)`` by repeated halving, n shifted averages make 2 ** n samples."""
        mode = cv2.BORDER_REPLICATE if self.endless else cv2.BORDER_CONSTANT
        size = patch.shape[1::-1]
        steps = 1 if np.abs(blur_px).max() < 2 else 2 if np.abs(blur_px).max() < 6 else 3
        for step in range(1, steps + 1):
            dx, dy = (blur_px / 2 ** (step + 1)).tolist()
            there = cv2.warpAffine(
                patch, np.array([[1, 0, dx], [0, 1, dy]]), size, flags=cv2.INTER_LINEAR, borderMode=mode
            )
            back = cv2.warpAffine(
                patch, np.array([[1, 0, -dx], [0, 1, -dy]]), size, flags=cv2.INTER_LINEAR, borderMode=mode
            )
            patch = cv2.addWeighted(there, 0.5, back, 0.5, 0)
        return patch


def _project(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Apply homographies ``(..., 3, 3)`` to points ``(..., 2)``; written out, matmul of 3 x 3 stacks is slow."""
    x, y = xy[..., 0], xy[..., 1]
    weight = matrix[..., 2, 0] * x + matrix[..., 2, 1] * y + matrix[..., 2, 2]
    out_x = (matrix[..., 0, 0] * x + matrix[..., 0, 1] * y + matrix[..., 0, 2]) / weight
    out_y = (matrix[..., 1, 0] * x + matrix[..., 1, 1] * y + matrix[..., 1, 2]) / weight
    return np.stack([out_x, out_y], axis=-1)


def _scale_shift(scale: float, shift: np.ndarray | tuple) -> np.ndarray:
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1.0]])
