"""Intrinsics of a camera from a text file."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_intrinsics(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """``(3, 3)`` float64 ``[fx 0 cx; 0 fy cy; 0 0 1]`` in pixels of the images.

    Args:
        path: Nine numbers, row by row, or the four ``fx fy cx cy``.
        size: ``(H, W)`` of the images that they belong to.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else, or numbers that cannot belong to images of this size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; wanted a 3x3 matrix of intrinsics')
    try:
        lines = [line.replace(',', ' ').split() for line in path.read_text().splitlines() if line.strip()]
        numbers = np.array([float(word) for line in lines for word in line])
    except ValueError as error:  # of text that is not text at all, too
        raise ValueError(f'{path}: not a table of numbers ({error})') from None
    if len(numbers) == 4:
        fx, fy, cx, cy = numbers.tolist()
        numbers = np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0])
    if len(numbers) != 9:
        widths = ' or '.join(sorted({str(len(line)) for line in lines})) or '0'
        raise ValueError(
            f'{path}: {len(lines)}x{widths} numbers; wanted a 3x3 matrix of intrinsics, or fx fy cx cy in one line'
        )
    return check_intrinsics(numbers.reshape(3, 3), size, where=str(path))


def check_intrinsics(matrix: np.ndarray, size: tuple[int, int], *, where: str = 'intrinsics') -> np.ndarray:
    """The matrix as ``(3, 3)`` float64; raises ValueError when it cannot belong to images of ``size`` ``(H, W)``."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (3, 3):
        raise ValueError(f'{where}: shape {matrix.shape}; wanted a 3x3 matrix of intrinsics')
    focal, centre = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    if not np.isfinite(matrix).all() or not np.allclose(matrix[2], (0, 0, 1)) or (focal <= 0).any():
        raise ValueError(f'{where}: {matrix.tolist()} is no matrix of intrinsics; wanted [fx 0 cx; 0 fy cy; 0 0 1]')
    if (focal < 2).any() or (centre < 0).any() or (centre > (size[1], size[0])).any():
        raise ValueError(
            f'{where}: focal length {focal.tolist()}, principal point {centre.tolist()} do not fit images of '
            f'{size[1]}x{size[0]} px; wanted pixels of these images'
        )
    return matrix
