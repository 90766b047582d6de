"""TAP-Vid evaluator, samplers and readers against the official ones; counts are exact."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from tests.parity.goldens import Golden, golden_files
from trecvit_dense.datasets.point_clips import decode_jpeg, shift_kinetics_points, signed_video
from trecvit_dense.evaluation.functional.perception_test import score_perception_test
from trecvit_dense.evaluation.functional.tapvid import compute_tapvid_metrics, sample_queries_strided
from trecvit_dense.evaluation.functional.tapvid3d import compute_tapvid3d_metrics
from trecvit_dense.registry import DATASETS

INPUTS = ('query_points', 'gt_occluded', 'gt_tracks', 'pred_occluded', 'pred_tracks')
EXACT = 1e-15


def kind(golden: Golden) -> str:
    """Which set a file is, by what it holds: other files of the same kinds may carry other names."""
    if 'legacy/in/query_points' in golden:
        return 'perception_test'
    if 'in/intrinsics_params' in golden:
        return '3d'
    if 'vid0/points' in golden:
        return 'readers'
    return 'dataset_mean' if 'mean/average_jaccard' in golden else 'core'


def assert_metrics(golden: Golden, prefix: str, metrics: dict[str, np.ndarray]) -> None:
    expected = golden.group(prefix)
    assert expected and set(expected) <= set(metrics), prefix
    for key, value in expected.items():
        np.testing.assert_allclose(metrics[key], value, rtol=0, atol=EXACT, equal_nan=True, err_msg=prefix + key)


@pytest.mark.parametrize('path', golden_files('tapvid_metrics_'))
def test_tapvid_metrics(path, tmp_path):
    golden = Golden(path)
    check = {'core': core, 'dataset_mean': dataset_mean, '3d': three_d, 'perception_test': perception_test}
    if kind(golden) == 'readers':
        readers(golden, tmp_path)
    else:
        check[kind(golden)](golden)
    golden.assert_all_compared()


def core(golden: Golden) -> None:
    variants = {'out': {}, 'trackwise': dict(trackwise=True), 'cotracker': dict(protocol='cotracker')}
    for case in golden['cases'].tolist():
        arrays = [golden[f'{case}/{key}'] for key in INPUTS]
        for name, options in variants.items():
            metrics = compute_tapvid_metrics(*arrays, str(golden[f'{case}/query_mode']), **options)
            assert_metrics(golden, f'{case}/{name}/', metrics)
        if f'{case}/trackgroup' in golden:
            queries = sample_queries_strided(golden[f'{case}/raw_occluded'], golden[f'{case}/raw_points'])
            assert np.array_equal(queries['trackgroup'], golden[f'{case}/trackgroup'])
            assert np.array_equal(queries['query_points'][None], arrays[0])
            assert np.array_equal(queries['occluded'][None], arrays[1])
            assert np.array_equal(queries['target_points'][None], arrays[2])


def dataset_mean(golden: Golden) -> None:
    rows = []
    cases = golden['cases'].tolist()
    for case in cases:
        mode = str(golden[f'{case}/query_mode']) if f'{case}/query_mode' in golden else 'first'
        rows.append(compute_tapvid_metrics(*(golden[f'{case}/{key}'] for key in INPUTS), mode))
        assert_metrics(golden, f'{case}/out/', rows[-1])
    assert_metrics(golden, 'mean/', {key: np.mean([row[key][0] for row in rows]) for key in rows[0]})


def three_d(golden: Golden) -> None:
    arrays = {key: array[None] for key, array in golden.group('in/').items()}
    order = ('gt_occluded', 'gt_tracks', 'pred_occluded', 'pred_tracks', 'intrinsics_params')
    for scaling in golden['cases'].tolist():
        metrics = compute_tapvid3d_metrics(
            *(arrays[key] for key in order), scaling=scaling, query_points=arrays['query_points']
        )
        assert_metrics(golden, f'{scaling}/', metrics)


def perception_test(golden: Golden) -> None:
    labels, results = json.loads(str(golden['labels_json'])), json.loads(str(golden['results_json']))
    scores = score_perception_test(labels, results)
    assert abs(scores['average_jaccard'] - golden['average_jaccard']) <= EXACT
    printed = [float(line.rpartition(':')[2]) for line in str(golden['stdout']).strip().splitlines()]
    ours = [scores[f'average_jaccard{part}'] for part in ('', '_static', '_moving')]
    np.testing.assert_allclose(ours, printed, rtol=0, atol=EXACT)
    arrays = [golden[f'legacy/in/{key}'] for key in INPUTS]
    for name, protocol in (('legacy', 'perception_test'), ('current', 'tapnet')):
        for mode in ('first', 'strided'):
            metrics = compute_tapvid_metrics(*arrays, mode, protocol=protocol)
            assert_metrics(golden, f'{name}/{mode}/', metrics)


# Readers


def compare_item(golden: Golden, prefix: str, item: dict, *, grey_levels: float = 0) -> None:
    sample = item['data_samples']
    points = sample.points
    assert np.array_equal(points.query_txy[None][..., [0, 2, 1]], golden[f'{prefix}/query_points']), prefix
    assert np.array_equal(points.xy_px[None], golden[f'{prefix}/target_points']), prefix
    assert np.array_equal(~points.visible[None], golden[f'{prefix}/occluded']), prefix
    if f'{prefix}/trackgroup' in golden:
        assert np.array_equal(points.group[None], golden[f'{prefix}/trackgroup']), prefix
    if f'{prefix}/video' in golden:
        error = np.abs(signed_video(sample.video)[None] - golden[f'{prefix}/video']).max() * 127.5
        assert error <= grey_levels + 1e-3, prefix
    assert np.array_equal(item['inputs'].numpy().transpose(0, 2, 3, 1), sample.video)


def dataset(path, **options):
    return DATASETS.build(dict(type='TapVidDataset', ann_file=str(path), **options))


def readers(golden: Golden, tmp_path) -> None:
    count = len([key for key in golden.keys('vid') if key.endswith('/points')])
    videos = {f'vid{i}': golden.group(f'vid{i}/') for i in range(count)}
    pickles(golden, tmp_path, videos)
    kinetics(golden, tmp_path, videos)
    csv_chunks(golden, tmp_path, videos['vid0']['video'])
    kinetics_csv(golden)


def pickles(golden: Golden, tmp_path, videos: dict) -> None:
    (tmp_path / 'davis.pkl').write_bytes(pickle.dumps(videos))
    (tmp_path / 'stack.pkl').write_bytes(pickle.dumps(list(videos.values())))
    # Keys are davis/<mode>/<h>x<w>/vid0/... and rgb_stacking/<mode>/vid0/... (at 32 x 32).
    for prefix in sorted({key.split('/vid')[0] for key in golden.keys('davis/') + golden.keys('rgb_stacking/')}):
        source, mode, *size = prefix.split('/')
        resolution = tuple(map(int, size[0].split('x'))) if size else (32, 32)
        name = 'davis' if source == 'davis' else 'stack'
        items = dataset(tmp_path / f'{name}.pkl', query_mode=mode, resolution=resolution)
        for i in range(len(videos)):
            compare_item(golden, '/'.join([source, mode, *size, f'vid{i}']), items[i])


def kinetics(golden: Golden, tmp_path, videos: dict) -> None:
    folder = tmp_path / 'kinetics'
    folder.mkdir()
    entries = [dict(video, video=golden[f'kinetics_in/{name}/jpeg']) for name, video in videos.items()]
    (folder / '0000_of_0010.pkl').write_bytes(pickle.dumps(entries))
    items = dataset(folder, query_mode='first', resolution=(32, 32))
    assert items.subset == 'kinetics'
    for i in range(len(videos)):
        compare_item(golden, f'kinetics/first/vid{i}', items[i], grey_levels=2)


def csv_chunks(golden: Golden, tmp_path, video: np.ndarray) -> None:
    text = str(golden['csv/text'])
    (tmp_path / 'list.csv').write_text(text)
    folder = tmp_path / text.split(',')[0]
    folder.mkdir()
    for i, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f'{i:05d}.png')
    for limit in sorted({key.split('/')[1] for key in golden.keys('csv/max')}):
        items = dataset(tmp_path / 'list.csv', resolution=(32, 32), max_video_frames=int(limit[3:]))
        assert len(items) == len({key.split('/')[2] for key in golden.keys(f'csv/{limit}/')})
        for i in range(len(items)):
            compare_item(golden, f'csv/{limit}/chunk{i}', items[i])


def kinetics_csv(golden: Golden) -> None:
    width, height = golden['kinetics_csv/width_height'].tolist()
    frames = [decode_jpeg(data, where='jpeg') for data in golden['kinetics_csv/jpeg'].tolist()]
    assert {frame.shape for frame in frames} == {(height, width, 3)}
    points = shift_kinetics_points(golden['kinetics_csv/in_points'], (height, width))[:, : len(frames)]
    np.testing.assert_allclose(points, golden['kinetics_csv/out/points'], rtol=0, atol=EXACT)
    occluded = golden['kinetics_csv/in_occluded'][:, : len(frames)]
    assert np.array_equal(occluded, golden['kinetics_csv/out/occluded'])
