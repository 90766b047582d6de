"""Point-tracking adapters: every layout of the files, and files that are not what they should be."""

import io
import json
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from trecvit_dense.datasets import PerceptionTestPoints, PointOdysseyDataset, TapVidDataset
from trecvit_dense.engine.config import load_config
from trecvit_dense.evaluation import format_table
from trecvit_dense.io.restricted_pickle import UnsafePickleError
from trecvit_dense.registry import DATASETS, METRICS
from trecvit_dense.structures import PointTracks

FRAMES, HEIGHT, WIDTH = 7, 12, 20


def entry(seed=0, frames=FRAMES, points=3):
    rng = np.random.default_rng(seed)
    occluded = rng.random((points, frames)) < 0.3
    occluded[:, 1] = False
    return dict(
        video=rng.integers(0, 255, (frames, HEIGHT, WIDTH, 3), np.uint8),
        points=rng.random((points, frames, 2), np.float32),
        occluded=occluded,
    )


def jpegs(video):
    frames = []
    for frame in video:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, 'jpeg')
        frames.append(buffer.getvalue())
    return frames


def save(tmp_path, content, name='file.pkl'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return str(path)


def test_item(tmp_path):
    source = entry()
    item = TapVidDataset(save(tmp_path, {'swan': source}), resolution=None)[0]
    sample = item['data_samples']
    assert item['inputs'].shape == (FRAMES, 3, HEIGHT, WIDTH) and item['inputs'].dtype == torch.uint8
    assert np.array_equal(sample.video, source['video']) and sample.name == 'swan'
    assert sample.meta['query_mode'] == 'first' and sample.meta['original_size'] == (HEIGHT, WIDTH)
    np.testing.assert_allclose(sample.points.xy_px, source['points'] * np.array([WIDTH, HEIGHT]))
    assert np.array_equal(sample.points.visible, ~source['occluded'])
    for row, (t, x, y) in enumerate(sample.points.query_txy):
        assert sample.points.visible[row, int(t)] and not sample.points.visible[row, : int(t)].any()
        assert np.allclose(sample.points.xy_px[row, int(t)], (x, y))


def test_resolution_moves_points_with_frames(tmp_path):
    path = save(tmp_path, [entry()])
    plain, wide, square = (TapVidDataset(path, resolution=r)[0]['data_samples'] for r in ('native', (6, 40), 24))
    assert wide.size == (6, 40) and square.size == (24, 24)
    np.testing.assert_allclose(wide.points.xy_px, plain.points.xy_px * [2, 0.5])
    assert wide.meta['original_size'] == (HEIGHT, WIDTH)


def test_containers_name_their_subset(tmp_path):
    many = {f'v{i}': entry(i) for i in range(3)}
    assert TapVidDataset(save(tmp_path, many)).metainfo == dict(dataset_name='tapvid_davis')
    listed = TapVidDataset(save(tmp_path, list(many.values()), 'stack.pkl'))
    assert listed.subset == 'rgb_stacking' and listed[1]['data_samples'].name == 'stack_0001'
    assert len(TapVidDataset(save(tmp_path, entry(), 'one.pkl'))) == 1
    assert TapVidDataset(save(tmp_path, many, 'robotap_split0.pkl')).subset == 'robotap'
    assert TapVidDataset(save(tmp_path, many), subset='kinetics').metainfo == dict(dataset_name='tapvid_kinetics')
    assert len(TapVidDataset(save(tmp_path, many), max_videos=2)) == 2


@pytest.mark.parametrize('pack', [list, np.array, lambda frames: np.array(frames, object)])
def test_encoded_frames_and_shards(tmp_path, pack):
    for shard in range(2):
        videos = {}
        for i in range(2):
            video = entry(10 * shard + i)
            videos[f's{shard}v{i}'] = dict(video, video=pack(jpegs(video['video'])))
        save(tmp_path, videos, f'shards/{shard:04d}_of_0010.pkl')
    data = TapVidDataset(str(tmp_path / 'shards'), resolution=None, query_mode='strided')
    assert data.subset == 'kinetics' and len(data) == 4
    names = [data[i]['data_samples'].name for i in (3, 0, 2, 1)]
    assert names == ['s1v1', 's0v0', 's1v0', 's0v1']
    loader = torch.utils.data.DataLoader(data, num_workers=0, collate_fn=list)
    assert sum(len(batch) for batch in loader) == 4
    assert pickle.loads(pickle.dumps(data))[3]['data_samples'].name == 's1v1'


def test_videos_without_query_are_left_out_by_name(tmp_path):
    blind = dict(entry(), occluded=np.ones((3, FRAMES), bool))
    with pytest.warns(UserWarning, match='blind'):
        data = TapVidDataset(save(tmp_path, dict(good=entry(), blind=blind)))
    assert len(data) == 1
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='no video with a visible point'):
        TapVidDataset(save(tmp_path, dict(blind=blind)))


