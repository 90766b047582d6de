"""AJ_RD against the official function; float32 there, so 1e-6 relative, events exact."""

import numpy as np
import pytest

from tests.parity.goldens import Golden, golden_files
from trecvit_dense.evaluation.functional.aj_rd import compute_aj_rd, invisible_run


@pytest.mark.parametrize('path', golden_files('aj_rd_'))
def test_aj_rd(path):
    golden = Golden(path)
    for case in golden['cases'].tolist():
        check_case(golden, case)
    golden.assert_all_compared()


def check_case(golden: Golden, case: str) -> None:
    arrays = [golden[f'{case}/{key}'] for key in ('pred_tracks', 'pred_visible', 'gt_tracks', 'gt_visible')]
    options = {}
    for ours, theirs in (('dist_thresholds', 'dist_thresholds'), ('min_durations', 'd_min_thresholds')):
        if f'{case}/{theirs}' in golden:
            options[ours] = tuple(golden[f'{case}/{theirs}'].tolist())
    metrics, events = compute_aj_rd(*arrays, **options)
    assert list(metrics) == golden[f'{case}/out_names'].tolist()
    values = golden[f'{case}/out_values']
    np.testing.assert_allclose(list(metrics.values()), values, rtol=1e-6, atol=0, equal_nan=True, err_msg=case)
    assert bool(golden[f'{case}/has_events']) == bool(len(events['b']))
    if f'{case}/invisible_run' in golden:
        assert np.array_equal(invisible_run(arrays[3]), golden[f'{case}/invisible_run'])
    for key, expected in golden.group(f'{case}/event_').items():
        np.testing.assert_allclose(events[key], expected, rtol=1e-6, atol=0, err_msg=f'{case} {key}')
