"""The operations of AutoAugment and RandAugment on clips: one and the same change for every frame.

Each is ``operation(video, amount) -> video`` on ``(T, H, W, 3)`` uint8. What an operation of the papers reads off an
image, such as its histogram, is read off the whole clip here: frame by frame it would flicker, and flicker is motion.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

GREY = 128  # of what a movement leaves free
_TO_GREY = np.array([0.299, 0.587, 0.114])

Operation = Callable[[np.ndarray, float], np.ndarray]


# ---- values


def look_up(video: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Every value through ``table``, ``(256,)`` or ``(256, 3)``, one for each channel."""
    table = np.clip(np.round(table), 0, 255).astype(np.uint8)
    flat = video.reshape(-1, video.shape[2], 3)  # (T * H, W, 3): cv2 takes images
    return cv2.LUT(flat, np.broadcast_to(table.reshape(256, 1, -1), (256, 1, 3)).copy()).reshape(video.shape)


def blend(video: np.ndarray, other: np.ndarray, factor: float) -> np.ndarray:
    """0: ``other``; 1: ``video``; beyond 1 away from ``other``."""
    mixed = factor * video.astype(np.float32) + (1 - factor) * other.astype(np.float32)
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def auto_contrast(video: np.ndarray, amount: float = 0) -> np.ndarray:
    """Stretch each channel so that its darkest value is 0 and its brightest 255."""
    low, high = video.min((0, 1, 2)).astype(float), video.max((0, 1, 2)).astype(float)
    span = np.where(high > low, high - low, 255)
    return look_up(video, (np.arange(256)[:, None] - np.where(high > low, low, 0)) * 255 / span)


def equalize(video: np.ndarray, amount: float = 0) -> np.ndarray:
    """Make the histogram of each channel flat, by the integer rule of the Pillow library."""
    tables = []
    for channel in range(3):
        counts = np.bincount(video[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        before = np.cumsum(counts) - counts
        tables.append(np.minimum((step // 2 + before) // step, 255) if step else np.arange(256))
    return look_up(video, np.stack(tables, axis=1))


def invert(video: np.ndarray, amount: float = 0) -> np.ndarray:
    return 255 - video


def solarize(video: np.ndarray, amount: float) -> np.ndarray:
    """Invert what is at or above ``amount`` in [0, 256]."""
    values = np.arange(256)
    return look_up(video, np.where(values < amount, values, 255 - values))


def solarize_add(video: np.ndarray, amount: float) -> np.ndarray:
    """Brighten what is below 128 by ``amount``."""
    values = np.arange(256)
    return look_up(video, np.where(values < 128, values + int(amount), values))


def posterize(video: np.ndarray, amount: float) -> np.ndarray:
    """Keep the uppermost ``amount`` bits, at least one: with none left, a published policy paints clips black."""
    bits = int(np.clip(amount, 1, 8))
    return video & np.uint8(256 - 2 ** (8 - bits))


def color(video: np.ndarray, amount: float) -> np.ndarray:
    """Saturation: factor ``amount``, 0 is grey."""
    grey = np.round(video @ _TO_GREY)[..., None]
    return blend(video, grey, amount)


def contrast(video: np.ndarray, amount: float) -> np.ndarray:
    """Factor ``amount`` about the clip's mean grey."""
    return look_up(video, amount * np.arange(256) + (1 - amount) * float((video.mean((0, 1, 2)) * _TO_GREY).sum()))


def brightness(video: np.ndarray, amount: float) -> np.ndarray:
    return look_up(video, amount * np.arange(256))


def sharpness(video: np.ndarray, amount: float) -> np.ndarray:
    """Factor ``amount`` on the difference to a smoothed frame (Pillow's 3 x 3 kernel; the border stays)."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    smooth = video.copy()
    if min(video.shape[1:3]) > 2:
        for frame, out in zip(video, smooth, strict=True):
            out[1:-1, 1:-1] = cv2.filter2D(frame, -1, kernel)[1:-1, 1:-1]
    return blend(video, smooth, amount)


# ---- movements: ``amount`` is signed


def move(video: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Where pixel ``p`` of the result comes from, ``matrix @ (x, y, 1)`` about the frame's centre; bilinear."""
    height, width = video.shape[1:3]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    linear = np.asarray(matrix, np.float64)
    shift = centre + linear[:, 2] - linear[:, :2] @ centre
    inverse = np.column_stack([linear[:, :2], shift])
    options = dict(flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT)
    return np.stack([cv2.warpAffine(f, inverse, (width, height), borderValue=(GREY,) * 3, **options) for f in video])


def rotate(video: np.ndarray, amount: float) -> np.ndarray:
    """Degrees, counter-clockwise."""
    cosine, sine = np.cos(np.deg2rad(amount)), np.sin(np.deg2rad(amount))
    return move(video, np.array([[cosine, -sine, 0], [sine, cosine, 0]]))


def shear_x(video: np.ndarray, amount: float) -> np.ndarray:
    return move(video, np.array([[1, amount, 0], [0, 1, 0]]))


def shear_y(video: np.ndarray, amount: float) -> np.ndarray:
    return move(video, np.array([[1, 0, 0], [amount, 1, 0]]))


def translate_x(video: np.ndarray, amount: float) -> np.ndarray:
    """Share of the width."""
    return move(video, np.array([[1, 0, amount * video.shape[2]], [0, 1, 0]]))


def translate_y(video: np.ndarray, amount: float) -> np.ndarray:
    """Share of the height."""
    return move(video, np.array([[1, 0, 0], [0, 1, amount * video.shape[1]]]))


def identity(video: np.ndarray, amount: float = 0) -> np.ndarray:
    return video


OPERATIONS: dict[str, Operation] = {
    'Identity': identity,
    'AutoContrast': auto_contrast,
    'Equalize': equalize,
    'Invert': invert,
    'Rotate': rotate,
    'Posterize': posterize,
    'Solarize': solarize,
    'SolarizeAdd': solarize_add,
    'Color': color,
    'Contrast': contrast,
    'Brightness': brightness,
    'Sharpness': sharpness,
    'ShearX': shear_x,
    'ShearY': shear_y,
    'TranslateX': translate_x,
    'TranslateY': translate_y,
}
