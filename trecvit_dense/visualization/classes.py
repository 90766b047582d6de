"""Classes over video: the likeliest ones with a bar each, in the lower left corner."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_BAR, _BEST = (55, 90, 160), (190, 105, 15)  # RGB, dark enough for white letters
_TEXT, _SHADE = (255, 255, 255), 0.35


def draw_classes(picture: np.ndarray, top: Sequence[tuple[str, float]]) -> np.ndarray:
    """A copy of the picture with a line for each class.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        top: Name and probability, the likeliest first. As many are drawn as there is room for; sizes follow the
            picture.
    """
    height, width = picture.shape[:2]
    line = max(8, round(0.055 * min(height, width)))
    rows, margin = max(1, min(len(top), (height - line) // (line + 2))), max(2, line // 3)
    drawn, panel = picture.copy(), min(width - 2 * margin, max(width // 2, 14 * line))
    if not top or panel < 4 or height < line + 2 * margin:
        return drawn
    first = height - margin - rows * (line + 2)
    drawn[first - 2 :, margin : margin + panel] = (_SHADE * drawn[first - 2 :, margin : margin + panel]).astype(
        np.uint8
    )
    for index, (name, probability) in enumerate(top[:rows]):
        y = first + index * (line + 2)
        length = round(float(np.clip(probability, 0, 1)) * (panel - 1))
        cv2.rectangle(drawn, (margin, y), (margin + length, y + line - 1), _BEST if index == 0 else _BAR, -1)
        _write(drawn, f'{probability:4.0%} {name}', (margin + 2, y), line, panel - 4)
    return drawn


def _write(picture: np.ndarray, text: str, corner: tuple[int, int], line: int, room: int) -> None:
    """Text in a line of ``line`` pixels, shortened to ``room`` pixels; letters that OpenCV lacks become ``?``."""
    font, scale, thick = cv2.FONT_HERSHEY_SIMPLEX, line / 32, max(1, round(line / 22))
    text = text.encode('ascii', 'replace').decode()
    while len(text) > 5 and cv2.getTextSize(text, font, scale, thick)[0][0] > room:
        text = text[:-2] + '.'
    place = (corner[0], corner[1] + round(0.78 * line))
    cv2.putText(picture, text, place, font, scale, _TEXT, thick, cv2.LINE_AA)
