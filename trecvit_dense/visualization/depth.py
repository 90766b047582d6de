"""Depth as colour: near is warm, and the range of the colours follows the scene slowly, so that they do not flicker."""

from __future__ import annotations

import cv2
import numpy as np

_SAMPLES = 20000  # pixels from which the range is read
_PERCENTILES = (2, 98)


class DepthDrawer:
    """Draws one depth map after another and remembers only the range of the colours.

    Colours are linear in disparity (one over depth), for metric depth too: what is near matters most. The range begins
    with the first frame. At every later one its ends move a small share of the way, and never more than that share of
    the range itself; it does not look ahead, so a live stream and a file look alike.

    Args:
        rate: Share of the way to the range of the present frame; 0 keeps the first one.
        limits: ``(far, near)`` disparity that stays for good, in place of a range that follows.
        legend: Whether to draw a scale, with metres where depth is metric.
    """

    def __init__(self, *, rate: float = 0.02, limits: tuple[float, float] | None = None, legend: bool = True) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f'rate is {rate}; wanted 0 to 1')
        if limits is not None and not limits[0] < limits[1]:
            raise ValueError(f'limits are {limits}; wanted far disparity, near disparity, the smaller first')
        self.rate, self.legend, self._fixed = rate, legend, limits
        self.reset()

    def reset(self) -> None:
        """Forget the range; the next frame begins another."""
        self.range: np.ndarray | None = None if self._fixed is None else np.array(self._fixed, np.float64)

    def draw(self, depth: np.ndarray, kind: str) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB, black where there is no value.

        Args:
            depth: ``(H, W)``; what is not finite, or for metres not above 0, has no value.
            kind: ``'disparity'`` or ``'depth'`` (metres).
        """
        if depth.ndim != 2:
            raise ValueError(f'depth has shape {depth.shape}; wanted (H, W)')
        disparity, known = _disparity(np.asarray(depth, np.float32), kind)
        self._follow(disparity, known)
        if self.range is None:
            return np.zeros((*depth.shape, 3), np.uint8)
        far, near = self.range
        steps = 255 / max(near - far, 1e-12)
        clipped = np.clip(disparity, np.float32(far), np.float32(near))
        index = cv2.convertScaleAbs(clipped, alpha=steps, beta=-far * steps)  # (H, W) uint8
        colours = cv2.applyColorMap(index, depth_colours()[:, None])
        if not known.all():
            colours[~known] = 0
        if self.legend:
            self._draw_legend(colours, kind)
        return colours

    def _follow(self, disparity: np.ndarray, known: np.ndarray) -> None:
        if self._fixed is not None:
            return
        step = max(1, int((disparity.size / _SAMPLES) ** 0.5))
        sample = disparity[::step, ::step][known[::step, ::step]]
        if not sample.size:
            return
        seen = np.percentile(sample, _PERCENTILES)
        room = max(0.0, 0.05 * abs(seen).max() - (seen[1] - seen[0])) / 2  # of a flat picture noise is not stretched
        seen += (-room, room)
        span = 0.0 if self.range is None else self.range[1] - self.range[0]
        if span > 0:
            seen = self.range + self.rate * np.clip(seen - self.range, -span, span)
        self.range = seen

    def _draw_legend(self, picture: np.ndarray, kind: str) -> None:
        """A strip of the colours along the bottom with both ends named, where there is room for them."""
        height, width = picture.shape[:2]
        scale = max(0.35, 0.0011 * min(height, width))
        strip, margin = max(4, round(14 * scale)), max(3, round(10 * scale))
        if height < 8 * strip or width < 400 * scale:
            return
        left, right, bottom = margin, margin + round(260 * scale), height - margin
        ramp = depth_colours()[np.linspace(0, 255, right - left).astype(np.uint8)]
        picture[bottom - strip : bottom, left:right] = ramp
        cv2.rectangle(picture, (left - 1, bottom - strip - 1), (right, bottom), (255, 255, 255), 1)
        names = ('far', 'near') if kind == 'disparity' else tuple(_metres(value) for value in self.range)
        font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(2 * scale))
        for name, end in zip(names, (left, right), strict=True):
            (length, _), _ = cv2.getTextSize(name, font, scale, thick)
            place = (left if end == left else right - length, bottom - strip - margin // 2 - 1)
            for colour, extra in (((16, 16, 16), 2), ((255, 255, 255), 0)):
                cv2.putText(picture, name, place, font, scale, colour, thick + extra, cv2.LINE_AA)


def depth_colours() -> np.ndarray:
    """``(256, 3)`` uint8 RGB from far (blue) to near (red): Turbo (A. Mikhailov, 2019) without its dark ends."""
    steps = np.linspace(14, 230, 256).round().astype(np.uint8)
    table = cv2.applyColorMap(steps[:, None], cv2.COLORMAP_TURBO)[:, 0]
    return np.ascontiguousarray(table[:, ::-1])


def side_by_side(left: np.ndarray, right: np.ndarray, *, gap: int = 4) -> np.ndarray:
    """Two pictures ``(H, W, 3)`` of one height beside each other, on white."""
    if left.shape[0] != right.shape[0]:
        raise ValueError(f'pictures of {left.shape[0]} and {right.shape[0]} rows; wanted the same height')
    return np.hstack([left, np.full((left.shape[0], gap, 3), 255, np.uint8), right])


def _disparity(depth: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """``(H, W)`` float32 disparity and where there is a value."""
    if kind == 'disparity':
        known = np.isfinite(depth)
        return depth if known.all() else np.where(known, depth, 0), known
    if kind != 'depth':
        raise ValueError(f"kind is '{kind}'; wanted 'disparity' or 'depth'")
    known = np.isfinite(depth) & (depth > 0)
    if not known.all():
        depth = np.where(known, depth, 1)
    return 1 / depth, known


def _metres(disparity: float) -> str:
    metres = 1 / max(disparity, 1e-3)
    return '> 1 km' if disparity < 1e-3 else f'{metres:.{2 if metres < 1 else 1 if metres < 10 else 0}f} m'
