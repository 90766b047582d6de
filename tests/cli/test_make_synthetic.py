"""What make-synthetic writes is what the dataset holds, and what the adapters read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trecvit_dense.cli.make_synthetic import main
from trecvit_dense.datasets import (
    RGBDDepthDataset,
    SyntheticSceneDataset,
    SyntheticVideoDataset,
    TapVidDataset,
)

ARGS = ['--clips', '2', '--size', '40', '64', '--frames', '5', '--points', '12', '--seed', '3']


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('synthetic') / 'out'
    assert main([str(out), *ARGS]) == 0
    return out


@pytest.fixture(scope='module')
def truth() -> list:
    dataset = SyntheticVideoDataset(
        2, (40, 64), num_frames=5, num_points=12, seed=3, split='val', query_mode='first', zoom=False
    )
    return [dataset.sample(index) for index in range(2)]


def test_tapvid_adapter_reads_exact_tracks(folder: Path, truth: list) -> None:
    dataset = TapVidDataset(str(folder / 'tapvid/tapvid_synthetic.pkl'), resolution=None)
    assert len(dataset) == 2
    for index, sample in enumerate(truth):
        read = dataset[index]['data_samples']
        np.testing.assert_array_equal(read.video, sample.video)
        np.testing.assert_array_equal(read.points.visible, sample.points.visible)
        np.testing.assert_allclose(read.points.xy_px, sample.points.xy_px, atol=1e-3)
        np.testing.assert_allclose(read.points.query_txy, sample.points.query_txy, atol=1e-3)


def test_davis_layout(folder: Path, truth: list) -> None:
    root = folder / 'davis'
    assert (root / 'ImageSets/2017/val.txt').read_text().split() == [sample.name for sample in truth]
    for sample in truth:
        for t in range(5):
            mask = Image.open(root / 'Annotations/480p' / sample.name / f'{t:05d}.png')
            assert mask.mode == 'P' and mask.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]
            np.testing.assert_array_equal(np.array(mask), sample.masks.labels[t])
            frame = np.array(Image.open(root / 'JPEGImages/480p' / sample.name / f'{t:05d}.jpg'))
            assert np.abs(frame.astype(int) - sample.video[t]).mean() < 12


def test_depth_layout(folder: Path, truth: list) -> None:
    for sample in truth:
        root = folder / 'depth' / sample.name
        poses, matrix = np.loadtxt(root / 'poses.txt').reshape(-1, 4, 4), np.loadtxt(root / 'K.txt')
        np.testing.assert_allclose(poses, sample.depth.camera_to_world)
        np.testing.assert_allclose(matrix, sample.depth.intrinsics[0])
        depth = np.array(Image.open(root / 'depth/00002.png'))
        assert depth.dtype == np.uint16 and sorted(p.name for p in (root / 'images').iterdir())[-1] == '00004.png'
        known = depth > 0
        np.testing.assert_allclose(depth[known] / 1000, sample.depth.depth_m[2][known], atol=6e-4)


def test_refuses_what_exists_and_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='exists'):
        main([str(folder), *ARGS])
    with pytest.raises(ValueError, match='num_frames'):
        main([str(tmp_path / 'new'), '--frames', '0'])
    assert list(tmp_path.iterdir()) == []


def test_scenes_are_written_in_every_layout(tmp_path: Path) -> None:
    assert main([str(tmp_path / 'out'), *ARGS, '--scenes', '--motion', '0.5']) == 0
    sample = SyntheticSceneDataset(
        2, (40, 64), num_frames=5, num_points=12, seed=3, split='val', query_mode='first', motion=0.5
    ).sample(0)
    read = TapVidDataset(str(tmp_path / 'out/tapvid/tapvid_synthetic.pkl'), resolution=None)[0]['data_samples']
    np.testing.assert_array_equal(read.video, sample.video)
    np.testing.assert_allclose(read.points.xy_px, sample.points.xy_px, atol=1e-3)
    mask = np.array(Image.open(tmp_path / 'out/davis/Annotations/480p' / sample.name / '00003.png'))
    np.testing.assert_array_equal(mask, sample.masks.labels[3])
    folder = tmp_path / 'out/depth' / sample.name
    depth, known = np.array(Image.open(folder / 'depth/00001.png')), sample.depth.valid[1]
    np.testing.assert_array_equal(depth > 0, known & (sample.depth.depth_m[1] < 65.5))
    np.testing.assert_allclose(depth[depth > 0] / 1000, sample.depth.depth_m[1][depth > 0], atol=6e-4)
    read = RGBDDepthDataset(str(tmp_path / 'out/depth'))[0]['data_samples']
    np.testing.assert_array_equal(read.video, sample.video)
    np.testing.assert_allclose(read.depth.camera_to_world, sample.depth.camera_to_world, atol=1e-6)
    with pytest.raises(ValueError, match='nonrigid'):
        main([str(tmp_path / 'other'), *ARGS, '--scenes', '--nonrigid', '0.5'])
