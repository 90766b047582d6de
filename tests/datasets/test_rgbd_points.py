"""Point truth from depth and pose: exact on a plane and behind an occluder, and every misfit of the folder is named."""

import cv2
import numpy as np
import pytest

from trecvit_dense.datasets import RGBDPointsDataset
from trecvit_dense.datasets.reprojection import CONTRADICTED, HIDDEN, UNKNOWN, VISIBLE, compare, project, unproject
from trecvit_dense.registry import DATASETS

SIZE = (48, 64)
K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
FAR, NEAR, SPEED = 2.0, 1.0, 0.05  # metres, metres, metres to the right per frame
PLANE_STEP, CARD_STEP = -SPEED * 60 / FAR, -SPEED * 60 / NEAR  # px per frame


def poses(count):
    matrices = np.repeat(np.eye(4)[None], count, axis=0)
    matrices[:, 0, 3] = SPEED * np.arange(count)
    return matrices


def write(folder, *, count=6, card=False):
    """A textured wall 2 m away before a camera that moves right; ``card``: a strip 1 m away that covers part of it."""
    rng = np.random.default_rng(0)
    wall = rng.integers(0, 255, (SIZE[0], 200, 3), dtype=np.uint8)
    for part in ('images', 'depth'):
        (folder / part).mkdir(parents=True)
    for t in range(count):
        shift = np.array([[1, 0, PLANE_STEP * t], [0, 1, 0]])
        cv2.imwrite(str(folder / f'images/{t:03d}.png'), cv2.warpAffine(wall, shift, SIZE[::-1]))
        depth = np.full(SIZE, int(FAR * 1000), np.uint16)
        if card:
            left = round(30 + CARD_STEP * t)
            depth[:, left : left + 12] = int(NEAR * 1000)
        cv2.imwrite(str(folder / f'depth/{t:03d}.png'), depth)
    np.savetxt(folder / 'poses.txt', poses(count).reshape(count, 16))
    np.savetxt(folder / 'K.txt', K)
    return folder


@pytest.fixture
def wall(tmp_path):
    return write(tmp_path / 'wall')


def sample_of(folder, index=0, **options):
    options = dict(num_frames=6, resolution='native', num_points=40) | options
    return RGBDPointsDataset(str(folder), **options)[index]['data_samples']


def test_tracks_of_a_plane_are_exact(wall):
    sample = sample_of(wall, seed_every=6)
    points = sample.points
    assert len(points) == 40 and sample.video.shape == (6, *SIZE, 3) and sample.meta['dataset'] == 'rgbd'
    assert (points.query_txy[:, 0] == 0).all() and np.allclose(points.query_txy[:, 1:] % 1, 0.5), 'pixel centres'
    expected = points.query_txy[:, None, 1:] + np.arange(6)[None, :, None] * np.array([PLANE_STEP, 0])
    assert np.allclose(points.xy_px, expected, atol=1e-5)
    assert (points.visible == (expected[..., 0] >= 0)).all(), 'hidden once it has left the frame'
    assert points.visible.sum(axis=1).min() >= 2
    for x, y in points.query_txy[:, 1:]:
        row, column = int(y), int(x)
        if column + 2 * PLANE_STEP >= 0:  # frame 2 is shifted by whole pixels
            assert (sample.video[0, row, column] == sample.video[2, row, column + int(2 * PLANE_STEP)]).all()


def test_points_enter_later_and_are_scaled(wall):
    native, scaled = sample_of(wall, seed_every=2), sample_of(wall, seed_every=2, resolution=(96, 64))
    assert native.points.query_txy[:, 0].max() > 0
    first = native.points.visible.argmax(axis=1)
    assert (native.points.query_txy[:, 0] == first).all()
    assert scaled.video.shape == (6, 96, 64, 3)
    assert np.allclose(scaled.points.xy_px, native.points.xy_px * (1, 2))


def test_strided_asks_again_every_five_frames(wall):
    points = sample_of(wall, query_mode='strided').points
    assert set(points.query_txy[:, 0]) == {0, 5} and points.group.max() < 40


def test_a_nearer_surface_hides_and_comes_off_again(tmp_path):
    points = sample_of(write(tmp_path / 'card', card=True), seed_every=6, num_points=200).points
    on_card = np.abs(points.xy_px[:, 1, 0] - points.xy_px[:, 0, 0] - CARD_STEP) < 1e-6
    assert on_card.any() and (~on_card).any()
    edge = np.round(30 + CARD_STEP * np.arange(6))
    x = np.floor(points.xy_px[..., 0])
    covered = (x >= edge) & (x < edge + 12) & ~on_card[:, None]
    assert covered.any() and not points.visible[covered].any()
    assert points.visible[(x >= 0) & ~covered].all()


def test_without_depth_nobody_knows(wall):
    for t in (2, 3):
        path = str(wall / f'depth/{t:03d}.png')
        depth = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        depth[:24] = 0
        cv2.imwrite(path, depth)
    assert (sample_of(wall, seed_every=6).points.xy_px[..., 1] >= 24).all()
    kept = sample_of(wall, seed_every=6, keep_unknown=True).points
    upper = kept.xy_px[:, 0, 1] < 24
    assert upper.any() and not kept.visible[upper][:, 2:4].any() and kept.visible[upper][:, 4].any()


