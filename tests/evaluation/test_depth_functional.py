"""Errors, fits, crops and steadiness of depth against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.evaluation.functional import depth, depth_alignment, depth_crops, depth_protocols, depth_time

K = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])


def maps(seed=0, shape=(4, 32, 48)):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 9, shape)
    return truth * rng.uniform(0.8, 1.3, shape), truth, rng.random(shape) > 0.3


def cameras(frames, step=(0.0, 0, 0)):
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, 3] = np.arange(frames)[:, None] * np.array(step)
    return depth_time.Cameras(K, poses)


def test_depth_errors_are_their_definitions():
    p, g, valid = maps()
    errors = depth.clip_errors(p, g, valid)
    per_frame = [(a[v], b[v]) for a, b, v in zip(p, g, valid, strict=True)]
    d = [np.log(a) - np.log(b) for a, b in per_frame]
    assert errors['AbsRel'] == pytest.approx(np.mean([np.mean(abs(a - b) / b) for a, b in per_frame]))
    assert errors['RMSE'] == pytest.approx(np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in per_frame]))
    assert errors['logRMSE'] == pytest.approx(np.mean([np.sqrt(np.mean(x**2)) for x in d]))
    assert errors['SILog'] == pytest.approx(100 * np.mean([np.std(x) for x in d]))
    assert errors['delta1'] == pytest.approx(np.mean([np.mean(abs(x) < np.log(1.25)) for x in d]))
    pooled = depth.clip_errors(p, g, valid, pooling='pixels', silog='marigold')
    assert pooled['RMSE'] == pytest.approx(np.sqrt(np.mean((p[valid] - g[valid]) ** 2)))


def test_depth_silog_variants_differ_and_have_names():
    p, g, valid = maps()
    values = {name: depth.clip_errors(p, g, valid, silog=name)['SILog'] for name in depth.SILOG}
    assert len({round(value, 6) for value in values.values()}) == 3
    assert depth.clip_errors(2 * g, g)['SILog'] == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="silog is 'eigen'; wanted one of kitti, marigold"):
        depth.clip_errors(p, g, silog='eigen')


def test_depth_frames_without_valid_pixels_do_not_count():
    p, g, valid = maps()
    valid[1] = False
    kept = depth.clip_errors(p[[0, 2, 3]], g[[0, 2, 3]], valid[[0, 2, 3]])
    assert depth.clip_errors(p, g, valid) == kept
    assert all(np.isnan(value) for value in depth.clip_errors(p, g, np.zeros_like(valid)).values())


def test_depth_best_constant_is_the_best():
    rng = np.random.default_rng(3)
    for truth in (rng.uniform(0.5, 9, 501), np.round(rng.uniform(1, 5, 400), 1), np.array([3.0, 3.0])):
        best = depth.best_constant([truth[:200], truth[200:]])
        tried = np.concatenate([np.linspace(truth.min(), truth.max(), 400), truth])
        errors = np.abs(tried[:, None] - truth) / truth
        assert np.mean(abs(best - truth) / truth) <= errors.mean(1).min() + 1e-12


def test_depth_least_squares_streams():
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 1, 1000), rng.normal(2, 1, 1000)
    wanted = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
    parts = [(x[:100], y[:100]), (x[100:100], y[100:100]), (x[100:], y[100:])]
    np.testing.assert_allclose(depth_alignment.least_squares(parts), wanted, rtol=1e-10)
    flat = np.full(1000, 0.7)
    wanted = np.linalg.lstsq(np.stack([flat, np.ones_like(x)], 1), y, rcond=None)[0]
    np.testing.assert_allclose(depth_alignment.least_squares([(flat, y)]), wanted, rtol=1e-9)
    assert np.isnan(depth_alignment.least_squares([])).all()


def test_depth_scale_is_not_negative_when_it_must_not_be():
    x = np.linspace(1, 2, 50)
    assert depth_alignment.least_squares([(x, -x)])[0] == pytest.approx(-1)
    assert depth_alignment.least_squares([(x, -x)], positive=True) == (0.0, pytest.approx(-1.5))


def test_depth_alignment_names():
    assert len(depth_alignment.ALIGNMENTS) == 9
    found = depth_alignment.find_alignment('scale_shift_disparity_clip')
    assert (found.fit, found.space, found.scope) == ('scale_shift', 'disparity', 'clip')
    with pytest.raises(ValueError, match="did you mean 'scale_depth_frame'"):
        depth_alignment.find_alignment('scale_depth_frames')


@pytest.mark.parametrize(
    ('crop', 'size', 'wanted'),
    [
        (None, (10, 20), (0, 10, 0, 20)),
        ('garg', (375, 1242), (153, 371, 44, 1197)),
        ('eigen_kitti', (375, 1242), (124, 342, 44, 1197)),
        ('eigen_nyu', (480, 640), (45, 471, 41, 601)),
        ('kb', (375, 1242), (23, 375, 13, 1229)),
        ((8, -8, 11, -11), (480, 640), (8, 472, 11, 629)),
        ((0, 374, 0, 1242), (370, 1224), (0, 370, 0, 1224)),
    ],
)
def test_depth_crops(crop, size, wanted):
    assert depth_crops.find_crop(crop, size) == wanted


def test_depth_crops_are_refused():
    with pytest.raises(ValueError, match="crop is 'garq'; did you mean 'garg'"):
        depth_crops.find_crop('garq', (375, 1242))
    with pytest.raises(ValueError, match='which a frame of .100, 200. does not have'):
        depth_crops.find_crop('kb', (100, 200))


def plane(frames, step):
    """A wall at 4 m, seen by a camera that moves; exact depth."""
    walls = [np.full((32, 48), 4.0 - t * step[2], np.float32) for t in range(frames)]
    return np.stack(walls), cameras(frames, step)


def test_depth_tae_of_the_truth_is_small_and_grows_with_jitter():
    for step in ((0.1, 0, 0), (0, 0, 0.2)):
        truth, moving = plane(4, step)
        assert depth_time.tae(truth, moving) < 1e-3
        jitter = truth * np.array([1, 1.1, 1, 1.1], np.float32)[:, None, None]
        assert 4 < depth_time.tae(jitter, moving) < 12


def test_depth_tae_leaves_out_what_is_not_seen():
    truth, moving = plane(2, (100.0, 0, 0))
    assert np.isnan(depth_time.tae(truth, moving))
    truth, moving = plane(3, (0.1, 0, 0))
    moving.camera_to_world[1] = -np.inf  # a lost pose of ScanNet
    assert np.isnan(depth_time.tae(truth, moving))
    behind = depth_time.Cameras(K, np.stack([np.eye(4), np.diag([-1.0, 1, -1, 1])]))
    assert np.isnan(depth_time.tae(plane(2, (0, 0, 0))[0], behind))


def test_depth_tae_takes_the_nearest_surface():
    truth, moving = plane(2, (0.2, 0, 0))
    truth[0, :, 20:24] = 2.0  # a post moves twice as far as the wall and hides a part of it
    truth[1, :, 16:20] = 2.0
    assert depth_time.tae(truth, moving) < 5


def test_depth_flicker():
    truth, moving = plane(4, (0.1, 0, 0))
    valid = np.ones(truth.shape, bool)
    assert depth_time.flicker(truth * np.float32(3), truth, valid, moving) == pytest.approx(0, abs=1e-6)
    jitter = truth * np.array([1, 1.1, 1, 1.1], np.float32)[:, None, None]
    assert depth_time.flicker(jitter, truth, valid, moving) == pytest.approx(np.log(1.1), rel=1e-4)
    assert np.isnan(depth_time.flicker(jitter, truth, np.zeros_like(valid), moving))


def test_depth_flicker_looks_at_what_stands_still():
    truth, still = plane(2, (0, 0, 0))
    truth[1, :16] = 3.0  # the upper half comes nearer
    here, there = depth_time.static_places(truth, np.ones(truth.shape, bool), still, 0)
    assert np.array_equal(here, there)
    assert np.array_equal(np.unique(here // 48), np.arange(16, 32))


def test_depth_opw():
    rng = np.random.default_rng(0)
    video = np.repeat(rng.integers(0, 256, (1, 24, 30, 3), np.uint8), 3, axis=0)
    still = np.repeat(rng.uniform(1, 5, (1, 24, 30)).astype(np.float32), 3, axis=0)
    flow = np.zeros((2, 24, 30, 2), np.float32)
    assert depth_time.opw(still * np.array([1, 2, 3], np.float32)[:, None, None], video, flow) < 1e-4
    shaken = still + 0.3 * rng.random(still.shape).astype(np.float32)
    mean, official = depth_time.opw(shaken, video, flow), depth_time.opw(shaken, video, flow, official=True)
    assert mean > 1 and official == pytest.approx(mean * 2 / 3, rel=1e-5)


def test_depth_warp_moves_by_the_flow():
    values = np.random.default_rng(0).random((10, 12)).astype(np.float32)
    flow = np.zeros((10, 12, 2), np.float32)
    flow[..., 0], flow[..., 1] = 2, 1
    moved = depth_time.warp(values, flow)
    np.testing.assert_allclose(moved[:-1, :-2], values[1:, 2:], atol=1e-5)
    assert not moved[-1].any() and not moved[:, -2:].any()


def test_depth_resizing_has_half_pixel_centres():
    ramp = np.arange(8, dtype=np.float32)[None, None].repeat(4, 1)
    np.testing.assert_allclose(depth_crops.resize_maps(ramp, (4, 4))[0, 0], [0.5, 2.5, 4.5, 6.5])
    assert depth_crops.resize_maps(ramp, (4, 8)) is ramp


def test_depth_nvds_fits_outside_its_crop_as_well():
    truth = np.random.default_rng(0).uniform(1, 8, (480, 640))
    scores = depth_protocols.nvds((2 / truth + 0.3).astype(np.float32), truth)
    assert scores['AbsRel'] < 1e-4
    assert (scores['scale'], scores['shift']) == (pytest.approx(0.5, rel=1e-4), pytest.approx(-0.15, rel=1e-3))


def test_depth_videos_weigh_by_their_pixels():
    videos = [dict(AbsRel=0.1, valid_pixels=300.0), dict(AbsRel=0.5, valid_pixels=100.0)]
    assert depth_protocols.weighted_by_pixels(videos) == dict(AbsRel=pytest.approx(0.2), valid_pixels=400.0)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda p, g: depth_protocols.monst3r(p, g, align='mean'), "align is 'mean'"),
        (lambda p, g: depth_protocols.depthcrafter(p, g, cap_m=10, domain='log'), "domain is 'log'"),
        (lambda p, g: depth_protocols.monodepth2(p[0], g[0], split='odom'), "split is 'odom'"),
    ],
)
def test_depth_protocols_refuse_unknown_names(call, message):
    p, g, _ = maps()
    with pytest.raises(ValueError, match=message):
        call(p.astype(np.float32), g)
