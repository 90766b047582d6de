"""Point tracks drawn over video: rainbow trails, hollow markers where a point is occluded."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

_SHIFT = 4  # OpenCV draws with 4 binary places of a pixel


class TrackDrawer:
    """Draws one frame after another and remembers only the last positions.

    A point keeps the colour of the place where it was first seen. A visible point is a filled disc with a bright trail,
    an occluded one a ring with a faint trail. Sizes follow the frame.

    Args:
        trail: Frames that a trail reaches back.
        radius: Of a marker, pixels; None: from the size of the frame.
    """

    def __init__(self, trail: int = 16, *, radius: float | None = None) -> None:
        self.trail = trail
        self.radius = radius
        self.reset()

    def reset(self) -> None:
        """Forget all points."""
        self._ids = np.zeros(0, np.int64)
        self._colours = np.zeros((0, 3), np.uint8)
        self._xy = np.zeros((self.trail + 1, 0, 2), np.float32)  # newest last
        self._visible = np.zeros((self.trail + 1, 0), bool)

    def draw(
        self, frame: np.ndarray, xy_px: np.ndarray, visible: np.ndarray, ids: np.ndarray | None = None
    ) -> np.ndarray:
        """A copy of the frame with the points on it.

        Args:
            frame: ``(H, W, 3)`` uint8 RGB.
            xy_px: ``(N, 2)`` pixels of the frame, centre of a pixel at +0.5; NaN: not there yet.
            visible: ``(N,)`` bool.
            ids: ``(N,)`` int, identities across frames; ids that are no longer given are forgotten. None: ``0 .. N-1``.
        """
        xy_px = np.asarray(xy_px, np.float32).reshape(-1, 2)
        visible = np.asarray(visible, bool).reshape(-1)
        ids = np.arange(len(xy_px)) if ids is None else np.asarray(ids, np.int64)
        if not len(xy_px) == len(visible) == len(ids):
            raise ValueError(f'{len(xy_px)} points, {len(visible)} visible flags, {len(ids)} ids; wanted one each')
        self._remember(xy_px, visible, ids, frame.shape[:2])
        height, width = frame.shape[:2]
        if not len(ids):
            return frame.copy()
        radius = self.radius or max(2.0, 0.009 * (height * width) ** 0.5)
        colour = frame.copy()
        alpha = np.zeros((height, width), np.uint8)
        self._draw_trails(colour, alpha, radius)
        self._draw_markers(colour, alpha, radius)
        weight = alpha.astype(np.float32) * (1 / 255)
        return cv2.blendLinear(colour, np.ascontiguousarray(frame), weight, 1 - weight)

    def _remember(self, xy: np.ndarray, visible: np.ndarray, ids: np.ndarray, size: tuple[int, int]) -> None:
        if not np.array_equal(ids, self._ids):
            self._align(ids)
        height, width = size
        fresh = np.isnan(self._xy[-1, :, 0]) & np.isnan(self._xy[:, :, 0]).all(0) & ~np.isnan(xy[:, 0])
        self._colours[fresh] = rainbow(xy[fresh] / (width, height))
        limit = np.array([width, height], np.float32)
        self._xy = np.concatenate([self._xy[1:], np.clip(xy, -4 * limit, 5 * limit)[None]])  # (trail + 1, N, 2)
        self._visible = np.concatenate([self._visible[1:], visible[None]])

    def _align(self, ids: np.ndarray) -> None:
        """Reorder the memory to ``ids``; new ones start empty."""
        old = {identity: column for column, identity in enumerate(self._ids.tolist())}
        columns = np.array([old.get(identity, -1) for identity in ids.tolist()], np.int64)
        known = columns >= 0
        xy = np.full((self.trail + 1, len(ids), 2), np.nan, np.float32)
        seen = np.zeros((self.trail + 1, len(ids)), bool)
        colours = np.zeros((len(ids), 3), np.uint8)
        xy[:, known], seen[:, known] = self._xy[:, columns[known]], self._visible[:, columns[known]]
        colours[known] = self._colours[columns[known]]
        self._ids, self._xy, self._visible, self._colours = ids.copy(), xy, seen, colours

    def _draw_trails(self, colour: np.ndarray, alpha: np.ndarray, radius: float) -> None:
        """Colours go on one layer, opacity on the other: smooth edges and fading for one blend per frame."""
        fixed = _fixed(self._xy)  # (trail + 1, N, 2)
        present = ~np.isnan(self._xy[:, :, 0])
        thickness = max(1, round(0.7 * radius))
        for point, shade in enumerate(self._colours.tolist()):
            line = fixed[present[:, point], point]
            if len(line) > 1:
                cv2.polylines(colour, [line], False, shade, thickness + 2, cv2.LINE_8, _SHIFT)
        for age in range(self.trail, 0, -1):
            both = present[-age - 1] & present[-age]
            shown = self._visible[-age - 1] & self._visible[-age]
            strength = 230 * (1 - (age - 1) / self.trail)
            for mask, opacity in ((both & ~shown, 0.3 * strength), (both & shown, strength)):
                lines = fixed[-age - 1 : len(fixed) - age + 1, mask].swapaxes(0, 1)  # (n, 2, 2)
                cv2.polylines(alpha, list(lines), False, opacity, thickness, cv2.LINE_AA, _SHIFT)

    def _draw_markers(self, colour: np.ndarray, alpha: np.ndarray, radius: float) -> None:
        fixed, present = _fixed(self._xy[-1]), ~np.isnan(self._xy[-1, :, 0])
        size = round(radius * (1 << _SHIFT))
        for visible in (False, True):  # visible ones on top
            for point in np.flatnonzero(present & (self._visible[-1] == visible)).tolist():
                centre, shade = fixed[point].tolist(), self._colours[point].tolist()
                if visible:
                    rim = size + (1 << _SHIFT) * 3 // 4
                    cv2.circle(colour, centre, rim + (1 << _SHIFT), (16, 16, 16), -1, cv2.LINE_8, _SHIFT)
                    cv2.circle(colour, centre, size, shade, -1, cv2.LINE_AA, _SHIFT)
                    cv2.circle(alpha, centre, rim, 255, -1, cv2.LINE_AA, _SHIFT)
                else:
                    cv2.circle(colour, centre, size, shade, max(3, round(radius)), cv2.LINE_8, _SHIFT)
                    cv2.circle(alpha, centre, size, 140, max(1, round(0.35 * radius)), cv2.LINE_AA, _SHIFT)


def rainbow(position: np.ndarray) -> np.ndarray:
    """``(N, 3)`` uint8 RGB for positions ``(N, 2)`` in ``[0, 1]``: hue along the diagonal, so neighbours look alike."""
    if not len(position):
        return np.zeros((0, 3), np.uint8)
    position = np.clip(np.asarray(position, np.float32).reshape(-1, 2), 0, 1)
    hue = 165 * position.mean(1)  # OpenCV's hue is 0 .. 179; the last part would return to red
    hsv = np.stack([hue, np.full_like(hue, 215), np.full_like(hue, 255)], axis=-1)  # (N, 3)
    return cv2.cvtColor(np.round(hsv).astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]


def _fixed(xy: np.ndarray) -> np.ndarray:
    """OpenCV's fixed point numbers; its pixel centres are whole, ours are at +0.5."""
    return np.round((np.nan_to_num(xy) - 0.5) * (1 << _SHIFT)).astype(np.int32)


def contact_sheet(
    frames: Iterable[np.ndarray], columns: int = 4, *, gap: int = 4, width: int | None = None
) -> np.ndarray:
    """Frames side by side, row after row, on white.

    Args:
        frames: ``(H, W, 3)`` uint8 each, all of one size.
        columns: Frames per row.
        gap: Pixels between frames.
        width: Scale every frame to this width, pixels.
    """
    frames = [_scaled(frame, width) for frame in frames]
    if not frames:
        raise ValueError('no frames for a contact sheet; wanted at least one')
    columns = min(columns, len(frames))
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def _scaled(frame: np.ndarray, width: int | None) -> np.ndarray:
    if width is None or width == frame.shape[1]:
        return frame
    height = max(1, round(frame.shape[0] * width / frame.shape[1]))
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
