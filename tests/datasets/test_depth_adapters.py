"""Every depth data set, from files written by hand: lifted pixels of all frames lie on the walls of one room."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat

from trecvit_dense.datasets import (
    BonnDataset,
    DynamicReplicaDataset,
    KITTIDepthDataset,
    NYUDepthDataset,
    PointOdysseyDepthDataset,
    RGBDDepthDataset,
    ScanNetDataset,
    SintelDepthDataset,
    TartanAirDataset,
    TUMRGBDDataset,
    VirtualKITTI2Dataset,
)

from . import depth_layouts as layouts
from .depth_layouts import SMALL, motion, off_the_walls, room_depth, small_camera

FREIBURG = np.array([[535.4, 0, 320.1], [0, 539.2, 247.6], [0, 0, 1]])


def only(dataset):
    assert len(dataset) == 1
    item = dataset[0]
    sample = item['data_samples']
    assert item['inputs'].shape == (len(sample.video), 3, *sample.size) and sample.video.dtype == np.uint8
    assert sample.depth.depth_m.dtype == np.float32 and sample.depth.valid.shape == sample.depth.depth_m.shape
    assert (sample.depth.depth_m[~sample.depth.valid] == 0).all(), 'what is not valid is 0'
    assert len(sample.meta['frame_names']) == len(sample.video) == len(sample.depth.depth_m)
    return sample


def check_room(sample, first_pose, tolerance_m, frames=3):
    """Poses may start anywhere; with the first one put in its place, every pixel lies on a wall."""
    depth = sample.depth
    matrices = np.broadcast_to(depth.intrinsics, (frames, 3, 3))
    to_room = first_pose @ np.linalg.inv(depth.camera_to_world[0])
    assert depth.depth_m.shape[0] == frames and not depth.valid[:, 0, 0].any(), 'sky, or no value, in the corner'
    assert depth.valid.mean() > 0.9
    for t in range(frames):
        error = off_the_walls(depth.depth_m[t], matrices[t], to_room @ depth.camera_to_world[t])
        assert error[depth.valid[t]].max() < tolerance_m, f'frame {t}'


CASES = {
    'rgbd': (lambda root: RGBDDepthDataset(str(layouts.write_rgbd(root / 'r'))), 0.002),
    'rgbd_npy': (lambda root: RGBDDepthDataset(str(layouts.write_rgbd(root / 'r', npy=True))), None),
    'scannet': (lambda root: ScanNetDataset(str(layouts.write_scannet(root))), 0.002),
    'sintel': (lambda root: SintelDepthDataset(str(layouts.write_sintel(root))), 1e-5),
    'tum': (lambda root: TUMRGBDDataset(str(layouts.write_tum(root, 'rgbd_freiburg3_x', FREIBURG))), 0.002),
    'tartanair': (lambda root: TartanAirDataset(str(layouts.write_tartanair(root))), 1e-5),
    'vkitti2': (lambda root: VirtualKITTI2Dataset(str(layouts.write_virtual_kitti(root))), 0.02),
    'pointodyssey': (lambda root: PointOdysseyDepthDataset(str(layouts.write_point_odyssey(root)), 'val'), 0.05),
    'replica': (lambda root: DynamicReplicaDataset(str(layouts.write_dynamic_replica(root))), 0.01),
    'replica_bounds': (
        lambda root: DynamicReplicaDataset(str(layouts.write_dynamic_replica(root, 'ndc_norm_image_bounds'))),
        0.01,
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_depth_intrinsics_and_poses_belong_together(name, tmp_path):
    make, tolerance = CASES[name]
    sample = only(make(tmp_path))
    if tolerance is None:  # floats, without a hole
        sample.depth.valid[:, 0, 0] = False
    check_room(sample, motion()[0], tolerance or 1e-5)


def test_kitti_depth(tmp_path):
    poses = layouts.write_kitti(tmp_path)
    dataset = KITTIDepthDataset(str(tmp_path))
    sample = only(dataset)
    assert dataset.names == ['2011_09_26_drive_0002_sync'] and sample.meta['frame_names'][0] == '0000000005'
    np.testing.assert_allclose(sample.depth.camera_to_world, poses, atol=1e-6)
    check_room(sample, np.eye(4), 0.004)
    assert (sample.depth.depth_m[0][0, 1] * 256) % 1 == 0


def test_kitti_depth_from_laser_scans(tmp_path):
    layouts.write_kitti(tmp_path)
    exact = only(KITTIDepthDataset(str(tmp_path))).depth
    sample = only(KITTIDepthDataset(str(tmp_path), truth='velodyne'))
    seen = sample.depth.valid[0]
    assert seen[::2, ::2].mean() > 0.95 and not seen[1::2].any(), 'one point a pixel, where the scan has one'
    both = seen & exact.valid[0]
    np.testing.assert_allclose(sample.depth.depth_m[0][both], exact.depth_m[0][both], atol=1 / 256)
    assert sample.depth.camera_to_world.shape == (3, 4, 4)


def test_kitti_depth_without_calibration_and_in_one_folder(tmp_path):
    layouts.write_kitti(tmp_path)
    for path in (tmp_path / 'depth/val', tmp_path / 'raw/2011_09_26'):
        path.rename(tmp_path / path.name)
    assert only(KITTIDepthDataset(str(tmp_path))).depth.camera_to_world is not None
    (tmp_path / '2011_09_26/calib_cam_to_cam.txt').unlink()
    assert only(KITTIDepthDataset(str(tmp_path), 'val')).depth.intrinsics is None
    with pytest.raises(FileNotFoundError, match='calib_cam_to_cam.txt: no such calibration'):
        KITTIDepthDataset(str(tmp_path), truth='velodyne')


def test_kitti_depth_mistakes(tmp_path):
    layouts.write_kitti(tmp_path)
    with pytest.raises(FileNotFoundError, match='no such folder.*val'):
        KITTIDepthDataset(str(tmp_path), split='test')
    with pytest.raises(ValueError, match="truth is 'lidar'"):
        KITTIDepthDataset(str(tmp_path), truth='lidar')
    with pytest.raises(FileNotFoundError, match='no drive of KITTI raw'):
        KITTIDepthDataset(str(tmp_path / 'depth'))
    next((tmp_path / 'raw').rglob('image_02/data/0000000006.png')).unlink()
    with pytest.raises(FileNotFoundError, match='0000000006.png: there is no frame of this number, 6'):
        KITTIDepthDataset(str(tmp_path))


def test_scannet_depth_leaves_out_lost_poses(tmp_path):
    root = layouts.write_scannet(tmp_path, lost=1, frames=5)
    sample = only(ScanNetDataset(str(root)))
    assert sample.meta['frame_names'] == ['0', '2', '3', '4'] and np.isfinite(sample.depth.camera_to_world).all()
    every = only(ScanNetDataset(str(root), poses=False))
    assert len(every.video) == 5 and every.depth.camera_to_world is None
    clips = ScanNetDataset(str(root), num_frames=2)
    for draw in range(6):
        clip = clips[draw]['data_samples']
        assert '1' not in clip.meta['frame_names'] and clip.depth.camera_to_world.shape == (2, 4, 4)
    assert len(only(ScanNetDataset(str(root), frame_step=2, max_frames=2)).video) == 2
    for path in (root / 'scans/scene0707_00/pose').iterdir():
        path.write_text('-inf -inf -inf -inf\n' * 4)
    with pytest.raises(ValueError, match='none of 5 poses is a rigid'):
        ScanNetDataset(str(root))


def test_scannet_depth_crop_moves_the_camera(tmp_path):
    root = layouts.write_scannet(tmp_path)
    sample = only(ScanNetDataset(str(root), crop=(2, -4, 3, -5)))
    assert sample.depth.depth_m.shape == (3, 18, 24) and sample.size == (18, 24)
    matrices, poses = sample.depth.intrinsics, sample.depth.camera_to_world
    for t in range(3):
        assert off_the_walls(sample.depth.depth_m[t], matrices, poses[t]).max() < 0.002
    with pytest.raises(ValueError, match='nothing is left of 32x24'):
        ScanNetDataset(str(root), crop=(30, 40, 0, 10))[0]


def test_sintel_depth_without_sky(tmp_path):
    root = str(layouts.write_sintel(tmp_path))
    assert not only(SintelDepthDataset(root)).depth.valid[:, 0, 0].any()
    assert only(SintelDepthDataset(root, max_depth_m=None)).depth.valid.all()
    with pytest.raises(FileNotFoundError, match='no frame of MPI Sintel'):
        SintelDepthDataset(root, render='clean')
    with pytest.raises(ValueError, match="no sequence 'alley_2', did you mean 'alley_1'|no sequence 'alley_2'"):
        SintelDepthDataset(root, sequences=['alley_2'])


@pytest.mark.parametrize('lists', [True, False])
def test_bonn_depth_pairs_by_time(tmp_path, lists):
    matrix = np.array([[542.822841, 0, 315.593520], [0, 542.576870, 237.756098], [0, 0, 1]])
    root = layouts.write_tum(tmp_path, 'rgbd_bonn_balloon2', matrix, lists=lists)
    sample = only(BonnDataset(str(root)))
    assert sample.depth.camera_to_world is None and len(sample.video) == 3
    for t, pose in enumerate(motion()):
        assert off_the_walls(sample.depth.depth_m[t], matrix, pose)[sample.depth.valid[t]].max() < 0.002
    np.testing.assert_allclose(sample.depth.intrinsics, matrix)
    check_room(only(BonnDataset(str(root / 'rgbd_bonn_balloon2'), poses=True)), motion()[0], 0.002)
    assert len(only(BonnDataset(str(root), frame_range=(1, 3))).video) == 2
    with pytest.raises(ValueError, match='none of 4 frames has depth within 0.001 s'):
        BonnDataset(str(root), max_difference_s=0.001)


def test_tartanair_depth_from_above_and_from_within(tmp_path):
    layouts.write_tartanair(tmp_path)
    places = {'.': 'hospital/Easy/P003', 'hospital': 'Easy/P003', 'hospital/Easy/P003': 'P003'}
    for place, name in places.items():
        assert TartanAirDataset(str(tmp_path / place)).names == [name]
    with pytest.raises(FileNotFoundError, match='no trajectory here'):
        TartanAirDataset(str(tmp_path), difficulty='Hard')
    (tmp_path / 'hospital/Easy/P003/pose_left.txt').write_text('0 0 0 0 0 0 1\n')
    with pytest.raises(ValueError, match='pose_left.txt: 1 poses; there is a frame 2'):
        TartanAirDataset(str(tmp_path))


def test_virtual_kitti_depth_of_the_other_camera(tmp_path):
    root = str(layouts.write_virtual_kitti(tmp_path))
    assert VirtualKITTI2Dataset(root).names == ['Scene01/clone/Camera_0']
    with pytest.raises(FileNotFoundError, match='no drive here'):
        VirtualKITTI2Dataset(root, cameras=1)
    with pytest.raises(ValueError, match="no sequence 'fog'"):
        VirtualKITTI2Dataset(root, variants=['fog'])


def test_dynamic_replica_depth_mistakes(tmp_path):
    root = layouts.write_dynamic_replica(tmp_path)
    with pytest.raises(ValueError, match="no frame of camera 'top'"):
        DynamicReplicaDataset(str(root), camera='top')
    (root / 'valid/frame_annotations_valid.jgz').write_bytes(b'no')
    with pytest.raises(ValueError, match='not JSON packed by gzip'):
        DynamicReplicaDataset(str(root))


def test_nyu_depth_as_png(tmp_path):
    depth = room_depth(small_camera(), motion()[0], SMALL)
    for t in (3, 10):
        layouts.save_image(tmp_path / f'bts/test/bathroom/rgb_{t:05d}.jpg', seed=t)
        layouts.save_png16(tmp_path / f'bts/test/bathroom/sync_depth_{t:05d}.png', layouts.rounded(depth, 1000))
        layouts.save_image(tmp_path / f'vda/kitchen_0/rgb/{t:05d}.png', seed=t)
        layouts.save_png16(tmp_path / f'vda/kitchen_0/depth/{t:05d}.png', layouts.rounded(depth, 6000))
    for folder in ('bts', 'vda'):
        sample = only(NYUDepthDataset(str(tmp_path / folder)))
        np.testing.assert_allclose(sample.depth.depth_m[0][sample.depth.valid[0]], depth.ravel()[1:], atol=1e-3)
    single = NYUDepthDataset(str(tmp_path / 'bts'), as_images=True)
    assert single.names == ['bathroom/rgb_00003', 'bathroom/rgb_00010'] and len(single[1]['inputs']) == 1
    with pytest.raises(FileNotFoundError, match='nothing of NYU Depth v2 here'):
        NYUDepthDataset(str(tmp_path / 'bts/test/bathroom'))


class FakeH5(dict):
    """As much of h5py as is used, over arrays in memory."""

    content = {}

    def __init__(self, path, mode):
        super().__init__(self.content)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_nyu_depth_of_the_labelled_file(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, depths = rng.integers(0, 255, (4, *SMALL, 3), np.uint8), rng.uniform(1, 9, (4, *SMALL)).astype(np.float32)
    (tmp_path / 'nyu_depth_v2_labeled.mat').write_bytes(b'stands for HDF5')
    savemat(tmp_path / 'splits.mat', dict(testNdxs=np.array([[2], [4]]), trainNdxs=np.array([[1], [3]])))
    content = dict(images=images.transpose(0, 3, 2, 1), depths=depths.transpose(0, 2, 1))
    monkeypatch.setattr(FakeH5, 'content', content)
    monkeypatch.setitem(sys.modules, 'h5py', SimpleNamespace(File=FakeH5))
    dataset = NYUDepthDataset(str(tmp_path))
    assert dataset.names == ['00002', '00004']
    sample = dataset[1]['data_samples']
    np.testing.assert_array_equal(sample.video[0], images[3])
    np.testing.assert_array_equal(sample.depth.depth_m[0], depths[3])
    assert len(NYUDepthDataset(str(tmp_path), split='all')) == 4
    with pytest.raises(ValueError, match="split is 'val'"):
        NYUDepthDataset(str(tmp_path), split='val')
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(ModuleNotFoundError, match='pip install h5py'):
        NYUDepthDataset(str(tmp_path))
