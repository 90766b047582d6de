"""Depth files of the public data sets: how each one codes metres, and what it writes where there is no value.

Whatever the file, what comes back is float32 metres along the optical axis, 0 where there is no value.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from .png import png_size

# 16-bit png: units per metre; 0 means no value in all of them.
UNITS_PER_METRE = {
    'mm': 1000.0,  # ScanNet, NYUv2 as png, most depth cameras
    'kitti': 256.0,
    'tum': 5000.0,  # TUM RGB-D and Bonn
    'nyu_vda': 6000.0,  # NYUv2 as Video-Depth-Anything exports it
    'virtual_kitti': 100.0,
    'point_odyssey': 65.535,  # 65535 is 1000 m
}
DEPTH_SUFFIXES = ('.png', '.npy', '.dpt')
_SINTEL_TAG = 202021.25


def read_depth(path: str | Path, units_per_metre: float = 1000.0) -> np.ndarray:
    """``(H, W)`` float32 metres, 0 where there is no value: 16-bit ``.png``, ``.npy`` of floats, or Sintel's ``.dpt``.

    Args:
        units_per_metre: What a file of whole numbers counts in; files of floats hold metres.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or holds something else than depth.
    """
    suffix = Path(path).suffix.lower()
    if suffix == '.npy':
        return read_depth_npy(path, units_per_metre)
    return read_dpt(path) if suffix == '.dpt' else read_depth_png(path, units_per_metre)


def read_depth_png(path: str | Path, units_per_metre: float = 1000.0) -> np.ndarray:
    """``(H, W)`` float32 metres of a 16-bit png with one channel."""
    return read_png16(path).astype(np.float32) / np.float32(units_per_metre)


def read_float16_png(path: str | Path) -> np.ndarray:
    """``(H, W)`` float32 metres of a png whose 16 bits are those of a half float (DynamicReplica)."""
    return known_depth(read_png16(path).view(np.float16))


def read_depth_npy(path: str | Path, units_per_metre: float = 1.0) -> np.ndarray:
    """``(H, W)`` float32 metres of a NumPy file (TartanAir); whole numbers are divided by ``units_per_metre``."""
    try:
        values = np.load(_existing(path), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f'{path}: not a NumPy file of numbers ({" ".join(str(error).split())})') from None
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in 'uif' or not values.size:
        raise ValueError(f'{path}: {values.dtype} of shape {values.shape}; wanted depth (H, W) in metres')
    if values.dtype.kind != 'f':
        return known_depth(values.astype(np.float32) / np.float32(units_per_metre))
    return known_depth(values)


def read_dpt(path: str | Path) -> np.ndarray:
    """``(H, W)`` float32 metres of Sintel's format: a float tag, width, height, then rows of float32."""
    data = _existing(path).read_bytes()
    tag, width, height = struct.unpack_from('<fii', data) if len(data) >= 12 else (0.0, 0, 0)
    if tag != _SINTEL_TAG or not 0 < width < 1 << 16 or not 0 < height < 1 << 16:
        raise ValueError(f'{path}: no .dpt file; wanted the tag {_SINTEL_TAG}, width and height, little endian')
    if len(data) != 12 + 4 * width * height:
        raise ValueError(f'{path}: {len(data)} bytes; wanted {12 + 4 * width * height} for {width}x{height} px')
    return known_depth(np.frombuffer(data, '<f4', offset=12).reshape(height, width))


def read_png16(path: str | Path) -> np.ndarray:
    """``(H, W)`` uint16 as stored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or not one channel of 16 bits.
    """
    data = np.fromfile(_existing(path), np.uint8)
    values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if values is None:
        raise ValueError(f'{path}: not an image that can be read')
    if values.dtype != np.uint16 or values.ndim != 2:
        raise ValueError(f'{path}: {values.dtype} of shape {values.shape}; wanted a 16-bit png with one channel')
    return values


def known_depth(depth_m: np.ndarray) -> np.ndarray:
    """float32, with 0 for everything that is no depth: NaN, infinite, or not in front of the camera."""
    with np.errstate(invalid='ignore', over='ignore'):
        depth_m = depth_m.astype(np.float32)
        return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0))


def depth_size(path: str | Path) -> tuple[int, int]:
    """``(H, W)`` from the header alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a depth file; a png of 8 bits or with colours is told apart here.
    """
    path = _existing(path)
    if path.suffix.lower() == '.npy':
        return _npy_size(path)
    with path.open('rb') as file:
        head = file.read(26)
    if path.suffix.lower() == '.dpt':
        if len(head) < 12:
            raise ValueError(f'{path}: {len(head)} bytes; no .dpt file')
        width, height = struct.unpack_from('<ii', head, 4)
        return height, width
    size = png_size(path)
    if size is None:
        raise ValueError(f'{path}: not an image that can be read; wanted a 16-bit png with one channel')
    bits, colour = head[24], head[25]
    if bits != 16 or colour:
        kind = {0: 'grey', 2: 'colour', 3: 'palette'}.get(colour, 'transparent')
        raise ValueError(f'{path}: {bits}-bit {kind} png; wanted a 16-bit png with one channel')
    return size


def _npy_size(path: Path) -> tuple[int, int]:
    try:
        shape = np.load(path, mmap_mode='r', allow_pickle=False).shape
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f'{path}: not a NumPy file of numbers ({" ".join(str(error).split())})') from None
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 1):
        raise ValueError(f'{path}: shape {shape}; wanted depth (H, W) in metres')
    return shape[0], shape[1]


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such depth file')
    return path
