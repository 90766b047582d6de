"""Laser scans as depth: the nearest point of a pixel counts, and the slips of the official program have a name."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.io.velodyne import parse_calibration, read_calibration, read_velodyne, velodyne_depth

CAMERA = parse_calibration(
    'calib_time: 09-Jan-2012 13:57:47\nS_rect_02: 8 4\n'
    'R_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 4 0 4 0 0 4 2 0 0 0 1 0\n'
)
LASER = parse_calibration('R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n')


def point(column, row, depth):
    """A point that falls on a pixel: x forward, y left, z up; KITTI's pixel is the projection less one."""
    return [depth, -(column + 1 - 4) / 4 * depth, -(row + 1 - 2) / 4 * depth, 0.5]


def depth_of(points, camera=CAMERA, laser=LASER, **options):
    return velodyne_depth(np.array(points, np.float32), camera, laser, **options)


def test_depth_the_nearest_of_several_laser_points_counts():
    picture = depth_of(
        [point(2, 1, 9), point(2, 1, 5), point(2, 1, 7), point(5, 3, 4), point(8, 0, 3), point(-1, 0, 3)]
    )
    expected = np.zeros((4, 8))
    expected[1, 2], expected[3, 5] = 5, 4
    np.testing.assert_allclose(picture, expected, rtol=1e-6)
    assert depth_of([point(1, 1, 9)], size=(3, 5)).shape == (3, 5)


def test_depth_points_behind_count_only_officially():
    """The laser sits before the camera: what lies between them is ahead of the one and behind the other."""
    behind = parse_calibration('R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -1\n')
    between = [0.5, 0.0, 0.0, 1.0]  # half a metre before the laser, half a metre behind the camera
    ahead = [6.0, 0.0, 0.0, 1.0]
    sound = depth_of([ahead, between], laser=behind)
    assert sound[1, 3] == pytest.approx(5) and not depth_of([ahead, between], laser=behind, official=True).any()


def test_depth_neighbours_across_rows_are_one_pixel_officially():
    points = [point(7, 0, 9), point(0, 1, 4)]
    sound, official = depth_of(points), depth_of(points, official=True)
    assert sound[0, 7] == pytest.approx(9) and sound[1, 0] == official[1, 0] == pytest.approx(4)
    assert official[0, 7] == pytest.approx(4)


def test_depth_along_the_laser():
    shifted = parse_calibration('R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -0.27\n')
    points = [[10, 0, 0, 0]]
    assert depth_of(points, laser=shifted).max() == pytest.approx(9.73)
    assert depth_of(points, laser=shifted, laser_depth=True).max() == pytest.approx(10)


def test_velodyne_depth_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such laser scan'):
        read_velodyne(tmp_path / 'a.bin')
    (tmp_path / 'a.bin').write_bytes(b'12345')
    with pytest.raises(ValueError, match='5 bytes; wanted float32'):
        read_velodyne(tmp_path / 'a.bin')
    with pytest.raises(FileNotFoundError, match='no such calibration'):
        read_calibration(tmp_path / 'calib.txt')
    (tmp_path / 'calib.txt').write_text('nothing here\n')
    with pytest.raises(ValueError, match='not a calibration of KITTI'):
        read_calibration(tmp_path / 'calib.txt')
    with pytest.raises(ValueError, match="no 'R_rect_00'; wanted a line"):
        depth_of([[1, 0, 0, 0]], camera={key: value for key, value in CAMERA.items() if key != 'R_rect_00'})
    with pytest.raises(ValueError, match="'T' has 2 numbers; wanted 3"):
        depth_of([[1, 0, 0, 0]], laser={**LASER, 'T': np.zeros(2)})
    assert depth_of(np.zeros((0, 4))).max() == depth_of(np.zeros((0, 4)), official=True).max() == 0
