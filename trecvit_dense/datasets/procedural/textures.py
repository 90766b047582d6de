"""Random surface textures with the statistics of natural images.

Every generator takes ``(rng, height, width)`` and gives ``(height, width, 3)`` float32 in [0, 1]; :func:`surface` draws
one of them, mixes, shades and colours it. The dead-leaves model (overlapping shapes with power-law radii) has the
scale invariance and the edge statistics of photographs (Lee, Mumford and Huang, IJCV 2001, section 3), noise with a
random spectral slope has their second-order statistics; the others cover what both lack: repetition, text, flat areas.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator


def palette(rng: Generator, count: int) -> np.ndarray:
    """``(count, 3)`` RGB in [0, 1]: channels strongly correlated, mostly desaturated, one dominant hue per palette."""
    spread, centre = rng.uniform(0.1, 0.35), rng.beta(2, 2)
    luminance = np.clip(centre + spread * rng.standard_normal(count), 0.02, 0.98)
    saturation = min(0.045 * float(np.exp(0.8 * rng.standard_normal())), 0.2)
    hue = rng.standard_normal(2) * saturation + rng.standard_normal((count, 2)) * saturation * rng.choice(
        [0.4, 1.0, 2.0]
    )
    warm, green = hue[:, 0], 0.6 * hue[:, 1]  # the two opponent axes of natural colour, the first one stronger
    rgb = np.stack([luminance + warm, luminance + green, luminance - warm - 0.5 * green], axis=1)
    return np.clip(rgb, 0, 1).astype(np.float32)


def noise(rng: Generator, height: int, width: int, slope: float | None = None, coarsest: int = 2) -> np.ndarray:
    """``(height, width)`` multi-octave noise in [0, 1]; amplitude of an octave falls by ``2 ** -slope``."""
    slope = rng.uniform(0.4, 1.6) if slope is None else slope
    total = np.zeros((height, width), np.float32)
    cells, amplitude = coarsest, 1.0
    longest = max(height, width)
    while cells < longest and amplitude > 0.02:
        rows, columns = max(2, round(cells * height / longest)), max(2, round(cells * width / longest))
        grid = rng.standard_normal((rows + 1, columns + 1), dtype=np.float32) * amplitude
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, amplitude = cells * 2, amplitude * 2**-slope
    return _to_unit(total)


def _to_unit(values: np.ndarray) -> np.ndarray:
    mean, deviation = cv2.meanStdDev(values)
    return np.clip((values - mean[0, 0]) * (0.22 / (deviation[0, 0] + 1e-6)) + 0.5, 0, 1)


def _ramp(rng: Generator, values: np.ndarray, count: int | None = None) -> np.ndarray:
    """Colour a ``(H, W)`` map in [0, 1] through a palette."""
    count = int(rng.integers(2, 5)) if count is None else count
    table = cv2.resize(palette(rng, count)[None], (256, 1), interpolation=cv2.INTER_LINEAR)[0]
    return table[(values * 255).astype(np.uint8)]


def fractal(rng: Generator, height: int, width: int) -> np.ndarray:
    return _ramp(rng, noise(rng, height, width))


def blobs(rng: Generator, height: int, width: int) -> np.ndarray:
    field = noise(rng, height, width, slope=1.5, coarsest=int(rng.integers(3, 24)))
    levels = int(rng.integers(2, 6))
    return _ramp(rng, np.floor(field * levels) / levels, count=levels)


def gradient(rng: Generator, height: int, width: int) -> np.ndarray:
    """A smooth surface with hardly any texture."""
    field = noise(rng, height, width, slope=2.5, coarsest=2) * 0.5 + 0.25
    field += rng.uniform(0, 0.04) * rng.standard_normal((height, width), dtype=np.float32)
    return _ramp(rng, np.clip(field, 0, 1), count=2)


def cells(rng: Generator, height: int, width: int) -> np.ndarray:
    """Voronoi cells, flat or darkened towards their borders."""
    count = int(np.clip(rng.lognormal(3.7, 0.9), 6, 600))
    seeds = np.ones((height, width), np.uint8)
    seeds[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    image = palette(rng, count + 1)[np.minimum(labels, count)]
    if rng.random() < 0.5:
        shade = 1 - distance * (rng.uniform(0.2, 0.7) / (distance.max() + 1e-6))
        image = image * shade[..., None]
    return image


def waves(rng: Generator, height: int, width: int) -> np.ndarray:
    """Stripes, checks and plaids, straight or bent by noise."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    bend = noise(rng, height, width, slope=2.0) * rng.choice([0.0, 6.0, 25.0])
    value = np.zeros((height, width), np.float32)
    angle, period = rng.uniform(0, np.pi), float(np.clip(rng.lognormal(2.2, 0.6), 4, 60))
    for turn in (0.0, np.pi / 2)[: int(rng.integers(1, 3))]:
        phase = rows * np.sin(angle + turn) + columns * np.cos(angle + turn) + bend
        wave = np.sin(phase * (2 * np.pi / period))
        value = wave if turn == 0 else value * wave if rng.random() < 0.5 else (value + wave) / 2
    sharpness = rng.choice([1.0, 3.0, 10.0])
    return _ramp(rng, np.clip(value * sharpness, -1, 1) * 0.5 + 0.5, count=2)


