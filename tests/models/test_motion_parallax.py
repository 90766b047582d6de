"""Depth from motion in closed form: the camera's way between two frames, and the map that is carried along."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from trecvit_dense.datasets import SyntheticSceneDataset
from trecvit_dense.models.layers.ego_motion import half_sphere, inverse_depth, relative_motion, skew, turned_by
from trecvit_dense.models.layers.inverse_depth_map import weighted_median
from trecvit_dense.models.layers.motion_parallax import MotionParallax
from trecvit_dense.structures import RecurrentState

PIXEL = 1 / 300


def scene(*, outliers: float = 0.0, noise_px: float = 0.0, count: int = 400):
    """Four cameras that go different ways before random points; also what they see."""
    generator = torch.Generator().manual_seed(3)
    rays = (torch.rand(4, count, 2, generator=generator) - 0.5) * torch.tensor([1.2, 0.8])
    inverse = torch.rand(4, count, generator=generator) * 0.8 + 0.2
    travel = F.normalize(torch.tensor([[1.0, 0.1, 0.1], [0.1, 0.2, 1.0], [-0.5, 0.6, 0.4], [0.3, -1.0, 0.0]]), dim=1)
    turn = torch.tensor([[0.0, 0.1, 0.0], [0.02, -0.05, 0.1], [0.0, 0.0, 0.0], [-0.1, 0.05, 0.03]])
    rotation = turned_by(turn)
    turned = F.pad(rays, (0, 1), value=1.0) @ rotation.mT
    seen = turned + 0.15 * inverse[..., None] * travel[:, None]
    moved = seen[..., :2] / seen[..., 2:]
    moved = moved + noise_px * PIXEL * torch.randn(moved.shape, generator=generator)
    wrong = torch.rand(moved.shape[:2], generator=generator) < outliers
    moved = torch.where(wrong[..., None], moved + 0.2 * torch.rand(moved.shape, generator=generator), moved)
    return rays, moved, inverse, rotation, travel


def degrees_between(found, wanted):
    return torch.rad2deg((found * wanted).sum(-1).abs().clamp(max=1).acos())


@pytest.mark.parametrize(('outliers', 'noise_px', 'limit'), [(0.0, 0.0, 0.1), (0.3, 0.0, 0.5), (0.3, 0.3, 6.0)])
def test_motion_of_the_camera(outliers, noise_px, limit):
    rays, moved, _, rotation, travel = scene(outliers=outliers, noise_px=noise_px)
    found, way = relative_motion(rays, moved, torch.ones(moved.shape[:2]), pixel=PIXEL)
    assert degrees_between(way, travel).max() < limit
    cosine = ((found.mT @ rotation).diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    assert torch.rad2deg(cosine.clamp(max=1).acos()).max() < max(limit / 4, 0.1)
    torch.testing.assert_close(way.norm(dim=1), torch.ones(4))


def test_rotation_of_a_vector():
    vector = torch.tensor([[0.3, -0.2, 0.9], [0.0, 0.0, 0.0], [1e-9, 0.0, 0.0]])
    torch.testing.assert_close(turned_by(vector), torch.linalg.matrix_exp(skew(vector)))


def test_points_without_weight_do_not_count():
    rays, moved, *_ = scene()
    weight = torch.ones(moved.shape[:2])
    weight[:, ::3] = 0
    spoilt = moved.clone()
    spoilt[:, ::3] += 0.3
    for found, wanted in zip(
        relative_motion(rays, spoilt, weight, pixel=PIXEL),
        relative_motion(rays, moved, weight, pixel=PIXEL),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_inverse_depth_of_exact_rays():
    rays, moved, inverse, rotation, travel = scene()
    turned, seen = F.pad(rays, (0, 1), value=1.0) @ rotation.mT, F.pad(moved, (0, 1), value=1.0)
    found = inverse_depth(turned, seen, travel)
    torch.testing.assert_close(found, 0.15 * inverse, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(inverse_depth(turned, seen, -travel), -found)


def test_directions_are_spread_over_half_a_sphere():
    directions = half_sphere(48)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(48))
    generator = torch.Generator().manual_seed(0)
    any_way = F.normalize(torch.randn(500, 3, generator=generator), dim=1)
    assert degrees_between(any_way[:, None], directions[None]).amin(1).max() < 20


def test_weighted_median():
    values = torch.tensor([[5.0, 1.0, 3.0], [5.0, 1.0, 3.0], [5.0, 1.0, 3.0]])
    weights = torch.tensor([[1.0, 1.0, 1.0], [9.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert weighted_median(values, weights).tolist() == [3.0, 5.0, 0.0]


# --------------------------------------------------------------------------------------------- on rendered clips


def rendered(index: int = 0, *, frames: int = 8, **options):
    settings = dict(travel=0.8, movers=0.0, photometric=0.0) | options
    data = SyntheticSceneDataset(8, (96, 128), num_frames=frames, num_points=1, split='val', **settings)
    sample = data.sample(index)
    grey = torch.from_numpy(sample.video).float().mean(-1)[None] / 255
    return grey, torch.from_numpy(sample.depth.depth_m), torch.from_numpy(sample.depth.valid)


def test_a_camera_that_travels_sees_depth_in_one_unit():
    """Over clips: what is trusted is right, and the unit found first still holds at the end."""
    errors, constants, drifts = [], [], []
    for index in range(8):
        grey, depth, valid = rendered(index)
        found, _ = MotionParallax()(grey, (24, 32), RecurrentState())
        depth, valid = depth[:, 2::4, 2::4], valid[:, 2::4, 2::4]
        wrong = found.log_inverse[0] + depth.clamp(min=0.1).log()
        sure = (found.trust[0] > 0.7) & valid
        seen = [t for t in range(8) if sure[t].sum() > 60]
        offsets = [wrong[t][sure[t]].median() for t in seen]
        drifts += [(last - first).abs() for first, last in pairwise(offsets)]
        for t, offset in zip(seen, offsets, strict=True):
            errors.append((wrong[t][sure[t]] - offset).abs().median())
            logs = depth[t][sure[t]].log()
            constants.append((logs - logs.median()).abs().median())
    assert len(errors) > 12, 'most clips must show something'
    assert sum(errors) < 0.75 * sum(constants)
    assert torch.stack(drifts).median() < 0.05  # from frame to frame


def test_a_camera_that_stands_still_shows_nothing():
    grey, *_ = rendered(camera=0.0, travel=None)
    found, _ = MotionParallax()(grey, (24, 32), RecurrentState())
    assert found.trust.mean() < 0.1
    middle = found.log_inverse.flatten(2).median(2).values[..., None, None]
    assert (found.trust * (found.log_inverse - middle)).abs().mean() < 0.1


def test_first_frame_knows_nothing():
    known = []
    for index in range(4):
        grey, *_ = rendered(index, frames=3)
        found, _ = MotionParallax()(grey, (24, 32), RecurrentState())
        assert not found.trust[:, 0].any()
        assert not found.follows[:, 0].any()
        known.append(found.trust[:, -1].mean())
    assert max(known) > 0.2


@pytest.mark.parametrize('sizes', [[8], [3, 5], [1] * 8])
def test_step_is_clip(sizes):
    grey, *_ = rendered()
    stage = MotionParallax(window=4)
    wanted, end = stage(grey, (24, 32), RecurrentState())
    state, parts, first = RecurrentState(), [], 0
    for size in sizes:
        part, state = stage(grey[:, first : first + size], (24, 32), state)
        parts.append(part)
        first += size
    for name in ('log_inverse', 'trust', 'nearer', 'follows'):
        found = torch.cat([getattr(part, name) for part in parts], 1)
        torch.testing.assert_close(found, getattr(wanted, name), atol=1e-3, rtol=1e-3)
    assert state.nbytes == end.nbytes
    assert torch.equal(state['grey'], end['grey'])


def test_clips_of_a_batch_are_apart():
    grey = torch.cat([rendered(0)[0], rendered(1)[0]])
    stage = MotionParallax()
    together, _ = stage(grey, (24, 32), RecurrentState())
    for row in range(2):
        alone, _ = stage(grey[row : row + 1], (24, 32), RecurrentState())
        torch.testing.assert_close(together.trust[row], alone.trust[0], atol=1e-3, rtol=1e-3)


def test_nothing_breaks_on_black_frames():
    found, state = MotionParallax()(torch.zeros(1, 6, 32, 48), (8, 12), RecurrentState())
    assert all(torch.isfinite(value).all() for value in (found.log_inverse, found.trust, found.nearer))
    assert all(value.isfinite().all() for value in state.values())
    assert not found.trust.any()


def test_autocast_changes_nothing():
    grey, *_ = rendered(frames=4)
    wanted, _ = MotionParallax()(grey, (24, 32), RecurrentState())
    with torch.autocast('cpu', torch.bfloat16):
        found, _ = MotionParallax()(grey, (24, 32), RecurrentState())
    assert torch.equal(found.log_inverse, wanted.log_inverse)


@pytest.mark.parametrize('options', [dict(window=1), dict(points=8)])
def test_too_little_to_see_with(options):
    with pytest.raises(ValueError, match='wanted at least 16 points over 2 frames'):
        MotionParallax(**options)
