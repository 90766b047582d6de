"""Masks over frames: what is an object changes, what is not stays, and ids can be told apart."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from trecvit_dense.visualization import MaskDrawer, mask_colours

FRAME = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


def test_only_objects_change() -> None:
    labels = np.zeros((60, 90), np.uint8)
    labels[10:30, 10:40], labels[40:50, 50:80], labels[:5, 60:] = 1, 7, 255
    before = FRAME.copy()
    drawn = MaskDrawer(outline=False, numbers=False).draw(FRAME, labels)
    objects = (labels == 1) | (labels == 7)
    np.testing.assert_array_equal(drawn[~objects], FRAME[~objects])
    np.testing.assert_array_equal(FRAME, before)
    expected = 0.5 * FRAME[labels == 7] + 0.5 * mask_colours()[7]
    np.testing.assert_allclose(drawn[labels == 7], expected, atol=1)
    np.testing.assert_array_equal(MaskDrawer().draw(FRAME, np.zeros_like(labels)), FRAME)


def test_outline_and_number() -> None:
    labels = np.zeros((60, 90), np.uint8)
    labels[10:50, 0:60] = 3
    plain = MaskDrawer(0, outline=False, numbers=False).draw(FRAME, labels)
    np.testing.assert_array_equal(plain, FRAME)
    outlined = MaskDrawer(0, numbers=False).draw(FRAME, labels)
    changed = (outlined != FRAME).any(-1)
    assert changed[10, 1:59].all() and changed[12:48, 0].all() and not changed[15:45, 5:55].any()
    numbered = MaskDrawer(0, outline=False).draw(FRAME, labels)
    rows, columns = np.nonzero((numbered != FRAME).any(-1))
    assert len(rows) and rows.min() > 10 and rows.max() < 50 and columns.max() < 60
    speck = np.zeros_like(labels)
    speck[20:22, 20:22] = 3
    np.testing.assert_array_equal(MaskDrawer(0, outline=False).draw(FRAME, speck), FRAME)  # no room for a number


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (200, 3)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    assert MaskDrawer().draw(frame, np.full(size, 254, np.uint8)).shape == frame.shape


def test_colours_can_be_told_apart() -> None:
    colours = mask_colours()
    assert colours.shape == (256, 3) and not colours[0].any()
    lab = cv2.cvtColor(colours[None, 1:21], cv2.COLOR_RGB2LAB)[0].astype(float)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(20)
    assert distance.min() > 15


def test_mistakes() -> None:
    with pytest.raises(ValueError, match='opacity is 2'):
        MaskDrawer(2)
    with pytest.raises(ValueError, match=r'\(5, 5\), the frame \(60, 90\)'):
        MaskDrawer().draw(FRAME, np.zeros((5, 5), np.uint8))
