"""Point clouds: a depth map, its intrinsics and its picture to a binary PLY, which every viewer opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from .atomic import atomic_path, check_target, remove, temporary_path

_VERTEX = np.dtype([('xyz', '<f4', 3), ('rgb', 'u1', 3)])
_FARTHEST = 100.0  # times the median depth: beyond, disparity is too small to say how far


def depth_from_disparity(disparity: np.ndarray, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """``(H, W)`` depth ``1 / (scale * disparity + shift)``, NaN where that is not positive.

    Args:
        disparity: ``(H, W)``, one over depth but for scale and shift.
        scale: Above 0; with both known the result is in metres.
        shift: One over metres.

    Raises:
        ValueError: numbers with which nothing is in front of the camera.
    """
    if not (np.isfinite([scale, shift]).all() and scale > 0):
        raise ValueError(f'scale {scale:g}, shift {shift:g} of disparity; wanted a scale above 0 and a number')
    inverse = scale * np.asarray(disparity, np.float64) + shift
    if not (inverse > 0).any():
        raise ValueError(f'scale {scale:g}, shift {shift:g} put every pixel behind the camera; wanted other numbers')
    return np.divide(1.0, inverse, out=np.full(inverse.shape, np.nan), where=inverse > 0)


def depth_up_to_scale(disparity: np.ndarray) -> np.ndarray:
    """``(H, W)`` depth in which the median is 1, for a disparity of 0 at infinite distance (a shift of 0)."""
    depth = depth_from_disparity(disparity)
    return depth / np.nanmedian(depth)


def back_project(depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` float32 positions in the camera, x right, y down, z forward, in the unit of ``depth``.

    Args:
        depth: ``(H, W)`` along the optical axis.
        intrinsics: ``(3, 3)`` in pixels of ``depth``, whose pixel ``(i, j)`` has its centre at ``(j + 0.5, i + 0.5)``.
    """
    height, width = depth.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(intrinsics).T  # (H, W, 3)
    return (rays * depth[..., None]).astype(np.float32)


