"""What data sets that read videos frame by frame share: sizes and reducing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def reduce_image(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """``(H, W, 3)``, reduced in proportion until no side exceeds ``max_side``."""
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image
    factor = max_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def image_size(path: Path) -> tuple[int, int]:
    """``(H, W)`` from the header; that of an upright photograph for a phone that was held sideways.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) > 4
            return (image.width, image.height) if turned else (image.height, image.width)
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: missing; it is a frame of the video') from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f'{path}: not an image that can be read ({" ".join(str(error).split())})') from None


def misfit(name: Path | str | None, seen: tuple[int, int], others: str, wanted: tuple[int, int]) -> str:
    """What a message says of a file of another size."""
    return f'{name}: {seen[1]}x{seen[0]} px, not {wanted[1]}x{wanted[0]} as {others}'
