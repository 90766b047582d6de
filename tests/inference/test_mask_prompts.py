"""A box and a click become a mask; every unusable mask, box or point is one line."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.inference.mask_prompts import check_labels, check_mask, mask_from_box, mask_from_point


def scene(size: tuple[int, int] = (120, 160)) -> tuple[np.ndarray, np.ndarray]:
    """A red, noisy ellipse on a green, noisy ground: RGB and truth."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    truth = ((x - 0.4 * size[1]) / (0.2 * size[1])) ** 2 + ((y - 0.5 * size[0]) / (0.3 * size[0])) ** 2 < 1
    rgb = np.where(truth[..., None], (180, 60, 50), (60, 140, 70)) + rng.normal(0, 12, (*size, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8), truth


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize('size', [(120, 160), (480, 300)])
def test_object_stands_out(size: tuple[int, int]) -> None:
    rgb, truth = scene(size)
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    box = (columns[0] - 2.5, rows[0] - 2, columns[-1] + 3, rows[-1] + 3)
    from_box = mask_from_box(rgb, box)
    assert from_box.shape == size and from_box.dtype == bool and overlap(from_box, truth) > 0.9
    from_point = mask_from_point(rgb, (0.4 * size[1], 0.45 * size[0]))
    assert overlap(from_point, truth) > 0.8
    np.testing.assert_array_equal(mask_from_box(rgb, box), from_box)  # no chance in it


def test_nothing_stands_out() -> None:
    plain = np.full((60, 80, 3), 90, np.uint8)
    box = np.zeros((60, 80), bool)
    box[10:30, 20:50] = True
    np.testing.assert_array_equal(mask_from_box(plain, (20, 10, 50, 30)), box)
    disc = mask_from_point(plain, (40, 30))
    assert disc[30, 40] and 9 <= disc.sum() < 100
    assert mask_from_box(plain, (-5, -5, 200, 200)).all()  # all of the frame: nothing around to tell it from
    for corner in ((0, 0), (80, 60)):
        assert mask_from_point(plain, corner).any()
    assert mask_from_box(plain, (3.2, 4.1, 3.4, 4.2)).sum() == 1


@pytest.mark.parametrize(
    ('box', 'words'),
    [
        ((1, 2, 3), ['4 numbers', 'x0, y0, x1, y1']),
        ('text', ['box', 'text', '4 numbers']),
        ((5, 5, 5, 9), ['box 5, 5, 5, 9 is empty', 'x0 < x1']),
        ((5, 5, np.nan, 9), ['not a number']),
        ((160, 5, 170, 9), ['outside the frame of 160x120 px']),
        ((-9, -9, 0, 0), ['outside the frame']),
    ],
)
def test_bad_boxes(box: tuple, words: list[str]) -> None:
    one_line(lambda: mask_from_box(scene()[0], box), words)


@pytest.mark.parametrize(
    ('point', 'words'),
    [((1, 2, 3), ['2 numbers: x, y']), ((161, 5), ['161, 5', 'outside']), ((np.inf, 1), ['not a number'])],
)
def test_bad_points(point: tuple, words: list[str]) -> None:
    one_line(lambda: mask_from_point(scene()[0], point), words)


def one_line(call, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        call()
    assert '\n' not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize('kind', [bool, np.uint8, np.int64, np.float32])
def test_masks_of_any_kind(kind: type) -> None:
    mask = np.zeros((4, 6))
    mask[1, 2] = 1
    np.testing.assert_array_equal(check_mask(mask.astype(kind), (4, 6)), mask == 1)
    np.testing.assert_array_equal(check_mask((255 * mask).astype(np.uint8)), mask == 1)


@pytest.mark.parametrize(
    ('mask', 'words'),
    [
        (np.zeros((4, 6, 3), np.uint8), ['RGB', '(4, 6, 3)', 'palette or gray PNG']),
        (np.ones((4, 5), bool), ['5x4 px', 'the frame 6x4']),
        (np.zeros((4, 6), bool), ['the mask is empty']),
        (np.full((4, 6), 0.2), ['the mask is empty']),
        (np.array([[0, 1, 2, 0, 0, 0]] * 4), ['several objects (1, 2)', 'add_objects']),
        (np.zeros((4, 6), complex), ['complex']),
    ],
)
def test_bad_masks(mask: np.ndarray, words: list[str]) -> None:
    one_line(lambda: check_mask(mask, (4, 6)), words)


def test_labels() -> None:
    labels = np.array([[0, 3, 255], [9, 9, 0]])
    found = check_labels(labels, (2, 3))
    assert list(found) == [3, 9] and found[9].tolist() == [[False] * 3, [True, True, False]]
    assert list(check_labels(np.array([[0, 255]], np.uint8))) == [1]  # the DAVIS of 2016
    one_line(lambda: check_labels(np.array([[0, 300]])), ['object id 300', '1 to 254'])
    one_line(lambda: check_labels(np.zeros((2, 2), np.uint8)), ['empty'])
    one_line(lambda: check_labels(np.zeros((2, 2), np.float32)), ['float32', 'integers'])
    one_line(lambda: check_labels(labels, (3, 2)), ['3x2 px', 'the frame 2x3'])
