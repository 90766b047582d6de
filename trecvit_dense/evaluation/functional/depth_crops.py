"""Which pixels of a depth map count: the crops of the benchmarks, and sizes that differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Crop = tuple[int, int, int, int]  # rows a:b, columns c:d; negative ones count from the end

# Shares of height and width: Garg et al., arXiv 1603.04992; Eigen et al., arXiv 1406.2283.
_SHARES = {
    'garg': (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    'eigen_kitti': (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
# Pixels: Eigen et al. for NYUv2 (640 x 480); NVDS; Video Depth Anything's crop of ScanNet.
_PIXELS: dict[str, Crop] = {
    'eigen_nyu': (45, 471, 41, 601),
    'nvds_nyu': (44, 471, 40, 601),
    'scannet': (8, -8, 11, -11),
}
_KB_SIZE = (352, 1216)  # the KITTI benchmark's
CROPS = (*_SHARES, *_PIXELS, 'kb')


def find_crop(crop: str | Sequence[int] | None, size: tuple[int, int]) -> Crop:
    """Rows ``a:b`` and columns ``c:d`` of an ``(H, W)`` frame.

    Args:
        crop: A name of ``CROPS``, four numbers as in a slice (negative ones count from the end), or None for all.
            ``'garg'`` and ``'eigen_kitti'`` are shares of the frame, truncated to pixels; ``'kb'`` is the lowest 352
            rows and the middle 1216 columns.

    Raises:
        ValueError: an unknown name, or nothing of the frame is left.
    """
    height, width = size
    if crop is None:
        return 0, height, 0, width
    if not isinstance(crop, str):
        rows, columns = (slice(*crop[i : i + 2]).indices(n) for i, n in ((0, height), (2, width)))
        found = (rows[0], rows[1], columns[0], columns[1])
    elif crop in _SHARES:
        a, b, c, d = _SHARES[crop]
        found = (int(a * height), int(b * height), int(c * width), int(d * width))
    elif crop == 'kb':
        top, left = height - _KB_SIZE[0], (width - _KB_SIZE[1]) // 2
        found = (top, height, left, left + _KB_SIZE[1])
    elif crop in _PIXELS:
        return find_crop(_PIXELS[crop], size)
    else:
        import difflib

        near = difflib.get_close_matches(crop, CROPS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ''
        raise ValueError(f"crop is '{crop}'{hint}; wanted one of {', '.join(CROPS)}, or rows and columns a, b, c, d")
    a, b, c, d = found
    if not (0 <= a < b <= height and 0 <= c < d <= width):
        raise ValueError(f'crop {crop} takes rows {a}:{b} and columns {c}:{d}, which a frame of {size} does not have')
    return found


def resize_maps(values: np.ndarray, size: tuple[int, int], interpolation: str = 'linear') -> np.ndarray:
    """``(T, h, w)`` float maps at another ``(H, W)``: half-pixel centres, no smoothing, as OpenCV does.

    Args:
        interpolation: ``'nearest'``, ``'linear'`` or ``'cubic'``.
    """
    if values.shape[1:] == tuple(size):
        return values
    import cv2

    flag = dict(nearest=cv2.INTER_NEAREST, linear=cv2.INTER_LINEAR, cubic=cv2.INTER_CUBIC)[interpolation]
    resized = np.empty((len(values), *size), values.dtype)
    for target, frame in zip(resized, values, strict=True):
        target[:] = cv2.resize(frame, (size[1], size[0]), interpolation=flag)
    return resized


def crop_intrinsics(intrinsics: np.ndarray, crop: Crop) -> np.ndarray:
    """``(..., 3, 3)`` of the cropped frame: the principal point moves by what is cut off at the top and the left."""
    moved = np.array(intrinsics, np.float64)
    moved[..., 0, 2] -= crop[2]
    moved[..., 1, 2] -= crop[0]
    return moved
