"""Evaluators against numbers worked out by hand."""

import numpy as np
import pytest

from trecvit_dense.evaluation.functional import aj_rd, point_odyssey, tapvid, tapvid3d
from trecvit_dense.evaluation.functional.perception_test import dense_track, score_perception_test


def one_track():
    """Query at frame 0; hidden at frame 2; the prediction is 3 px off at 1, visible at 2, right but 'occluded' at 3."""
    gt = np.full((1, 1, 4, 2), 10.0)
    gt_occluded = np.array([[[False, False, True, False]]])
    pred = gt.copy()
    pred[0, 0, 1, 0] += 3
    pred_occluded = np.array([[[False, False, False, True]]])
    return np.array([[[0, 10.0, 10.0]]]), gt_occluded, gt, pred_occluded, pred


def test_first_counts_frames_after_the_query():
    metrics = tapvid.compute_tapvid_metrics(*one_track(), 'first')
    assert metrics['occlusion_accuracy'] == 1 / 3
    assert [metrics[f'pts_within_{d}'][0] for d in (1, 2, 4, 8, 16)] == [0.5, 0.5, 1, 1, 1]
    # At 4 px: one hit; two visible points plus the false positive at frame 2.
    assert [metrics[f'jaccard_{d}'][0] for d in (1, 2, 4, 8, 16)] == [0, 0, 1 / 3, 1 / 3, 1 / 3]
    assert metrics['average_pts_within_thresh'][0] == pytest.approx(0.8)
    assert metrics['average_jaccard'][0] == pytest.approx(0.2)


def test_strided_counts_all_frames_but_the_query():
    query, *rest = one_track()
    query[..., 0] = 1
    metrics = tapvid.compute_tapvid_metrics(query, *rest, 'strided')
    assert metrics['pts_within_1'] == 1  # frames 0 and 3; the wrong one is the query's
    assert metrics['jaccard_1'] == 1 / 3  # hit at 0; frame 3 missed, frame 2 false


def test_thresholds_are_strict():
    query, gt_occluded, gt, pred_occluded, _ = one_track()
    pred = gt + np.array([2.0, 0.0])
    metrics = tapvid.compute_tapvid_metrics(query, gt_occluded, gt, pred_occluded, pred, 'first')
    assert metrics['pts_within_2'] == 0 and metrics['pts_within_4'] == 1


def test_protocols_differ_where_the_docs_say():
    arrays = [np.concatenate([array] * 2) for array in one_track()]
    exact = tapvid.compute_tapvid_metrics(*arrays, 'first')
    other = tapvid.compute_tapvid_metrics(*arrays, 'first', protocol='cotracker')
    assert np.allclose(other['occlusion_accuracy'], exact['occlusion_accuracy'] / 2)
    assert np.array_equal(other['jaccard_4'], exact['jaccard_4'])


def test_nothing_to_evaluate_is_nan():
    query, *rest = one_track()
    query[..., 0] = 3
    metrics = tapvid.compute_tapvid_metrics(query, *rest, 'first')
    assert all(np.isnan(value).all() for value in metrics.values())


def test_mistakes_are_named():
    query, gt_occluded, gt, pred_occluded, pred = one_track()
    with pytest.raises(ValueError, match="query_mode is 'last'"):
        tapvid.compute_tapvid_metrics(query, gt_occluded, gt, pred_occluded, pred, 'last')
    with pytest.raises(ValueError, match='threshold probabilities first'):
        tapvid.compute_tapvid_metrics(query, gt_occluded, gt, pred_occluded * 0.3, pred, 'first')
    with pytest.raises(ValueError, match='protocol'):
        tapvid.compute_tapvid_metrics(query, gt_occluded, gt, pred_occluded, pred, 'first', protocol='x')


def test_query_sampling():
    occluded = np.array([[1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]], bool)
    points = np.arange(36.0).reshape(3, 6, 2)
    first = tapvid.sample_queries(occluded, points, 'first')
    assert first['trackgroup'].tolist() == [0, 2]
    assert first['query_points'].tolist() == [[1, 3, 2], [0, 25, 24]]  # t, y, x
    strided = tapvid.sample_queries(occluded, points, 'strided')
    assert strided['query_points'][:, 0].tolist() == [0, 5]
    assert strided['trackgroup'].tolist() == [2, 0]


def test_zero_motion_and_reappearing():
    query = np.array([[0, 1.0, 2.0], [2, 3.0, 4.0]])
    tracks, occluded = tapvid.zero_motion(query, 3)
    assert tracks.shape == (2, 3, 2) and tracks[1].tolist() == [[4, 3]] * 3 and not occluded.any()
    hidden = np.array([[0, 1, 0], [0, 1, 0]], bool)
    assert tapvid.reappearing(query, hidden).tolist() == [True, False]  # the second was hidden before its query
    assert not tapvid.reappearing(query, np.array([[0, 0, 1]] * 2, bool)).any()  # never came back


