"""Masks as one long integer, a bit per pixel: counting, boundaries and dilation at eight pixels a byte.

Pixel ``(y, x)`` of a window is bit ``y * width + x``. ``width`` leaves free columns on the right, so that what a
dilation pushes over the end of a row does not land in the next one. Exact, and several times as fast as
dilating bytes: a disk of 8 px (197 pixels) takes 21 shifts, each over a few kilobytes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def pack(mask: np.ndarray) -> int:
    """``(H, width)`` bool as an integer."""
    return int.from_bytes(np.packbits(mask, bitorder='little'), 'little')


def unpack(bits: int, shape: tuple[int, int]) -> np.ndarray:
    """``(H, width)`` bool back from an integer."""
    count = shape[0] * shape[1]
    data = np.frombuffer(bits.to_bytes((count + 7) // 8, 'little'), np.uint8)
    return np.unpackbits(data, count=count, bitorder='little').reshape(shape).view(bool)


@lru_cache(maxsize=64)
def disk(radius: float) -> np.ndarray:
    """Structuring element: a disk on the grid ``-radius, -radius + 1, ...``; off-centre if radius is no integer."""
    grid = np.arange(-radius, radius + 1)
    return grid[:, None] ** 2 + grid**2 <= radius**2


def reach(radius: float) -> int:
    """Pixels that a dilation by :func:`disk` reaches at most, in any direction."""
    return len(disk(radius)) // 2


def rectangle(height: int, columns: int, width: int) -> int:
    """The upper left ``height x columns`` pixels."""
    return _run(_run(1, 1, columns, step=1), 1, height, step=width) if height > 0 and columns > 0 else 0


def boundary(bits: int, width: int, size: tuple[int, int] | None = None) -> int:
    """Pixels that differ from their right, lower or lower-right neighbour.

    Args:
        bits: A mask.
        width: Its columns, the free ones included.
        size: ``(H, W)`` if neighbours beyond that do not count: the border of an image is no boundary. None: the
            first and last column and the last row hold nothing.
    """
    across, down, diagonal = bits ^ bits >> 1, bits ^ bits >> width, bits ^ bits >> width + 1
    if size is None:
        return across | down | diagonal
    height, columns = size
    return (
        across & rectangle(height, columns - 1, width)
        | down & rectangle(height - 1, columns, width)
        | diagonal & rectangle(height - 1, columns - 1, width)
    )


def dilate(bits: int, width: int, radius: float) -> int:
    """Every pixel within a disk of ``radius`` around a set one, moved by ``reach(radius)`` pixels down and right."""
    lengths, blocks = _plan(radius)
    runs, have, run = {}, 1, bits
    for length in lengths:
        run, have = _run(run, have, length, step=1), length
        runs[length] = run
    tall: dict[tuple[int, int], int] = {}
    result = 0
    for length, height, down, right in blocks:
        if (length, height) not in tall:
            tall[length, height] = _run(runs[length], 1, height, step=width)
        result |= tall[length, height] << down * width + right
    return result


def _run(bits: int, have: int, want: int, *, step: int) -> int:
    """Runs of ``have`` pixels become runs of ``want``, towards higher bits."""
    while have < want:
        more = min(have, want - have)
        bits |= bits << more * step
        have += more
    return bits


@lru_cache(maxsize=64)
def _plan(radius: float) -> tuple[list[int], list[tuple[int, int, int, int]]]:
    """The disk as blocks of equal rows: the lengths of rows, and each block's length, height and place."""
    element = disk(radius)
    size, anchor = len(element), len(element) // 2
    margin = reach(radius)
    blocks: list[tuple[int, int, int, int]] = []
    # A pixel is set by what lies at the element's pixels around it: the element is mirrored, and so are its rows.
    for row in range(size - 1, -1, -1):
        columns = np.flatnonzero(element[row])
        if not len(columns):
            continue
        length = int(columns[-1] - columns[0]) + 1
        down, right = margin + anchor - row, margin + anchor - int(columns[-1])
        height = 1
        if blocks and blocks[-1][0] == length and blocks[-1][3] == right:  # one more row of the block above
            _, height, down, _ = blocks.pop()
            height += 1
        blocks.append((length, height, down, right))
    return sorted({block[0] for block in blocks}), blocks
