"""The metric outputs that the TAPNext references carry: TAP-Vid and AJ_RD on one batch, float32."""

import numpy as np
import pytest

from tests.parity.goldens import Golden, golden_files
from trecvit_dense.evaluation.functional.aj_rd import compute_aj_rd
from trecvit_dense.evaluation.functional.tapvid import compute_tapvid_metrics

INPUTS = ('query_points', 'gt_occluded', 'gt_tracks', 'pred_occluded', 'pred_tracks')


@pytest.mark.parametrize('path', golden_files('tapnext_metrics_'))
def test_tapnext_metrics(path):
    golden = Golden(path)
    query, gt_occluded, gt_tracks, pred_occluded, pred_tracks = (golden[key] for key in INPUTS)
    for mode in ('first', 'strided'):
        metrics = compute_tapvid_metrics(query, gt_occluded, gt_tracks, pred_occluded, pred_tracks, mode)
        for key, expected in golden.group(f'tapvid/{mode}/').items():
            np.testing.assert_allclose(
                metrics[key], expected, rtol=1e-6, atol=0, equal_nan=True, err_msg=f'{mode} {key}'
            )
    config = golden.config
    metrics, events = compute_aj_rd(
        pred_tracks.transpose(0, 2, 1, 3),
        ~pred_occluded.transpose(0, 2, 1),
        gt_tracks.transpose(0, 2, 1, 3),
        ~gt_occluded.transpose(0, 2, 1),
        dist_thresholds=tuple(config['thresholds']),
        min_durations=tuple(config['d_min']),
    )
    listed = {key for key in golden.group('ajrd/') if key.startswith('AJ_RD')}
    assert listed == {key for key, value in metrics.items() if not np.isnan(value)}
    for key in listed:
        np.testing.assert_allclose(metrics[key], golden[f'ajrd/{key}'], rtol=1e-6, atol=0, err_msg=key)
    assert np.array_equal(np.stack([events[axis] for axis in 'btn'], axis=-1), golden['ajrd/raw/indices_b_t_n'])
    assert np.array_equal(events['duration'], golden['ajrd/raw/durations'])
    for key, expected in golden.group('ajrd/raw/aj_rd_D').items():
        np.testing.assert_allclose(events[f'aj_rd_D{key}'], expected, rtol=1e-6, atol=0, err_msg=key)
    golden.assert_all_compared()