def cloud_of(
    depth: np.ndarray, intrinsics: np.ndarray, rgb: np.ndarray, *, max_step: float | None = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """The points of one frame that have a depth.

    Args:
        depth: ``(H, W)``; what is not a positive number, or farther than a hundred times the median, is left out.
        intrinsics: ``(3, 3)`` in pixels of ``depth``.
        rgb: ``(H, W, 3)`` uint8.
        max_step: Pixels whose 3 x 3 neighbourhood differs by more than this share of the depth are left out: a map that
            is interpolated across the border of an object hangs a curtain between it and what is behind. None: keep.

    Returns:
        ``(N, 3)`` float32 and ``(N, 3)`` uint8.

    Raises:
        ValueError: sizes differ, or no pixel has a depth.
    """
    if depth.shape != rgb.shape[:2]:
        raise ValueError(f'depth has shape {depth.shape}, the frame {rgb.shape[:2]}; wanted the same size')
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise ValueError('no pixel has a depth above 0; there are no points')
    known &= depth <= _FARTHEST * np.median(depth[known])
    if max_step is not None:
        kernel, largest = np.ones((3, 3), np.uint8), np.float32(np.finfo(np.float32).max)
        farthest = cv2.dilate(np.where(known, depth, 0).astype(np.float32), kernel)
        nearest = cv2.erode(np.where(known, depth, largest).astype(np.float32), kernel)
        known &= farthest - nearest <= max_step * depth
    return back_project(np.where(known, depth, 0), intrinsics)[known], rgb[known]


def write_ply(path: str | Path, xyz: np.ndarray, rgb: np.ndarray, *, unit: str = 'metres') -> None:
    """Binary PLY, complete or absent.

    Args:
        xyz: ``(N, 3)``.
        rgb: ``(N, 3)`` uint8.
        unit: Said in a comment of the file.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: not as many colours as points.
    """
    path = Path(path)
    check_target(path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_ply(xyz, rgb, unit))


def _ply(xyz: np.ndarray, rgb: np.ndarray, unit: str) -> bytes:
    if xyz.ndim != 2 or xyz.shape[1] != 3 or rgb.shape != xyz.shape:
        raise ValueError(f'points have shape {xyz.shape}, colours {rgb.shape}; wanted (N, 3) both')
    vertices = np.empty(len(xyz), _VERTEX)
    vertices['xyz'], vertices['rgb'] = xyz, rgb
    header = [
        'ply',
        'format binary_little_endian 1.0',
        f'comment x right, y down, z forward; unit: {unit}',
        f'element vertex {len(xyz)}',
        *(f'property float {axis}' for axis in 'xyz'),
        *(f'property uchar {colour}' for colour in ('red', 'green', 'blue')),
        'end_header',
    ]
    return '\n'.join(header).encode('ascii') + b'\n' + vertices.tobytes()


class PlyWriter:
    """Context manager for the clouds of some frames of a stream, ``<stem>_00012.ply``; none when an exception ends it.

    Args:
        stem: Path without number and suffix.
        frames: Numbers of the frames.
        intrinsics: ``(3, 3)`` in pixels of the frames.
        kind: ``'depth'``: metres; ``'disparity'``: relative, and one of the next two must be given.
        scale_shift: Of disparity, to one over metres.
        up_to_scale: Take disparity as it is: the cloud has the right shape if a disparity of 0 is infinitely far, and
            no unit.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: options that do not fit the kind, or a negative frame.
    """

    def __init__(
        self,
        stem: str | Path,
        frames: Sequence[int],
        intrinsics: np.ndarray,
        *,
        kind: str,
        scale_shift: tuple[float, float] | None = None,
        up_to_scale: bool = False,
    ) -> None:
        if (scale_shift is not None) + up_to_scale != (kind == 'disparity'):
            raise ValueError(
                'for relative disparity wanted scale and shift, or up to scale'
                if kind == 'disparity'
                else 'depth is in metres; a scale and shift of disparity do not apply'
            )
        if min(frames, default=0) < 0:
            raise ValueError(f'a point cloud of frame {min(frames)}; wanted 0 or more')
        stem = Path(stem)
        self.paths = {frame: stem.with_name(f'{stem.name}_{frame:05d}.ply') for frame in sorted(frames)}
        self._parts = {frame: temporary_path(path) for frame, path in self.paths.items()}
        self._intrinsics, self._kind, self._scale_shift = intrinsics, kind, scale_shift
        self._seen = 0

    def __enter__(self) -> PlyWriter:
        return self

    def write(self, frame: int, depth: np.ndarray, rgb: np.ndarray) -> None:
        """Called for every frame; one that was not asked for costs nothing."""
        self._seen = frame + 1
        if frame not in self.paths:
            return
        unit = 'metres'
        if self._kind == 'disparity' and self._scale_shift is None:
            depth, unit = depth_up_to_scale(depth), 'none (median depth 1)'
        elif self._kind == 'disparity':
            depth = depth_from_disparity(depth, *self._scale_shift)
        self._parts[frame].write_bytes(_ply(*cloud_of(depth, self._intrinsics, rgb), unit))

    @property
    def written(self) -> list[str]:
        """Files of the frames that have come."""
        return [str(path) for frame, path in self.paths.items() if frame < self._seen]

    def check_all_came(self) -> None:
        """Raises ValueError when a frame that was asked for has not been written."""
        late = [frame for frame in self.paths if frame >= self._seen]
        if late:
            raise ValueError(f'a point cloud of frame {late[0]}; the video ended after {self._seen} frames')

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            for frame, path in self.paths.items():
                if kind is None and frame < self._seen:
                    self._parts[frame].replace(path)
        finally:
            for part in self._parts.values():
                remove(part)
