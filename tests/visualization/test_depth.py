"""Depth in colour: near is warm, colours keep their meaning from frame to frame, what has no value is black."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.visualization import DepthDrawer, depth_colours, side_by_side

RAMP = np.tile(np.linspace(0.2, 2, 90, dtype=np.float32), (60, 1))


def warmth(picture: np.ndarray) -> np.ndarray:
    """Red minus blue."""
    return picture[..., 0].astype(int) - picture[..., 2]


def test_near_is_warm() -> None:
    colours = depth_colours()
    assert colours.shape == (256, 3) and colours.dtype == np.uint8 and len(np.unique(colours, axis=0)) > 200
    assert warmth(colours[:20]).max() < -50 and warmth(colours[-60:]).min() > 100
    disparity = DepthDrawer(legend=False).draw(RAMP, 'disparity')
    metres = DepthDrawer(legend=False).draw(1 / RAMP, 'depth')
    assert np.abs(disparity.astype(int) - metres).max() <= 6
    assert (warmth(disparity)[:, -5:] > 100).all() and (warmth(disparity)[:, :5] < -50).all()


def test_no_value_is_black() -> None:
    depth = 1 / RAMP
    depth[0, 0], depth[1, 1], depth[2, 2], depth[3, 3] = np.nan, 0, -1, np.inf
    picture = DepthDrawer(legend=False).draw(depth, 'depth')
    black = ~picture.any(-1)
    assert black[[0, 1, 2, 3], [0, 1, 2, 3]].all() and black.sum() == 4
    assert not DepthDrawer().draw(np.full((60, 90), np.nan, np.float32), 'disparity').any()


def test_range_is_causal_and_slow() -> None:
    drawer = DepthDrawer(legend=False)
    first = drawer.draw(RAMP, 'disparity')
    before = drawer.range.copy()
    drawer.draw(10 * RAMP, 'disparity')  # a hand before the lens
    assert (np.abs(drawer.range - before) <= 0.021 * np.ptp(before)).all() and (drawer.range > before).all()
    again = drawer.draw(RAMP, 'disparity')
    assert np.abs(again.astype(int) - first).mean() < 10
    for _ in range(400):
        drawer.draw(10 * RAMP, 'disparity')
    np.testing.assert_allclose(drawer.range, 10 * before, rtol=1e-2)
    drawer.reset()
    np.testing.assert_array_equal(drawer.draw(RAMP, 'disparity'), first)


def test_noise_of_the_range_does_not_flicker() -> None:
    """Percentiles of a frame that jitter by a tenth move the colour of a fixed value by a hundredth."""
    rng, drawer, seen = np.random.default_rng(0), DepthDrawer(legend=False), []
    for _ in range(60):
        drawer.draw(RAMP * rng.uniform(0.9, 1.1), 'disparity')
        seen.append((1 - drawer.range[0]) / np.ptp(drawer.range))
    assert np.abs(np.diff(seen)).max() < 0.01


def test_a_flat_frame_is_one_colour() -> None:
    noise = np.random.default_rng(0).normal(0, 1e-6, (60, 90)).astype(np.float32)
    picture = DepthDrawer(legend=False).draw(1 + noise, 'disparity')
    assert np.ptp(picture.reshape(-1, 3).astype(int), axis=0).max() <= 8


def test_a_black_start_is_left_at_once() -> None:
    drawer = DepthDrawer(legend=False)
    drawer.draw(np.zeros_like(RAMP), 'disparity')
    drawer.draw(RAMP, 'disparity')
    np.testing.assert_allclose(drawer.range, np.percentile(RAMP, (2, 98)), rtol=1e-2)


def test_fixed_limits() -> None:
    drawer = DepthDrawer(limits=(0.0, 1.0), legend=False)
    one = drawer.draw(RAMP, 'disparity')
    drawer.draw(9 * RAMP, 'disparity')
    np.testing.assert_array_equal(drawer.draw(RAMP, 'disparity'), one)


@pytest.mark.parametrize('kind', ['depth', 'disparity'])
def test_legend_is_in_its_corner(kind: str) -> None:
    depth = np.tile(np.linspace(0.2, 2, 400, dtype=np.float32), (300, 1))
    plain, drawn = (DepthDrawer(legend=legend).draw(depth, kind) for legend in (False, True))
    rows, columns = np.nonzero((plain != drawn).any(-1))
    assert len(rows) and rows.min() > 250 and columns.max() < 200
    small = depth[:20, :30]
    np.testing.assert_array_equal(*(DepthDrawer(legend=legend).draw(small, kind) for legend in (False, True)))


@pytest.mark.parametrize('size', [(1, 1), (3, 500), (500, 3)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    assert DepthDrawer().draw(np.ones(size, np.float32), 'depth').shape == (*size, 3)


def test_side_by_side() -> None:
    left, right = np.zeros((4, 6, 3), np.uint8), np.full((4, 5, 3), 7, np.uint8)
    both = side_by_side(left, right, gap=2)
    assert (
        both.shape == (4, 13, 3) and not both[:, :6].any() and (both[:, 6:8] == 255).all() and (both[:, 8:] == 7).all()
    )


def test_mistakes() -> None:
    for message, call in {
        "kind is 'inverse'": lambda: DepthDrawer().draw(RAMP, 'inverse'),
        r'wanted \(H, W\)': lambda: DepthDrawer().draw(RAMP[None], 'depth'),
        'rate is 2': lambda: DepthDrawer(rate=2),
        'limits are': lambda: DepthDrawer(limits=(1, 1)),
        'wanted the same height': lambda: side_by_side(np.zeros((4, 6, 3)), np.zeros((5, 6, 3))),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
