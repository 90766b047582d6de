"""MMEngine metrics and the table: keys, scaling, baselines, degenerate videos, and what is said to the user."""

import numpy as np
import pytest

from trecvit_dense.evaluation import AJRDMetric, PointOdysseyMetric, TapVidMetric, format_table
from trecvit_dense.registry import METRICS
from trecvit_dense.structures import PointTracks, VideoSample


def make_sample(name='a', *, size=(64, 128), frames=6, points=3, mode='first', shift=(0.0, 0.0), reset=False):
    """Points move 1 px a frame; point 0 is hidden on frame 2. The prediction is off by ``shift`` px."""
    start = np.stack([np.linspace(5, 20, points), np.linspace(5, 20, points)], axis=-1)
    xy = start[:, None] + np.arange(frames)[None, :, None] * np.array([1.0, 0.0])
    visible = np.ones((points, frames), bool)
    visible[0, 2 % frames] = frames < 3
    query = np.concatenate([np.zeros((points, 1)), xy[:, 0]], axis=1)
    sample = VideoSample(
        np.zeros((frames, *size, 3), np.uint8), PointTracks(xy, visible, query), name=name, meta=dict(query_mode=mode)
    )
    sample.predictions['points'] = PointTracks(xy + np.array(shift), visible, query)
    if reset:
        sample.predictions['points_reset'] = PointTracks(xy + 50.0, visible, query)
    return sample


def run(metric, *samples):
    for sample in samples:
        metric.process(None, [sample])
    return metric.evaluate(len(samples))


def test_keys_carry_the_protocol_and_perfect_is_one():
    metrics = run(TapVidMetric(), make_sample())
    assert metrics['tapvid/first/256/AJ'] == metrics['tapvid/first/256/OA'] == 1
    for d in (1, 2, 4, 8, 16):
        assert metrics[f'tapvid/first/256/delta_{d}'] == metrics[f'tapvid/first/256/jaccard_{d}'] == 1
    assert metrics['tapvid/first/256/num_points'] == 3
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert 'synthetic/strided/256/AJ' in run(TapVidMetric('synthetic'), make_sample(mode='strided'))
    assert 'tapvid/strided/256/AJ' in run(TapVidMetric(query_mode='strided'), make_sample(mode='random'))


def test_errors_are_measured_on_256():
    # 1.5 px of a frame 128 wide are 3 px of 256; 1.5 px of a frame 64 high are 6.
    wide = run(TapVidMetric(), make_sample(shift=(1.5, 0)))
    assert wide['tapvid/first/256/delta_2'] == 0 and wide['tapvid/first/256/delta_4'] == 1
    high = run(TapVidMetric(), make_sample(shift=(0, 1.5)))
    assert high['tapvid/first/256/delta_4'] == 0 and high['tapvid/first/256/delta_8'] == 1


def test_zero_motion_stands_beside_the_model():
    metrics = run(TapVidMetric(), make_sample())
    # 1 px a frame at 128 wide: 2, 4, 6, 8, 10 px at 256, for two points; the third is hidden at 4 px.
    within = {1: 0, 2: 0, 4: 3, 8: 8, 16: 14}
    for d, count in within.items():
        assert metrics[f'tapvid/first/256/zero_motion/delta_{d}'] == pytest.approx(count / 14)
    assert metrics['tapvid/first/256/zero_motion/OA'] == pytest.approx(14 / 15)


def test_points_that_come_back_and_state_reset():
    metrics = run(TapVidMetric(), make_sample(reset=True))
    assert metrics['tapvid/first/256/reappear/num_points'] == 1
    assert metrics['tapvid/first/256/reappear/AJ'] == 1
    assert metrics['tapvid/first/256/reset/AJ'] == metrics['tapvid/first/256/reset/reappear/AJ'] == 0
    table = format_table(metrics)
    assert 'changes their AJ by -1.000' in table
    without = run(TapVidMetric(), make_sample(frames=2))
    assert not any('reappear' in key or 'reset' in key for key in without)


