"""Points are drawn where they are, occluded ones fainter, and memory stays with the trail."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.visualization import TrackDrawer, contact_sheet, rainbow


def change(
    drawer: TrackDrawer, xy: list, visible: list, size: tuple[int, int] = (60, 80), ids: list | None = None
) -> np.ndarray:
    """``(H, W)`` how much each pixel of a grey frame changed."""
    frame = np.full((*size, 3), 128, np.uint8)
    drawn = drawer.draw(frame, np.array(xy, np.float32), np.array(visible), ids)
    assert drawn.shape == frame.shape and drawn.dtype == np.uint8 and (frame == 128).all()
    return np.abs(drawn.astype(int) - 128).sum(-1)


def centroid(weight: np.ndarray) -> tuple[float, float]:
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()


@pytest.mark.parametrize('xy', [(40.0, 30.0), (40.5, 30.5), (20.25, 41.75)])
def test_marker_is_centred_below_a_pixel(xy: tuple[float, float]) -> None:
    moved = change(TrackDrawer(radius=5), [xy], [True])
    assert centroid((moved > 0).astype(float)) == pytest.approx(xy, abs=0.3)


def test_occluded_is_fainter_and_hollow() -> None:
    seen = change(TrackDrawer(radius=6), [[40.5, 30.5]], [True])
    hidden = change(TrackDrawer(radius=6), [[40.5, 30.5]], [False])
    assert hidden.sum() < 0.5 * seen.sum()
    assert hidden[30, 40] == 0 and seen[30, 40] > 0 and hidden[30, 46] > 0


def test_trail_reaches_back_no_further() -> None:
    drawer = TrackDrawer(trail=4, radius=2)
    for step in range(10):
        moved = change(drawer, [[10.5 + 6 * step, 30.5]], [True])
    assert moved[30, 10 + 6 * 9] > 0 and moved[30, 10 + 6 * 7] > 0
    assert not moved[:, : 10 + 6 * 5 - 3].any()
    assert moved[30, 10 + 6 * 8] > moved[30, 10 + 6 * 6]  # fades


def test_memory_is_constant() -> None:
    drawer = TrackDrawer(trail=3)
    sizes = set()
    for step in range(20):
        change(drawer, np.full((7, 2), step), [True] * 7)
        sizes.add(drawer._xy.nbytes + drawer._visible.nbytes + drawer._colours.nbytes)
    assert len(sizes) == 1


def test_colour_belongs_to_the_id() -> None:
    drawer = TrackDrawer()
    change(drawer, [[5, 5], [70, 50]], [True, True], ids=[3, 9])
    first, second = drawer._colours.copy()
    change(drawer, [[60, 50], [20, 10], [5, 5]], [True] * 3, ids=[9, 4, 3])
    np.testing.assert_array_equal(drawer._colours[0], second)
    np.testing.assert_array_equal(drawer._colours[2], first)
    change(drawer, [[5, 5]], [True], ids=[4])
    change(drawer, [[70, 50]], [True], ids=[3])  # came back as another point
    np.testing.assert_array_equal(drawer._colours[0], second)


def test_points_that_are_not_there_or_far_outside() -> None:
    drawer = TrackDrawer()
    assert not change(drawer, [[np.nan, np.nan]], [False]).any()
    assert change(drawer, [[40, 30]], [True]).any()
    change(drawer, [[1e9, -1e9]], [True])
    assert not change(TrackDrawer(), np.zeros((0, 2)), []).any()
    with pytest.raises(ValueError, match='2 points, 1 visible'):
        change(drawer, [[1, 1], [2, 2]], [True])


def test_sizes_follow_the_frame() -> None:
    small = (change(TrackDrawer(), [[300, 200]], [True], (400, 600)) > 0).sum()
    large = (change(TrackDrawer(), [[600, 400]], [True], (800, 1200)) > 0).sum()
    assert 2.5 < large / small < 5


def test_rainbow_and_contact_sheet() -> None:
    colours = rainbow(np.array([[0, 0], [0.5, 0.5], [1, 1]]))
    assert colours.dtype == np.uint8 and len(np.unique(colours, axis=0)) == 3
    frames = [np.full((10, 20, 3), value, np.uint8) for value in (0, 50, 100)]
    sheet = contact_sheet(frames, 2, gap=2)
    assert sheet.shape == (22, 42, 3) and sheet[12, 0, 0] == 100 and sheet[21, 41, 0] == 255
    assert contact_sheet(frames, 3, width=10, gap=0).shape == (5, 30, 3)
    with pytest.raises(ValueError, match='no frames'):
        contact_sheet([])
