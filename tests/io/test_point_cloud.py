"""Point clouds: positions by hand, files as the format wants them, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trecvit_dense.io import PlyWriter, read_intrinsics, write_ply
from trecvit_dense.io.point_cloud import back_project, cloud_of, depth_from_disparity, depth_up_to_scale

CAMERA = np.array([[40.0, 0, 5], [0, 50, 3], [0, 0, 1]])
SIZE = (6, 10)
RGB = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


def read_ply(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Header lines, positions, colours; written from the format's description."""
    data = path.read_bytes()
    header, _, body = data.partition(b'end_header\n')
    lines = header.decode('ascii').splitlines()
    count = int(next(line for line in lines if line.startswith('element vertex')).split()[-1])
    assert len(body) == 15 * count
    rows = np.frombuffer(body, np.uint8).reshape(count, 15)
    return lines, rows[:, :12].copy().view('<f4'), rows[:, 12:]


def test_positions() -> None:
    xyz = back_project(np.full(SIZE, 2.0), CAMERA)
    assert xyz.shape == (*SIZE, 3) and xyz.dtype == np.float32
    np.testing.assert_allclose(xyz[0, 0], [(0.5 - 5) / 40 * 2, (0.5 - 3) / 50 * 2, 2], rtol=1e-6)
    np.testing.assert_allclose(xyz[4, 7], [(7.5 - 5) / 40 * 2, (4.5 - 3) / 50 * 2, 2], rtol=1e-6)


def test_file(tmp_path: Path) -> None:
    depth = np.full(SIZE, 2.0)
    depth[0, 0], depth[0, 1], depth[0, 2] = 0, np.nan, -1
    write_ply(tmp_path / 'a.ply', *cloud_of(depth, CAMERA, RGB))
    lines, xyz, rgb = read_ply(tmp_path / 'a.ply')
    assert lines[:2] == ['ply', 'format binary_little_endian 1.0'] and 'unit: metres' in lines[2]
    assert lines[3:] == [
        'element vertex 57', 'property float x', 'property float y', 'property float z',
        'property uchar red', 'property uchar green', 'property uchar blue',
    ]  # fmt: skip
    np.testing.assert_array_equal(rgb, RGB.reshape(-1, 3)[3:])
    np.testing.assert_array_equal(xyz, back_project(np.full(SIZE, 2.0), CAMERA).reshape(-1, 3)[3:])


def test_curtains_between_objects_are_left_out() -> None:
    depth = np.full(SIZE, 2.0)
    depth[:, 5:] = 4.0
    depth[:, 9], depth[2, 2] = 1e6, 0  # sky, and a hole, which takes nothing else with it
    xyz, rgb = cloud_of(depth, CAMERA, RGB)
    assert len(xyz) == len(rgb) == 4 * 6 + 3 * 6 - 1
    assert len(cloud_of(depth, CAMERA, RGB, max_step=None)[0]) == 9 * 6 - 1
    with pytest.raises(ValueError, match='no pixel has a depth'):
        cloud_of(np.zeros(SIZE), CAMERA, RGB)
    with pytest.raises(ValueError, match='wanted the same size'):
        cloud_of(depth[:3], CAMERA, RGB)


def test_disparity() -> None:
    disparity = np.array([[1.0, 2.0, 0.0, -1.0]])
    np.testing.assert_allclose(depth_from_disparity(disparity, 0.5, 0.25), [[1 / 0.75, 0.8, 4, np.nan]])
    np.testing.assert_allclose(depth_up_to_scale(disparity[:, :2]), [[4 / 3, 2 / 3]])
    with pytest.raises(ValueError, match='wanted a scale above 0'):
        depth_from_disparity(disparity, -1)
    with pytest.raises(ValueError, match='behind the camera'):
        depth_from_disparity(disparity, 1, -5)


@pytest.mark.parametrize(
    ('kind', 'options', 'depth', 'unit'),
    [
        ('depth', {}, 2.0, 'metres'),
        ('disparity', dict(scale_shift=(0.5, 0.25)), 1 / 1.25, 'metres'),
        ('disparity', dict(up_to_scale=True), 1.0, 'none'),
    ],
)
def test_some_frames_of_a_stream(tmp_path: Path, kind: str, options: dict, depth: float, unit: str) -> None:
    with PlyWriter(tmp_path / 'a', [4, 1], CAMERA, kind=kind, **options) as writer:
        for frame in range(6):
            writer.write(frame, np.full(SIZE, 2.0, np.float32), RGB)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a_00001.ply', 'a_00004.ply']
    lines, xyz, _ = read_ply(tmp_path / 'a_00004.ply')
    np.testing.assert_allclose(xyz, back_project(np.full(SIZE, depth), CAMERA).reshape(-1, 3), rtol=1e-6)
    assert f'unit: {unit}' in lines[2]


def test_mistakes_leave_nothing(tmp_path: Path) -> None:
    for kind, options, words in (
        ('disparity', {}, 'wanted scale and shift, or up to scale'),
        ('disparity', dict(scale_shift=(1, 0), up_to_scale=True), 'wanted scale and shift, or up to scale'),
        ('depth', dict(up_to_scale=True), 'depth is in metres'),
        ('depth', dict(frames=[3, -1]), 'frame -1'),
    ):
        frames = options.pop('frames', [0])
        with pytest.raises(ValueError, match=words):
            PlyWriter(tmp_path / 'a', frames, CAMERA, kind=kind, **options)
    with (
        pytest.raises(ValueError, match='frame 9; the video ended after 1 frames'),
        PlyWriter(tmp_path / 'a', [0, 9], CAMERA, kind='depth') as writer,
    ):
        writer.write(0, np.ones(SIZE), RGB)
        writer.check_all_came()
    with pytest.raises(FileNotFoundError):
        write_ply(tmp_path / 'no' / 'a.ply', np.zeros((1, 3)), np.zeros((1, 3), np.uint8))
    with pytest.raises(ValueError, match=r'wanted \(N, 3\) both'):
        write_ply(tmp_path / 'a.ply', np.zeros((2, 3)), np.zeros((1, 3), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('text', ['40 0 5\n0 50 3\n0 0 1\n', '40 0 5 0 50 3 0 0 1', '40 50 5 3', '40\n50\n5\n3\n'])
def test_intrinsics(tmp_path: Path, text: str) -> None:
    (tmp_path / 'K.txt').write_text(text)
    np.testing.assert_array_equal(read_intrinsics(tmp_path / 'K.txt', SIZE), CAMERA)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('40 0 5\n0 50 3', '2x3 numbers; wanted a 3x3'),
        ('focal 40', 'not a table of numbers'),
        ('', 'wanted a 3x3'),
        ('40 0 5\n0 50 3\n0 0 2', 'no matrix of intrinsics'),
        ('-40 50 5 3', 'no matrix of intrinsics'),
        ('nan 50 5 3', 'no matrix of intrinsics'),
        ('0.8 0.9 0.5 0.5', 'do not fit images of 10x6 px'),
        ('400 400 50 30', 'do not fit images of 10x6 px'),
    ],
)
def test_wrong_intrinsics(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / 'K.txt').write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_intrinsics(tmp_path / 'K.txt', SIZE)
    assert 'K.txt' in str(error.value) and '\n' not in str(error.value)


def test_no_intrinsics(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='K.txt: no such file'):
        read_intrinsics(tmp_path / 'K.txt', SIZE)
