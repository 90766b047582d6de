"""What happens between the scene and the file: light, lens, sensor and codec; drawn per clip, drifting per frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from .motion import path


class Photometric:
    """Applies one clip's random light, lens, sensor and codec to its frames.

    Args:
        strength: Scales the odds and the size of every effect; 0 leaves frames as rendered.
    """

    def __init__(self, rng: Generator, size: tuple[int, int], clock: np.ndarray, strength: float) -> None:
        self.size, self.rng = size, rng
        on = rng.random(8) < np.array([0.6, 0.35, 0.45, 0.35, 0.55, 0.6, 0.25, 0.3]) * strength
        self.tables = _tone(rng, clock, strength) if on[0] else None
        self.shade = _Shade(rng, clock) if on[1] else None
        self.shutter = float(rng.uniform(0.2, 0.9)) if on[2] else 0.0
        self.blur_px = self._defocus(rng, clock) if on[3] else None
        self.noise = self._noise(rng) if on[4] else None
        self.quality = int(rng.integers(25, 96)) if on[5] else None
        self.shrink = float(rng.uniform(0.45, 0.9)) if on[6] else None

    def _defocus(self, rng: Generator, clock: np.ndarray) -> np.ndarray:
        side = np.sqrt(self.size[0] * self.size[1])
        top = side * rng.uniform(0.001, 0.008)
        return top * np.clip(np.sin(path(rng, clock, 0.04, 1)[:, 0] + rng.uniform(0, 6)), 0, 1)

    def _noise(self, rng: Generator) -> np.ndarray:
        """A tile of sensor noise, larger than the frame; each frame takes a random window of it."""
        shape = (self.size[0] + 32, self.size[1] + 32)
        grain = rng.standard_normal((*shape, 1), dtype=np.float32) + 0.7 * rng.standard_normal(
            (*shape, 3), dtype=np.float32
        )
        if rng.random() < 0.3:
            grain = cv2.GaussianBlur(grain, (3, 3), 0.7) * 1.6
        return (grain * min(rng.lognormal(0.6, 0.7), 9.0)).astype(np.int16)

    def __call__(self, frame: np.ndarray, index: int) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB -> the same, as a camera would have stored it."""
        height, width = self.size
        if self.shade is not None:
            gain = self.shade(index, self.size)
            frame = cv2.multiply(frame, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)
        if self.tables is not None:
            frame = cv2.LUT(frame, self.tables[index])
        if self.blur_px is not None and self.blur_px[index] > 0.3:
            frame = cv2.GaussianBlur(frame, (0, 0), float(self.blur_px[index]))
        if self.shrink is not None:
            small = (max(2, round(width * self.shrink)), max(2, round(height * self.shrink)))
            frame = cv2.resize(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), (width, height))
        if self.noise is not None:
            top, left = self.rng.integers(0, 33, 2)
            frame = cv2.add(frame, self.noise[top : top + height, left : left + width], dtype=cv2.CV_8U)
        if self.quality is not None:
            _, code = cv2.imencode('.jpg', frame, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            frame = cv2.imdecode(code, cv2.IMREAD_COLOR)  # colours go in and come out in the same order
        return frame


def _tone(rng: Generator, clock: np.ndarray, strength: float) -> np.ndarray:
    """``(T, 1, 256, 3)`` uint8 lookup tables: exposure, gamma and white balance, drifting, sometimes flickering."""
    frames = len(clock)
    exposure = rng.normal(0, 0.1) + 0.22 * np.sin(path(rng, clock, 0.03, 1)) * rng.uniform(0, 1)
    if rng.random() < 0.15:
        exposure = exposure + rng.standard_normal((frames, 1)) * rng.uniform(0, 0.08)
    balance = rng.normal(0, 0.04, 3) + 0.1 * np.sin(path(rng, clock, 0.02, 3)) * rng.uniform(0, 1)
    gamma = np.exp(rng.normal(0, 0.18) + 0.15 * np.sin(path(rng, clock, 0.02, 1)))
    gain = np.exp((exposure + balance) * strength)  # (T, 3)
    value = np.linspace(0, 1, 256)[None, :, None] ** gamma[:, :, None]
    return np.clip(value * gain[:, None] * 255, 0, 255).astype(np.uint8)[:, None]


class _Shade:
    """A soft shadow or patch of light that wanders over the frame, independent of what lies below."""

    def __init__(self, rng: Generator, clock: np.ndarray) -> None:
        self.centre = rng.uniform(0, 1, 2) + path(rng, clock, 0.02, 2, bound=0.6)
        self.angle = rng.uniform(0, 2 * np.pi) + path(rng, clock, 0.01, 1)[:, 0]
        self.softness, self.depth = rng.uniform(0.03, 0.5), rng.uniform(0.15, 0.6)
        self.band = rng.uniform(0.1, 0.6) if rng.random() < 0.5 else None

    def __call__(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """``(H, W)`` float32 gain."""
        height, width = size
        y, x = np.mgrid[0:1:24j, 0:1:24j].astype(np.float32)
        x, y = x - self.centre[index, 0], y - self.centre[index, 1]
        distance = x * np.cos(self.angle[index]) + y * np.sin(self.angle[index])
        if self.band is not None:
            distance = np.abs(distance) - self.band
        gain = 1 - self.depth / (1 + np.exp(-np.clip(distance / self.softness * 4, -30, 30)))
        return cv2.resize(gain.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
