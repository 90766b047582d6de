"""J, F and the protocols on small masks: against a plain reference, at borders, and rules that are easily missed."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from trecvit_dense.evaluation.functional import davis, lvos, mose, pixel_bits, vos, youtube_vos
from trecvit_dense.evaluation.functional.mask_frames import score_frame


def blobs(seed, size=(40, 53), ids=3, frames=None):
    """Random overlapping ellipses; they may touch the border."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((frames or 1, *size), np.uint8)
    for frame in labels:
        for i in rng.permutation(ids) + 1:
            centre = (int(rng.integers(-3, size[1] + 3)), int(rng.integers(-3, size[0] + 3)))
            axes = (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
            cv2.ellipse(frame, centre, axes, float(rng.uniform(0, 180)), 0, 360, int(i), -1)
    return labels if frames else labels[0]


def plain_boundary(mask):
    padded = np.pad(mask, ((0, 1), (0, 1)), mode='edge')
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def plain_f(truth, prediction, element):
    """Whole frames, dilated with OpenCV."""
    edges = [plain_boundary(mask).astype(np.uint8) for mask in (truth, prediction)]
    wide = [cv2.dilate(edge, element.astype(np.uint8)) for edge in edges]
    numbers = [int(edge.sum()) for edge in edges]
    if not all(numbers):
        return float(numbers[0] == numbers[1])
    precision, recall = (edges[1] & wide[0]).sum() / numbers[1], (edges[0] & wide[1]).sum() / numbers[0]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize('size', [(40, 53), (7, 90), (1, 9), (9, 1), (2, 2), (1, 1)])
@pytest.mark.parametrize('radius', [0, 1, 2, 3, 5, 8, 0.84, 1.5, 2.3, 3.71, 7.837])
def test_windows_of_bits_equal_whole_frames(size, radius):
    for seed in range(4):
        truth, prediction = blobs(seed, size), blobs(seed + 100, size)
        for i in (1, 2, 3):
            pair = davis.overlap(truth, prediction, (i, i), radius)
            expected = plain_f(truth == i, prediction == i, pixel_bits.disk(radius))
            assert pair.boundary_f(radius) == (expected,), (seed, i)
        if radius >= 1:
            rows = score_frame(
                truth, prediction, [1, 2, 3, 9], bound_th=radius, score=lambda p, _: p.boundary_f(radius)
            )
            wholes = [plain_f(truth == i, prediction == i, pixel_bits.disk(radius)) for i in (1, 2, 3, 9)]
            assert [row[0] for row in rows] == wholes
        assert np.array_equal(davis.boundary_map(truth == 1), plain_boundary(truth == 1))


def test_bits_there_and_back():
    mask = np.random.default_rng(0).random((5, 13)) < 0.5
    assert np.array_equal(pixel_bits.unpack(pixel_bits.pack(mask), mask.shape), mask)
    wide = pixel_bits.dilate(1 << 2 * 20 + 8, 20, 2)
    moved = pixel_bits.unpack(wide, (8, 20))[2:7, 2 + 6 : 2 + 11]
    assert np.array_equal(moved, pixel_bits.disk(2))


def test_objects_far_apart_and_absent_ones():
    truth, prediction = np.zeros((2, 60, 80), np.uint8)
    truth[2:9, 2:9], prediction[40:50, 60:75] = 1, 1
    assert score_frame(truth, prediction, [1, 2, 200]) == [(0.0, 0.0), (1.0, 1.0), (1.0, 1.0)]
    full = np.ones((6, 8), np.uint8)
    assert score_frame(full, 0 * full, [1]) == [(0.0, 1.0)], 'a mask that fills the frame has no boundary'


def test_semi_supervised_rules():
    truth = np.zeros((5, 30, 40), np.uint8)
    truth[:, 2:10, 2:10], truth[:, 20:28, 5:20], truth[3:, 2:8, 30:38], truth[:, 28:, 35:] = 1, 3, 4, 255
    prediction = np.where(truth == 4, 0, truth)
    prediction[prediction == 255] = 0
    scores = vos.semi_supervised(truth, prediction)
    assert [row.object_id for row in scores] == [1, 2, 3], 'the gap counts, a late object does not'
    assert all(len(row.J) == 3 and (row.J == 1).all() and (row.F == 1).all() for row in scores)
    prediction[0] = prediction[-1] = 0
    assert vos.summarise(vos.semi_supervised(truth, prediction))['J&F'] == 1, 'first and last frame do not count'
    prediction[2, 28:, 35:] = 1
    assert vos.semi_supervised(truth, prediction)[0].J[1] < 1, 'void is background'
    prediction[2, 0, 0] = 4
    with pytest.raises(ValueError, match='frame 2: prediction holds the id 4; wanted 1, 2, 3'):
        vos.semi_supervised(truth, prediction)
    with pytest.raises(ValueError, match='2 frames'):
        vos.semi_supervised(truth[:2], prediction[:2])
    with pytest.raises(ValueError, match='frame 0: the annotation has no object'):
        vos.semi_supervised(0 * truth, prediction)
    with pytest.raises(ValueError, match='frame 1: prediction is 30 x 39, truth 30 x 40'):
        vos.semi_supervised(truth, prediction[:, :, 1:])


def test_late_objects_count_after_they_are_given():
    truth = blobs(1, frames=6)
    truth[:3][truth[:3] == 3] = 0
    truth[3, :9, :9] = 3
    scores = vos.late_objects(truth, truth)
    assert {row.object_id: len(row.J) for row in scores}[3] == 2
    first = dict(vos.first_appearance(truth))
    assert {row.object_id: len(row.J) for row in vos.late_objects(truth, truth, first, count_last=False)}[3] == 1


def test_unsupervised_matching_and_limits():
    truth = blobs(5, frames=4)
    swapped = np.array([0, 2, 3, 1] + [0] * 252, np.uint8)[truth]
    assert vos.summarise(vos.unsupervised(truth, swapped))['J&F'] == 1
    many = swapped.copy()
    many[0, 0, :5] = 21
    with pytest.raises(ValueError, match='the id 21; wanted at most 20'):
        vos.unsupervised(truth, many)
    far = np.zeros((1, 50, 400), np.uint8)
    far[0, 5:9, 5:9], far[0, 5:9, 380:390] = 1, 2
    assert [row.J[0] for row in vos.unsupervised(far, far)] == [1, 1]


def test_decay_of_long_series_is_sound_by_default():
    values = np.linspace(1, 0, 300)
    assert davis.statistics(values)[2] == pytest.approx(0.75, abs=0.01)
    assert math.isnan(davis.statistics(values, decay='official')[2])
    with pytest.raises(ValueError, match='decay is'):
        davis.statistics(values, decay='offical')
    with pytest.raises(ValueError, match='no frame'):
        davis.statistics([])


def test_youtube_vos_groups():
    rows = [
        vos.ObjectScores(1, np.full(4, v), np.full(4, v), dict(group=g)) for v, g in ((0.8, 'seen'), (0.4, 'unseen'))
    ]
    metrics = youtube_vos.summarise(rows)
    assert metrics['G'] == pytest.approx(0.6) and metrics['J_unseen'] == pytest.approx(0.4)
    assert 'G' not in youtube_vos.summarise(rows[:1])
    assert (
        youtube_vos.group_of('cat', {'cat'}, None) == 'seen' and youtube_vos.group_of('cat', None, {'cat'}) == 'unseen'
    )
    assert youtube_vos.group_of('cat', None, None) is None


def test_mose_absences_and_tolerances():
    absent = np.array([1, 1, 0, 1, 0, 0, 1], bool)
    assert mose.absences(absent) == ([(3, 4), (6, 7)], [(2, 3), (4, 6)])
    usual, own = mose.tolerances(10000, (480, 854))
    assert usual == own == pytest.approx(7.837, abs=1e-3)
    assert mose.tolerances(400, (480, 854)) == (8.0, 2.0)
    with_gap = blobs(3, frames=8)
    with_gap[2:4][with_gap[2:4] == 1] = 0
    assert mose.summarise(mose.mose_v2(with_gap, with_gap, [1, 2, 3]))['J&F_new'] == 1


def test_lvos_frames():
    assert lvos.object_frames(1, 41, 9) == [6, 11, 16, 21, 26, 31, 36]
    assert lvos.object_frames(1, 6, 2) == []