def test_videos_without_score_are_named():
    good, bad = make_sample('good', shift=(1.5, 0)), make_sample('bad', frames=1)
    with pytest.warns(UserWarning, match='no visible point to evaluate: bad'):
        metrics = run(TapVidMetric(), good, bad)
    assert metrics['tapvid/first/256/num_videos'] == 1
    assert metrics['tapvid/first/256/AJ'] == run(TapVidMetric(), good)['tapvid/first/256/AJ']
    assert np.isnan(run(TapVidMetric(nan_policy='official'), good, bad)['tapvid/first/256/AJ'])


def test_nan_predictions_count_as_wrong():
    sample = make_sample()
    sample.predictions['points'].xy_px[:] = np.nan
    metrics = run(TapVidMetric(), sample)
    assert metrics['tapvid/first/256/AJ'] == metrics['tapvid/first/256/delta_avg'] == 0


def test_per_video_rows_and_mean():
    samples = make_sample('one'), make_sample('two', shift=(1.5, 0))
    metrics = run(TapVidMetric(per_video=True), *samples)
    rows = [metrics[f'tapvid/first/256/per_video/{name}/AJ'] for name in ('one', 'two')]
    assert metrics['tapvid/first/256/AJ'] == pytest.approx(np.mean(rows))
    table = format_table(metrics)
    assert 'one' in table and 'two' in table and 'zero motion' in table


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='query_mode'):
        TapVidMetric(query_mode='last')
    with pytest.raises(ValueError, match='nan_policy'):
        TapVidMetric(nan_policy='no')
    with pytest.raises(TypeError, match="did you mean 'query_mode'"):
        METRICS.build(dict(type='TapVidMetric', query_mod='first'))
    sample = make_sample()
    sample.predictions.clear()
    with pytest.raises(ValueError, match='has no predictions'):
        TapVidMetric().process(None, [sample])
    sample = make_sample()
    sample.predictions['points'] = PointTracks(np.zeros((2, 6, 2)), np.ones((2, 6), bool))
    with pytest.raises(ValueError, match='one predicted row per query'):
        TapVidMetric().process(None, [sample])
    sample.points = None
    with pytest.raises(ValueError, match='no annotated points'):
        TapVidMetric().process(None, [sample])


def test_aj_rd_pools_events_or_videos():
    samples = make_sample('one'), make_sample('two', shift=(20.0, 0))
    events = run(AJRDMetric(), *samples)
    assert events['tapvid/aj_rd/256/num_events'] == 2
    assert events['tapvid/aj_rd/256/AJ_RD'] == pytest.approx(0.5)
    assert run(AJRDMetric(pool='videos'), *samples)['tapvid/aj_rd/256/AJ_RD'] == pytest.approx(0.5)
    nothing = run(AJRDMetric(), make_sample(frames=2))
    assert np.isnan(nothing['tapvid/aj_rd/256/AJ_RD'])
    assert format_table(nothing)


def test_point_odyssey_metric():
    metrics = run(PointOdysseyMetric(), make_sample())
    assert metrics['pointodyssey/pips2/256/d_avg'] == pytest.approx(100, rel=1e-5)
    assert metrics['pointodyssey/pips2/256/zero_motion/d_avg'] < 60
    sample = make_sample('blind')
    sample.meta['valid'] = np.ones((3, 6), bool)
    sample.meta['valid'][0] = False
    with pytest.warns(UserWarning, match='blind'):
        assert np.isnan(run(PointOdysseyMetric(), sample)['pointodyssey/pips2/256/median_l2'])
    other = run(PointOdysseyMetric(variant='cotracker'), make_sample(shift=(20, 0)))
    assert other['pointodyssey/cotracker/256/survival'] == 100  # 40 px of 256: below 50
    strict = run(PointOdysseyMetric(variant='cotracker', survival_threshold_px=16), make_sample(shift=(20, 0)))
    assert strict['pointodyssey/cotracker/256/survival'] == 0


def test_table_of_anything():
    table = format_table({'nyu/delta_1': 0.5, 'kitti/AbsRel': float('nan'), 'x/none': None})
    assert 'nyu/delta_1' in table and '0.500' in table and table.count('-') >= 2
    assert format_table({}) == ''
