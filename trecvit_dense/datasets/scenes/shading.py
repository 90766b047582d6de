"""From what each ray met to a picture: texture, light, darkening where surfaces meet, haze, sky, soft edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from .camera import orientation
from .materials import SIDE, Pool, look_up
from .raycast import View
from .world import ROUND, Scene, World

_SHADOW_SIDE = 224
_BIAS = 0.03  # of the inverse depth: a surface does not shade itself


class Shadow:
    """Soft shadows of one light: mean and variance of what it sees (variance shadow maps, Donnelly, Lauritzen 2006).

    Args:
        scene: What throws shadows.
        place: ``(3,)`` of the light.
        target: ``(3,)`` it looks at; what lies outside of its view is lit.
        half_angle: Of its view, radians.
        softness: Width of the half shadow in cells of its map.
    """

    def __init__(self, scene: Scene, place: np.ndarray, target: np.ndarray, half_angle: float, softness: float) -> None:
        away = target - place
        yaw, pitch = np.arctan2(away[1], away[0]), np.arctan2(away[2], np.hypot(away[0], away[1]))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = orientation(np.array([yaw]), np.array([pitch]), np.zeros(1))[0], place
        centre, focal = _SHADOW_SIDE / 2, _SHADOW_SIDE / 2 / np.tan(half_angle)
        intrinsics = np.array([[focal, 0, centre], [0, focal, centre], [0, 0, 1]])
        cells = np.arange(_SHADOW_SIDE) + 0.5
        inverse, _ = View(scene, 0, intrinsics, pose).raster(cells, cells)
        self.moments = cv2.GaussianBlur(cv2.merge([inverse, inverse * inverse]), (0, 0), softness)
        turn = intrinsics @ pose[:3, :3].T
        self.rows = np.concatenate([turn, -(turn @ place)[:, None]], axis=1).astype(np.float32)

    def __call__(self, place: np.ndarray) -> np.ndarray:
        """``(h, w)`` share of the light that arrives at world points ``(3, h, w)``."""
        x, y, depth = (_dot(row[:3], place) + row[3] for row in self.rows)
        inverse = 1 / np.maximum(depth, np.float32(1e-3))
        moments = cv2.remap(
            self.moments, x * inverse - np.float32(0.5), y * inverse - np.float32(0.5), cv2.INTER_LINEAR
        )
        mean = moments[..., 0]
        spread = np.maximum(moments[..., 1] - mean * mean, np.square(np.float32(0.02) * inverse))
        nearer = np.maximum(mean - inverse * np.float32(1 + _BIAS), 0)
        lit = spread / (spread + nearer * nearer)
        return np.clip(lit * np.float32(1.25) - np.float32(0.25), 0, 1)


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
        shadow: Of the first light, or None.
        haze_m: Distance over which haze hides 63 %, or None.
        sky: ``(3,)`` RGB, 0..255, of sky and haze; None indoors.
        cloud: Texture of the clouds.
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
    shadow: Shadow | None = None
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
        corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) @ axes.T
        outline = placed[:2, 3] + corners
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
        atlas: Textures of the pool.
        light: Its light.
        rng: For nothing but the strengths of the darkening.
    """

    def __init__(self, scene: Scene, atlas: np.ndarray, light: Light, rng: Generator) -> None:
        self.scene, self.atlas, self.light = scene, atlas, light
        self.contact, self.corner = rng.uniform(0.35, 0.75), rng.uniform(0.2, 0.6)
        self.glossy = bool((scene.gloss > 0).any())
        texels = np.sqrt(scene.texture[:, 0] * scene.texture[:, 1]) * SIDE
        self._table = np.stack(
            [*Pool.corner(scene.picture), texels, scene.gloss, scene.glow, *scene.texture.T, scene.turned]
        )  # (10, P)
        self._table = np.concatenate([self._table, scene.tint.T])

    def __call__(self, view: View, x: np.ndarray, y: np.ndarray, inverse: np.ndarray, index: np.ndarray) -> np.ndarray:
        """``(h, w, 3)`` uint8 of rays ``(h, w)`` through pixels ``x``, ``y`` that met what :meth:`View.raster` says."""
        scene, light = self.scene, self.light
        x, y = x.astype(np.float32), y.astype(np.float32)
        sky = index == len(scene.kind)
        index = np.where(sky, 0, index)
        depth = 1 / np.maximum(inverse, np.float32(1e-4))
        ray, origin = view.ray.astype(np.float32), view.origin.astype(np.float32)
        toward = np.stack([x * row[0] + (y * row[1] + row[2]) for row in ray])  # (3, h, w), optical component 1
        place = depth * toward + origin[:, None, None]
        table = np.concatenate([self._table, view.turn[:, :, 2].T, view.plane[:, :2].reshape(-1, 6).T], axis=0)
        rows = np.take(table.astype(np.float32), index.ravel(), axis=1).reshape(-1, *index.shape)
        left, top, texels, gloss, glow, scale_u, scale_v, shift_u, shift_v, turned = rows[:10]
        tint, normal, plane = rows[10:13], rows[13:16], rows[16:]
        u = (x * plane[0] + (y * plane[1] + plane[2])) * depth  # metres in the patch
        v = (x * plane[3] + (y * plane[4] + plane[5])) * depth
        for n in np.unique(index[(scene.kind == ROUND)[index]]).tolist():
            self._round(view, n, (index == n) & ~sky, x, y, depth, u, v, normal)
        length = np.sqrt(_dot(toward, toward))
        facing = -_dot(normal, toward) / length
        step = np.float32(1 / view.intrinsics[0, 0])
        footprint = depth * texels * step / np.sqrt(np.maximum(facing, np.float32(0.05)))
        u, v = u * scale_u + shift_u, v * scale_v + shift_v
        swap = turned > 0
        image = look_up(self.atlas, (left, top), np.where(swap, v, u), np.where(swap, u, v), footprint)
        shine = self._light(place, normal, toward, length, facing, gloss)
        shine += glow * (np.float32(1.6) - shine)
        gain = np.sqrt(np.maximum(shine * np.float32(light.gain), 0))  # textures are gamma coded, about a square root
        image = cv2.multiply(image, cv2.merge(list(tint * gain)), dtype=cv2.CV_8U)
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

    def _round(
        self,
        view: View,
        n: int,
        where: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        depth: np.ndarray,
        u: np.ndarray,
        v: np.ndarray,
        normal: np.ndarray,
    ) -> None:
        """Texture coordinates and normals of a round patch, in place."""
        scene, rows = self.scene, np.nonzero(where)
        ray = np.stack([x[rows], y[rows], np.ones(len(rows[0]), np.float32)])
        local = view.start[n][:, None] + view.direction[n] @ ray * depth[rows]  # (3, N)
        bend, lean, _ = scene.form[n]
        gradient = np.stack([local[0], local[1], bend * local[2] + lean / 2]) / scene.scale[n][:, None]
        world = view.turn[n] @ gradient
        normal[(slice(None), *rows)] = world / (np.linalg.norm(world, axis=0) + 1e-9)
        size = scene.half[n] * scene.scale[n]
        u[rows] = np.arctan2(local[1], local[0]) * size[0]
        v[rows] = np.arcsin(np.clip(local[2], -1, 1)) * size[2] if bend == 1 else local[2]

    def _light(
        self,
        place: np.ndarray,
        normal: np.ndarray,
        toward: np.ndarray,
        length: np.ndarray,
        facing: np.ndarray,
        gloss: np.ndarray,
    ) -> np.ndarray:
        """``(h, w)`` light that a surface sends to the camera."""
        light = self.light
        total = np.float32(light.ambient) * (np.float32(0.75) + np.float32(0.25) * normal[2])
        lit = None if light.shadow is None else light.shadow(place)
        for where, power in zip(light.places.astype(np.float32), light.powers.tolist(), strict=True):
            to = where[:, None, None] - place
            square = _dot(to, to)
            away = np.sqrt(square)
            cosine = _dot(to, normal) / away
            strength = np.float32(power)
            if np.isfinite(light.reach_m):
                reach = np.float32(light.reach_m**2)
                strength = strength * (2 * reach) / (square + reach)
            if lit is not None:
                strength, lit = strength * lit, None  # the first light alone throws shadows
            total += np.maximum(cosine, 0) * strength
            if self.glossy:
                mirror = 2 * facing * cosine + _dot(to, toward) / (away * length)
                total += gloss * strength * np.maximum(mirror, 0) ** 24
        scale, last = np.float32(1 / light.cell_m), np.float32(len(light.maps) - 1)
        column = np.clip((place[0] - np.float32(light.corner[0])) * scale - np.float32(0.5), 0, last)
        row = np.clip((place[1] - np.float32(light.corner[1])) * scale - np.float32(0.5), 0, last)
        both = cv2.remap(light.maps, column, row, cv2.INTER_LINEAR)
        low = np.exp(np.maximum(place[2], 0) * np.float32(-1 / light.contact_m))
        total *= 1 - np.float32(self.contact) * low * both[..., 0]
        total *= 1 - np.float32(self.corner) * both[..., 1]
        return total

    def _air(
        self, image: np.ndarray, depth: np.ndarray, toward: np.ndarray, length: np.ndarray, sky: np.ndarray
    ) -> np.ndarray:
        """Haze over what is far, and the sky behind."""
        light = self.light
        colour = light.sky.astype(np.float32)
        if light.haze_m is not None:
            share = 1 - np.exp(depth * length * np.float32(-1 / light.haze_m))
            image = (image + share[..., None] * (colour - image)).astype(np.uint8)
        if sky.any():
            up = np.maximum(toward[2] / length, 0)
            over = np.float32(0.3) / ((up + np.float32(0.15)) * length)
            left, top = (np.full_like(up, value) for value in Pool.corner(light.cloud))
            cloud = look_up(self.atlas, (left, top), toward[0] * over, toward[1] * over, np.ones_like(up))[sky]
            blue = colour * (1 - np.float32(0.35) * up[sky][:, None] * np.array([1.2, 0.7, 0.1], np.float32))
            image[sky] = np.clip(blue * (np.float32(0.8) + np.float32(0.2 / 128) * cloud), 0, 255)
        return image


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot product of ``(3, h, w)`` vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