def test_what_a_frame_says_about_a_point():
    depth = np.array([[1.0, 2.0, 3.0, 0.0]])
    xy = np.array([[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [3.5, 0.5], [4.0, 0.5], [1.5, 0.5]])
    status = compare(xy, np.array([2.0, 2.05, 2.0, 2.0, 2.0, -2.0]), depth, 0.04)
    assert status.tolist() == [HIDDEN, VISIBLE, CONTRADICTED, UNKNOWN, HIDDEN, HIDDEN]


def test_unproject_and_project_are_inverse():
    rng = np.random.default_rng(0)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(rng.normal(size=3))[0], rng.normal(size=3)
    xy, z = rng.uniform(0, 60, (5, 2)), rng.uniform(1, 3, 5)
    back, depth = project(unproject(xy, z, K, pose), K, pose)
    assert np.allclose(back, xy) and np.allclose(depth, z)


def test_clips_and_folders_of_recordings(tmp_path):
    write(tmp_path / 'all/b', count=7)
    write(tmp_path / 'all/a', count=6)
    dataset = DATASETS.build(
        dict(type='RGBDPointsDataset', data_root=str(tmp_path / 'all'), num_frames=3, num_points=8)
    )
    names = [dataset[index]['data_samples'].name for index in range(len(dataset))]
    assert names == ['a_00000', 'a_00003', 'b_00000', 'b_00003']
    again = DATASETS.build(dict(type='RGBDPointsDataset', data_root=str(tmp_path / 'all'), num_frames=3, num_points=8))
    assert (dataset[2]['data_samples'].points.xy_px == again[2]['data_samples'].points.xy_px).all()
    strided = RGBDPointsDataset(str(tmp_path / 'all/b'), num_frames=3, frame_stride=2)
    assert [clip[1] for clip in strided._clips] == [[0, 2, 4]]
    assert len(RGBDPointsDataset(str(tmp_path / 'all/a'), num_frames=50)[0]['inputs']) == 6


def break_depth(folder, change):
    for path in sorted((folder / 'depth').iterdir()):
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def break_poses(folder, change):
    rows = np.loadtxt(folder / 'poses.txt')
    np.savetxt(folder / 'poses.txt', change(rows))


def with_nan(rows):
    rows[2, 3] = np.nan
    return rows


@pytest.mark.parametrize(
    ('damage', 'error', 'message'),
    [
        (lambda f: (f / 'poses.txt').unlink(), FileNotFoundError, 'poses.txt is missing'),
        (lambda f: (f / 'K.txt').unlink(), FileNotFoundError, 'K.txt is missing'),
        (lambda f: (f / 'depth/003.png').unlink(), ValueError, '6 images and 5 depth png'),
        (lambda f: break_poses(f, lambda rows: rows[:4]), ValueError, '4 poses for 6 images'),
        (lambda f: break_poses(f, lambda rows: rows[:, :12]), ValueError, '12 numbers a line'),
        (lambda f: break_poses(f, with_nan), ValueError, 'line 3 is no rigid'),
        (lambda f: break_poses(f, lambda rows: rows * 2), ValueError, 'line 1 is no rigid'),
        (lambda f: (f / 'poses.txt').write_text('a b\n'), ValueError, 'not a table of numbers'),
        (lambda f: np.savetxt(f / 'K.txt', np.eye(4)), ValueError, '4x4 numbers; wanted a 3x3'),
        (lambda f: np.savetxt(f / 'K.txt', np.eye(3)), ValueError, 'do not fit images of 64x48'),
        (lambda f: break_depth(f, lambda d: d // 1000), ValueError, 'are these metres'),
        (lambda f: break_depth(f, lambda d: (d // 100).astype(np.uint8)), ValueError, 'wanted a 16-bit png'),
        (lambda f: break_depth(f, lambda d: d[::2]), ValueError, 'wanted the same size'),
        (lambda f: (f / 'depth/000.png').write_bytes(b'no'), ValueError, 'not an image that can be read'),
    ],
)
def test_a_folder_that_does_not_fit_is_named(wall, damage, error, message):
    damage(wall)
    with pytest.raises(error, match=message) as caught:
        RGBDPointsDataset(str(wall))
    assert '\n' not in str(caught.value)


def test_poses_in_millimetres_are_suspected(wall):
    rows = poses(6)
    rows[:, :3, 3] *= 1000
    np.savetxt(wall / 'poses.txt', rows.reshape(6, 16))
    with pytest.raises(ValueError, match='are these millimetres'):
        RGBDPointsDataset(str(wall))


def test_a_scene_that_disagrees_is_named(wall):
    for t in range(1, 6):
        cv2.imwrite(str(wall / f'depth/{t:03d}.png'), np.full(SIZE, 2000 + 400 * t, np.uint16))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='no point can be followed'):
        RGBDPointsDataset(str(wall), num_frames=6)


def test_mistakes_in_arguments(wall, tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder'):
        RGBDPointsDataset(str(tmp_path / 'none'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no RGB-D recording here'):
        RGBDPointsDataset(str(tmp_path / 'empty'))
    with pytest.raises(ValueError, match='num_frames is 1'):
        RGBDPointsDataset(str(wall), num_frames=1)
    with pytest.raises(ValueError, match="query_mode is 'last'"):
        RGBDPointsDataset(str(wall), query_mode='last')
    with pytest.raises(ValueError, match='depth_tolerance is 4'):
        RGBDPointsDataset(str(wall), depth_tolerance=4)
