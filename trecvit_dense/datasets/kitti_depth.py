"""KITTI (raw drives with annotated depth, arXiv 1708.06500): a car, sparse laser depth, and where the car was."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import UNITS_PER_METRE, read_depth_png
from ..io.velodyne import (
    Calibration,
    camera_matrix,
    read_calibration,
    read_velodyne,
    rectified_size,
    rigid,
    velodyne_depth,
    velodyne_to_rectified,
)
from ..registry import DATASETS, nearest
from .depth_clips import DepthVideoDataset
from .depth_layout import first_folder, number_of, pair_by_number, split_folder
from .depth_sequence import DepthSequence
from .mask_layout import choose, list_folders, list_images

TRUTHS = ('annotated', 'velodyne')
_EARTH_M = 6378137.0


@DATASETS.register_module()
class KITTIDepthDataset(DepthVideoDataset):
    """``<date>/<drive>/image_02/data/*.png``, and ``{train,val}/<drive>/proj_depth/groundtruth/image_02/*.png``.

    A video consists of the frames that have depth: the annotation leaves out the first and last five of a drive.
    Intrinsics come from ``<date>/calib_cam_to_cam.txt``, poses from ``oxts``, where these are there.

    Args:
        data_root: Holds the dates, or ``raw/`` with them.
        split: ``'train'`` or ``'val'`` of the annotated depth. None: ``'val'``, or with laser scans every drive.
        truth: ``'annotated'``, or ``'velodyne'``: single laser scans, which the tables before 2018 compare with.
        depth_root: Holds ``train`` and ``val``; None: ``data_root/depth``, or ``data_root``.
        cameras: 2 (left colour), 3 (right colour), or both.
        sequences: Only these drives, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 80.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: frames and depth do not fit together.
    """

    def __init__(
        self,
        data_root: str,
        split: str | None = None,
        *,
        truth: str = 'annotated',
        depth_root: str | None = None,
        cameras: int | Sequence[int] = 2,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        if truth not in TRUTHS:
            raise ValueError(f"truth is '{truth}'; wanted one of {', '.join(TRUTHS)}{nearest(truth, list(TRUTHS))}")
        root = Path(data_root).expanduser()
        raw = first_folder(root / 'raw', root, holds='*/*_sync/image_0*', what='drive of KITTI raw')
        annotated = None
        if truth == 'annotated' or split is not None:
            places = [Path(depth_root).expanduser()] if depth_root else [root / 'depth', root]
            above = first_folder(*places, holds='*/*_sync/proj_depth', what='annotated depth of KITTI')
            annotated = split_folder(above, split or 'val')
        drives = list_folders(annotated) if annotated else [path.name for path in sorted(raw.glob('20*/*_sync'))]
        found = []
        for drive in choose(drives, sequences, where=annotated or raw):
            for camera in [cameras] if isinstance(cameras, int) else cameras:
                found.append(_sequence(raw, annotated, drive, camera, truth))
        super().__init__(found, **(dict(dataset_name='kitti', max_depth_m=80.0) | options))


def _sequence(raw: Path, annotated: Path | None, drive: str, camera: int, truth: str) -> DepthSequence:
    folder = raw / drive[:10] / drive
    file = folder.parent / 'calib_cam_to_cam.txt'
    calibration = read_calibration(file) if file.is_file() or truth == 'velodyne' else None
    frames = list_images(folder / f'image_{camera:02d}' / 'data')
    if truth == 'annotated':
        files = list_images(annotated / drive / 'proj_depth/groundtruth' / f'image_{camera:02d}', what='depth maps')
        read = partial(read_depth_png, units_per_metre=UNITS_PER_METRE['kitti'])
    else:
        files = list_images(folder / 'velodyne_points/data', ('.bin',), what='laser scans')
        to_camera = read_calibration(folder.parent / 'calib_velo_to_cam.txt')
        read = partial(read_scan, cam_to_cam=calibration, velo_to_cam=to_camera, camera=camera)
    frames, files = pair_by_number(frames, files)
    return DepthSequence(
        drive if camera == 2 else f'{drive}_{camera:02d}',
        frames,
        files,
        read,
        None if calibration is None else camera_matrix(calibration, camera)[:, :3],
        None if calibration is None else _poses(folder, frames, calibration, camera),
        meta=dict(fps=10.0),
    )


def read_scan(path: Path, *, cam_to_cam: Calibration, velo_to_cam: Calibration, camera: int) -> np.ndarray:
    """``(H, W)`` float32 metres of one laser scan."""
    size = rectified_size(cam_to_cam, camera)
    depth = velodyne_depth(read_velodyne(path), cam_to_cam, velo_to_cam, camera=camera, size=size)
    return depth.astype(np.float32)


def _poses(folder: Path, frames: list[Path], cam_to_cam: Calibration, camera: int) -> np.ndarray | None:
    """``(T, 4, 4)`` relative to the first frame; None where the navigation data are not there."""
    oxts, files = folder / 'oxts/data', [folder.parent / f'calib_{name}.txt' for name in ('imu_to_velo', 'velo_to_cam')]
    if not oxts.is_dir() or not all(path.is_file() for path in files):
        return None
    imu_to_velo, velo_to_cam = (read_calibration(path) for path in files)
    projection = camera_matrix(cam_to_cam, camera)
    aside = np.eye(4)
    aside[:3, 3] = np.linalg.solve(projection[:, :3], projection[:, 3])  # from camera 0 to this one
    from_imu = aside @ velodyne_to_rectified(cam_to_cam, velo_to_cam) @ rigid(imu_to_velo, files[0].name)
    packets = np.stack([_read_packet(oxts / f'{number_of(frame):010d}.txt') for frame in frames])
    world = imu_poses(packets)
    return from_imu @ np.linalg.inv(world[0]) @ world @ np.linalg.inv(from_imu)


def _read_packet(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: missing; there is a frame of this number')
    words = path.read_text().split()
    if len(words) < 6:
        raise ValueError(f'{path}: {len(words)} numbers; wanted latitude, longitude, altitude, roll, pitch, yaw, ...')
    return np.array(words[:6], float)


def imu_poses(packets: np.ndarray) -> np.ndarray:
    """``(T, 4, 4)`` of the navigation unit (x forward, y left, z up), in a Mercator plane as in the development kit.

    Args:
        packets: ``(T, 6)`` latitude, longitude in degrees, altitude in metres, roll, pitch, yaw in radians.
    """
    latitude, longitude = np.radians(packets[:, 0]), np.radians(packets[:, 1])
    scale = np.cos(latitude[0])
    poses = np.tile(np.eye(4), (len(packets), 1, 1))
    poses[:, 0, 3] = scale * _EARTH_M * longitude
    poses[:, 1, 3] = scale * _EARTH_M * np.log(np.tan(np.pi / 4 + latitude / 2))
    poses[:, 2, 3] = packets[:, 2]
    poses[:, :3, :3] = _turn(packets[:, 5], 0, 1) @ _turn(packets[:, 4], 2, 0) @ _turn(packets[:, 3], 1, 2)
    return poses


def _turn(angle: np.ndarray, a: int, b: int) -> np.ndarray:
    """``(T, 3, 3)`` rotation that takes axis ``a`` towards ``b``."""
    matrix = np.tile(np.eye(3), (len(angle), 1, 1))
    matrix[:, a, a] = matrix[:, b, b] = np.cos(angle)
    matrix[:, b, a], matrix[:, a, b] = np.sin(angle), -np.sin(angle)
    return matrix
