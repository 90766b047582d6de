"""Errors, alignments and consistency of depth against the official evaluators."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.parity.goldens import Golden, golden_files
from trecvit_dense.evaluation import depth_files
from trecvit_dense.evaluation import depth_protocols as rules
from trecvit_dense.evaluation.functional import depth, depth_protocols, depth_time

PRECISION = 1e-6  # float32 programs; the official delta is float32 even where the rest is not
FIT = 1e-9
OFFICIAL_NAMES = {
    'abs_relative_difference': 'AbsRel',
    'squared_relative_difference': 'SqRel',
    'rmse_linear': 'RMSE',
    'rmse_log': 'logRMSE',
    'log10': 'log10',
    'i_rmse': 'iRMSE',
    'silog_rmse': 'SILog',
    **{f'delta{k}_acc': f'delta{k}' for k in (1, 2, 3)},
}
MARIGOLD = dict(silog='marigold', log10='pixels')
THREE = ('AbsRel', 'RMSE', 'delta1')


def same(actual, expected, name, tol=PRECISION):
    np.testing.assert_allclose(actual, expected, rtol=tol, atol=1e-12, equal_nan=True, err_msg=name)


# The ids of the tests contain the stem of the file.
@pytest.mark.parametrize('path', golden_files('depth_vda_eval'))
def test_video_depth_anything(path):
    golden = Golden(path)
    for case in golden['cases'].tolist():
        one = golden.group(f'{case}/')
        scores = depth_protocols.video_depth_anything(
            one['pred_disp'],
            metres(one),
            cap_m=one['max_depth'].item(),
            crop=one['crop_abcd'].tolist(),
            max_frames=one['max_eval_len'].item(),
            missing=tuple(one['missing_frames'].tolist()),
        )
        same([scores['scale'], scores['shift']], one['scale_shift'], f'{case} fit', FIT)
        same([scores[name] for name in THREE], one['absrel_rmse_delta1'], case)
        same([scores[OFFICIAL_NAMES[name]] for name in one['all_names']], one['all_values'], case)
    golden.assert_all_compared()


def metres(one: dict) -> np.ndarray:
    raw = one['gt_raw_u16']
    return np.where(raw > 0, raw / one['factor'].item(), -1)


@pytest.mark.parametrize('path', golden_files('depth_vda_eval'))
def test_video_depth_anything_from_files(path, tmp_path):
    """The same through a JSON list, 16-bit PNGs and .npy files, as ``trecvit eval-depth --protocol vda`` reads them."""
    golden = Golden(path)
    for case in golden['cases'].tolist():
        one = golden.group(f'{case}/')
        listed = tmp_path / case / 'list.json'
        listed.parent.mkdir()
        frames = []
        for t, (raw, disparity) in enumerate(zip(one['gt_raw_u16'], one['pred_disp'], strict=True)):
            cv2.imwrite(str(listed.parent / f'gt{t}.png'), raw)
            if t not in one['missing_frames']:
                np.save(listed.parent / f'{t}.npy', disparity)
            frames.append(dict(image=f'{t}.jpg', gt_depth=f'gt{t}.png', factor=one['factor'].item()))
        listed.write_text(json.dumps({case: [{'scene': frames}]}))
        (files,) = depth_files.find_clips(listed, listed.parent, units_per_metre=1, allow_missing=True)
        limits = rules.Limits(one['max_depth'].item(), one['crop_abcd'].tolist(), one['max_eval_len'].item())
        clip = depth_files.read_clip(files, kind='disparity', max_frames=limits.max_frames)
        scores, weight = rules.score_clip('vda', clip, limits)
        assert weight == 1
        same([scores[name] for name in THREE], one['absrel_rmse_delta1'], case)


@pytest.mark.parametrize('path', golden_files('depth_metric_functions'))
def test_functions(path):
    golden = Golden(path)
    for case in golden['cases'].tolist():
        truth, prediction, mask = (golden[f'{case}/{key}'] for key in ('gt', 'pred', 'mask'))
        for prefix, valid in ((f'{case}/', mask), (f'{case}/nomask/', None)):
            scores = depth.clip_errors(prediction, truth, valid, **MARIGOLD)
            for name, ours in OFFICIAL_NAMES.items():
                if prefix + name in golden:
                    same(scores[ours], golden[prefix + name], prefix + name)
    golden.assert_all_compared()


@pytest.mark.parametrize('path', golden_files('depth_tae'))
def test_alignment_error(path):
    golden = Golden(path)
    for case in golden['cases'].tolist():
        one = golden.group(f'{case}/')
        if 'abs_rel' in one:
            keys = ('depth1', 'depth2', 'K', 'R_2_1', 't_2_1', 'mask')
            same(depth_time.official_pair_error(*(one[key] for key in keys)), one['abs_rel'], case, FIT)
            continue
        tae = depth_time.official_tae(
            one['pred_disp'],
            one['gt_raw_u16'] / one['factor'].item(),
            one['K'][:3, :3],
            one['poses_c2w'],
            cap_m=one['max_depth'].item(),
            crop=one['crop_abcd'].tolist(),
            crop_prediction=bool(one['hard_crop']),
        )
        same(tae, one['tae'], case, FIT)
    golden.assert_all_compared()


@pytest.mark.parametrize('path', golden_files('depth_depthcrafter_eval'))
def test_depthcrafter(path):
    golden = Golden(path)
    for case in golden['cases'].tolist():
        one = golden.group(f'{case}/')
        scores = depth_protocols.depthcrafter(
            one['pred'],
            one['gt'],
            cap_m=one['max_depth'].item(),
            domain=str(one['domain']),
            max_frames=one['seq_len'].item(),
        )
        same([scores['scale'], scores['shift']], one['scale_shift'], f'{case} fit', 1e-8)
        same([scores[name] for name in THREE], one['absrel_rmse_delta1'], case)
    golden.assert_all_compared()


MONST3R_NAMES = dict(zip(
    ('Abs Rel', 'Sq Rel', 'RMSE', 'Log RMSE', 'delta < 1.25', 'delta < 1.25^2', 'delta < 1.25^3', 'valid_pixels'),
    ('AbsRel', 'SqRel', 'RMSE', 'logRMSE', 'delta1', 'delta2', 'delta3', 'valid_pixels'),
    strict=True,
))  # fmt: skip
MONST3R_ARGUMENTS = dict(
    max_depth='cap_m',
    disp_input='disparity',
    post_clip_min='clip_min_m',
    post_clip_max='clip_max_m',
    lr='rate',
    max_iters='iterations',
)
ITERATIVE = 1e-3


@pytest.mark.parametrize('path', golden_files('depth_monst3r_alignments'))
def test_monst3r(path):
    golden = Golden(path)
    truth = golden['gt']
    predictions = {True: golden['pred_disp'], False: golden['pred_depth']}
    for case in golden['cases'].tolist():
        kwargs = {}
        if f'{case}/kwargs_json' in golden:
            official = json.loads(str(golden[f'{case}/kwargs_json']))
            aligned = [name[len('align_with_') :] for name, on in official.items() if name.startswith('align_') and on]
            kwargs = {MONST3R_ARGUMENTS[k]: v for k, v in official.items() if not k.startswith('align_with_')}
            kwargs['align'] = aligned[0] if aligned else 'median'
        empty = case == 'no_valid_pixels'
        prediction = predictions[kwargs.get('disparity', False)]
        scores = depth_protocols.monst3r(prediction, np.zeros_like(truth) if empty else truth, **kwargs)
        values = [scores[MONST3R_NAMES[name]] for name in golden[f'{case}/names']]
        # The end of 'scale' hangs on the order of float32 sums, which differs between machines.
        iterative = kwargs.get('align') in ('lad', 'lad2', 'scale')
        same(values, golden[f'{case}/values'], case, ITERATIVE if iterative else PRECISION)
    golden.assert_all_compared()


MONODEPTH_NAMES = ('AbsRel', 'SqRel', 'RMSE', 'logRMSE', 'delta1', 'delta2', 'delta3')
BTS_NAMES = ('SILog', 'log10', 'AbsRel', 'SqRel', 'RMSE', 'logRMSE', 'delta1', 'delta2', 'delta3')
MONODEPTH_CASES = dict(
    eigen_median=dict(),
    eigen_noscale=dict(median_scaling=False),
    benchmark_median=dict(split='eigen_benchmark'),
)
BTS_CROPS = dict(kitti_garg='garg', kitti_eigen='eigen_kitti', kitti_nocrop=None, nyu_eigen='eigen_nyu')


@pytest.mark.parametrize('path', golden_files('depth_image_protocols'))
def test_images(path):
    golden = Golden(path)
    monodepth2(golden)
    for case, crop in BTS_CROPS.items():
        one = golden.group(f'bts/{case}/')
        truth, prediction = (one[key].astype(np.float32) for key in ('gt', 'pred'))
        scores = depth_protocols.bts(prediction, truth, cap_m=one['max_depth'].item(), crop=crop)
        same([scores[name] for name in BTS_NAMES], one['values'], case)
    assert golden['bts/names'].tolist() == ['silog', 'log10', 'abs_rel', 'sq_rel', 'rms', 'log_rms', 'd1', 'd2', 'd3']
    marigold(golden)
    golden.assert_all_compared(ignore=['velodyne/*'])  # test_depth_encodings.py compares them


def monodepth2(golden: Golden) -> None:
    assert len(golden['monodepth2/names']) == len(MONODEPTH_NAMES)
    predictions = golden['monodepth2/pred_disp']
    truths = [golden[f'monodepth2/gt{i}'] for i in range(len(predictions))]
    for case, options in MONODEPTH_CASES.items():
        images = [
            depth_protocols.monodepth2(one, truth, **options) for one, truth in zip(predictions, truths, strict=True)
        ]
        errors = np.array([[image[name] for name in MONODEPTH_NAMES] for image in images])
        same(errors, golden[f'monodepth2/{case}/errors'], case)
        same(errors.mean(0), golden[f'monodepth2/{case}/mean'], case)
        ratios = golden[f'monodepth2/{case}/ratios']
        if options.get('median_scaling', True):
            same([image['scale'] for image in images], ratios, case)
        else:
            assert not len(ratios)


def marigold(golden: Golden) -> None:
    truth, prediction, mask = (golden[f'marigold/{key}'] for key in ('gt', 'pred', 'mask'))
    aligned, fit = depth_protocols.align_marigold(prediction, truth, mask)
    same(fit, golden['marigold/scale_shift'], 'fit')
    same(aligned, golden['marigold/aligned'], 'aligned')
    for key in golden.keys('marigold/maxres'):
        side = int(key.split('/')[1].removeprefix('maxres'))
        _, fit = depth_protocols.align_marigold(prediction, truth, mask, max_resolution=side)
        same(fit, golden[key], key)


@pytest.mark.parametrize('path', golden_files('depth_opw'))
def test_warping_error(path):
    golden = Golden(path)
    for case in golden['cases'].tolist():
        one = golden.group(f'{case}/')
        (before, after), flow = (one[f'depth_{key}'][0, 0] for key in ('prev', 'cur')), one['flow_cur_to_prev'][0]
        flow = flow.transpose(1, 2, 0)
        same_max(depth_time.warp(before, flow), one['warped_depth'][0, 0], f'{case} warp')
        images = [one[f'rgb_{key}'][0].transpose(1, 2, 0) for key in ('prev', 'cur')]
        error = depth_time.warping_error(before, after, depth_time.colour_weight(*images, flow), flow)
        same(error, one['loss'], case, 1e-5)
    golden.assert_all_compared()


def same_max(actual, expected, name):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name)