def test_3d_threshold_grows_with_depth_and_scale_is_matched():
    gt = np.array([[[[0.0, 0.0, 2.0], [0.0, 0.0, 4.0]]]])
    pred = gt + np.array([0.03, 0, 0])
    hidden = np.zeros((1, 1, 2), bool)
    intrinsics = np.array([100.0, 100.0, 0, 0])  # a pixel is 2 cm at 2 m, 4 cm at 4 m
    metrics = tapvid3d.compute_tapvid3d_metrics(hidden, gt, hidden, pred, intrinsics, scaling='none')
    assert metrics['pts_within_1'] == 0.5 and metrics['pts_within_2'] == 1
    scaled = tapvid3d.compute_tapvid3d_metrics(hidden, gt, hidden, gt * 3, intrinsics)
    assert scaled['average_jaccard'] == 1
    with pytest.raises(ValueError, match='pass query_points'):
        tapvid3d.compute_tapvid3d_metrics(hidden, gt, hidden, gt, intrinsics, scaling='per_trajectory')
    with pytest.raises(ValueError, match='wanted one of median'):
        tapvid3d.compute_tapvid3d_metrics(hidden, gt, hidden, gt, intrinsics, scaling='local_neighborhood')


def test_aj_rd_by_hand():
    visible = np.array([1, 0, 0, 1, 0, 1, 1], bool)[None, :, None]
    gt = np.zeros((1, 7, 1, 2))
    pred = gt.copy()
    pred[0, 5, 0, 0] = 2  # exactly 2 px off: within 2 px here, unlike TAP-Vid
    metrics, events = aj_rd.compute_aj_rd(pred, np.ones_like(visible), gt, visible)
    assert events['t'].tolist() == [3] and events['duration'].tolist() == [2]  # the gap of 1 is shorter: skipped
    assert metrics['AJ_RD_D1_dmin1'] == pytest.approx(2 / 5)
    assert metrics['AJ_RD_D2_dmin1'] == pytest.approx(3 / 4)
    assert np.isnan(metrics['AJ_RD_D1_dmin4'])
    assert metrics['AJ_RD'] == metrics['AJ_RD_dmin1'] == pytest.approx((0.4 + 4 * 0.75) / 5)


def test_point_odyssey_by_hand():
    gt = np.zeros((4, 2, 2), np.float32)
    pred = gt.copy()
    pred[2, 0, 0] = 20.0  # lost from frame 2 on, although it comes back
    pred[3, 1, 1] = 3.0
    valid = np.ones((4, 2), np.float32)
    metrics = point_odyssey.pips2_metrics(gt, pred, valid, image_size=(256, 256))
    assert metrics['d_1'] == pytest.approx(100 * 4 / 6, rel=1e-5)
    assert metrics['d_4'] == pytest.approx(100 * 5 / 6, rel=1e-5)
    assert metrics['survival'] == pytest.approx(100 * 6 / 8)
    assert metrics['median_l2'] == 0
    lenient = point_odyssey.pips2_metrics(gt, pred, valid, image_size=(256, 256), survival_threshold_px=50)
    assert lenient['survival'] == 100
    seen = np.array([[0, 1], [1, 1], [1, 0], [1, 1]])
    other = point_odyssey.cotracker_metrics(gt, pred, seen, image_size=(256, 256))
    assert other['accuracy_1'] == pytest.approx(100 * 3 / 5, rel=1e-5)  # frames after each first sight: 2 and 3
    assert other['accuracy_occ_1'] == pytest.approx(100, rel=1e-5)


def test_perception_test_rules():
    label = dict(
        metadata=dict(num_frames=4, is_camera_moving=True),
        point_tracking=[dict(id=0, frame_ids=[1, 2], points=[[0.5, 0.5], [0.25, 0.25]])],
    )
    xy, listed = dense_track(label['point_tracking'][0], 4, where='a')
    assert listed.tolist() == [False, True, True, False] and xy[1].tolist() == [0.25, 0.5]  # rows are y, then x
    result = dict(point_tracking=[dict(id=0, frame_ids=[1, 2], points=[[0.5, 0.5], [0.25, 0.25]])])
    scores = score_perception_test({'a': label}, {'a': result})
    # Visible everywhere by rule: one hit, two false positives (frames 0 and 3).
    assert scores['average_jaccard'] == scores['average_jaccard_moving'] == pytest.approx(1 / 3)
    assert np.isnan(scores['average_jaccard_static'])
    with pytest.raises(ValueError, match='a row of y, a row of x'):
        dense_track(dict(frame_ids=[0, 1, 2], points=[[0, 0]] * 3), 4, where='a')
    with pytest.raises(ValueError, match="the video 'b'"):
        score_perception_test({'a': label}, {'b': result})


def test_select_tracks_drops_what_the_loader_drops():
    tracks = np.full((10, 6, 2), 100.0, np.float32)
    visible = np.ones((10, 6))
    valid = np.ones((10, 6))
    visible[0, 1] = 0  # not seen at the start
    tracks[5, 2] = np.nan  # one bad frame of ten: kept, marked
    tracks[5, 3] = 900.0  # jumps
    visible[:4, 4] = 1
    valid[4:, 4] = 0  # good on 4 frames only
    xy, seen, good, chosen = point_odyssey.select_tracks(tracks, visible, valid, num_tracks=8)
    assert chosen.tolist() == [0, 2, 5]
    assert np.isfinite(xy).all() and not good[5, 1] and not seen[5, 1]
    assert point_odyssey.select_tracks(tracks, visible, valid, num_tracks=2)[3].tolist() == [0, 5]
