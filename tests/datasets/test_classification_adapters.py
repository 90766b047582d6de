"""Adapters of labelled videos, on files written here from the descriptions of the data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trecvit_dense.datasets import (
    BreakfastDataset,
    ClassFoldersDataset,
    COINDataset,
    KineticsDataset,
    LVUDataset,
    SomethingSomethingDataset,
    VideoListDataset,
)
from trecvit_dense.datasets.lvu import LVU_TASKS, frames_per_second
from trecvit_dense.datasets.transforms import SpreadClips
from trecvit_dense.io import FrameSource, VideoError, VideoWriter
from trecvit_dense.registry import DATASETS
from trecvit_dense.structures import VideoSample

SIZE = (16, 24)
STEP = 5  # grey levels from one frame to the next


def write_video(path: Path, frames: int = 12, *, fps: float = 10.0) -> Path:
    """A video whose frame t is grey level 20 + STEP * t: a picture tells which frame it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps, crf=0) as writer:
        for t in range(frames):
            writer.write(np.full((*SIZE, 3), 20 + STEP * t, np.uint8))
    return path


def frames_seen(sample: VideoSample) -> list[int]:
    return np.round((sample.video.mean(axis=(1, 2, 3)) - 20) / STEP).astype(int).tolist()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Numbers of the frames that are read from files."""
    numbers: list[int] = []
    from trecvit_dense.io.video_file import VideoFile

    read = VideoFile.read
    monkeypatch.setattr(VideoFile, 'read', lambda self, index: numbers.append(index) or read(self, index))
    return numbers


# ---- Kinetics


@pytest.fixture
def kinetics(tmp_path) -> Path:
    rows = ['label,youtube_id,time_start,time_end,split']
    for label, name, start in (('tai chi', '-abc_1', 3), ('"playing ""air"" guitar, loud"', 'x' * 11, 120)):
        rows.append(f'{label},{name},{start},{start + 10},train')
    (tmp_path / 'train.csv').write_text('\n'.join(rows) + '\n')
    (tmp_path / 'val.csv').write_text(rows[0] + ',is_cc\ntai chi,v1,0,10,val,0\n')
    write_video(tmp_path / 'train' / 'tai chi' / '-abc_1_000003_000013.mp4')
    write_video(tmp_path / 'train' / f'{"x" * 11}_000120_000130.mkv')
    write_video(tmp_path / 'val' / 'v1_000000_000010.mp4')
    return tmp_path


def test_kinetics_csv(kinetics, decoded):
    config = dict(type='KineticsDataset', data_root=str(kinetics), pipeline=[dict(type='SampleFrames', num_frames=4)])
    dataset = DATASETS.build(config)
    assert dataset.classes == ('playing "air" guitar, loud', 'tai chi')
    assert [(v.name, v.label) for v in dataset.videos] == [
        ('-abc_1_000003_000013', 1),
        (f'{"x" * 11}_000120_000130', 0),
    ]
    item = dataset[0]
    sample = item['data_samples']
    assert item['inputs'].shape == (4, 3, *SIZE) and sample.label == 1
    assert sample.meta['class_name'] == 'tai chi' and sample.meta['fps'] == 10 and sample.meta['original_size'] == SIZE
    assert sorted(decoded) == frames_seen(sample), 'frames that no clip needs were decoded'
    draws = {tuple(frames_seen(dataset[2 * draw]['data_samples'])) for draw in range(12)}
    assert len(draws) > 3 and all(np.diff(clip).tolist() == [1, 1, 1] for clip in draws)
    assert np.array_equal(dataset[4]['inputs'], dataset[4]['inputs'])


def test_classes_are_those_of_the_training_csv(kinetics):
    dataset = KineticsDataset(str(kinetics), 'val')
    assert len(dataset.classes) == 2 and dataset[0]['data_samples'].label == 1
    assert frames_seen(dataset[0]['data_samples']) == list(range(12))
    with pytest.raises(IndexError):
        dataset[1]
    (kinetics / 'classes.txt').write_text('tai chi\nyoga\n')
    assert KineticsDataset(str(kinetics), 'val', class_file=str(kinetics / 'classes.txt')).videos[0].label == 0
    (kinetics / 'classes.txt').write_text('tai-chi\nyoga\n')
    with pytest.raises(ValueError, match=r"val.csv, row 2: no class 'tai chi' among 2; did you mean 'tai-chi'"):
        KineticsDataset(str(kinetics), 'val', class_file=str(kinetics / 'classes.txt'))


def test_views_of_a_test(kinetics, decoded):
    views = dict(type='MultiView', num_frames=2, size=8, clips=2, crops=3, sampling='stride', stride=3)
    item = KineticsDataset(str(kinetics), 'val', pipeline=[views])[0]
    sample = item['data_samples']
    assert item['inputs'].shape == (2 * 3 * 2, 3, 8, 8)
    assert sample.meta['views'] == (2, 3) and sample.meta['video'] == sample.name
    assert frames_seen(sample) == [0, 3] * 3 + [8, 11] * 3
    assert sorted(decoded) == [0, 3, 8, 11]


def test_missing_videos(kinetics):
    path = kinetics / 'train' / f'{"x" * 11}_000120_000130.mkv'
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{'x' * 11}_000120_000130.mp4: no such video.*train.csv; broken='skip'"
    ):
        KineticsDataset(str(kinetics))
    with pytest.warns(UserWarning, match='1 videos left out'):
        dataset = KineticsDataset(str(kinetics), broken='skip')
    assert [video.label for video in dataset.videos] == [1] and list(dataset.skipped.values()) == ['missing']
    assert len(dataset.classes) == 2


def test_damaged_videos(kinetics):
    damaged = kinetics / 'train' / 'tai chi' / '-abc_1_000003_000013.mp4'
    cut_short(damaged)
    with pytest.raises(VideoError, match='-abc_1_000003_000013.mp4: truncated'):
        KineticsDataset(str(kinetics))[0]
    dataset = KineticsDataset(str(kinetics), broken='skip')
    with pytest.warns(UserWarning, match='another video in its place'):
        assert dataset[0]['data_samples'].label == 0
    assert 'truncated' in dataset.skipped[str(damaged)]
    (kinetics / 'val.csv').write_text((kinetics / 'train.csv').read_text())
    with pytest.warns(UserWarning, match='1 videos left out, first .*truncated'):
        dataset = KineticsDataset(str(kinetics), 'val', broken='skip')
    assert [video.label for video in dataset.videos] == [0]
    cut_short(kinetics / 'train' / f'{"x" * 11}_000120_000130.mkv')
    with pytest.warns(UserWarning), pytest.raises(VideoError, match='20 videos in a row'):
        KineticsDataset(str(kinetics), broken='skip')[0]


def test_kinetics_mistakes(kinetics):
    with pytest.raises(FileNotFoundError, match=r'test.csv: missing'):
        KineticsDataset(str(kinetics), 'test')
    (kinetics / 'test.csv').write_text('path,label\na,b\n')
    with pytest.raises(ValueError, match='no column youtube_id'):
        KineticsDataset(str(kinetics), 'test')
    (kinetics / 'test.csv').write_text('label,youtube_id,time_start,time_end,split\ntai chi,a,soon,10,test\n')
    with pytest.raises(ValueError, match="test.csv, row 2: time_start 'soon'"):
        KineticsDataset(str(kinetics), 'test')
    (kinetics / 'test.csv').write_text('youtube_id,time_start,time_end,split\nv1,0,10,test\n')
    assert KineticsDataset(str(kinetics), 'test')[0]['data_samples'].label is None
    for options in (dict(broken='maybe'), dict(size=(0, 4)), dict(max_videos=0), dict(split='holdout')):
        with pytest.raises(ValueError, match='wanted'):
            KineticsDataset(str(kinetics), **options)


# ---- lists and folders


def test_lists(tmp_path):
    write_video(tmp_path / 'videos' / 'a b.mp4')
    write_video(tmp_path / 'videos' / 'c.mp4', frames=3)
    (tmp_path / 'train.csv').write_text('videos/a b.mp4 1\n\nvideos/c.mp4 0\n')
    dataset = VideoListDataset(str(tmp_path / 'train.csv'))
    assert [(v.name, v.label) for v in dataset.videos] == [('videos/a b.mp4', 1), ('videos/c.mp4', 0)]
    (tmp_path / 'classes.txt').write_text('run\nwalk far\n')
    (tmp_path / 'named.csv').write_text('a b.mp4,walk far\nc.mp4,run\n')
    named = VideoListDataset(
        str(tmp_path / 'named.csv'),
        'val',
        video_root=str(tmp_path / 'videos'),
        separator=',',
        class_file=str(tmp_path / 'classes.txt'),
        size=(8, 8),
    )
    assert [v.label for v in named.videos] == [1, 0] and named[0]['data_samples'].meta['class_name'] == 'walk far'
    assert named[1]['inputs'].shape == (3, 3, 8, 8)
    for text, message in (('a.mp4\n', "line 1: 'a.mp4'"), ('a.mp4,2\n', '2 classes'), ('a.mp4,wlak far\n', 'walk far')):
        (tmp_path / 'named.csv').write_text(text)
        with pytest.raises(ValueError, match=message):
            VideoListDataset(str(tmp_path / 'named.csv'), separator=',', class_file=str(tmp_path / 'classes.txt'))


def test_class_folders(tmp_path):
    for name in ('train/walk/1', 'train/run/1', 'train/run/2', 'val/walk/7'):
        write_video(tmp_path / f'{name}.mp4', frames=4)
    train, val = ClassFoldersDataset(str(tmp_path)), ClassFoldersDataset(str(tmp_path), 'val')
    assert train.classes == val.classes == ('run', 'walk')
    assert [v.label for v in train.videos] == [0, 0, 1] and [v.name for v in val.videos] == ['walk/7']
    assert val.videos[0].label == 1
    with pytest.raises(FileNotFoundError, match='has the splits train, val'):
        ClassFoldersDataset(str(tmp_path), 'test')
    assert len(ClassFoldersDataset(str(tmp_path / 'train'), 'test')) == 3
    with pytest.raises(FileNotFoundError, match='no folder of a class'):
        ClassFoldersDataset(str(tmp_path / 'nothing'))


# ---- Something-Something v2


@pytest.mark.parametrize('prefix', ['something-something-v2-', 'labels/'])
def test_something_something(tmp_path, prefix):
    templates = {'Putting [something] onto [something]': 1, 'Pushing [something] from left to right': 0}
    files = {
        'labels': {name.replace('[', '').replace(']', ''): str(label) for name, label in templates.items()},
        'train': [dict(id=str(i), label='x', template=name, placeholders=['a']) for i, name in enumerate(templates)],
        'validation': [dict(id='7', label='x', template=[*templates][0], placeholders=['a'])],
        'test': [dict(id='8')],
    }
    for name, content in files.items():
        (tmp_path / f'{prefix}{name}.json').parent.mkdir(exist_ok=True)
        (tmp_path / f'{prefix}{name}.json').write_text(json.dumps(content))
    for name in ('0', '1', '7', '8'):
        write_video(tmp_path / '20bn-something-something-v2' / f'{name}.mp4', frames=9)
    pipeline = [dict(type='SampleFrames', num_frames=4, sampling='segments')]
    train = SomethingSomethingDataset(str(tmp_path), pipeline=pipeline)
    assert train.classes == ('Pushing something from left to right', 'Putting something onto something')
    assert [v.label for v in train.videos] == [1, 0]
    seen = np.array([frames_seen(train[2 * draw]['data_samples']) for draw in range(25)])
    assert seen.min(axis=0).tolist() == [0, 2, 4, 6] and seen.max(axis=0).tolist() == [2, 4, 6, 8]
    views = [dict(type='MultiView', num_frames=4, size=8, clips=3, crops=1, sampling='segments')]
    sample = SomethingSomethingDataset(str(tmp_path), 'val', pipeline=views)[0]['data_samples']
    assert sample.label == 1 and frames_seen(sample) == [1, 3, 5, 7, 0, 2, 4, 6, 2, 4, 6, 8]
    assert SomethingSomethingDataset(str(tmp_path), 'test')[0]['data_samples'].label is None


def test_something_something_mistakes(tmp_path):
    write_video(tmp_path / '1.mp4', frames=2)
    (tmp_path / 'labels.json').write_text('{"Doing something": "0", "Other": "2"}')
    (tmp_path / 'train.json').write_text('[{"id": "1", "template": "Doin [something]"}]')
    with pytest.raises(ValueError, match='the ids are not 0 to 1'):
        SomethingSomethingDataset(str(tmp_path))
    (tmp_path / 'labels.json').write_text('{"Doing something": "0", "Other": "1"}')
    with pytest.raises(ValueError, match="entry 0: no class 'Doin something' among 2; did you mean 'Doing something'"):
        SomethingSomethingDataset(str(tmp_path))
    (tmp_path / 'train.json').write_text('[{"id": "1"}]')
    with pytest.raises(ValueError, match='wanted a video with id and template'):
        SomethingSomethingDataset(str(tmp_path))
    (tmp_path / 'train.json').write_text('{')
    with pytest.raises(ValueError, match='not a JSON file'):
        SomethingSomethingDataset(str(tmp_path))


# ---- LVU


@pytest.fixture
def lvu(tmp_path) -> Path:
    """Videos of 5 and 2 s at 4 frames a second, in all nine tasks."""
    texts = {
        'like_ratio': 'like_count dislike_count youtube_id imdb_id\n30 10 -long tt1\n1 1 short tt2\n',
        'view_count': 'view_count youtube_id imdb_id\n1000 -long tt1\n1 short tt2\n',
    }
    for task in LVU_TASKS:
        text = 'class_id class_name youtube_id imdb_id\n1 Mad Max -long tt1\n0 \\N short tt2\n'
        (tmp_path / task).mkdir()
        for split in ('train', 'val', 'test'):
            (tmp_path / task / f'{split}.csv').write_text(texts.get(task, text))
    write_video(tmp_path / 'videos' / '-long.mp4', frames=20, fps=4)
    write_video(tmp_path / 'videos' / 'short.mp4', frames=8, fps=4)
    return tmp_path


@pytest.mark.parametrize('task', LVU_TASKS)
def test_lvu_truth(lvu, task):
    sample = LVUDataset(str(lvu), task, 'test', window=3)[0]['data_samples']
    truth = {'like_ratio': 7.5 - 9.138220535629456, 'view_count': np.log(1000) - 11.76425435683139}
    assert sample.meta.get('target') == pytest.approx(truth.get(task))
    assert sample.label == (None if task in truth else 1)
    assert sample.meta.get('class_name') == (None if task in truth else 'Mad Max')


@pytest.mark.parametrize('table', [True, False])
def test_lvu_windows(lvu, table):
    if table:
        (lvu / 'durations.csv').write_text('videoid,duration\n-long,5\nshort,2\nother,9\n')
    dataset = LVUDataset(str(lvu), 'scene', 'val', window=3, size=(8, 8))
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert [(s.meta['video'], s.meta['window_start_s']) for s in samples] == [
        ('-long', 0),
        ('-long', 1),
        ('-long', 2),
        ('short', 0),
    ]
    assert [frames_seen(s) for s in samples[:3]] == [[0, 4, 8], [4, 8, 12], [8, 12, 16]]
    assert all(s.size == (8, 8) and s.meta['seen_frames'] == 3 for s in samples)
    assert frames_seen(samples[3]) == [0, 4, 7], 'the last frame follows that of the last second'
    black = LVUDataset(str(lvu), 'scene', 'val', window=6)[1]['data_samples']
    assert black.meta['seen_frames'] == 3 and not black.video[3:].any() and black.video[:3].all()
    whole = LVUDataset(str(lvu), 'scene', 'val', window=None)[0]['data_samples']
    assert frames_seen(whole) == [0, 4, 8, 12, 16, 19] == frames_per_second(20, 5).tolist()
    assert len(LVUDataset(str(lvu), 'scene', 'val', window=3, stride=2)) == 3


def test_lvu_trains_on_random_windows(lvu):
    dataset = LVUDataset(str(lvu), 'genre', window=3)
    starts = {dataset[2 * draw]['data_samples'].meta['window_start_s'] for draw in range(20)}
    assert len(dataset) == 2 and starts == {0, 1, 2}
    assert dataset.classes == ('genre 0', 'Mad Max', 'genre 2', 'genre 3')


def test_lvu_mistakes(lvu):
    with pytest.raises(ValueError, match="did you mean 'scene'"):
        LVUDataset(str(lvu), 'scenes')
    for text, message in (
        ('a b\n', 'wanted the header class_id class_name youtube_id imdb_id'),
        ('class_id class_name youtube_id imdb_id\n6 x short tt2\n', 'line 2: class_id 6; scene has 6 classes'),
        ('class_id class_name youtube_id imdb_id\nx y short tt2\n', "line 2: class_id 'x'; wanted a number"),
    ):
        (lvu / 'scene' / 'train.csv').write_text(text)
        with pytest.raises(ValueError, match=message):
            LVUDataset(str(lvu), 'scene')
    with pytest.raises(ValueError, match='first row is .*wanted videoid,duration'):
        LVUDataset(str(lvu), 'genre', durations=str(lvu / 'genre' / 'train.csv'))


# ---- Breakfast and COIN


def test_breakfast(tmp_path):
    names = ['P03-cam01-P03_tea', 'P47-stereo-P47_milk_ch0', 'P28-cam01-P28_cereals', 'P04-webcam01-P04_scrambledegg']
    for name in [*names, 'P47-stereo-P47_milk_ch1']:
        path = write_video(tmp_path / f'{name.replace("-", "/")}.mp4', frames=5)
        path.rename(path.with_suffix('.avi'))
    train, test = BreakfastDataset(str(tmp_path)), BreakfastDataset(str(tmp_path), 'test')
    assert [(v.name, train.classes[v.label]) for v in train.videos] == [(names[0], 'tea'), (names[3], 'scrambledegg')]
    assert [(v.name, test.classes[v.label]) for v in test.videos] == [(names[1], 'milk')]
    rows = [f'{name},5.0,act{i},{i}' for i, name in enumerate(names)]
    (tmp_path / 'train.csv').write_text('\n'.join(['file_name,duration,action,class_id', *rows]))
    clips = dict(type='SpreadClips', num_clips=2, clip_frames=3)
    listed = BreakfastDataset(str(tmp_path), 'val', ann_file=str(tmp_path / 'train.csv'), pipeline=[clips])
    assert [(v.name, v.label) for v in listed.videos] == [(names[0], 0), (names[1], 1), (names[3], 3)]
    assert listed.classes == ('act0', 'act1', 'act2', 'act3')
    assert frames_seen(listed[0]['data_samples']) == [0, 1, 2, 2, 3, 4]
    (tmp_path / 'train.csv').write_text('file_name,duration,action,class_id\nP09-cam01-P09_tea,1,tea,0\n')
    with pytest.raises(FileNotFoundError, match='P09/cam01/P09_tea.avi: no such video'):
        BreakfastDataset(str(tmp_path), ann_file=str(tmp_path / 'train.csv'))
    with pytest.raises(ValueError, match='no video to read'):
        BreakfastDataset(str(tmp_path / 'P03'), 'train')


def test_coin(tmp_path):
    entry = {'class': 'MakeTea', 'recipe_type': 1, 'duration': 3.0, 'annotation': []}
    database = {
        'abc': {**entry, 'subset': 'training'},
        'def': {**entry, 'subset': 'testing', 'recipe_type': 0, 'class': 'ChangeTire'},
        'AfiVmAjfTNs': {**entry, 'subset': 'training'},
    }
    (tmp_path / 'COIN.json').write_text(json.dumps({'database': database}))
    write_video(tmp_path / 'videos' / '1' / 'abc.mp4', frames=6)
    write_video(tmp_path / 'videos' / '0' / 'def.mp4', frames=6)
    train, test = COINDataset(str(tmp_path / 'COIN.json')), COINDataset(str(tmp_path / 'COIN.json'), 'test')
    assert [(v.name, v.label) for v in train.videos] == [('abc', 1)]
    assert [(v.name, v.label) for v in test.videos] == [('def', 0)]
    assert train.classes == test.classes == ('ChangeTire', 'MakeTea')
    database['abc'] = {'subset': 'training'}
    (tmp_path / 'COIN.json').write_text(json.dumps({'database': database}))
    with pytest.raises(ValueError, match="'abc': .*wanted recipe_type and subset"):
        COINDataset(str(tmp_path / 'COIN.json'))


def test_spread_clips():
    rng = np.random.default_rng(0)
    assert SpreadClips(3, clip_frames=2).frames(10).tolist() == [0, 1, 4, 5, 8, 9]
    assert SpreadClips(2, clip_frames=4).frames(3).tolist() == [0, 1, 2, 2] * 2
    drawn = [SpreadClips(3, clip_frames=2, pool=5).frames(10, rng).tolist() for _ in range(50)]
    assert {start for clip in drawn for start in clip[::2]} == {0, 2, 4, 6, 8}
    assert all(clip[::2] == sorted(set(clip[::2])) for clip in drawn)
    with pytest.raises(ValueError, match='pool is 2'):
        SpreadClips(3, pool=2)


def test_frames_are_those_of_the_file(tmp_path):
    """Frames that are sought in the middle of a file are the ones that reading it through gives."""
    rng = np.random.default_rng(0)
    path = tmp_path / 'v.mp4'
    with VideoWriter(path, 10.0) as writer:
        for _ in range(40):
            writer.write(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8))
    (tmp_path / 'list.txt').write_text('v.mp4 0\n')
    pipeline = [dict(type='MultiView', num_frames=3, size=16, clips=2, crops=1, sampling='stride', stride=9)]
    sample = VideoListDataset(str(tmp_path / 'list.txt'), 'test', pipeline=pipeline)[0]['data_samples']
    every = np.stack(list(FrameSource.open(path)))
    np.testing.assert_array_equal(sample.video, every[[0, 9, 18, 21, 30, 39], :, 4:20])
