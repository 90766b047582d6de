"""Index maps from PNG files, fast: an evaluator of masks spends most of its time here.

Palette PNGs are nearly always written without row filters. Then inflating is all the work, and the checksum of the
compressed bytes (CRC-32, three thousand of them) is checked instead of the one over the pixels (Adler-32, four hundred
thousand), which takes a third of the time. Filtered rows, usual in grey files, go to Pillow's decoder without the rest
of Pillow; whatever is unusual (interlaced, 16 bits, colours) to the general reader.
Source: PNG specification, third edition, sections 5, 7, 9 and 10.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

try:  # four times as fast; 'pip install isal' is all that it takes
    from isal import isal_zlib as inflater
except ImportError:
    inflater = zlib

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GREY, _PALETTE = 0, 3


def read_index_png(path: str | Path) -> np.ndarray:
    """``(H, W)`` uint8: palette indices or grey values as they are stored, never colours. May be read-only.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a PNG, a damaged one, a colour image, or an id over 255.
    """
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except IsADirectoryError:
        raise ValueError(f'{path}: a folder; wanted a PNG file') from None
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such mask') from None
    try:
        labels = decode_index_png(data)
    except (ValueError, zlib.error, inflater.error, struct.error) as error:
        raise ValueError(f'{path}: damaged PNG ({error})') from None
    if labels is None:
        from .mask_file import read_mask

        labels = read_mask(path)
    return labels


def png_size(path: str | Path) -> tuple[int, int] | None:
    """``(H, W)`` from the header alone; None if the file is no PNG."""
    with open(path, 'rb') as file:
        head = file.read(24)
    if len(head) < 24 or head[:8] != _SIGNATURE:
        return None
    width, height = struct.unpack_from('>II', head, 16)
    return height, width


def decode_index_png(data: bytes) -> np.ndarray | None:
    """``(H, W)`` uint8, read-only where no copy was needed; None for a file that the fast way does not cover.

    Raises:
        ValueError, struct.error, or the error of the inflating library: the file is damaged.
    """
    if data[:8] != _SIGNATURE or data[12:16] != b'IHDR':
        return None
    width, height, depth, colour, _, _, interlaced = struct.unpack_from('>IIBBBBB', data, 16)
    if colour not in (_GREY, _PALETTE) or depth > 8 or interlaced or not width or not height:
        return None
    stream = _image_data(data)
    if colour == _PALETTE or depth < 8:
        row_bytes = (width * depth + 7) // 8
        rows = np.frombuffer(_inflate(stream, height * (row_bytes + 1)), np.uint8).reshape(height, row_bytes + 1)
        if not rows[:, 0].any():  # the filter of each row
            return rows[:, 1:] if depth == 8 else _unpack(rows[:, 1:], depth)[:, :width]
    return _decode_with_pillow(stream, (width, height), depth)


def _decode_with_pillow(stream: bytes, size: tuple[int, int], depth: int) -> np.ndarray:
    from PIL import Image

    try:
        image = Image.frombytes('P', size, stream, 'zip', 'P' if depth == 8 else f'P;{depth}', 0)
    except (OSError, SyntaxError) as error:
        raise ValueError(error) from None
    labels = np.zeros(size[::-1], np.uint8)
    box = image.getbbox()
    if box is not None:  # the way from Pillow to NumPy is slow, so only what is not zero goes it
        left, top, right, bottom = box
        labels[top:bottom, left:right] = image.crop(box)
    return labels


def _image_data(data: bytes) -> bytes | memoryview:
    """The compressed stream of all IDAT chunks."""
    parts, position, view = [], 8, memoryview(data)
    while True:
        length, kind = struct.unpack_from('>I4s', data, position)
        if kind == b'IEND':
            break
        if kind == b'IDAT':
            end = position + 8 + length
            (expected,) = struct.unpack_from('>I', data, end)
            if zlib.crc32(view[position + 4 : end]) != expected:
                raise ValueError('checksum of the image data is wrong')
            parts.append(view[position + 8 : end])
        position += 12 + length
    return parts[0] if len(parts) == 1 else b''.join(parts)


def _inflate(stream: bytes | memoryview, size: int) -> bytes:
    """``size`` bytes; the two bytes of zlib's header and the checksum over the pixels are left aside."""
    if len(stream) < 2 or stream[1] & 0x20:  # a preset dictionary, which PNG forbids
        raise ValueError('no image data')
    pixels = inflater.decompress(stream[2:], wbits=-zlib.MAX_WBITS, bufsize=size)
    if len(pixels) != size:
        raise ValueError(f'holds {len(pixels)} bytes of pixels; wanted {size}')
    return pixels


def _unpack(packed: np.ndarray, depth: int) -> np.ndarray:
    """1, 2 or 4 bits per pixel, most significant first, to one byte each."""
    if depth == 1:
        return np.unpackbits(packed, axis=1)
    shifts = np.arange(8 - depth, -1, -depth)
    table = ((np.arange(256)[:, None] >> shifts) & (2**depth - 1)).astype(np.uint8)  # (256, pixels of a byte)
    return table[packed].reshape(len(packed), -1)
