"""Random silhouettes with anti-aliased edges, and the shading that makes them look round."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

SHAPES = ('blob', 'polygon', 'ellipse', 'ring', 'stick', 'figure')
_SUBPIXEL = 4  # bits of cv2's fixed-point coordinates


def silhouette(rng: Generator, kind: str, radius: float) -> np.ndarray:
    """Alpha of one shape.

    Args:
        kind: One of :data:`SHAPES`.
        radius: Texels from the centre to the farthest point, about.

    Returns:
        ``(side, side)`` uint8; 0 on a margin of two texels, so that interpolation at the edge never reads outside.
    """
    half = int(np.ceil(radius)) + 3
    alpha = np.zeros((2 * half, 2 * half), np.uint8)
    {'blob': _blob, 'polygon': _polygon, 'ellipse': _ellipse, 'ring': _ring, 'stick': _stick, 'figure': _figure}[kind](
        rng, alpha, radius, np.array([half, half], float)
    )
    alpha = cv2.GaussianBlur(alpha, (3, 3), 0.6)
    alpha[:2], alpha[-2:], alpha[:, :2], alpha[:, -2:] = 0, 0, 0, 0
    return alpha


def _fill(alpha: np.ndarray, outline: np.ndarray, value: int = 255) -> None:
    points = np.round((outline - 0.5) * (1 << _SUBPIXEL)).astype(np.int32)
    cv2.fillPoly(alpha, [points], value, cv2.LINE_AA, _SUBPIXEL)


def _polar(
    centre: np.ndarray, angles: np.ndarray, radii: np.ndarray | float, stretch: float = 1.0, turn: float = 0.0
) -> np.ndarray:
    x, y = radii * np.cos(angles), radii * np.sin(angles) * stretch
    return centre + np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=-1)


def _blob(rng: Generator, alpha: np.ndarray, radius: float, centre: np.ndarray) -> None:
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    harmonics = np.arange(1, int(rng.integers(3, 9)))
    amplitude = rng.standard_normal(len(harmonics)) * rng.uniform(0.15, 0.45) / harmonics**0.7
    radii = 1 + (amplitude * np.cos(angles[:, None] * harmonics + rng.uniform(0, 2 * np.pi, len(harmonics)))).sum(1)
    radii = np.clip(radii, 0.15, None)
    _fill(alpha, _polar(centre, angles, radii * (radius / radii.max()), rng.uniform(0.5, 1), rng.uniform(0, np.pi)))


def _polygon(rng: Generator, alpha: np.ndarray, radius: float, centre: np.ndarray) -> None:
    corners = int(rng.integers(3, 9))
    angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * (2 * np.pi / corners)
    radii = radius * rng.uniform(rng.uniform(0.3, 1), 1, corners)
    _fill(alpha, _polar(centre, angles, radii, rng.uniform(0.4, 1), rng.uniform(0, np.pi)))


def _ellipse(rng: Generator, alpha: np.ndarray, radius: float, centre: np.ndarray) -> None:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    power = rng.choice([1.0, 1.0, 0.5])  # 0.5: a rounded rectangle (superellipse)
    x = np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** power
    y = np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power * rng.uniform(0.4, 1)
    turn, size = rng.uniform(0, np.pi), radius / np.hypot(x, y).max()
    _fill(
        alpha,
        centre + size * np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1),
    )


def _ring(rng: Generator, alpha: np.ndarray, radius: float, centre: np.ndarray) -> None:
    (_blob if rng.random() < 0.5 else _ellipse)(rng, alpha, radius, centre)
    for _ in range(int(rng.integers(1, 4))):  # holes: what lies behind shows through
        hole = _polar(
            centre, np.linspace(0, 2 * np.pi, 32, endpoint=False), radius * rng.uniform(0.12, 0.4), rng.uniform(0.5, 1)
        )
        _fill(alpha, hole + rng.uniform(-0.3, 0.3, 2) * radius, 0)


def _stick(rng: Generator, alpha: np.ndarray, radius: float, centre: np.ndarray) -> None:
    """Thin and bent: poles, branches, cables, limbs."""
    count = int(rng.integers(2, 6))
    along = np.linspace(-1, 1, count)
    across = np.cumsum(rng.standard_normal(count)) * rng.choice([0.0, 0.15, 0.35])
    across = np.clip(across - across.mean(), -0.8, 0.8)
    turn = rng.uniform(0, np.pi)
    reach = (radius - 1) / np.hypot(along, across).max()
    x, y = along * reach, across * reach
    line = centre + np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
    width = max(2, round(radius * rng.uniform(0.06, 0.3)))
    points = np.round((line - 0.5) * (1 << _SUBPIXEL)).astype(np.int32)
    cv2.polylines(alpha, [points], False, 255, width, cv2.LINE_AA, _SUBPIXEL)


def _figure(rng: Generator, alpha: np.ndarray, radius: float, centre: np.ndarray) -> None:
    """A body with parts: a union of ellipses and limbs."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    _fill(alpha, _polar(centre, angles, radius * rng.uniform(0.4, 0.65), rng.uniform(0.5, 1), rng.uniform(0, np.pi)))
    for _ in range(int(rng.integers(1, 4))):
        size = radius * rng.uniform(0.15, 0.35)
        where = _polar(centre, np.array([rng.uniform(0, 2 * np.pi)]), radius - size)[0]
        _fill(alpha, _polar(where, angles, size, rng.uniform(0.6, 1), rng.uniform(0, np.pi)))
    for _ in range(int(rng.integers(1, 5))):
        tip = _polar(centre, np.array([rng.uniform(0, 2 * np.pi)]), radius * rng.uniform(0.7, 0.95))[0]
        root = centre + (tip - centre) * rng.uniform(0, 0.4) + rng.standard_normal(2) * radius * 0.1
        points = np.round((np.stack([root, tip]) - 0.5) * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.polylines(
            alpha, [points], False, 255, max(2, round(radius * rng.uniform(0.08, 0.22))), cv2.LINE_AA, _SUBPIXEL
        )


def relief(rng: Generator, alpha: np.ndarray) -> np.ndarray:
    """``(h, w)`` float32 gain about 1: the silhouette inflated to a cushion and lit from one side."""
    height = cv2.GaussianBlur(alpha, (0, 0), max(1.0, len(alpha) * rng.uniform(0.03, 0.12))).astype(np.float32) * (
        len(alpha) / 255
    )
    slope_x, slope_y = (
        cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.4)
    return np.clip(1 + strength * (slope_x * np.cos(angle) + slope_y * np.sin(angle)), 0.4, 1.6)
