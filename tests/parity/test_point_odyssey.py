"""PointOdyssey evaluators and reader against the official ones; float32 there, so 1e-6 relative."""

import numpy as np
import pytest

from tests.parity.goldens import Golden, golden_files
from trecvit_dense.evaluation.functional.point_odyssey import cotracker_metrics, pips2_metrics, select_tracks


@pytest.mark.parametrize('path', golden_files('pointodyssey_'))
def test_point_odyssey(path):
    golden = Golden(path)
    cases = golden['cases'].tolist()
    if f'{cases[0]}/trajs_gt_raw' in golden:
        for case in cases:
            pips2_case(golden, case)
        if 'reader/trajs_2d' in golden:
            reader(golden)
    else:
        rows = [cotracker_case(golden, case) for case in cases]
        assert_metrics(golden, 'avg/', {key: np.mean([row[key] for row in rows]) for key in rows[0]})
    golden.assert_all_compared(
        ignore=[f'{case}/visibs' for case in cases]
    )  # an input that the pips2 evaluator does not look at


def assert_metrics(golden: Golden, prefix: str, metrics: dict[str, float]) -> None:
    expected = golden.group(prefix)
    assert expected and set(expected) <= set(metrics), prefix
    for key, value in expected.items():
        np.testing.assert_allclose(metrics[key], value, rtol=1e-6, atol=0, equal_nan=True, err_msg=prefix + key)


def pips2_case(golden: Golden, case: str) -> None:
    height, width = golden[f'{case}/image_size_hw'].tolist()
    raw_height, raw_width = golden[f'{case}/raw_size_hw'].tolist()
    gt = golden[f'{case}/trajs_gt_raw'] * np.array([width / raw_width, height / raw_height], np.float32)
    pred, valid = golden[f'{case}/trajs_pred_img'], golden[f'{case}/valids']
    metrics = pips2_metrics(gt, pred, valid, image_size=(height, width))
    assert_metrics(golden, f'{case}/out/', metrics)


def cotracker_case(golden: Golden, case: str) -> dict[str, float]:
    arrays = [golden[f'{case}/{key}'] for key in ('trajs_gt', 'trajs_pred', 'visibs')]
    metrics = cotracker_metrics(*arrays, image_size=tuple(golden[f'{case}/size_hw'].tolist()))
    assert_metrics(golden, f'{case}/out/', metrics)
    return metrics


def reader(golden: Golden) -> None:
    flags = golden['reader/visibilities']
    for count in sorted({key.split('/')[1] for key in golden.keys('reader/N')}):
        chosen = select_tracks(golden['reader/trajs_2d'], flags == 1, flags != 2, num_tracks=int(count[1:]))
        for ours, key in zip(chosen, ('trajs', 'visibs', 'valids'), strict=False):
            np.testing.assert_allclose(
                ours, golden[f'reader/{count}/{key}'], rtol=1e-6, atol=0, err_msg=f'{count} {key}'
            )