def test_one_pixel_and_one_frame(tmp_path):
    tiny = dict(video=np.zeros((1, 1, 1, 3), np.uint8), points=np.full((1, 1, 2), 0.5), occluded=np.zeros((1, 1), bool))
    sample = TapVidDataset(save(tmp_path, [tiny]))[0]['data_samples']
    assert sample.size == (256, 256) and sample.points.query_txy.tolist() == [[0, 128, 128]]


def test_occluded_points_may_be_undefined(tmp_path):
    source = entry()
    source['points'][source['occluded']] = np.nan
    points = TapVidDataset(save(tmp_path, [source]))[0]['data_samples'].points
    assert np.isfinite(points.xy_px).all()


BAD = {
    'a tuple of numbers': (lambda e: (1, 2), 'wanted a dict with video'),
    'text': (lambda e: 'text', 'wanted a dict or list'),
    'nothing': (lambda e: {}, 'empty dict'),
    'no points': (lambda e: [{k: v for k, v in e.items() if k != 'points'}], "has no 'points'"),
    'float video': (lambda e: [dict(e, video=e['video'] / 255)], 'video is float64'),
    'grey video': (lambda e: [dict(e, video=e['video'][..., 0])], 'wanted uint8'),
    'empty video': (lambda e: [{key: value[:0] for key, value in e.items()}], 'the video is empty'),
    'list of text': (lambda e: [dict(e, video=['x'] * FRAMES)], 'not bytes'),
    'other length': (lambda e: [dict(e, video=e['video'][:-1])], 'points has 7 frames, the video 6'),
    'pixels': (lambda e: [dict(e, points=e['points'] * 20 + 5)], 'are these pixels'),
    'nan': (lambda e: [dict(e, points=e['points'] * np.float32(np.nan))], 'not finite'),
    'flags': (lambda e: [dict(e, occluded=e['occluded'] * 2)], 'wanted flags'),
    'shapes': (lambda e: [dict(e, occluded=e['occluded'][:1])], 'occluded is bool (1, 7)'),
    'integers': (lambda e: [dict(e, points=np.zeros((3, 7, 2), int))], 'points is int64'),
    'three coordinates': (lambda e: [dict(e, points=np.zeros((3, 7, 3), np.float32))], 'points is float32 (3, 7, 3)'),
}  # fmt: skip


@pytest.mark.parametrize('kind', BAD)
def test_bad_content_is_one_line(tmp_path, kind):
    change, message = BAD[kind]
    with pytest.raises(ValueError) as caught:
        TapVidDataset(save(tmp_path, change(entry())))
    assert message in str(caught.value) and '\n' not in str(caught.value) and 'file.pkl' in str(caught.value)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        TapVidDataset(str(tmp_path / 'nowhere.pkl'))
    with pytest.raises(FileNotFoundError, match='no .pkl file in this folder'):
        TapVidDataset(str(tmp_path))

    class Hostile:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/ran',)

    with pytest.raises(UnsafePickleError, match='system'):
        TapVidDataset(save(tmp_path, [dict(entry(), video=Hostile())]))
    assert not (tmp_path / 'ran').exists()
    path = save(tmp_path, [entry()])
    with open(path, 'r+b') as file:
        file.truncate(500)
    with pytest.raises(ValueError, match='truncated'):
        TapVidDataset(path)
    broken = dict(entry(), video=[data[:60] for data in jpegs(entry()['video'])])
    with pytest.raises(ValueError, match='frame 0: not a readable image'):
        TapVidDataset(save(tmp_path, [broken]))[0]