def leaves(rng: Generator, height: int, width: int) -> np.ndarray:
    """Dead leaves: overlapping shapes, each of one colour, with power-law radii (``r ** -3`` at the steepest)."""
    side = max(height, width)
    smallest, largest = max(1.5, side / 100), side / rng.uniform(2.5, 5)
    count = int(min(30 + 1.6 * side, 320) * rng.uniform(0.5, 1.2))
    power = 1 - rng.uniform(1.3, 3.0)
    radii = (smallest**power + rng.random(count) * (largest**power - smallest**power)) ** (1 / power)  # inverse CDF
    radii = np.sort(radii)[::-1] if rng.random() < 0.4 else radii
    colours = palette(rng, max(8, count // 4)) * 255
    image = np.empty((height, width, 3), np.uint8)
    image[:] = colours[0]
    corners, outlines = _leaf_outlines(rng, radii, rng.uniform(-0.05, 1.05, (count, 2)) * (width, height))
    fills = colours[rng.integers(0, len(colours), count)].tolist()
    for number, outline, fill in zip(corners.tolist(), outlines, fills, strict=True):
        cv2.fillConvexPoly(image, outline[:number], fill, cv2.LINE_AA, 4)
    return image.astype(np.float32) * (1 / 255)


def _leaf_outlines(rng: Generator, radii: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corner counts ``(count,)`` and outlines ``(count, 16, 2)`` in sixteenths of a pixel: ellipses and polygons."""
    count = len(radii)
    corners = rng.choice([3, 4, 4, 5, 6, 16, 16, 16], count)
    if rng.random() < 0.5:  # all of a kind, as pebbles or bricks are
        corners[:] = corners[0]
    turns = np.arange(16) * (2 * np.pi / corners[:, None])
    turns = turns + rng.uniform(-0.5, 0.5, (count, 16)) * np.where(corners == 16, 0, 2 / corners)[:, None]
    long, wide = radii[:, None] * np.cos(turns), radii[:, None] * np.sin(turns) * rng.uniform(0.3, 1, (count, 1))
    tilt = rng.uniform(0, 2 * np.pi, (count, 1))
    x, y = long * np.cos(tilt) - wide * np.sin(tilt), long * np.sin(tilt) + wide * np.cos(tilt)
    return corners, np.round((np.stack([x, y], axis=2) + centres[:, None]) * 16).astype(np.int32)


def scribbles(rng: Generator, height: int, width: int) -> np.ndarray:
    """Strokes and letters on a quiet ground."""
    image = (gradient(rng, height, width) * 255).astype(np.uint8)
    colours, side = palette(rng, 6) * 255, max(height, width)
    for _ in range(int(rng.integers(4, 30))):
        ink = colours[rng.integers(6)].tolist()
        start = rng.uniform(0, 1, 2) * (width, height)
        if rng.random() < 0.4:
            text = ''.join(map(chr, rng.integers(48, 91, int(rng.integers(1, 8)))))
            size = side / 300 * rng.uniform(0.4, 1.8)
            cv2.putText(
                image,
                text,
                tuple(start.astype(int).tolist()),
                int(rng.integers(0, 8)),
                size,
                ink,
                int(rng.integers(1, 3)),
                cv2.LINE_AA,
            )
        else:
            steps = rng.standard_normal((int(rng.integers(3, 14)), 2)) * side * rng.uniform(0.02, 0.12)
            line = np.round((start + np.cumsum(steps, axis=0)) * 16).astype(np.int32)
            cv2.polylines(image, [line], False, ink, int(rng.integers(1, max(2, side // 40) + 1)), cv2.LINE_AA, 4)
    return image.astype(np.float32) * (1 / 255)


def tiles(rng: Generator, height: int, width: int) -> np.ndarray:
    """A small motif repeated: the aperture problem's hard case, correspondences look alike."""
    side = int(np.clip(rng.lognormal(2.8, 0.5), 8, 64))
    motif = _pick(rng, (fractal, leaves, cells, blobs))(rng, side, int(side * rng.uniform(0.6, 1.6)) + 2)
    repeats = (height // motif.shape[0] + 1, width // motif.shape[1] + 1, 1)
    image = np.tile(motif, repeats)[:height, :width]
    return image * (0.6 + 0.4 * noise(rng, height, width, slope=1.0)[..., None])


def rooms(rng: Generator, height: int, width: int) -> np.ndarray:
    """Large areas with long straight edges, lines, windows and a little grain: buildings, roads, interiors."""
    side = max(height, width)
    colours = palette(rng, 12) * 255
    image = np.empty((height, width, 3), np.uint8)
    image[:] = colours[0]
    lean = rng.normal(0, 0.15) + np.array([0, np.pi / 2])  # edges mostly follow two directions
    for _ in range(int(rng.integers(2, 9))):  # half planes, strips and quadrilaterals, large first
        angle = lean[rng.integers(2)] + rng.normal(0, 0.08)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        start = rng.uniform(0, 1, 2) * (width, height)
        long, wide = side * rng.choice([0.3, 2.0]) * rng.uniform(0.5, 1), side * min(rng.pareto(1.2) * 0.05 + 0.01, 1.0)
        corners = start + np.stack(
            [-along * long, along * long, along * long + across * wide, across * wide - along * long]
        )
        cv2.fillConvexPoly(
            image, np.round(corners * 16).astype(np.int32), colours[rng.integers(12)].tolist(), cv2.LINE_AA, 4
        )
        if rng.random() < 0.3:  # a row of equal things along it
            step, ink = side * rng.uniform(0.03, 0.12), colours[rng.integers(12)].tolist()
            for place in np.arange(-long, min(long, 1.5 * side), step)[:40]:
                quad = (
                    start
                    + along * place
                    + np.stack(
                        [0 * along, along * step * 0.5, along * step * 0.5 + across * wide * 0.6, across * wide * 0.6]
                    )
                )
                cv2.fillConvexPoly(image, np.round(quad * 16).astype(np.int32), ink, cv2.LINE_AA, 4)
    shade = 0.7 + 0.6 * noise(rng, height, width, slope=rng.uniform(0.8, 2.0))
    return np.clip(image * (shade * np.float32(1 / 255))[..., None], 0, 1)


_KINDS = (leaves, fractal, blobs, cells, waves, scribbles, tiles, gradient, rooms)
_OBJECT_ODDS = np.array([0.26, 0.18, 0.08, 0.09, 0.08, 0.09, 0.06, 0.07, 0.09])
_GROUND_ODDS = np.array([0.40, 0.12, 0.05, 0.07, 0.03, 0.04, 0.03, 0.06, 0.20])


def _pick(rng: Generator, kinds: tuple, odds: np.ndarray | None = None):
    return kinds[rng.choice(len(kinds), p=odds)]


def surface(rng: Generator, height: int, width: int, *, ground: bool = False) -> np.ndarray:
    """One textured surface.

    Args:
        height, width: Texels.
        ground: Backgrounds are busier than objects: more dead leaves.

    Returns:
        ``(height, width, 3)`` float32 in [0, 255].
    """
    odds = _GROUND_ODDS if ground else _OBJECT_ODDS
    image = _pick(rng, _KINDS, odds)(rng, height, width)
    if rng.random() < 0.45:  # a second material inside the first, with a border of its own
        other = _pick(rng, _KINDS, odds)(rng, height, width)
        field = noise(rng, height, width, slope=1.6, coarsest=int(rng.integers(2, 6)))
        blend = np.clip((field - rng.uniform(0.35, 0.65)) * rng.choice([2.0, 30.0]) + 0.5, 0, 1)[..., None]
        image = image + blend * (other - image)
    if rng.random() < 0.7:  # fine relief: real surfaces are never one colour
        relief = noise(rng, height, width, slope=rng.uniform(0.2, 1.0), coarsest=int(rng.integers(4, 24))) - 0.5
        image = image * (1 + rng.uniform(0.1, 0.8) * relief[..., None])
    light = 0.75 + 0.5 * noise(rng, height, width, slope=2.5)
    contrast, offset = rng.uniform(0.6, 1.05), rng.uniform(-0.05, 0.12)
    return np.clip(((image - 0.5) * contrast + 0.5 + offset) * light[..., None] * 255, 0, 255).astype(np.float32)


class SurfaceBank:
    """Surfaces of one clip in which everything is made of the same few materials.

    A call is :func:`surface`, but what it gives is pieced together from them: an object then consists of several, the
    background holds each of them too, and only place and motion tell which is whose.
    """

    def __init__(self, rng: Generator, side: int) -> None:
        """``side``: texels of each of the two to four materials."""
        self.materials = [surface(rng, side, side, ground=True) for _ in range(int(rng.integers(2, 5)))]

    def __call__(self, rng: Generator, height: int, width: int, *, ground: bool = False) -> np.ndarray:
        image = self._piece(rng, height, width)
        for _ in range(int(rng.integers(1, 4) if ground else rng.integers(0, 4))):
            field = noise(rng, height, width, slope=rng.uniform(0.8, 2.0), coarsest=int(rng.integers(2, 7)))
            blend = np.clip((field - rng.uniform(0.35, 0.6)) * rng.choice([6.0, 40.0]) + 0.5, 0, 1)[..., None]
            image = image + blend * (self._piece(rng, height, width) - image)
        return np.clip(image, 0, 255)

    def _piece(self, rng: Generator, height: int, width: int) -> np.ndarray:
        """A part of one material, turned and scaled a little, ``(height, width, 3)``."""
        material = self.materials[int(rng.integers(len(self.materials)))]
        material = np.rot90(material, int(rng.integers(4)))[:: int(rng.choice([-1, 1]))]
        side, scale = len(material), rng.uniform(0.7, 1.4)
        rows, columns = (int(np.clip(n / scale, 2, side)) for n in (height, width))
        top, left = int(rng.integers(side - rows + 1)), int(rng.integers(side - columns + 1))
        part = np.ascontiguousarray(material[top : top + rows, left : left + columns])
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(rng.uniform(0.85, 1.15))
