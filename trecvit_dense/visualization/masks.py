"""Object masks drawn over video: a tint, an outline and the number of every object."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

VOID = 255


class MaskDrawer:
    """Draws index maps over frames.

    An object keeps the colour of its id in every frame and every video. Sizes follow the frame.

    Args:
        opacity: Of the tint, 0 to 1; outlines are opaque.
        outline: Whether to draw it.
        numbers: Whether to write the id on each object.
    """

    def __init__(self, opacity: float = 0.5, *, outline: bool = True, numbers: bool = True) -> None:
        if not 0 <= opacity <= 1:
            raise ValueError(f'opacity is {opacity}; wanted 0 to 1')
        self.opacity, self.outline, self.numbers = opacity, outline, numbers
        self._colours = mask_colours()

    def draw(self, frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """A copy of the frame with the objects on it.

        Args:
            frame: ``(H, W, 3)`` uint8 RGB.
            labels: ``(H, W)`` uint8; 0 is background, 255 void (not drawn).

        Raises:
            ValueError: the map has another size than the frame.
        """
        if labels.shape != frame.shape[:2]:
            raise ValueError(f'the masks have shape {labels.shape}, the frame {frame.shape[:2]}; wanted the same size')
        ids = [identity for identity in np.unique(labels).tolist() if identity not in (0, VOID)]
        if not ids:
            return frame.copy()
        picture = self._tint(frame, labels)
        thickness = max(1, round(0.003 * min(frame.shape[:2])))
        for identity in ids:
            left, top, right, bottom = window = _bounds(labels == identity)
            # a border of background closes outlines at the edge of the object's window
            mask = np.pad((labels[top:bottom, left:right] == identity).astype(np.uint8), 1)
            if self.outline:
                pieces, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left - 1, top - 1))
                cv2.drawContours(picture, pieces, -1, self._colours[identity].tolist(), thickness, cv2.LINE_AA)
            if self.numbers:
                self._write_number(picture, identity, mask, window)
        return picture

    def _tint(self, frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
        layer = self._colours[labels]  # (H, W, 3)
        weight = np.where((labels == 0) | (labels == VOID), 0, self.opacity).astype(np.float32)
        return cv2.blendLinear(layer, np.ascontiguousarray(frame), weight, 1 - weight)

    def _write_number(
        self, picture: np.ndarray, identity: int, mask: np.ndarray, window: tuple[int, int, int, int]
    ) -> None:
        """The id where the object is widest, if it is wide enough to be read there."""
        inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        scale = max(0.35, 0.0014 * min(picture.shape[:2]))
        font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(2 * scale))
        (width, height), _ = cv2.getTextSize(str(identity), font, scale, thick)
        if inside.max() < 0.6 * height:
            return
        place = window[0] - 1 + int(column) - width // 2, window[1] - 1 + int(row) + height // 2
        for colour, extra in (((16, 16, 16), 2), ((255, 255, 255), 0)):
            cv2.putText(picture, str(identity), place, font, scale, colour, thick + extra, cv2.LINE_AA)


def mask_colours() -> np.ndarray:
    """``(256, 3)`` uint8 RGB by id, black for background.

    The first seven have the hues of the PASCAL VOC palette, in its order, at full brightness; later ones fall between
    them. VOC's own colours darken quickly (its ninth object is a dark red beside the red of the first).
    """
    colours = np.zeros((256, 3), np.uint8)
    hues = [0, 120, 60, 240, 300, 180, 30, 210, 90, 330, 150, 270]
    for identity in range(1, 256):
        turn, place = divmod(identity - 1, len(hues))
        saturation, value = [(0.95, 1.0), (0.45, 1.0), (0.95, 0.55)][turn % 3]
        hue = hues[place] + 15 * (turn // 3 % 2) + 5 * (turn // 6)
        colours[identity] = np.round(255 * np.array(colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)))
    return colours


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is True."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left, top, left + width, top + height
