"""Depth files of the public data sets and KITTI's laser scans against the official readers."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.io.depth_file import (
    UNITS_PER_METRE,
    depth_size,
    read_depth,
    read_depth_png,
    read_dpt,
    read_float16_png,
    read_png16,
)
from trecvit_dense.io.velodyne import parse_calibration, read_velodyne, velodyne_depth

from .goldens import Golden, golden_files

SCALES = dict(kitti='kitti', bonn='tum', scannet='mm', nyu='mm', point_odyssey='point_odyssey')
TOLERANCE = 1e-6  # relative: ours are float32, some of the official readers' float64


def metres(official: np.ndarray) -> np.ndarray:
    """0 where there is no value; some of the official readers say -1, or keep what a file holds there."""
    return np.where(np.isfinite(official) & (official > 0), official, 0)


@pytest.mark.parametrize('path', golden_files('depth_encodings'))
def test_encodings(path, tmp_path):
    golden = Golden(path)
    for prefix, name in (('sintel_dpt', 'a.dpt'), ('png16', 'a.png'), ('dynamic_replica', 'b.png')):
        (tmp_path / name).write_bytes(golden[f'{prefix}/file'].tobytes())
    sintel = read_dpt(tmp_path / 'a.dpt')
    np.testing.assert_array_equal(sintel, metres(golden['sintel_dpt/depth']))
    np.testing.assert_array_equal(read_depth(tmp_path / 'a.dpt'), sintel)
    assert depth_size(tmp_path / 'a.dpt') == sintel.shape

    raw = read_png16(tmp_path / 'a.png')
    np.testing.assert_array_equal(raw, golden['png16/raw'])
    assert depth_size(tmp_path / 'a.png') == raw.shape
    for key in golden.keys('png16/'):
        name = key.split('/')[1]
        if name not in ('file', 'raw'):
            ours = read_depth_png(tmp_path / 'a.png', UNITS_PER_METRE[SCALES[name]])
            np.testing.assert_allclose(ours, metres(golden[key]), rtol=TOLERANCE, err_msg=name)
            assert (ours[raw == 0] == 0).all() and ours.dtype == np.float32

    np.testing.assert_array_equal(read_float16_png(tmp_path / 'b.png'), metres(golden['dynamic_replica/depth']))
    golden.assert_all_compared()


@pytest.mark.parametrize('path', golden_files('depth_image_protocols'))
def test_velodyne(path, tmp_path):
    golden = Golden(path)
    if not golden.keys('velodyne/'):
        pytest.skip(f'{path.name} has no velodyne/')
    golden['velodyne/points'].tofile(tmp_path / 'scan.bin')
    points = read_velodyne(tmp_path / 'scan.bin')
    calibrations = [parse_calibration(str(golden[f'velodyne/calib_{name}'])) for name in ('cam_to_cam', 'velo_to_cam')]
    for number, laser_depth in enumerate((False, True)):
        expected = golden[f'velodyne/depth_vel{number}']
        ours = velodyne_depth(points, *calibrations, laser_depth=laser_depth, official=True)
        np.testing.assert_allclose(ours, expected, rtol=TOLERANCE)
        sound = velodyne_depth(points, *calibrations, laser_depth=laser_depth)
        assert np.isclose(sound, expected).mean() > 0.95, 'sound and official map differ in a few pixels alone'
    everything_else = [key for key in golden.keys() if not key.startswith('velodyne/')]
    golden.assert_all_compared(ignore=everything_else)
