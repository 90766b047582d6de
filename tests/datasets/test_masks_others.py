"""YouTube-VOS, MOSE, LVOS, BURST and plain folders, written from the descriptions of their layouts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths

from tests.datasets.mask_layouts import SIZE, moving_squares, named, write_davis, write_frames, write_masks
from trecvit_dense.datasets import (
    BURSTDataset,
    DAVISDataset,
    LVOSDataset,
    MaskFolderDataset,
    MixtureDataset,
    MOSEDataset,
    SyntheticVideoDataset,
    YouTubeVOSDataset,
)
from trecvit_dense.engine.config import config_names, load_config
from trecvit_dense.registry import DATASETS, TRANSFORMS


def every_fifth(labels: np.ndarray, first: int = 15) -> dict[str, np.ndarray]:
    return {f'{first + 5 * t:05d}': frame for t, frame in enumerate(labels)}


def youtube_vos(root: Path, split: str) -> np.ndarray:
    """Object 1 from the start, object 2 from the third frame on, whose mask file holds object 2 alone."""
    labels = moving_squares(ids=(1, 2), start={2: 2})
    masks = every_fifth(labels)
    write_frames(root / split / 'JPEGImages/003234', labels, list(masks))
    names = list(masks)
    if split == 'valid':
        masks = {names[0]: masks[names[0]], names[2]: np.where(labels[2] == 2, 2, 0).astype(np.uint8)}
    write_masks(root / split / 'Annotations/003234', masks)
    objects = {'1': dict(frames=names), '2': dict(frames=names[2:])}
    if split == 'train':
        objects['1']['category'], objects['2']['category'] = 'ape', 'sedan'
    (root / split / 'meta.json').write_text(json.dumps(dict(videos={'003234': dict(objects=objects)})))
    return labels


def test_youtube_vos_valid_introduces_objects_when_they_appear(tmp_path: Path) -> None:
    labels = youtube_vos(tmp_path, 'valid')
    data = YouTubeVOSDataset(str(tmp_path))
    sample = data[0]['data_samples']
    masks = sample.masks
    assert masks.ids == [1, 2] and masks.first_frame == [0, 2] and not masks.annotated.any()
    for i, first in zip(masks.ids, masks.first_frame, strict=True):
        np.testing.assert_array_equal(masks.labels[first] == i, labels[first] == i)
    assert sample.meta['frame_names'] == ['00015', '00020', '00025', '00030', '00035', '00040']
    assert sample.meta['categories'] == {} and data.metainfo == dict(dataset_name='youtubevos')
    assert YouTubeVOSDataset(str(tmp_path / 'valid')).names == ['003234']
    with pytest.raises(ValueError, match='no video with masks on at least two frames'):
        MOSEDataset(str(first_frames_only(tmp_path / 'mose')), num_frames=2)


def test_youtube_vos_at_30_frames_a_second(tmp_path: Path) -> None:
    labels = youtube_vos(tmp_path, 'valid')
    with pytest.raises(FileNotFoundError, match='valid_all_frames'):
        YouTubeVOSDataset(str(tmp_path), all_frames=True)
    names = [f'{t:05d}' for t in range(15, 41)]
    write_frames(tmp_path / 'valid_all_frames/JPEGImages/003234', labels[np.arange(26) // 5], names)
    sample = YouTubeVOSDataset(str(tmp_path), all_frames=True)[0]['data_samples']
    assert sample.num_frames == 26 and sample.masks.first_frame == [0, 10]
    assert sample.meta['output_names'] == ['00015', '00020', '00025', '00030', '00035', '00040']


def test_youtube_vos_train(tmp_path: Path) -> None:
    labels = youtube_vos(tmp_path, 'train')
    sample = YouTubeVOSDataset(str(tmp_path), split='train')[0]['data_samples']
    np.testing.assert_array_equal(sample.masks.labels, labels)
    assert sample.masks.annotated is None and sample.meta['categories'] == {1: 'ape', 2: 'sedan'}
    clips = YouTubeVOSDataset(str(tmp_path), split='train', num_frames=4, frame_stride=(1, 3))
    assert [clips[i]['inputs'].shape[0] for i in range(3)] == [4, 4, 4]
    with pytest.raises(FileNotFoundError, match="did you mean 'train'"):
        YouTubeVOSDataset(str(tmp_path), split='trian')


def first_frames_only(root: Path) -> Path:
    labels = moving_squares()
    write_frames(root / 'valid/JPEGImages/0a1b', labels)
    write_masks(root / 'valid/Annotations/0a1b', {'00000': labels[0]})
    videos = {'0a1b': dict(objects={'1': {}, '2': {}}, frames=6, length=6)}
    (root / 'meta_valid.json').write_text(json.dumps(dict(videos=videos)))
    return root


def test_mose(tmp_path: Path) -> None:
    data = MOSEDataset(str(first_frames_only(tmp_path)), version=2)
    sample = data[0]['data_samples']
    assert data.metainfo == dict(dataset_name='mosev2') and sample.meta['object_ids'] == [1, 2]
    assert sample.masks.ids == [1, 2] and not sample.masks.annotated.any() and not sample.masks.labels[1:].any()
    (tmp_path / 'meta_valid.json').write_text('{"videos": ')
    with pytest.raises(ValueError, match=r'meta_valid\.json: not a JSON'):
        MOSEDataset(str(tmp_path))


def test_lvos(tmp_path: Path) -> None:
    labels = moving_squares(ids=(1, 2), start={2: 3})
    names = [f'{1 + 5 * t:08d}' for t in range(6)]
    write_frames(tmp_path / 'val/JPEGImages/0tCWPOrc', labels, names)
    write_masks(tmp_path / 'val/Annotations/0tCWPOrc', dict(zip(names, labels, strict=True)))
    ranges = {
        str(i): dict(frame_range=dict(start=s, end='31', frame_nums=str(n))) for i, s, n in ((1, '1', 6), (2, '16', 3))
    }
    (tmp_path / 'val/val_meta.json').write_text(json.dumps(dict(videos={'0tCWPOrc': dict(objects=ranges)})))
    (tmp_path / 'unseen_videos.txt').write_text('0tCWPOrc\n')
    sample = LVOSDataset(str(tmp_path))[0]['data_samples']
    assert sample.meta['frame_range'] == {1: (1, 31, 6), 2: (16, 31, 3)} and sample.meta['unseen'] is True
    assert sample.masks.first_frame == [0, 3] and sample.masks.annotated is None
    np.testing.assert_array_equal(sample.masks.labels, labels)
    for name, mask in zip(names, labels, strict=True):  # long ids, as some releases write them
        Image.fromarray(np.dstack([mask, mask * 0, mask * 0])).save(tmp_path / f'val/Annotations/0tCWPOrc/{name}.png')
    np.testing.assert_array_equal(LVOSDataset(str(tmp_path), mask_format='rgb')[0]['data_samples'].masks.labels, labels)
    with pytest.raises(ValueError, match='3 channels'):
        LVOSDataset(str(tmp_path))


def test_lvos_stripped(tmp_path: Path) -> None:
    labels = moving_squares(ids=(1, 2), start={2: 3})
    write_frames(tmp_path / 'val/JPEGImages/a', labels)
    write_masks(tmp_path / 'val/Annotations/a', {'00000': labels[0], '00003': labels[3]})
    ranges = {str(i): dict(frame_range=dict(start='0', end='6')) for i in (1, 2)}
    (tmp_path / 'val_meta.json').write_text(json.dumps(dict(videos={'a': dict(objects=ranges)})))
    assert not LVOSDataset(str(tmp_path))[0]['data_samples'].masks.annotated.any()


def burst(root: Path, *, first_only: bool = False) -> tuple[Path, np.ndarray]:
    """Six images, annotated on every second; tracks 7 and 300, of which the latter comes later."""
    labels = moving_squares(ids=(1, 2), start={2: 2})
    write_frames(root / 'frames/val/YFCC100M/v_f69', labels, [f'frame{t:04d}' for t in range(6)])
    segmentations, tracks = [], {1: '7', 2: '300'}
    for t in (0, 2, 4):
        found = {}
        for i, track in tracks.items():
            seen = (labels[t] == i).any() and not (first_only and t != {1: 0, 2: 2}[i])
            coded = run_lengths.encode(np.asfortranarray((labels[t] == i).astype(np.uint8)))
            if seen:
                found[track] = dict(rle=coded['counts'].decode(), is_gt=True)
        segmentations.append(found)
    video = dict(
        id=0,
        seq_name='v_f69',
        dataset='YFCC100M',
        width=SIZE[1],
        height=SIZE[0],
        fps=1,
        all_image_paths=[f'frame{t:04d}.jpg' for t in range(6)],
        annotated_image_paths=[f'frame{t:04d}.jpg' for t in (0, 2, 4)],
        track_category_ids={'7': 805, '300': 95},
        segmentations=segmentations,
    )
    path = root / ('first_frame_annotations.json' if first_only else 'all_classes.json')
    path.write_text(json.dumps(dict(sequences=[video], categories=[], split='val')))
    return path, labels


def test_burst(tmp_path: Path) -> None:
    path, labels = burst(tmp_path)
    images = str(tmp_path / 'frames/val')
    sample = BURSTDataset(str(path), images)[0]['data_samples']
    np.testing.assert_array_equal(sample.masks.labels, labels[[0, 2, 4]])
    assert sample.name == 'YFCC100M/v_f69' and sample.masks.first_frame == [0, 1]
    assert sample.meta['track_ids'] == {1: 7, 2: 300} and sample.meta['categories'] == {1: 805, 2: 95}
    whole = BURSTDataset(str(path), images, all_frames=True)[0]['data_samples'].masks
    assert whole.annotated.tolist() == [True, False] * 3 and whole.first_frame == [0, 2]
    assert BURSTDataset(str(path), images, num_frames=2)[0]['inputs'].shape[0] == 2
    prompts, _ = burst(tmp_path / 'first', first_only=True)
    masks = BURSTDataset(str(prompts), str(tmp_path / 'first/frames/val'))[0]['data_samples'].masks
    assert masks.first_frame == [0, 1] and not masks.annotated.any()
    (tmp_path / 'frames/val/YFCC100M/v_f69/frame0002.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'frame0002\.jpg: missing'):
        BURSTDataset(str(path), images)
    with pytest.raises(ValueError, match='run lengths of 0 pixels in an image of 960'):
        content = json.loads(prompts.read_text())
        content['sequences'][0]['segmentations'][0]['7']['rle'] = ' '
        prompts.write_text(json.dumps(content))
        BURSTDataset(str(prompts), str(tmp_path / 'first/frames/val'))[0]
    with pytest.raises(ValueError, match="has no 'sequences'"):
        path.write_text('{}')
        BURSTDataset(str(path), images)


@pytest.mark.parametrize('layout', ['by video', 'by kind', 'one video', 'two roots', 'two folders'])
def test_plain_folders(tmp_path: Path, layout: str) -> None:
    labels, options = moving_squares(), {}
    images, masks = dict(
        [
            ('by video', ('a/images', 'a/masks')),
            ('by kind', ('images/a', 'masks/a')),
            ('one video', ('images', 'masks')),
            ('two roots', ('frames/a', 'truth/a')),
            ('two folders', ('frames', 'truth')),
        ]
    )[layout]
    write_frames(tmp_path / images, labels, suffix='.png')
    write_masks(tmp_path / masks, named(labels))
    root = tmp_path
    if layout.startswith('two'):
        root, options = tmp_path / 'frames', dict(mask_root=str(tmp_path / 'truth'))
    data = MaskFolderDataset(str(root), **options)
    assert len(data) == 1 and data.names[0] == {'one video': tmp_path.name, 'two folders': 'frames'}.get(layout, 'a')
    np.testing.assert_array_equal(data[0]['data_samples'].masks.labels, labels)


def test_plain_folder_with_masks_here_and_there(tmp_path: Path) -> None:
    labels = moving_squares(ids=(3, 5), start={5: 4})
    write_frames(tmp_path / 'images', labels.repeat(2, 1).repeat(2, 2), [f'frame_{t:03d}' for t in range(6)])
    write_masks(tmp_path / 'masks', {f'mask_{t}': labels[t] for t in (0, 2, 4)})
    sample = MaskFolderDataset(str(tmp_path), num_frames=None)[0]['data_samples']
    assert sample.size == (48, 80) and sample.masks.labels.shape[1:] == SIZE
    assert sample.masks.annotated.tolist() == [True, False] * 3
    assert sample.masks.ids == [3, 5] and sample.masks.first_frame == [0, 4]
    clip = MaskFolderDataset(str(tmp_path), num_frames=2)[0]['data_samples']
    assert clip.masks.labels.shape[1:] == clip.size == (48, 80) and clip.masks.annotated is None
    assert MaskFolderDataset(str(tmp_path), mask_format='binary')[0]['data_samples'].masks.ids == [1]
    write_masks(tmp_path / 'masks', {'mask_17': labels[0]})
    with pytest.raises(ValueError, match='fits no frame'):
        MaskFolderDataset(str(tmp_path))
    with pytest.raises(FileNotFoundError, match='no video with frames and masks'):
        MaskFolderDataset(str(tmp_path / 'masks'))
    with pytest.raises(ValueError, match='mask_format'):
        MaskFolderDataset(str(tmp_path), mask_format='colour')


# Clips of the embedded data, mixtures, recipes


def test_synthetic_targets() -> None:
    options = dict(length=50, size=(32, 40), num_frames=3, num_points=4, photometric=0.0, split='val')
    plain, asked = SyntheticVideoDataset(**options), SyntheticVideoDataset(num_targets=(1, 2), **options)
    counts = set()
    for index in range(12):
        one, two = plain.sample(index), asked.sample(index)
        np.testing.assert_array_equal(one.video, two.video)
        np.testing.assert_array_equal(one.points.xy_px, two.points.xy_px)
        masks = two.masks
        assert set(masks.ids) <= set(one.masks.ids) and 0 in masks.first_frame
        assert set(np.unique(masks.labels)) <= {0, *masks.ids}
        for i, first in zip(masks.ids, masks.first_frame, strict=True):
            assert (masks.labels[first] == i).mean() >= 0.002 and not (masks.labels[:first] == i).any()
            np.testing.assert_array_equal(masks.labels[first:] == i, one.masks.labels[first:] == i)
        assert asked.sample(index).masks.ids == masks.ids
        counts.add(len(masks.ids))
    assert counts == {1, 2} and asked.sample(0).meta['frame_names'][-1] == '00002'
    with pytest.raises(ValueError, match='num_targets'):
        SyntheticVideoDataset(num_targets=(0, 2))


def test_mixture_is_deterministic_and_has_its_shares(tmp_path: Path) -> None:
    root = write_davis(tmp_path, dict(a=moving_squares(8)))
    parts = [
        dict(type='DAVISDataset', data_root=str(root), num_frames=2, min_area=0.001),
        dict(type='SyntheticVideoDataset', length=9, size=SIZE, num_frames=2, num_points=1, num_targets=(1, 1)),
    ]
    data = MixtureDataset(parts, [3, 1], length=40)
    assert len(data) == 40 and isinstance(data.datasets[0], DAVISDataset)
    names = [data[i]['data_samples'].name for i in range(40)]
    assert 20 <= names.count('a') <= 38
    assert torch.equal(data[77]['inputs'], pickle.loads(pickle.dumps(data))[77]['inputs'])
    with pytest.raises(ValueError, match='weights'):
        MixtureDataset(parts, [1])


@pytest.mark.parametrize('name', [name for name in config_names() if name.startswith('vos_')])
def test_parts_of_parts_exist(name: str) -> None:
    for preset in (None, *(load_config(name).get('presets') or {})):
        cfg = load_config(name, [f'preset={preset}'] if preset else [])
        dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
        for part in [dataset, *dataset.get('datasets', [])]:
            if part:
                DATASETS.check(part)
            for step in part.get('pipeline') or []:
                TRANSFORMS.build(step)
        assert len(dataset.get('weights', [])) == len(dataset.get('datasets', []))