def test_bad_arguments(tmp_path):
    path = save(tmp_path, [entry()])
    for options, message in (
        (dict(query_mode='last'), 'query_mode'),
        (dict(subset='davs'), "did you mean 'davis'"),
        (dict(resolution=(1, 2, 3)), 'resolution'),
        (dict(resolution='big'), 'resolution'),
        (dict(max_video_frames=0), 'max_video_frames'),
    ):
        with pytest.raises(ValueError, match=message):
            TapVidDataset(path, **options)
    with pytest.raises(TypeError, match="did you mean 'ann_file'"):
        DATASETS.build(dict(type='TapVidDataset', annfile=path))


# Csv


def write_frames(folder, video):
    folder.mkdir(parents=True)
    for i, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f'{i:03d}.png')


def csv_row(leading, points, occluded):
    cells = [f'{x},{y},{int(o)}' for (x, y), o in zip(points, occluded, strict=True)]
    return ','.join([*leading, *cells])


def test_csv_with_videos_in_another_folder(tmp_path):
    source = entry()
    rows = [csv_row(['clip'], p, o) for p, o in zip(source['points'], source['occluded'], strict=True)]
    (tmp_path / 'list.csv').write_text('\n'.join(rows) + '\n')
    write_frames(tmp_path / 'videos' / 'clip', source['video'])
    options = dict(video_root=str(tmp_path / 'videos'), resolution=None)
    whole = TapVidDataset(str(tmp_path / 'list.csv'), **options)
    assert len(whole) == 1 and np.array_equal(whole[0]['data_samples'].video, source['video'])
    parts = TapVidDataset(str(tmp_path / 'list.csv'), max_video_frames=3, **options)
    assert [parts[i]['inputs'].shape[0] for i in range(len(parts))] == [2, 2, 3]
    assert parts[1]['data_samples'].name == 'clip#1'
    with pytest.raises(FileNotFoundError, match='set video_root'):
        TapVidDataset(str(tmp_path / 'list.csv'))


