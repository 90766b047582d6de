"""From what each ray met to a picture: texture, light, darkening where surfaces meet, haze, sky, soft edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from .materials import SIDE, look_up
from .raycast import View
from .world import ROUND, Scene, World


@dataclass
class Light:
    """Light of a clip.

    Args:
        places: ``(L, 3)`` metres; far away for the sun.
        powers: ``(L,)`` what a surface facing the light gets at ``reach_m``.
        reach_m: Distance at which a light has its power; infinite: no falloff.
        ambient: Light from everywhere.
        maps: ``(R, R, 2)`` float32 of :func:`occlusion_map`.
        corner, cell_m: World x and y of the map's first cell, and its size.
        contact_m: Height up to which things standing on the ground darken what is near.
        haze_m: Distance over which haze hides 63 %, or None.
        sky: ``(3,)`` RGB, 0..255, of sky and haze; None indoors.
        cloud: Material of the clouds.
        gain: Of the exposure.
    """

    places: np.ndarray
    powers: np.ndarray
    reach_m: float
    ambient: float
    maps: np.ndarray
    corner: np.ndarray
    cell_m: float
    contact_m: float = 0.25
    haze_m: float | None = None
    sky: np.ndarray | None = None
    cloud: int = 0
    gain: float = 1.0


def occlusion_map(
    world: World, low: np.ndarray, high: np.ndarray, ceiling: float, *, side: int = 128
) -> tuple[np.ndarray, np.ndarray, float]:
    """Where light is blocked, seen from above.

    Returns:
        ``(side, side, 2)`` float32: what stands on the ground, and what reaches up to ``ceiling``, both blurred;
        world x and y of the map's corner; metres per cell.
    """
    cell = float(max(high - low) / (side - 16))
    corner = low - 8 * cell
    ground, tall = np.ones((side, side), np.float32), np.ones((side, side), np.float32)
    first, last = np.round((low - corner) / cell).astype(int), np.round((high - corner) / cell).astype(int)
    for image in (ground, tall):
        image[first[1] : last[1], first[0] : last[0]] = 0
    for body, frame, half in world.solids:
        to_world = world.poses[body]
        if to_world.ndim == 3:
            continue
        placed = to_world @ frame
        reach = np.abs(placed[2, :3]) @ half
        bottom, top = placed[2, 3] - reach, placed[2, 3] + reach
        axes = placed[:2, :2] * half[:2]
        outline = placed[:2, 3] + np.array(
            [axes[:, 0] + axes[:, 1], axes[:, 0] - axes[:, 1], -axes[:, 0] - axes[:, 1], axes[:, 1] - axes[:, 0]]
        )
        outline = np.round((outline - corner) / cell * 16 - 8).astype(np.int32)
        if bottom < 1.0:
            layer = np.zeros_like(ground)
            cv2.fillConvexPoly(layer, outline, float(1 - 0.6 * max(bottom, 0)), cv2.LINE_AA, 4)
            np.maximum(ground, layer, out=ground)
        if top > 0.95 * ceiling:
            cv2.fillConvexPoly(tall, outline, 1.0, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(ground, (0, 0), max(0.12 / cell, 0.6))
    wide = cv2.GaussianBlur(ground, (0, 0), max(0.4 / cell, 0.8))
    tall = cv2.GaussianBlur(tall, (0, 0), max(0.35 / cell, 0.6))
    return np.dstack([(soft + wide) / 2, tall]), corner, cell


class Shader:
    """Paints views of one scene.

    Args:
        scene: The scene.
        atlas: Its textures.
        light: Its light.
        rng: For nothing but the strengths of the darkening.
    """

    def __init__(self, scene: Scene, atlas: np.ndarray, light: Light, rng: Generator) -> None:
        self.scene, self.atlas, self.light = scene, atlas, light
        self.contact, self.corner = rng.uniform(0.35, 0.75), rng.uniform(0.2, 0.6)
        self.glossy = bool((scene.gloss > 0).any())
        texels = np.sqrt(scene.texture[:, 0] * scene.texture[:, 1]) * SIDE
        self._table = np.stack(
            [scene.material, texels, scene.gloss, scene.glow, *scene.texture.T, scene.turned]
        ).astype(np.float32)  # (9, P)

    def __call__(self, view: View, x: np.ndarray, y: np.ndarray, inverse: np.ndarray, index: np.ndarray) -> np.ndarray:
        """``(h, w, 3)`` uint8 for the grid of rays ``x`` ``(w,)``, ``y`` ``(h,)`` with what :meth:`View.raster` said."""
        scene, light, shape = self.scene, self.light, index.shape
        x, y = x.astype(np.float32), y.astype(np.float32)[:, None]
        sky = index == len(scene.kind)
        index = np.where(sky, 0, index)
        depth = 1 / np.maximum(inverse, 1e-4)
        ray = view.ray.astype(np.float32)
        toward = [x * row[0] + (y * row[1] + row[2]) for row in ray]  # world direction with optical component 1
        place = [depth * d + o for d, o in zip(toward, view.origin.astype(np.float32), strict=True)]
        table = np.concatenate([self._table, view.turn[:, :, 2].T, view.plane[:, :2].reshape(-1, 6).T], axis=0)
        rows = np.take(table.astype(np.float32), index.ravel(), axis=1).reshape(-1, *shape)
        material, texels, gloss, glow, scale_u, scale_v, shift_u, shift_v, turned = rows[:9]
        normal = rows[9:12]
        u = (x * rows[12] + (y * rows[13] + rows[14])) * depth  # metres in the patch
        v = (x * rows[15] + (y * rows[16] + rows[17])) * depth
        for n in np.unique(index[np.append(False, scene.kind == ROUND)[index + 1]]):
            self._round(view, int(n), (index == n) & ~sky, x, y, depth, u, v, normal)
        length = np.sqrt(toward[0] ** 2 + toward[1] ** 2 + toward[2] ** 2)
        facing = -(normal[0] * toward[0] + normal[1] * toward[1] + normal[2] * toward[2]) / length
        step = float(x[1] - x[0]) if len(x) > 1 else 1.0
        footprint = depth * texels * np.float32(step / view.intrinsics[0, 0]) / np.sqrt(np.maximum(facing, 0.05))
        swap = turned > 0
        u, v = u * scale_u + shift_u, v * scale_v + shift_v
        u, v = np.where(swap, v, u), np.where(swap, u, v)
        image = look_up(self.atlas, material, u, v, footprint)
        shine = self._light(place, normal, toward, length, facing, gloss)
        shine = shine + glow * (np.float32(1.6) - shine)
        gain = np.sqrt(np.maximum(shine * np.float32(light.gain), 0))  # textures are gamma coded, about a square root
        image = cv2.multiply(image, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)
        if light.sky is not None:
            image = self._air(image, depth, toward, length, sky)
        return image

    def expose(
        self, view: View, x: np.ndarray, y: np.ndarray, inverse: np.ndarray, index: np.ndarray, want: float
    ) -> None:
        """Set the gain so that the picture has a mean of ``want`` in 0..255, as a camera's exposure does."""
        for _ in range(2):
            mean = float(self(view, x, y, inverse, index).mean())
            self.light.gain = float(np.clip(self.light.gain * (want / max(mean, 4.0)) ** 2, 0.05, 40))

    def _round(self, view: View, n: int, where: np.ndarray, x, y, depth, u, v, normal) -> None:
        """Texture coordinates and normals of a round patch, in place."""
        scene, rows, columns = self.scene, *np.nonzero(where)
        ray = np.stack([x[columns], y[rows, 0], np.ones(len(rows), np.float32)])
        local = view.start[n][:, None] + view.direction[n] @ ray * depth[rows, columns]  # (3, N)
        k, l, _ = scene.form[n]
        gradient = np.stack([local[0], local[1], k * local[2] + l / 2]) / scene.scale[n][:, None]
        world = view.turn[n] @ gradient
        world /= np.linalg.norm(world, axis=0) + 1e-9
        normal[:, rows, columns] = world
        size = scene.half[n] * scene.scale[n]
        u[rows, columns] = np.arctan2(local[1], local[0]) * size[0]
        height = local[2] * scene.scale[n, 2]
        v[rows, columns] = np.arcsin(np.clip(local[2], -1, 1)) * size[2] if k == 1 else height

    def _light(self, place, normal, toward, length, facing, gloss) -> np.ndarray:
        light = self.light
        total = np.float32(light.ambient) * (np.float32(0.75) + np.float32(0.25) * normal[2])
        for where, power in zip(light.places.astype(np.float32), light.powers, strict=True):
            to = [w - p for w, p in zip(where, place, strict=True)]
            square = to[0] * to[0] + to[1] * to[1] + to[2] * to[2]
            away = np.sqrt(square)
            cosine = (to[0] * normal[0] + to[1] * normal[1] + to[2] * normal[2]) / away
            strength = np.float32(power)
            if np.isfinite(light.reach_m):
                reach = np.float32(light.reach_m**2)
                strength = strength * (2 * reach) / (square + reach)
            total += np.maximum(cosine, 0) * strength
            if self.glossy:
                mirror = (2 * facing * cosine) - (-(to[0] * toward[0] + to[1] * toward[1] + to[2] * toward[2])) / (
                    away * length
                )
                total += gloss * strength * np.maximum(mirror, 0) ** 24
        scale, size = np.float32(1 / light.cell_m), len(light.maps)
        column = (place[0] - np.float32(light.corner[0])) * scale - np.float32(0.5)
        row = (place[1] - np.float32(light.corner[1])) * scale - np.float32(0.5)
        column, row = np.clip(column, 0, size - 1), np.clip(row, 0, size - 1)
        both = cv2.remap(light.maps, column, row, cv2.INTER_LINEAR)
        low = np.exp(np.maximum(place[2], 0) * np.float32(-1 / light.contact_m))
        return (
            total * (1 - np.float32(self.contact) * low * both[..., 0]) * (1 - np.float32(self.corner) * both[..., 1])
        )

    def _air(self, image: np.ndarray, depth: np.ndarray, toward, length, sky: np.ndarray) -> np.ndarray:
        light = self.light
        colour = light.sky.astype(np.float32)
        if light.haze_m is not None:
            share = 1 - np.exp(depth * length * np.float32(-1 / light.haze_m))
            image = (image + share[..., None] * (colour - image)).astype(np.uint8)
        if sky.any():
            up = toward[2] / length
            over = 1 / (np.maximum(up, 0) + np.float32(0.15))
            flat = np.zeros_like(up)
            cloud = look_up(
                self.atlas,
                flat + light.cloud,
                toward[0] / length * over * 0.3,
                toward[1] / length * over * 0.3,
                flat + 1,
            )
            blue = colour * (1 - 0.35 * np.clip(up, 0, 1)[..., None] * np.array([1.2, 0.7, 0.1], np.float32))
            picture = blue * (0.8 + 0.2 / 128 * cloud.astype(np.float32))
            image[sky] = np.clip(picture[sky], 0, 255).astype(np.uint8)
        return image
