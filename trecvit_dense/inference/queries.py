"""Points to follow: made on a grid, and checked against the video before anything runs."""

from __future__ import annotations

import numpy as np


def grid_queries(grid: int, size: tuple[int, int], frame: int = 0) -> np.ndarray:
    """``(grid * grid, 3)`` float32 queries (frame, x, y): the centres of ``grid x grid`` equal cells, row by row.

    Args:
        size: ``(H, W)`` pixels.
    """
    if grid < 1:
        raise ValueError(f'grid is {grid}; wanted 1 or more points per side')
    height, width = size
    steps = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    x, y = np.meshgrid(steps * width, steps * height)
    return np.stack([np.full_like(x, frame), x, y], axis=-1).reshape(-1, 3)


def check_queries(query_txy: np.ndarray, size: tuple[int, int], num_frames: int | None) -> np.ndarray:
    """The queries as ``(N, 3)`` float32 with whole frame numbers (half to even, as the TAP-Vid metric rounds).

    Args:
        query_txy: ``(N, 3)`` frame, x, y in pixels of the video.
        size: ``(H, W)`` pixels.
        num_frames: None when it is not known.

    Raises:
        ValueError: no queries, or one that is not a number, outside the frame or after the end; it is named.
    """
    query = np.asarray(query_txy, dtype=np.float32)
    if query.ndim != 2 or query.shape[1] != 3 or not len(query):
        raise ValueError(f'queries have shape {query.shape}; wanted (N, 3) with N >= 1: frame, x, y')
    finite = np.isfinite(query).all(1)
    if not finite.all():
        index = int(np.flatnonzero(~finite)[0])
        raise ValueError(f'query {index} is not a number: frame, x, y = {query[index].tolist()}')
    query = np.concatenate([np.round(query[:, :1]), query[:, 1:]], axis=1)
    late = query[:, 0] < 0 if num_frames is None else (query[:, 0] < 0) | (query[:, 0] >= num_frames)
    if late.any():
        index = int(np.flatnonzero(late)[0])
        last = 'the end' if num_frames is None else num_frames - 1
        raise ValueError(f'query {index} asks for frame {query[index, 0]:.0f}; the video has frames 0 to {last}')
    check_inside(query[:, 1:], size, what='query')
    return query


def check_inside(xy_px: np.ndarray, size: tuple[int, int], *, what: str = 'point', first: int = 0) -> None:
    """Raises ValueError for the first of ``xy_px`` ``(N, 2)`` that is NaN or outside the frame."""
    height, width = size
    inside = (xy_px >= 0).all(1) & (xy_px[:, 0] <= width) & (xy_px[:, 1] <= height)  # NaN compares false
    if not inside.all():
        index = int(np.flatnonzero(~inside)[0])
        x, y = xy_px[index].tolist()
        raise ValueError(f'{what} {first + index} at x={x:g}, y={y:g} is outside the frame of {width}x{height} px')
