"""KITTI's laser scans as depth maps, and the calibration files that this takes.

Source: the development kit of KITTI raw; the map is that of Eigen et al. as monodepth2 (arXiv 1806.01260) makes it,
which is what the older KITTI tables compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

Calibration = Mapping[str, np.ndarray]


def read_velodyne(path: str | Path) -> np.ndarray:
    """``(N, 4)`` float32: x forward, y left, z up in metres, and reflectance.

    Raises:
        FileNotFoundError: no such file.
        ValueError: its size is no whole number of points.
    """
    try:
        values = np.fromfile(path, '<f4')
        size = Path(path).stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such laser scan') from None
    if size % 16 or not size:
        raise ValueError(f'{path}: {size} bytes; wanted float32 x, y, z, reflectance, 16 bytes a point')
    return values.reshape(-1, 4)


def read_calibration(path: str | Path) -> dict[str, np.ndarray]:
    """Numbers by name of ``calib_cam_to_cam.txt``, ``calib_velo_to_cam.txt`` or ``calib_imu_to_velo.txt``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no line of it is a name and numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such calibration')
    numbers = parse_calibration(path.read_text(encoding='utf-8', errors='replace'))
    if not numbers:
        raise ValueError(f'{path}: not a calibration of KITTI; wanted lines as in P_rect_02: 7.2e+02 0 6.0e+02 ...')
    return numbers


def parse_calibration(text: str) -> dict[str, np.ndarray]:
    """Lines ``name: numbers``; those that hold something else, such as the date, are left out."""
    found = {}
    for line in text.splitlines():
        name, separator, rest = line.partition(':')
        try:
            values = np.array([float(word) for word in rest.split()])
        except ValueError:
            continue
        if separator and values.size:
            found[name.strip()] = values
    return found


def rigid(calibration: Calibration, name: str = 'calibration') -> np.ndarray:
    """``(4, 4)`` from ``R`` and ``T``."""
    matrix = np.eye(4)
    matrix[:3, :3] = _entry(calibration, 'R', 9, name).reshape(3, 3)
    matrix[:3, 3] = _entry(calibration, 'T', 3, name)
    return matrix


def camera_matrix(cam_to_cam: Calibration, camera: int = 2, *, name: str = 'calib_cam_to_cam.txt') -> np.ndarray:
    """``(3, 4)`` projection of rectified camera 0 onto the image of ``camera``, px."""
    return _entry(cam_to_cam, f'P_rect_{camera:02d}', 12, name).reshape(3, 4)


def rectified_size(cam_to_cam: Calibration, camera: int = 2, *, name: str = 'calib_cam_to_cam.txt') -> tuple[int, int]:
    """``(H, W)`` px of the rectified images."""
    width, height = _entry(cam_to_cam, f'S_rect_{camera:02d}', 2, name)
    return int(height), int(width)


def velodyne_to_rectified(cam_to_cam: Calibration, velo_to_cam: Calibration) -> np.ndarray:
    """``(4, 4)`` from the laser's axes to those of rectified camera 0: x right, y down, z forward."""
    turn = np.eye(4)
    turn[:3, :3] = _entry(cam_to_cam, 'R_rect_00', 9, 'calib_cam_to_cam.txt').reshape(3, 3)
    return turn @ rigid(velo_to_cam, 'calib_velo_to_cam.txt')


def velodyne_depth(
    points: np.ndarray,
    cam_to_cam: Calibration,
    velo_to_cam: Calibration,
    *,
    camera: int = 2,
    size: tuple[int, int] | None = None,
    laser_depth: bool = False,
    official: bool = False,
) -> np.ndarray:
    """``(H, W)`` float64 metres, 0 where no point falls; of several points on a pixel the nearest counts.

    Pixels are the rounded projection less one, as in KITTI's own program.

    Args:
        points: ``(N, 4)`` or ``(N, 3)``, see :func:`read_velodyne`.
        size: ``(H, W)`` px; None: that of the calibration of camera 2.
        laser_depth: Depth along the laser's x axis instead of the camera's optical axis.
        official: What monodepth2 computes: points in front of the laser but behind the camera take part and clear the
            pixel that they fall on, and the last pixel of a row counts as one with the first of the next.
    """
    height, width = size or rectified_size(cam_to_cam, 2)
    projection = camera_matrix(cam_to_cam, camera) @ velodyne_to_rectified(cam_to_cam, velo_to_cam)
    ahead = points[points[:, 0] >= 0, :3]
    seen = np.concatenate([ahead, np.ones_like(ahead[:, :1])], axis=1) @ projection.T  # (N, 3)
    depth = ahead[:, 0].astype(np.float64) if laser_depth else seen[:, 2]
    if not official:
        kept = (seen[:, 2] > 0) & (depth > 0)
        seen, depth = seen[kept], depth[kept]
    with np.errstate(divide='ignore', invalid='ignore'):
        pixel = np.round(seen[:, :2] / seen[:, 2:]) - 1  # x, y
    inside = (pixel >= 0).all(axis=1) & (pixel < (width, height)).all(axis=1)
    (columns, rows), depth = pixel[inside].astype(int).T, depth[inside]
    picture = np.zeros((height, width))
    if not official:
        farthest_first = np.argsort(-depth, kind='stable')
        picture[rows[farthest_first], columns[farthest_first]] = depth[farthest_first]
        return picture
    picture[rows, columns] = depth
    _nearest_as_monodepth2(picture, rows, columns, depth)
    return np.maximum(picture, 0)


def _nearest_as_monodepth2(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, depth: np.ndarray) -> None:
    """Points whose index is the same share their least depth, which goes to the place of the first of them."""
    index = rows * (picture.shape[1] - 1) + columns  # one too few a row: the last pixel and the next row's first agree
    order = np.argsort(index, kind='stable')
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    least = np.minimum.reduceat(depth[order], starts) if len(order) else depth
    first = order[starts]
    several = np.diff(np.append(starts, len(order))) > 1
    picture[rows[first[several]], columns[first[several]]] = least[several]


def _entry(calibration: Calibration, key: str, count: int, name: str) -> np.ndarray:
    if key not in calibration:
        raise ValueError(f"{name}: no '{key}'; wanted a line '{key}: ...' with {count} numbers")
    if calibration[key].size != count:
        raise ValueError(f"{name}: '{key}' has {calibration[key].size} numbers; wanted {count}")
    return calibration[key]
