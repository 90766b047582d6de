"""One answer per frame from looks, motion and the answers before: level, relief and steadiness."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trecvit_dense.models.layers.depth_filter import DepthFilter
from trecvit_dense.models.layers.motion_parallax import Parallax
from trecvit_dense.structures import RecurrentState

GRID = (12, 16)


def still(time: int, *, trust: float = 0.0, follows: float = 1.0, batch: int = 1) -> Parallax:
    """A camera and a world that do not move: every cell comes from its own place; flat motion at level 0."""
    y, x = torch.meshgrid(torch.arange(GRID[0]), torch.arange(GRID[1]), indexing='ij')
    place = torch.stack([(2 * x + 1) / GRID[1] - 1, (2 * y + 1) / GRID[0] - 1], -1)
    flat = torch.zeros(batch, time, *GRID)
    seen = flat + follows
    seen[:, 0] = 0
    return Parallax(flat, flat + trust, place.expand(batch, time, *GRID, 2), flat, seen)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def errors(values: Tensor, truth: Tensor) -> Tensor:
    """(T,) level error of each frame."""
    return (values - truth).mean((2, 3))[0]


def test_a_first_frame_is_what_looks_say():
    looks = noise(2, 1, *GRID)
    values, _ = DepthFilter()(looks, still(1, batch=2), RecurrentState())
    torch.testing.assert_close(values, looks)


def test_the_level_goes_where_motion_goes():
    """Looks wander by themselves for a while; what they said first is kept, and moved as motion says."""
    time = 30
    way = torch.linspace(0, 0.9, time).view(1, time, 1, 1).expand(1, time, *GRID)
    wandering = 0.4 * torch.sin(torch.linspace(0, 6, time)).view(1, time, 1, 1)
    shape = 0.3 * noise(1, 1, *GRID)
    found = still(time, trust=0.9)
    found.log_inverse = way + shape
    found.nearer = torch.cat([torch.zeros(1, 1, *GRID), way.diff(dim=1)], 1)
    values, _ = DepthFilter()(2 + way + shape + wandering, found, RecurrentState())
    assert errors(values, 2 + way + shape).std() < 0.25 * wandering.std()


def test_looks_are_heard_in_the_end():
    """A first frame that was wrong does not stay for ever, though nothing new is seen."""
    looks = torch.full((1, 400, *GRID), 1.0)
    looks[:, 0] = 0.5
    values, _ = DepthFilter(steadiness=0.0)(looks, still(400, trust=0.9), RecurrentState())
    level = values.mean((2, 3))[0]
    assert level[5] < 0.75 and level[-1] == pytest.approx(1.0, abs=0.02) and (level.diff() >= -1e-6).all()


def test_what_is_new_brings_its_own_level():
    """After a cut nothing is followed, and looks start again at once."""
    looks = noise(1, 8, *GRID) * 0.1
    looks[:, 4:] += 1.5
    found = still(8, trust=0.8)
    found.follows[:, 4] = 0
    found.trust[:, 4] = 0
    values, _ = DepthFilter()(looks, found, RecurrentState())
    torch.testing.assert_close(values[:, 4], looks[:, 4])
    assert (values[:, 5:] - 1.5).abs().mean() < 0.15


def test_the_unit_of_motion_does_not_matter():
    looks, found = noise(1, 5, *GRID), still(5, trust=0.7)
    found.log_inverse = 0.3 * noise(1, 5, *GRID, seed=1)
    wanted, _ = DepthFilter()(looks, found, RecurrentState())
    found.log_inverse = found.log_inverse + 1.3
    torch.testing.assert_close(DepthFilter()(looks, found, RecurrentState())[0], wanted)


def moved_to_motion(apart: float, *, error: float | None = None, **options: float) -> float:
    """By what part of the way looks have moved to motion that is ``apart`` everywhere; one frame, all of it known."""
    looks, found = noise(1, 1, *GRID), still(1, trust=1.0)
    found.log_inverse = looks + apart * torch.sign(noise(1, 1, *GRID, seed=3))
    found.log_inverse -= (found.log_inverse - looks).mean()
    expected = None if error is None else torch.full((1, 1), error)
    values, _ = DepthFilter(**options)(looks, found, RecurrentState(), expected)
    return ((values - looks).norm() / (found.log_inverse - looks).norm()).item()


@pytest.mark.parametrize('share', [0.0, 0.6, 1.0])
def test_relief_comes_from_motion_as_far_as_the_two_agree(share):
    assert moved_to_motion(0.02, motion_share=share) == pytest.approx(share, abs=0.02)
    assert moved_to_motion(0.235, motion_share=share) == pytest.approx(share / 2, abs=0.02)
    assert moved_to_motion(2.0, motion_share=share) == pytest.approx(0, abs=0.02)


def test_looks_that_are_not_sure_give_way():
    """What they expect to be off by says how much is to be made of a disagreement."""
    moved = [moved_to_motion(0.3, error=error) for error in (0.0, 0.05, 0.14, 0.2)]
    assert 0 <= moved[0] <= moved[1] < 0.02 < 0.2 < moved[2] < moved[3] - 0.15
    assert moved_to_motion(0.3) == pytest.approx(moved[2])


def test_a_still_camera_sees_the_mean_of_its_frames():
    """As many as ``steadiness`` allows; the first is not favoured."""
    looks = 0.01 * noise(1, 12, *GRID)
    values, _ = DepthFilter(steadiness=0.75)(looks, still(12), RecurrentState())
    torch.testing.assert_close(values[:, 2], looks[:, :3].mean(1), atol=1e-3, rtol=0)
    assert values[:, -1].std() < 0.55 * looks[:, -1].std()
    torch.testing.assert_close(DepthFilter(steadiness=0.0)(looks, still(12), RecurrentState())[0], looks)
    torch.testing.assert_close(DepthFilter()(looks, still(12, follows=0.0), RecurrentState())[0], looks)


def test_what_contradicts_is_not_averaged():
    """Something else has come: it is seen on its first frame, not after some."""
    looks = torch.zeros(1, 6, *GRID)
    looks[:, 5, 3:6, 3:6] = 2.0
    values, _ = DepthFilter()(looks, still(6), RecurrentState())
    assert (values[0, 5, 3:6, 3:6] > 1.6).all()


def test_steps_are_the_clip():
    looks, found, state, parts = noise(2, 5, *GRID), still(5, trust=0.6, batch=2), RecurrentState(), []
    wanted, end = DepthFilter()(looks, found, state)
    for first, last in ((0, 2), (2, 5)):
        part = Parallax(*(getattr(found, name)[:, first:last] for name in vars(found)))
        values, state = DepthFilter()(looks[:, first:last], part, state)
        parts.append(values)
    torch.testing.assert_close(torch.cat(parts, 1), wanted)
    assert set(state) == {'values', 'frames'}
    for name, value in end.items():
        torch.testing.assert_close(state[name], value)
