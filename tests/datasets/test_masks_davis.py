"""DAVIS layouts of every kind, and what is wrong with one said in a line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.mask_layouts import SIZE, moving_squares, named, write_davis, write_frames, write_masks
from trecvit_dense.datasets import DAVISDataset, SyntheticVideoDataset
from trecvit_dense.datasets.writers import write_davis as write_ours
from trecvit_dense.datasets.writers import write_davis_list
from trecvit_dense.engine.config import load_config
from trecvit_dense.registry import DATASETS

SAMPLES = Path(os.environ.get('TRECVIT_SAMPLES', Path(__file__).parents[3] / 'shared/samples'))


@pytest.mark.parametrize('palette', [True, False])
def test_item(tmp_path: Path, palette: bool) -> None:
    truth = moving_squares(ids=(1, 2))
    truth[0, -1, -1] = 255
    root = write_davis(tmp_path, dict(bear=truth, cow=moving_squares(ids=(1,))), palette=palette)
    data = DAVISDataset(str(root))
    assert len(data) == 2 and data.names == ['bear', 'cow'] and data.version == '2017'
    item = data[0]
    sample = item['data_samples']
    assert item['inputs'].dtype == torch.uint8 and item['inputs'].shape == (6, 3, *SIZE)
    np.testing.assert_array_equal(item['inputs'].permute(0, 2, 3, 1).numpy(), sample.video)
    np.testing.assert_array_equal(sample.masks.labels, truth)
    assert sample.masks.ids == [1, 2] and sample.masks.first_frame == [0, 0] and sample.masks.annotated is None
    assert sample.name == 'bear' and sample.meta['frame_names'] == [f'{t:05d}' for t in range(6)]
    assert sample.meta['original_size'] == SIZE
    with pytest.raises(IndexError):
        data[2]


def test_frames_shrink_and_masks_do_not(tmp_path: Path) -> None:
    sample = DAVISDataset(str(write_davis(tmp_path, dict(a=moving_squares()))), max_side=20)[0]['data_samples']
    assert sample.size == (12, 20) and sample.masks.labels.shape[1:] == SIZE and sample.meta['original_size'] == SIZE


def test_objects_are_those_of_the_first_frame(tmp_path: Path) -> None:
    root = str(write_davis(tmp_path, dict(a=moving_squares(ids=(1, 3), start={3: 2}))))
    masks = DAVISDataset(root)[0]['data_samples'].masks
    assert masks.ids == [1] and not (masks.labels == 3).any()
    masks = DAVISDataset(root, late_objects=True)[0]['data_samples'].masks
    assert masks.ids == [1, 3] and masks.first_frame == [0, 2]


def test_2016_lists_of_pairs_and_merged_foreground(tmp_path: Path) -> None:
    videos = dict(bear=(moving_squares(ids=(1,)) > 0).astype(np.uint8) * 255, cow=moving_squares(ids=(1, 2)))
    pair = '/JPEGImages/480p/{0}/{1:05d}.jpg /Annotations/480p/{0}/{1:05d}.png\n'
    text = ''.join(pair.format(name, t) for name in videos for t in range(5))  # the list leaves the last frame out
    write_davis(tmp_path, videos, palette=False, split='480p/val.txt', text=text)
    data = DAVISDataset(str(tmp_path))
    assert data.version == '2016' and data.metainfo == dict(dataset_name='davis2016')
    for index, labels in enumerate(videos.values()):
        masks = data[index]['data_samples'].masks
        np.testing.assert_array_equal(masks.labels, (labels[:5] > 0).astype(np.uint8))
        assert masks.ids == [1] and masks.first_frame == [0]
    (tmp_path / 'JPEGImages/480p/cow/00003.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'cow/00003\.jpg: missing'):
        DAVISDataset(str(tmp_path))


def test_version_by_list_and_by_content(tmp_path: Path) -> None:
    many = dict(a=moving_squares(ids=(1, 2)))
    write_davis(tmp_path / 'old', many, split='2016/val.txt')
    assert DAVISDataset(str(tmp_path / 'old'))[0]['data_samples'].masks.ids == [1]
    assert DAVISDataset(str(tmp_path / 'old'), version='2017')[0]['data_samples'].masks.ids == [1, 2]
    write_davis(tmp_path / 'both', many, split='2016/val.txt')
    write_davis(tmp_path / 'both', many, split='2017/val.txt')
    assert DAVISDataset(str(tmp_path / 'both'))[0]['data_samples'].masks.ids == [1, 2]
    assert DAVISDataset(str(tmp_path / 'both'), version=2016)[0]['data_samples'].masks.ids == [1]
    white = {'b': (moving_squares(ids=(1,)) > 0).astype(np.uint8) * 255}
    data = DAVISDataset(str(write_davis(tmp_path / 'white', white, palette=False)))
    assert data.version == '2016' and data[0]['data_samples'].masks.labels.max() == 1


def test_colour_masks_of_2016(tmp_path: Path) -> None:
    labels = moving_squares(ids=(1,))
    write_davis(tmp_path, dict(a=labels), split='480p/val.txt', text='a\n')
    write_masks(tmp_path / 'Annotations/480p/a', {name: np.dstack([m * 255] * 3) for name, m in named(labels).items()})
    np.testing.assert_array_equal(DAVISDataset(str(tmp_path))[0]['data_samples'].masks.labels, labels)


def test_any_resolution_and_no_lists(tmp_path: Path) -> None:
    labels = moving_squares()
    write_davis(tmp_path / 'a', dict(x=labels, y=labels), split=None, resolution='Full-Resolution')
    assert DAVISDataset(str(tmp_path / 'a')).names == ['x', 'y']
    write_frames(tmp_path / 'b/DAVIS/JPEGImages/x', labels)
    write_masks(tmp_path / 'b/DAVIS/Annotations/x', named(labels))
    np.testing.assert_array_equal(DAVISDataset(str(tmp_path / 'b'))[0]['data_samples'].masks.labels, labels)
    # Frames at one size, annotations at another.
    write_frames(tmp_path / 'c/JPEGImages/1080p/x', labels.repeat(2, 1).repeat(2, 2))
    write_masks(tmp_path / 'c/Annotations/480p/x', named(labels))
    sample = DAVISDataset(str(tmp_path / 'c'))[0]['data_samples']
    assert sample.size == (48, 80) and sample.masks.labels.shape[1:] == SIZE
    with pytest.raises(FileNotFoundError, match='480; did you mean|480p: no such folder|4800p'):
        DAVISDataset(str(tmp_path / 'a'), resolution='4800p')


def test_unsupervised_takes_every_object(tmp_path: Path) -> None:
    write_davis(tmp_path, dict(a=moving_squares(ids=(1,))))
    write_davis(tmp_path, dict(a=moving_squares(ids=(1, 2), start={2: 3})), kind='Annotations_unsupervised')
    masks = DAVISDataset(str(tmp_path), task='unsupervised')[0]['data_samples'].masks
    assert masks.ids == [1, 2] and masks.first_frame == [0, 3]


def test_first_mask_alone(tmp_path: Path) -> None:
    labels = moving_squares()
    write_frames(tmp_path / 'JPEGImages/480p/a', labels)
    write_masks(tmp_path / 'Annotations/480p/a', {'00000': labels[0]})
    masks = DAVISDataset(str(tmp_path), split='test-dev')[0]['data_samples'].masks
    assert masks.annotated.tolist() == [True] + [False] * 5 and masks.ids == [1, 2] and not masks.labels[1:].any()


def test_sequences_can_be_chosen(tmp_path: Path) -> None:
    root = str(write_davis(tmp_path, {name: moving_squares() for name in ('bear', 'cow', 'swan')}))
    assert DAVISDataset(root, sequences=['swan', 'bear']).names == ['swan', 'bear']
    (tmp_path / 'list.txt').write_text('cow\n')
    assert DAVISDataset(root, sequences=str(tmp_path / 'list.txt')).names == ['cow']
    with pytest.raises(ValueError, match="no sequence 'swam'; did you mean 'swan'"):
        DAVISDataset(root, sequences=['swam'])
    with pytest.raises(FileNotFoundError, match=r'no list train\.txt; there are 2017/val\.txt'):
        DAVISDataset(root, split='train')


def broken(tmp_path: Path, kind: str) -> Path:
    """The file that is wrong."""
    images, masks = tmp_path / 'JPEGImages/480p/a', tmp_path / 'Annotations/480p/a'
    labels = moving_squares()
    write_davis(tmp_path, dict(a=labels))
    if kind == 'missing frame':
        (images / '00002.jpg').unlink()
        return images / '00002.jpg'
    if kind == 'missing mask':
        (masks / '00004.png').unlink()
        return masks / '00004.png'
    if kind == 'colour':
        Image.fromarray(np.dstack([labels[3]] * 3)).save(masks / '00003.png')
        return masks / '00003.png'
    if kind == 'mask size':
        Image.fromarray(labels[3][:10]).save(masks / '00003.png')
        return masks / '00003.png'
    if kind == 'mask shape':
        write_masks(masks, {name: mask[:, :20] for name, mask in named(labels).items()})
        return masks / '00000.png'
    if kind == 'frame size':
        Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(images / '00003.jpg')
        return images / '00003.jpg'
    if kind == 'large id':
        Image.fromarray(labels[3].astype(np.uint16) * 300).save(masks / '00003.png')
        return masks / '00003.png'
    if kind == 'no object':
        Image.fromarray(labels[0] * 0).save(masks / '00000.png')
        return masks / '00000.png'
    if kind == 'no picture':
        (images / '00003.jpg').write_text('text')
        return images / '00003.jpg'
    raise AssertionError(kind)


BAD = {
    'missing frame': 'missing',
    'missing mask': 'missing; wanted a mask for every frame',
    'colour': '3 channels; wanted a palette or grey PNG',
    'mask size': '40x10 px, not 40x24',
    'mask shape': '20x24 px, not 40x24 as the frames',
    'frame size': '9x5 px, not 40x24',
    'large id': 'holds the object id 600',
    'no object': 'holds no object',
    'no picture': 'not an image that can be read',
}


@pytest.mark.parametrize('kind', BAD)
def test_what_is_wrong_is_one_line_with_the_file(tmp_path: Path, kind: str) -> None:
    file = broken(tmp_path, kind)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        DAVISDataset(str(tmp_path))[0]
    message = str(caught.value)
    assert BAD[kind] in message and str(file) in message and '\n' not in message


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='JPEGImages: no such folder; wanted a DAVIS layout'):
        DAVISDataset(str(tmp_path))
    write_davis(tmp_path, dict(a=moving_squares()), text='a\nb\n')
    with pytest.raises(FileNotFoundError, match='480p/b: no such folder'):
        DAVISDataset(str(tmp_path))
    with pytest.raises(ValueError, match="version is '2018'"):
        DAVISDataset(str(tmp_path), version=2018)
    with pytest.raises(TypeError, match="did you mean 'max_side'"):
        DATASETS.build(dict(type='DAVISDataset', data_root=str(tmp_path), maxside=3))


# Training


def training(root: Path, **options: object) -> DAVISDataset:
    options = dict(num_frames=3, frame_stride=(1, 2), max_objects=1, min_area=0.001) | options
    return DAVISDataset(str(root), late_objects=True, **options)


def test_clips_are_drawn_from_seed_draw_and_index(tmp_path: Path) -> None:
    root = write_davis(tmp_path, dict(a=moving_squares(8), b=moving_squares(8, ids=(4, 9, 2))))
    pipeline = [dict(type='RandomResizedCrop', size=(20, 30)), dict(type='HorizontalFlip'), dict(type='ColorJitter')]
    one, two = (training(root, pipeline=pipeline) for _ in range(2))
    seen = set()
    for index in (0, 1, 2, 17, 901):
        a, b = one[index], two[index]
        assert torch.equal(a['inputs'], b['inputs']) and a['inputs'].shape == (3, 3, 20, 30)
        masks = a['data_samples'].masks
        np.testing.assert_array_equal(masks.labels, b['data_samples'].masks.labels)
        assert masks.labels.shape == (3, 20, 30) and len(masks.ids) == 1 and 0 in masks.first_frame
        assert set(np.unique(masks.labels)) <= {0, *masks.ids} and (masks.labels[0] == masks.ids[0]).any()
        seen.add(tuple(a['data_samples'].meta['frame_names']))
    assert len(seen) > 1
    assert not torch.equal(one[0]['inputs'], training(root, pipeline=pipeline, seed=1)[0]['inputs'])


def test_short_videos_are_played_back_and_forth(tmp_path: Path) -> None:
    root = write_davis(tmp_path, dict(a=moving_squares(3)))
    names = training(root, num_frames=6, frame_stride=2)[0]['data_samples'].meta['frame_names']
    assert names == ['00000', '00001', '00002', '00001', '00000', '00001']
    with pytest.raises(ValueError, match='frame_stride'):
        training(root, frame_stride=(3, 1))
    with pytest.raises(ValueError, match='no video with masks on at least two frames'):
        training(write_davis(tmp_path / 'single', dict(a=moving_squares(1))))


# Ours and real ones


def test_our_writer_round_trips(tmp_path: Path) -> None:
    data = SyntheticVideoDataset(3, (48, 64), num_frames=4, split='val')
    samples = [data.sample(index) for index in range(3)]
    for sample in samples:
        write_ours(tmp_path, sample)
    write_davis_list(tmp_path, [sample.name for sample in samples])
    read = DAVISDataset(str(tmp_path), late_objects=True)
    assert read.version == '2017'
    for index, sample in enumerate(samples):
        masks = read[index]['data_samples'].masks
        np.testing.assert_array_equal(masks.labels, sample.masks.labels)
        assert masks.ids == sample.masks.ids and masks.first_frame == sample.masks.first_frame


@pytest.mark.skipif(not (SAMPLES / 'davis_layout').is_dir(), reason='the real samples are not here')
def test_real_clip_by_the_recipe() -> None:
    cfg = load_config('vos_trecvit_davis', [f'data_root={SAMPLES / "davis_layout"}', 'head=propagation', 'max_side=96'])
    assert cfg.mask_head == 'propagation'
    data = DATASETS.build(cfg.test_dataloader.dataset)
    sample = data[0]['data_samples']
    assert sample.name == 'chair' and sample.video.shape == (60, 64, 96, 3)
    assert sample.masks.labels.shape == (60, 480, 720) and sample.masks.ids == [1]
