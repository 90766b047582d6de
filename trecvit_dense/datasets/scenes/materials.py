"""Textures of a clip in one picture, with smaller copies of each, so that one ``cv2.remap`` paints a whole frame.

Textures come from a fixed pool per split, made on first use and kept: a clip only tints and scales them. They are
square, and mirrored beyond their borders.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator

from ..procedural.textures import noise, palette, surface

SIDE = 256
LEVELS = 6  # 256 down to 8 texels
_WIDTH = SIDE + SIDE // 2

# ---- families: (rng) -> (SIDE, SIDE, 3) float32 in 0..255, about 128 where the tint decides the colour


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2).astype(np.float32)


def plain(rng: Generator) -> np.ndarray:
    """Paint, plaster, plastic: a little unevenness."""
    coarse = noise(rng, SIDE, SIDE, slope=1.8) - 0.5
    fine = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    return _grey(128 + coarse * rng.choice([0, 10, 25]) + fine * rng.choice([0.0, 1.5, 5.0]))


def carpet(rng: Generator) -> np.ndarray:
    """Carpet, cloth, asphalt: fine grain."""
    fine = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE), dtype=np.float32), (0, 0), rng.uniform(0.5, 1.5))
    fine /= fine.std()
    coarse = noise(rng, SIDE, SIDE, slope=rng.uniform(0.5, 1.5)) - 0.5
    image = 128 + fine * rng.uniform(4, 22) + coarse * rng.uniform(5, 40)
    if rng.random() < 0.3:  # woven
        period = int(rng.choice([4, 8, 16]))
        image[:, :: period // 2] *= rng.uniform(0.7, 0.95)
    return _grey(image)


def wood(rng: Generator) -> np.ndarray:
    """Grain along x."""
    rows = np.mgrid[:SIDE, :SIDE][0].astype(np.float32)
    bend = cv2.resize(noise(rng, SIDE, 16, slope=1.5), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    rings = np.sin(rows * rng.uniform(0.05, 0.5) + bend * rng.uniform(5, 30))
    streaks = cv2.resize(rng.standard_normal((SIDE, 6), dtype=np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    value = 128 + rings * rng.uniform(2, 18) + streaks * rng.uniform(2, 12)
    image = _grey(value)
    image[..., 2] -= (value - 128) * 0.3
    return image


def planks(rng: Generator) -> np.ndarray:
    """Boards with seams."""
    image, count = wood(rng), int(rng.choice([4, 6, 8]))
    edges = np.linspace(0, SIDE, count + 1).astype(int)
    for top, bottom in zip(edges[:-1], edges[1:], strict=True):
        image[top:bottom] = np.roll(image[top:bottom], int(rng.integers(SIDE)), axis=1) * rng.uniform(0.85, 1.12)
        image[top : top + 1] *= rng.uniform(0.4, 0.8)
        seam = int(rng.integers(SIDE))
        image[top:bottom, seam : seam + 1] *= 0.6
    return image


def tiles(rng: Generator) -> np.ndarray:
    """Tiles, bricks, panels: repeated, with joints."""
    count, tall = int(rng.choice([2, 3, 4, 6, 8])), float(rng.choice([1, 1, 2, 3]))
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    row = rows * (count * tall / SIDE)
    shift = 0.5 * (np.floor(row) % 2) * rng.choice([0, 1])
    column = columns * (count / SIDE) + shift
    tone = rng.standard_normal((int(count * tall) + 2, count + 3)).astype(np.float32) * rng.uniform(0, 14)
    image = plain(rng) + tone[row.astype(int), column.astype(int)][..., None]
    joint = rng.uniform(0.015, 0.06)
    near = np.minimum(np.minimum(row % 1, 1 - row % 1) / tall, np.minimum(column % 1, 1 - column % 1))
    image[near < joint] = 128 * rng.uniform(0.4, 1.5)
    return image


def busy(rng: Generator) -> np.ndarray:
    """Anything: pictures, posters, packaging, patterned cloth."""
    return surface(rng, SIDE, SIDE, ground=bool(rng.random() < 0.5))


def books(rng: Generator) -> np.ndarray:
    """Spines side by side on one or two boards."""
    image = np.zeros((SIDE, SIDE, 3), np.float32)
    boards = int(rng.integers(1, 3))
    for k in range(boards):
        top, bottom = k * SIDE // boards, (k + 1) * SIDE // boards
        left, colours = 0, palette(rng, 12) * 255
        while left < SIDE:
            wide = int(rng.integers(5, 28))
            high = int((bottom - top) * rng.uniform(0.55, 0.95))
            spine = colours[rng.integers(12)] * rng.uniform(0.6, 1.3)
            if rng.random() < 0.9:
                image[bottom - high : bottom, left : left + wide] = spine
                image[bottom - high : bottom, left : left + 1] *= 0.5
                label = bottom - int(high * rng.uniform(0.4, 0.8))
                image[label : label + 6, left + 1 : left + wide - 1] = colours[rng.integers(12)]
            left += wide
        image[bottom - 6 : bottom] = 110
    return image[::-1]


def panels(rng: Generator) -> np.ndarray:
    """Doors and drawers: one sheet with grooves and handles."""
    image = plain(rng) if rng.random() < 0.5 else wood(rng)
    across, down = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    for i in range(across):
        for j in range(down):
            x0, x1, y0, y1 = i * SIDE // across, (i + 1) * SIDE // across, j * SIDE // down, (j + 1) * SIDE // down
            cv2.rectangle(image, (x0 + 2, y0 + 2), (x1 - 3, y1 - 3), (70, 70, 70), 2)
            if rng.random() < 0.7:
                ink = (rng.uniform(20, 230),) * 3
                x, y = (x0 + x1) // 2, int(y0 + (y1 - y0) * 0.75)
                cv2.rectangle(image, (x - 14, y - 3), (x + 14, y + 3), ink, -1)
    return image


def windows(rng: Generator) -> np.ndarray:
    """Facades: rows of windows in a wall."""
    image = tiles(rng) if rng.random() < 0.4 else plain(rng)
    across, down = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    wide, tall = SIDE // across, SIDE // down
    margin_x, margin_y = int(wide * rng.uniform(0.15, 0.35)), int(tall * rng.uniform(0.12, 0.3))
    for i in range(across):
        for j in range(down):
            x0, x1 = i * wide + margin_x, (i + 1) * wide - margin_x
            y0, y1 = j * tall + margin_y, (j + 1) * tall - margin_y
            cv2.rectangle(image, (x0 - 2, y0 - 2), (x1 + 2, y1 + 2), (200, 200, 200), -1)
            glass = rng.uniform(15, 110) + np.array([-5, 0, 10]) * rng.random()
            cv2.rectangle(image, (x0, y0), (x1, y1), glass.tolist(), -1)
            cv2.line(image, ((x0 + x1) // 2, y0), ((x0 + x1) // 2, y1), (190, 190, 190), 2)
    return image


def outlook(rng: Generator) -> np.ndarray:
    """What a window shows: bright sky over something dark, and a frame."""
    image = 170 + surface(rng, SIDE, SIDE) * 0.35
    horizon = int(SIDE * rng.uniform(0.1, 0.6))
    image[:horizon] = image[:horizon] * 0.55
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 6))
    for k in range(int(rng.integers(1, 4)) + 1):
        x = k * SIDE // 2
        cv2.rectangle(image, (x - 5, 0), (x + 5, SIDE), (215, 215, 215), -1)
    cv2.rectangle(image, (0, 0), (SIDE - 1, SIDE - 1), (215, 215, 215), 10)
    return image


def screen(rng: Generator) -> np.ndarray:
    """A monitor with something on it, or off."""
    image = np.full((SIDE, SIDE, 3), rng.uniform(8, 30), np.float32)
    if rng.random() < 0.7:
        inner = surface(rng, SIDE - 24, SIDE - 24) if rng.random() < 0.5 else np.full((SIDE - 24, SIDE - 24, 3), 225.0)
        for _ in range(int(rng.integers(4, 14))):
            x, y = rng.integers(0, SIDE - 24, 2)
            size = rng.integers(10, 120, 2)
            inner[y : y + size[1] // 3, x : x + size[0]] = palette(rng, 1)[0] * 255
        image[12:-12, 12:-12] = inner
    return image


FAMILIES: dict[str, tuple[Callable[[Generator], np.ndarray], int]] = {
    'plain': (plain, 20),
    'carpet': (carpet, 20),
    'wood': (wood, 16),
    'planks': (planks, 14),
    'tiles': (tiles, 24),
    'busy': (busy, 110),
    'books': (books, 14),
    'panels': (panels, 14),
    'windows': (windows, 14),
    'outlook': (outlook, 10),
    'screen': (screen, 10),
}
"""Name to generator and number in the pool."""
_COLOURED = frozenset({'busy', 'books', 'outlook', 'screen'})  # the tint does not decide their looks
_FIRST = dict(zip(FAMILIES, np.cumsum([0, *(count for _, count in FAMILIES.values())]).tolist(), strict=False))
_COLUMNS = 16


class Pool:
    """All textures of a split side by side in one picture; each is made when it is first wanted.

    Texture ``n`` with its smaller copies fills ``SIDE`` rows and ``3 SIDE / 2`` columns from :meth:`corner` on.
    """

    def __init__(self, split: int) -> None:
        self.split = split
        self._ready: set[int] = set()
        count = sum(count for _, count in FAMILIES.values())
        self.atlas = np.zeros((-(-count // _COLUMNS) * SIDE, _COLUMNS * _WIDTH, 3), np.uint8)

    @staticmethod
    def corner(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Left column and top row of textures."""
        return number % _COLUMNS * _WIDTH, number // _COLUMNS * SIDE

    def want(self, family: str, number: int) -> int:
        """Make sure that a texture is there; its number in the pool."""
        number += _FIRST[family]
        if number not in self._ready:
            image = FAMILIES[family][0](np.random.default_rng([7, self.split, number]))
            level = np.clip(image[::-1], 0, 255).astype(np.uint8)  # v runs up
            left, top = self.corner(number)
            for n in range(LEVELS):
                row, column = (top, left) if n == 0 else (top + SIDE - ((2 * SIDE) >> n), left + SIDE)
                self.atlas[row : row + len(level), column : column + len(level)] = level
                level = cv2.resize(level, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            self._ready.add(number)
        return number


@lru_cache(maxsize=3)
def pool_of(split: int) -> Pool:
    """The pool of a split; kept, since filling it takes a few seconds."""
    return Pool(split)


class Materials:
    """The materials of one clip.

    Args:
        rng: Draws which textures of the pool, and their tints.
        split: Number of the split; splits share no texture.
    """

    def __init__(self, rng: Generator, split: int) -> None:
        self.rng, self.pool = rng, pool_of(split)
        self._made: dict[str, list[int]] = {}
        self.textures: list[int] = []
        self.tints: list[np.ndarray] = []

    def __call__(self, family: str, *, fresh: float = 0.35, tint: np.ndarray | None = None) -> int:
        """Index of a material of that family: a new one with odds ``fresh``, else one that the clip has already.

        Args:
            tint: ``(3,)`` colour in 0..1; None draws one.
        """
        rng, made = self.rng, self._made.setdefault(family, [])
        if made and tint is None and rng.random() > fresh:
            return made[rng.integers(len(made))]
        self.textures.append(self.pool.want(family, int(rng.integers(FAMILIES[family][1]))))
        if family in _COLOURED:
            self.tints.append(np.exp(rng.normal(0, 0.12, 3) + rng.normal(0, 0.15)))
        else:
            self.tints.append(2 * (colour(rng, family) if tint is None else tint))
        if tint is None:
            made.append(len(self.textures) - 1)
        return len(self.textures) - 1


def colour(rng: Generator, family: str) -> np.ndarray:
    """``(3,)`` RGB in 0..1 as such surfaces have it."""
    if family in ('wood', 'planks') and rng.random() < 0.8:
        light = np.exp(rng.uniform(np.log(0.12), np.log(0.8)))
        return light * np.array([1.0, rng.uniform(0.62, 0.85), rng.uniform(0.35, 0.68)])
    if rng.random() < 0.62:  # white, grey and beige rule
        light = rng.choice([rng.uniform(0.55, 0.92), rng.uniform(0.04, 0.9)])
        return np.clip(light * (1 + rng.normal(0, 0.03, 3)) * [1.02, 1.0, 0.96], 0.02, 0.95)
    hue = rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2])
    light, strength = rng.uniform(0.1, 0.75), rng.beta(1.3, 4)
    return np.clip(light * (1 + strength * np.cos(hue)), 0.02, 0.95)