def test_kinetics_csv_is_shifted_as_the_published_pickles(tmp_path):
    points, occluded = np.full((FRAMES, 2), 0.5), np.zeros(FRAMES, bool)
    (tmp_path / 'k.csv').write_text(csv_row(['abc', '3', '13'], points, occluded))
    write_frames(tmp_path / 'abc_000003_000013', entry()['video'])
    data = TapVidDataset(str(tmp_path / 'k.csv'), resolution=None)
    assert data.subset == 'kinetics'
    np.testing.assert_allclose(data[0]['data_samples'].points.xy_px[0, 0], [WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'no rows'),
        ('clip,0.1,0.2', 'row 1: 3 columns'),
        ('clip,x,y,occluded', 'wanted numbers'),
        ('clip,0.1,0.2,0\nclip,0.1,0.2,0,0.1,0.2,0', r'\[1, 2\] frames'),
        ('clip,0.1,0.2,7', 'wanted flags'),
    ],
)
def test_bad_csv(tmp_path, text, message):
    (tmp_path / 'bad.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        TapVidDataset(str(tmp_path / 'bad.csv'))


# Others


def test_perception_test(tmp_path):
    track = dict(id=0, label='cup', frame_ids=[1, 3], points=[[0.5, 0.25], [0.1, 0.2]])
    label = dict(metadata=dict(num_frames=FRAMES, is_camera_moving=True), point_tracking=[track])
    labels = {'video_1': label, 'video_2': dict(label, point_tracking=[])}
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    write_frames(tmp_path / 'videos' / 'video_1', entry()['video'])
    data = PerceptionTestPoints(str(tmp_path / 'labels.json'), resolution=None)
    sample = data[0]['data_samples']
    assert len(data) == 1 and sample.points.visible[0].tolist() == [False, True, False, True, False, False, False]
    np.testing.assert_allclose(sample.points.query_txy, [[1, 0.1 * WIDTH, 0.5 * HEIGHT]])
    (tmp_path / 'broken.json').write_text('{"a": ')
    with pytest.raises(ValueError, match='not a JSON'):
        PerceptionTestPoints(str(tmp_path / 'broken.json'))
    (tmp_path / 'other.json').write_text('{"a": 1}')
    with pytest.raises(ValueError, match='not a Perception Test file'):
        PerceptionTestPoints(str(tmp_path / 'other.json'))
    with pytest.raises(FileNotFoundError):
        PerceptionTestPoints(str(tmp_path / 'nowhere.json'))


@pytest.mark.parametrize('version', ['1.1', '1.2'])
def test_point_odyssey(tmp_path, version):
    frames, count = 10, 4
    tracks = np.random.default_rng(0).uniform(3, 9, (frames, count, 2)).astype(np.float16)
    visible, valid = np.ones((frames, count), bool), np.ones((frames, count), bool)
    visible[3, 0] = visible[0, 1] = False
    valid[4, 2] = visible[4, 2] = False
    flags = dict(visibs=visible, valids=valid)
    if version == '1.1':
        flags = dict(visibilities=np.where(valid, visible, 2).astype(np.float16))
    folder = tmp_path / 'test' / 'ani'
    write_frames(folder / 'rgbs', entry(frames=frames)['video'])
    np.savez(folder / 'anno.npz', trajs_2d=tracks, **flags)
    sample = PointOdysseyDataset(str(tmp_path), resolution=(24, 40))[0]['data_samples']
    assert sample.size == (24, 40) and sample.points.group.tolist() == [0, 2, 3]  # track 1 is not seen at the start
    np.testing.assert_allclose(sample.points.xy_px[1], tracks[:, 2].astype(np.float32) * 2)
    assert (sample.points.query_txy[:, 0] == 0).all()
    assert not sample.points.visible[0, 3] and sample.meta['valid'][0, 3] and not sample.meta['valid'][1, 4]
    with pytest.raises(FileNotFoundError, match='no sequence'):
        PointOdysseyDataset(str(tmp_path), split='val')
    np.savez(folder / 'anno.npz', other=tracks)
    with pytest.raises(ValueError, match='not a PointOdyssey annotation'):
        PointOdysseyDataset(str(tmp_path))[0]


def test_recipe_reads_any_pickle(tmp_path):
    """What the recipe builds, with the ground truth in place of a model."""
    path = save(tmp_path, {'a': entry(), 'b': entry(1)})
    cfg = load_config('point_track_trecvit_tapvid', [f'ann_file={path}', 'query_mode=strided', 'resolution=64,48'])
    data = DATASETS.build(cfg.test_dataloader.dataset)
    metric = METRICS.build(cfg.test_evaluator[0])
    for item in (data[i] for i in range(len(data))):
        sample = item['data_samples']
        assert sample.size == (64, 48)
        truth = sample.points
        sample.predictions['points'] = PointTracks(truth.xy_px, truth.visible, truth.query_txy)
        metric.process(None, [sample])
    metrics = metric.evaluate(len(data))
    assert metrics['tapvid/strided/256/AJ'] == metrics['tapvid/strided/256/per_video/b/AJ'] == 1
    assert 'tapvid/strided/256: 2 videos' in format_table(metrics)
    named = load_config('point_track_trecvit_tapvid', [f'ann_file={path}', 'dataset_name=mine', 'max_videos=1'])
    assert named.test_evaluator[0].dataset_name == 'mine' and len(DATASETS.build(named.test_dataloader.dataset)) == 1
