"""Videos with depth: what is evaluated, what is trained on, and what a message says of files that do not fit."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest

from trecvit_dense.datasets import RGBDDepthDataset, ScanNetDataset, SintelDepthDataset, TartanAirDataset
from trecvit_dense.registry import DATASETS, use_scope

from .depth_layouts import (
    SMALL,
    motion,
    off_the_walls,
    save_image,
    save_png16,
    small_camera,
    write_rgbd,
    write_scannet,
    write_sintel,
    write_tartanair,
)


@pytest.fixture
def recording(tmp_path):
    return write_rgbd(tmp_path / 'room')


def rgbd(folder, **options):
    return RGBDDepthDataset(str(folder), **options)


def test_depth_recording_is_one_video(recording):
    sample = rgbd(recording)[0]['data_samples']
    assert sample.name == 'room' and sample.video.shape == (3, *SMALL, 3) and sample.meta['dataset'] == 'rgbd'
    np.testing.assert_allclose(sample.depth.intrinsics, small_camera())
    np.testing.assert_allclose(sample.depth.camera_to_world, motion())
    with pytest.raises(IndexError, match='there are 1 videos'):
        rgbd(recording)[1]


def test_depth_of_several_recordings_and_parts_of_them(tmp_path):
    for name in ('b', 'a10', 'a9'):
        write_rgbd(tmp_path / name)
    assert rgbd(tmp_path).names == ['a9', 'a10', 'b']
    assert rgbd(tmp_path, sequences=['b']).names == ['b']
    stepped = rgbd(tmp_path, sequences=['b'], frame_step=2)[0]['data_samples']
    assert stepped.meta['frame_names'] == ['000', '002']
    np.testing.assert_allclose(stepped.depth.camera_to_world, motion()[::2])
    part = rgbd(tmp_path, sequences=['b'], frame_range=(1, 9), max_frames=1)[0]['data_samples']
    assert part.meta['frame_names'] == ['001']
    with pytest.raises(ValueError, match=r'3 frames, none of them in frame_range=\[5, 9\]'):
        rgbd(tmp_path, frame_range=(5, 9))


def test_depth_of_another_size_has_intrinsics_of_its_own(tmp_path):
    folder = write_rgbd(tmp_path / 'r', depth_size=(12, 16))
    sample = rgbd(folder)[0]['data_samples']
    assert sample.size == SMALL and sample.depth.depth_m.shape == (3, 12, 16)
    for t, pose in enumerate(motion()):
        error = off_the_walls(sample.depth.depth_m[t], sample.depth.intrinsics, pose)
        assert error[sample.depth.valid[t]].max() < 0.002
    reduced = rgbd(folder, max_side=16)[0]['data_samples']
    assert reduced.size == (12, 16) and reduced.meta['original_size'] == SMALL


def test_depth_caps_leave_out_what_is_far_or_near(recording):
    every, capped = (rgbd(recording, max_depth_m=cap)[0]['data_samples'].depth for cap in (None, 4.0))
    np.testing.assert_array_equal(capped.valid, every.valid & (every.depth_m < 4))
    assert (capped.depth_m[~capped.valid] == 0).all() and not capped.valid.all()
    near = rgbd(recording, min_depth_m=2.0)[0]['data_samples'].depth
    assert near.depth_m[near.valid].min() > 2


def test_depth_clips_are_drawn_from_seed_draw_and_index(tmp_path):
    root = write_scannet(tmp_path, frames=9)
    options = dict(num_frames=3, frame_stride=(1, 3), pipeline=[dict(type='ScaleJitter', size=(16, 16))])
    use_scope()
    one, two = (DATASETS.build(dict(type='ScanNetDataset', data_root=str(root), **options)) for _ in range(2))
    seen = set()
    for index in range(8):
        clip, again = one[index]['data_samples'], two[index]['data_samples']
        np.testing.assert_array_equal(clip.video, again.video)
        np.testing.assert_array_equal(clip.depth.depth_m, again.depth.depth_m)
        assert clip.video.shape == (3, 16, 16, 3) and clip.depth.depth_m.shape == (3, 16, 16)
        seen.add(tuple(np.diff([int(name) for name in clip.meta['frame_names']])))
        for t in range(3):
            error = off_the_walls(clip.depth.depth_m[t], shifted(clip.depth.intrinsics), clip.depth.camera_to_world[t])
            assert np.median(error[clip.depth.valid[t]]) < 0.15, 'as good as pixels of another size'
    assert {len(set(steps)) for steps in seen} == {1} and len(seen) > 1
    assert not np.array_equal(one[0]['data_samples'].video, one[1]['data_samples'].video)
    other = ScanNetDataset(str(root), seed=1, **options)
    assert not np.array_equal(one[0]['data_samples'].video, other[0]['data_samples'].video)


def shifted(matrix):
    """Ours counts pixel centres at +0.5; :func:`off_the_walls` counts them at whole numbers."""
    return np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]]) @ matrix


def test_depth_clip_of_a_short_video_goes_back_and_forth(recording):
    names = rgbd(recording, num_frames=5)[0]['data_samples'].meta['frame_names']
    assert names == ['000', '001', '002', '001', '000']
    poses = rgbd(recording, num_frames=5)[0]['data_samples'].depth.camera_to_world
    np.testing.assert_allclose(poses, motion()[[0, 1, 2, 1, 0]])


def test_depth_clips_of_an_empty_video_come_from_another(tmp_path):
    full, empty = write_rgbd(tmp_path / 'full'), write_rgbd(tmp_path / 'empty')
    for path in (empty / 'depth').iterdir():
        save_png16(path, np.zeros(SMALL))
    clips = rgbd(tmp_path, num_frames=2)
    assert {clips[index]['data_samples'].name for index in range(6)} == {'full'}
    with pytest.raises(ValueError, match='20 clips were drawn and none holds any depth; .*png: no depth at all'):
        rgbd(empty, num_frames=2)[0]
    assert full.is_dir()


def change_depth(folder, change):
    for path in sorted((folder / 'depth').iterdir()):
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), change(values))


def lose_pose(folder):
    rows = np.loadtxt(folder / 'poses.txt')
    rows[1] = -np.inf
    np.savetxt(folder / 'poses.txt', rows)


MISTAKES = {
    'all zero': (lambda f: change_depth(f, np.zeros_like), {}, ValueError, 'no depth at all, nor in the other 2'),
    'metres': (lambda f: change_depth(f, lambda d: d // 1000), {}, ValueError, 'are these metres'),
    'millimetres': (lambda f: None, dict(depth_scale=1.0), ValueError, 'are these millimetres'),
    'beyond the cap': (lambda f: None, dict(max_depth_m=0.01), ValueError, 'no value between 0.001 and 0.01 m in 3'),
    '8 bits': (lambda f: change_depth(f, lambda d: (d // 256).astype(np.uint8)), {}, ValueError, '8-bit grey png'),
    'colour': (lambda f: save_image(f / 'depth/001.png'), {}, ValueError, '8-bit colour png'),
    'broken': (lambda f: (f / 'depth/001.png').write_bytes(b'no'), {}, ValueError, '001.png: not an image that can'),
    'cut off': (
        lambda f: (f / 'depth/001.png').write_bytes((f / 'depth/001.png').read_bytes()[:60]),
        {},
        ValueError,
        '001.png: not an image that can be read',
    ),
    'size of one': (lambda f: save_png16(f / 'depth/001.png', np.ones((12, 16))), {}, ValueError, '16x12 px, not'),
    'shape': (lambda f: change_depth(f, lambda d: d[:, :8]), {}, ValueError, '8x24 px, the images have 32x24'),
    'image size': (lambda f: save_image(f / 'images/001.png', (48, 64)), {}, ValueError, '64x48 px, not 32x24'),
    'missing image': (lambda f: (f / 'images/001.png').unlink(), {}, ValueError, '2 images and 3 depth png'),
    'missing depth': (lambda f: (f / 'depth/001.png').unlink(), {}, ValueError, '3 images and 2 depth png'),
    'lost pose': (lose_pose, {}, ValueError, 'poses.txt: line 2 is no rigid'),
    'missing pose': (
        lambda f: np.savetxt(f / 'poses.txt', np.loadtxt(f / 'poses.txt')[:2]),
        {},
        ValueError,
        '2 poses for 3 images',
    ),
    'no folder': (lambda f: (f / 'depth').rename(f / 'deep'), {}, FileNotFoundError, 'depth is missing'),
    'no units': (lambda f: None, dict(depth_scale=0), ValueError, 'depth_scale is 0'),
    'caps': (lambda f: None, dict(max_depth_m=-1.0), ValueError, 'max_depth_m -1.0'),
    'crop': (lambda f: None, dict(crop=(1, 2)), ValueError, r'crop is \(1, 2\)'),
    'step': (lambda f: None, dict(frame_step=0), ValueError, 'frame_step is 0'),
    'stride': (lambda f: None, dict(num_frames=2, frame_stride=(3, 1)), ValueError, 'frame_stride is'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_depth_mistakes_are_one_line_with_the_file(name, recording):
    damage, options, error, message = MISTAKES[name]
    damage(recording)
    with pytest.raises(error, match=message) as caught:
        rgbd(recording, **options)[0]
    assert '\n' not in str(caught.value)


def test_depth_without_a_camera_warns(recording):
    (recording / 'poses.txt').unlink()
    with pytest.warns(UserWarning, match='no poses.txt, so that what needs a camera'):
        sample = rgbd(recording)[0]['data_samples']
    assert sample.depth.camera_to_world is None and sample.depth.intrinsics is not None
    (recording / 'K.txt').unlink()
    with pytest.warns(UserWarning, match='no poses.txt and no K.txt'):
        assert rgbd(recording)[0]['data_samples'].depth.intrinsics is None


def test_depth_in_floats_with_holes(tmp_path):
    folder = write_rgbd(tmp_path / 'r', npy=True)
    values = np.load(folder / 'depth/000.npy')
    values[0, :4] = np.nan, np.inf, -1, 0
    np.save(folder / 'depth/000.npy', values)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        depth = rgbd(folder)[0]['data_samples'].depth
    assert not depth.valid[0, 0, :4].any() and np.isfinite(depth.depth_m).all() and depth.valid.sum() == 3 * 24 * 32 - 4
    np.save(folder / 'depth/000.npy', np.full(SMALL, np.nan))
    assert not rgbd(folder)[0]['data_samples'].depth.valid[0].any(), 'one empty frame is no mistake'
    for path in (folder / 'depth').iterdir():
        np.save(path, np.full(SMALL, np.nan))
    with pytest.raises(ValueError, match='every value is 0, NaN or infinite'):
        rgbd(folder)[0]
    np.save(folder / 'depth/000.npy', values * 1000)
    with pytest.raises(ValueError, match='wanted floats in metres; are these millimetres'):
        rgbd(folder)


def test_depth_of_one_float_video_in_millimetres_is_noticed(tmp_path):
    root = write_tartanair(tmp_path)
    for path in (root / 'hospital/Easy/P003/depth_left').iterdir():
        np.save(path, np.load(path) * 1000)
    with pytest.raises(ValueError, match='no value between 0.001 and 80 m .* are these millimetres'):
        TartanAirDataset(str(root))[0]


def test_depth_of_a_damaged_dpt(tmp_path):
    root = write_sintel(tmp_path)
    path = root / 'training/depth/alley_1/frame_0002.dpt'
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match='frame_0002.dpt: 3080 bytes; wanted 3084 for 32x24'):
        SintelDepthDataset(str(root))[0]


def distance(sample, mirrored):
    """Median and largest distance of all lifted pixels from the walls, metres; centres of pixels count at +0.5."""
    depth, errors = sample.depth, []
    world = np.diag([-1.0, 1, 1, 1]) if mirrored else np.eye(4)
    for t, pose in enumerate(depth.camera_to_world):
        # A mirrored camera in a mirrored room: its own axes are turned back by off_the_walls' choice of world.
        errors.append(off_the_walls(depth.depth_m[t], shifted(depth.intrinsics), world @ pose)[depth.valid[t]])
    errors = np.concatenate(errors)
    return float(np.median(errors)), float(errors.max())


STEPS = {
    'flip': (dict(type='HorizontalFlip', p=1.0), True),
    'crop': (dict(type='RandomCrop', area=(0.4, 0.8)), True),
    'reverse': (dict(type='TemporalReverse', p=1.0), True),
    'resized crop': (dict(type='RandomCrop', size=(20, 30), area=(0.5, 0.8)), False),
    'resize': (dict(type='Resize', size=(48, 40)), False),
    'jitter': (dict(type='ScaleJitter', size=(40, 40), scale=(0.7, 1.5)), False),
}


@pytest.mark.parametrize('name', STEPS)
@pytest.mark.parametrize('size', [SMALL, (48, 64)], ids=['same', 'larger'])
def test_depth_camera_and_pictures_move_together(name, size, tmp_path):
    """Lifted by the intrinsics and poses that come out, every pixel lies on a wall of the room, or of its mirror."""
    step, exact = STEPS[name]
    folder = write_rgbd(tmp_path / 'r', depth_size=size)
    matrix = small_camera()
    matrix[:2, 2] += 0.5 * SMALL[0] / size[0]  # in the convention of the transforms
    np.savetxt(folder / 'K.txt', matrix)
    sample = rgbd(folder, num_frames=3, pipeline=[step])[0]['data_samples']
    assert sample.depth.depth_m.shape[1:] == sample.size
    median, largest = distance(sample, name == 'flip')
    assert median < (0.002 if exact and size == SMALL else 0.08)
    if exact and size == SMALL:
        assert largest < 0.003
    if name == 'flip':
        sample.depth.camera_to_world = motion()
        assert distance(sample, True)[0] > 0.1, 'the test would notice poses that stay behind'