_SIZES = np.array([SIDE >> n for n in range(LEVELS)], np.float32)
_TOPS = np.array([0, *(SIDE - ((2 * SIDE) >> n) for n in range(1, LEVELS))], np.float32)
_LEFTS = np.array([0, *[SIDE] * (LEVELS - 1)], np.float32)


def look_up(
    atlas: np.ndarray, corner: tuple[np.ndarray, np.ndarray], u: np.ndarray, v: np.ndarray, texels: np.ndarray
) -> np.ndarray:
    """Read textures.

    Args:
        atlas: Of :class:`Pool`.
        corner: ``(h, w)`` float32 left column and top row.
        u, v: ``(h, w)`` float32; 0 to 1 is one texture, mirrored beyond.
        texels: ``(h, w)`` float32, texels of the full size from one sample to the next.

    Returns:
        ``(h, w, 3)`` uint8.
    """
    level = np.clip(np.frexp(texels * np.float32(0.7))[1], 0, LEVELS - 1)  # log2, rounded
    size, (left, top) = _SIZES[level], corner
    half, last = np.float32(0.5), size - np.float32(0.5)
    x = np.clip(_mirror(u) * size, half, last) + (_LEFTS[level] + left - half)
    y = np.clip(_mirror(v) * size, half, last) + (_TOPS[level] + top - half)
    return cv2.remap(atlas, x, y, cv2.INTER_LINEAR)


def _mirror(value: np.ndarray) -> np.ndarray:
    half = value * np.float32(0.5)
    half -= np.floor(half)  # 0..1 over two textures
    return np.float32(1) - np.abs(np.float32(1) - np.float32(2) * half)
