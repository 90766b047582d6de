"""Clips from static images: masks that fit the picture, motion that is there, and the same clip every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths

from trecvit_dense.datasets import CocoClipsDataset

RED, GREEN = (250, 20, 20), (20, 250, 20)


def write_coco(root: Path) -> tuple[str, str]:
    """A red and a green square on blue; a polygon, run lengths of both kinds, a crowd, and a dot."""
    (root / 'images').mkdir(parents=True)
    images, annotations = [], []
    for number in range(3):
        frame = np.full((60, 80, 3), (20, 20, 200), np.uint8)
        frame[10:30, 10:30], frame[30:50, 45:70] = RED, GREEN
        Image.fromarray(frame).save(root / f'images/{number}.png')
        images.append(dict(id=number + 7, file_name=f'{number}.png', height=60, width=80))
        green = np.zeros((60, 80), np.uint8)
        green[30:50, 45:70] = 1
        coded = run_lengths.encode(np.asfortranarray(green))
        coded['counts'] = coded['counts'].decode()
        if number == 1:
            flat = green.T.ravel()
            edges = np.flatnonzero(np.diff(flat)) + 1
            coded = dict(size=[60, 80], counts=np.diff([0, *edges, flat.size]).tolist())
        common = dict(image_id=number + 7, category_id=1, iscrowd=0)
        annotations += [
            dict(common, segmentation=[[10, 10, 30, 10, 30, 30, 10, 30]], area=400),
            dict(common, segmentation=coded, area=500),
            dict(common, segmentation=coded, area=500, iscrowd=1),
            dict(common, segmentation=[[0, 0, 2, 0, 2, 2]], area=2),
        ]
    file = root / 'instances.json'
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=[])))
    return str(file), str(root / 'images')


def test_masks_fit_the_picture(tmp_path: Path) -> None:
    data = CocoClipsDataset(
        *write_coco(tmp_path), size=(48, 64), num_frames=5, max_objects=4, colour=0.0, pasted=(1, 2)
    )
    assert len(data) == 3
    moved = 0
    for index in range(9):
        item = data[index]
        sample = item['data_samples']
        assert item['inputs'].shape == (5, 3, 48, 64) and 1 <= len(sample.masks.ids) <= 4
        assert 0 in sample.masks.first_frame
        video, labels = sample.video.astype(int), sample.masks.labels
        coloured = (video[..., 0] > 180) | (video[..., 1] > 180)
        assert coloured[labels > 0].mean() > 0.85  # the rest is edge
        moved += not np.array_equal(labels[0], labels[-1])
    assert moved >= 6


def test_without_motion_the_clip_is_the_picture(tmp_path: Path) -> None:
    options = dict(size=(60, 80), num_frames=3, motion=0.0, colour=0.0, pasted=(0, 0))
    sample = CocoClipsDataset(*write_coco(tmp_path), **options)[0]['data_samples']
    np.testing.assert_array_equal(sample.video, sample.video[:1].repeat(3, 0))
    truth = np.array(Image.open(tmp_path / 'images/0.png')).astype(int)
    error = np.abs(sample.video[0] - truth).max(-1)
    assert (error > 40).mean() < 0.05 and len(sample.masks.ids) == 2  # edges are soft
    for i in sample.masks.ids:
        inside = sample.masks.labels[0] == i
        assert inside.sum() in range(380, 521) and len(np.unique(truth[inside], axis=0)) <= 2


def test_items_are_deterministic(tmp_path: Path) -> None:
    files = write_coco(tmp_path)
    one, two = (CocoClipsDataset(*files, size=(32, 32), num_frames=2) for _ in range(2))
    assert torch.equal(one[4]['inputs'], two[4]['inputs']) and not torch.equal(one[4]['inputs'], one[1]['inputs'])
    assert not torch.equal(one[4]['inputs'], CocoClipsDataset(*files, size=(32, 32), num_frames=2, seed=1)[4]['inputs'])


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    file, images = write_coco(tmp_path)
    with pytest.raises(ValueError, match='no image with an object that covers 0.9'):
        CocoClipsDataset(file, images, min_area=0.9)
    with pytest.raises(FileNotFoundError, match='no such folder'):
        CocoClipsDataset(file, images + 'x')
    (tmp_path / 'other.json').write_text('{"images": []}')
    with pytest.raises(ValueError, match="has no 'annotations'"):
        CocoClipsDataset(str(tmp_path / 'other.json'), images)
    for options in (dict(size=(4, 4)), dict(pasted=(2, 1)), dict(motion=-1.0)):
        with pytest.raises(ValueError, match='wanted'):
            CocoClipsDataset(file, images, **options)
    data = CocoClipsDataset(file, images, size=(32, 32), pasted=(0, 0))
    Image.new('RGB', (30, 30)).save(tmp_path / 'images/0.png')
    with pytest.raises(ValueError, match=r'0\.png: 30x30 px, not 80x60'):
        data[0]
    (tmp_path / 'images/0.png').unlink()
    with pytest.raises(FileNotFoundError, match='no such image'):
        data[0]
