"""The metric of depth: keys, alignments, baselines, refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from trecvit_dense.evaluation import DepthMetric, format_table
from trecvit_dense.evaluation.functional import depth_protocols
from trecvit_dense.structures import DepthMap, DepthPrediction, VideoSample

CLIP = 'scale_shift_disparity_clip'


def make_sample(seed=0, frames=5, size=(24, 36), name='clip', poses=True):
    """A wavy wall, and a camera that moves along it."""
    rng = np.random.default_rng(seed)
    height, width = size
    x = np.arange(width) / width
    depth = np.stack([2 + np.sin(5 * x + 0.05 * t)[None] + np.linspace(0, 2, height)[:, None] for t in range(frames)])
    valid = rng.random(depth.shape) > 0.1
    intrinsics = np.array([[30.0, 0, width / 2], [0, 30, height / 2], [0, 0, 1]])
    camera = np.tile(np.eye(4), (frames, 1, 1))
    camera[:, 0, 3] = 0.02 * np.arange(frames)
    truth = DepthMap(depth.astype(np.float32), valid, intrinsics if poses else None, camera if poses else None)
    video = rng.integers(0, 255, (frames, *size, 3), np.uint8)
    disparity = (3 / depth + 1).astype(np.float32)
    predictions = {'depth': DepthPrediction(disparity)}
    return VideoSample(video, depth=truth, name=name, predictions=predictions)


def evaluate(*samples, **options):
    metric = DepthMetric('toy', **options)
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_depth_metric_perfect_up_to_scale_and_shift():
    metrics = evaluate(make_sample(), make_sample(1, name='other'))
    assert metrics[f'toy/{CLIP}/AbsRel'] < 1e-5
    assert metrics[f'toy/{CLIP}/delta1'] == 1
    assert metrics[f'toy/{CLIP}/flicker'] < 1e-5
    assert metrics[f'toy/{CLIP}/num_clips'] == 2 and metrics[f'toy/{CLIP}/num_frames'] == 10
    assert 0.1 < metrics[f'toy/{CLIP}/constant_frame/AbsRel'] <= metrics[f'toy/{CLIP}/constant_clip/AbsRel']
    names = {key.rpartition('/')[2] for key in metrics}
    assert names == set('AbsRel SqRel RMSE logRMSE log10 iRMSE SILog delta1 delta2 delta3 TAE flicker'.split()) | {
        'num_clips',
        'num_frames',
    }


def test_depth_metric_alignments_do_what_they_say():
    sample = make_sample()
    truth = sample.depth.depth_m
    per_frame = np.array([1, 2, 3, 2, 1], np.float32)[:, None, None]
    wanted = {
        'none': truth,
        'scale_depth_clip': 3 * truth,
        'scale_depth_frame': per_frame * truth,
        'scale_shift_depth_clip': 3 * truth + 1,
        'scale_shift_depth_frame': per_frame * truth + per_frame,
        'scale_disparity_clip': truth / 3,
        'scale_disparity_frame': per_frame * truth,
        CLIP: 1 / (2 / truth + 1),
        'scale_shift_disparity_frame': 1 / (per_frame / truth + per_frame),
    }
    names = list(wanted)
    for name, values in wanted.items():
        sample.predictions['depth'] = DepthPrediction(values.astype(np.float32), 'depth')
        metrics = evaluate(sample, alignment=names, temporal=False)
        good = {other for other in names if metrics[f'toy/{other}/AbsRel'] < 1e-4}
        assert name in good, name
        assert 'none' not in good or name == 'none'
    least = evaluate(sample, alignment='scale_depth_frame', scale_fit='least_squares', temporal=False)
    assert least['toy/scale_depth_frame/AbsRel'] != metrics['toy/scale_depth_frame/AbsRel']


def test_depth_metric_takes_disparity_to_depth():
    sample = make_sample()
    sample.predictions['depth'] = DepthPrediction((0.01 / sample.depth.depth_m).astype(np.float32))
    assert evaluate(sample, alignment='scale_depth_clip')['toy/scale_depth_clip/AbsRel'] < 1e-5


def test_depth_metric_resizes_predictions():
    sample = make_sample()
    sample.predictions['depth'] = DepthPrediction(sample.predictions['depth'].values[:, ::2, ::2])
    assert evaluate(sample)[f'toy/{CLIP}/AbsRel'] < 0.02


def test_depth_metric_state_reset_and_flicker():
    sample = make_sample()
    shaken = sample.predictions['depth'].values * np.array([1, 1.2, 1, 1.2, 1], np.float32)[:, None, None]
    sample.predictions['depth_reset'] = DepthPrediction(shaken)
    metrics = evaluate(sample)
    assert metrics[f'toy/{CLIP}/reset/flicker'] > 0.1 > 1000 * metrics[f'toy/{CLIP}/flicker']
    assert metrics[f'toy/{CLIP}/reset/TAE'] > metrics[f'toy/{CLIP}/TAE']


def test_depth_metric_crop_moves_the_principal_point():
    sample = make_sample()
    whole = evaluate(sample, crop=(4, 20, 6, 30))
    truth = sample.depth
    moved = truth.intrinsics - np.array([[0, 0, 6], [0, 0, 4], [0, 0, 0]])
    sample.depth = DepthMap(truth.depth_m[:, 4:20, 6:30], truth.valid[:, 4:20, 6:30], moved, truth.camera_to_world)
    sample.predictions['depth'] = DepthPrediction(sample.predictions['depth'].values[:, 4:20, 6:30])
    assert evaluate(sample) == pytest.approx(whole)
    official = evaluate(sample, tae='official')
    assert official[f'toy/{CLIP}/TAE'] != whole[f'toy/{CLIP}/TAE']
    assert official[f'toy/{CLIP}/flicker'] == whole[f'toy/{CLIP}/flicker']


def test_depth_metric_without_poses_has_no_tae():
    metrics = evaluate(make_sample(poses=False))
    assert not [key for key in metrics if key.endswith(('TAE', 'flicker', 'OPW'))]


def test_depth_metric_lost_poses_are_left_out():
    sample = make_sample()
    sample.depth.camera_to_world[2] = -np.inf
    assert np.isfinite(list(evaluate(sample).values())).all()


def test_depth_metric_opw_with_flow():
    sample = make_sample()
    flow = np.zeros((4, 24, 36, 2), np.float32)
    sample.meta['flow_to_previous'] = flow
    sample.video[:] = sample.video[0]
    assert 0 < evaluate(sample)[f'toy/{CLIP}/OPW'] < 5
    del sample.meta['flow_to_previous']
    assert f'toy/{CLIP}/OPW' in evaluate(sample, flow='dis')


def test_depth_metric_keeps_numbers_only():
    metric = DepthMetric('toy')
    metric.process(None, [make_sample(size=(60, 80))])

    def leaves(value):
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from leaves(item)
        if not isinstance(value, (dict, list)):
            yield value

    assert all(isinstance(leaf, (int, float, str)) for leaf in leaves(metric.results))


def test_depth_metric_protocols_stand_beside():
    sample = make_sample()
    sample.predictions['depth'].values[:] += np.random.default_rng(0).random((5, 24, 36)) * 0.2
    metrics = evaluate(sample, cap_m=4, crop=(2, -2, 3, -3), protocol='vda', per_sequence=True)
    truth = np.where(sample.depth.valid, sample.depth.depth_m, -1)
    values = sample.predictions['depth'].values[:, 2:-2, 3:-3]
    wanted = depth_protocols.video_depth_anything(values, truth, cap_m=4, crop=(2, -2, 3, -3))
    assert metrics['toy/vda/AbsRel'] == wanted['AbsRel'] == metrics['toy/vda/per_sequence/clip/AbsRel']
    assert metrics[f'toy/{CLIP}/AbsRel'] == pytest.approx(wanted['AbsRel'], rel=1e-3)
    with pytest.raises(ValueError, match="protocol 'vda' needs a cap"):
        DepthMetric('toy', protocol='vda')
    assert DepthMetric('kitti', protocol='vda').limits.crop == (0, 374, 0, 1242)


def test_depth_metric_table():
    sample = make_sample()
    sample.predictions['depth_reset'] = sample.predictions['depth']
    text = format_table(evaluate(sample, per_sequence=True))
    lines = text.splitlines()
    assert lines[0] == f'toy/{CLIP}: 1 clips, 5 frames'
    assert lines[1].split() == 'AbsRel SqRel RMSE logRMSE SILog delta1 delta2 delta3 TAE flicker'.split()
    starts = ('model', 'constant depth per frame', 'constant depth per clip', 'state reset')
    assert [line.startswith(start) for line, start in zip(lines[2:], starts, strict=False)] == [True] * 4
    assert lines[7].startswith('clip') and 'log10' not in text


def test_depth_metric_leaves_out_clips_without_truth_and_says_so():
    empty = make_sample(name='dark')
    empty.depth.valid[:] = False
    with pytest.warns(UserWarning, match=r'not scored: dark \(no pixel is valid\)'):
        metrics = evaluate(make_sample(), empty)
    assert metrics[f'toy/{CLIP}/num_clips'] == 1
    with pytest.raises(ValueError, match='nothing to score: dark'):
        evaluate(empty)


def test_depth_metric_notices_millimetres():
    sample = make_sample()
    sample.depth.depth_m *= 1000
    with pytest.raises(ValueError, match='none between 0.001 m and the cap of 80 m; are these millimetres?'):
        evaluate(sample, cap_m=80)


def test_depth_metric_says_when_near_and_far_are_swapped():
    sample = make_sample()
    sample.predictions['depth'] = DepthPrediction(-sample.predictions['depth'].values)
    with pytest.warns(UserWarning, match=r'are near and far swapped\?\): clip \(model\)'):
        metrics = evaluate(sample)
    assert metrics[f'toy/{CLIP}/AbsRel'] > 0.1


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_depth_metric_refuses_what_is_not_finite(value):
    sample = make_sample()
    sample.predictions['depth'].values[3, 2, :4] = value
    with pytest.raises(ValueError, match="video 'clip': frame 3: 4 of 864 values of the prediction are not finite"):
        evaluate(sample)


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        (lambda s: setattr(s, 'depth', None), {}, "video 'clip' has no depth"),
        (lambda s: s.predictions.clear(), {}, r"no predictions\['depth'\]; does the model have a head named depth"),
        (lambda s: None, dict(alignment='none'), "alignment is 'none', but the prediction is disparity of unknown"),
        (
            lambda s: s.predictions.update(depth=DepthPrediction(np.ones((3, 24, 36), np.float32))),
            {},
            'prediction has 3 frames, truth 5',
        ),
        (
            lambda s: s.predictions.update(depth=DepthPrediction(-np.ones((5, 24, 36), np.float32))),
            dict(alignment='scale_disparity_clip'),
            'no positive scale fits the disparity',
        ),
        (lambda s: None, dict(crop='kb'), "video 'clip': crop kb takes rows"),
    ],
)
def test_depth_metric_refuses(change, options, message):
    sample = make_sample()
    change(sample)
    with pytest.raises(ValueError, match=message):
        evaluate(sample, **options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(alignment='scale_shift'), "alignment is 'scale_shift'; did you mean"),
        (dict(scale_fit='mean'), "scale_fit is 'mean'; wanted one of median, least_squares"),
        (dict(silog='x'), "silog is 'x'"),
        (dict(tae='x'), "tae is 'x'"),
        (dict(flow='gmflow'), "flow is 'gmflow'; wanted 'dis'"),
        (dict(cap_m=0), 'wanted a cap above the minimum'),
        (dict(protocol='vdb', cap_m=1), "protocol is 'vdb'; did you mean 'vda'"),
    ],
)
def test_depth_metric_refuses_unknown_names(options, message):
    with pytest.raises(ValueError, match=message):
        DepthMetric('toy', **options)


def test_depth_metric_is_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sample = make_sample()
        sample.depth.depth_m[~sample.depth.valid] = np.nan
        evaluate(sample, cap_m=10)
        sample.depth.depth_m[~sample.depth.valid] = 0
        evaluate(sample, cap_m=10)
