"""The cost-volume head on a stream: frames, chunks and clip agree while points come, go and slots are used again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trecvit_dense.models.heads.point_slots import add_points, retire_points
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import RecurrentState

SIZE, FRAMES, CAPACITY = (40, 56), 11, 4
SCHEDULE = {3: ([], [[5.0, 6.0]]), 6: ([1], [[20.0, 33.5]])}  # before frame: slots to retire, points to add


@pytest.fixture(scope='module')
def model() -> torch.nn.Module:
    use_scope()
    torch.manual_seed(0)
    backbone = dict(
        type='TRecViT', embed_dim=16, depth=2, num_heads=2, mlp_dim=32, patch_size=8, image_size=48,
        stem='conv', stem_channels=(8, 12, 16), stem_levels=(4,),
    )  # fmt: skip
    head = dict(type='CostVolumePointHead', channels=8, hidden_dim=16, radius=2, num_levels=2, iterations=2)
    model = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(points=head)))
    for parameter in model.heads.points.refiner.parameters():  # steps large enough to matter
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def clip() -> Tensor:
    return torch.rand(1, FRAMES, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def start(model: torch.nn.Module) -> RecurrentState:
    query = torch.tensor([[[0.0, 30.0, 14.0], [4.0, 30.5, 20.0]]])
    return model.start(1, points=dict(query_txy=query, capacity=CAPACITY))


@torch.no_grad()
def stream(model: torch.nn.Module, sizes: list[int], schedule: dict) -> tuple[dict[str, Tensor], RecurrentState]:
    video, state, frame, parts = clip(), start(model), 0, []
    for size in sizes:
        retired, added = schedule.get(frame, ([], []))
        points = state.scope('heads.points')
        if retired:
            retire_points(points, torch.tensor(retired))
        if added:
            add_points(points, torch.tensor(added))
        state = RecurrentState(state).put('heads.points', points)
        outputs, state = model.step(video[:, frame : frame + size], state)
        parts.append(outputs['points'])
        frame += size
    names = ('xy_px', 'visible_logits', 'active', 'certainty')
    return {name: torch.cat([getattr(part, name) for part in parts], 1).float() for name in names}, state


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        value, other = value.float(), found[name].float()
        assert (value - other).abs().max() <= 1e-4 * value.abs().max().clamp_min(1e-6), name


@pytest.mark.parametrize('sizes', [[FRAMES], [1, 4, 2, 3, 1], [5, 6]])
def test_step_is_chunk_is_clip(model, sizes) -> None:
    wanted, wanted_state = stream(model, [1] * FRAMES, {})
    found, state = stream(model, sizes, {})
    assert_same(found, wanted)
    assert_same(state, wanted_state)
    moved = (wanted['xy_px'][:, -1] - wanted['xy_px'][:, 0]).abs().max()
    assert moved > 1, 'the points of this test must move'


def test_same_schedule_in_steps_and_chunks(model) -> None:
    wanted, wanted_state = stream(model, [1] * FRAMES, SCHEDULE)
    found, state = stream(model, [3, 3, 5], SCHEDULE)
    assert_same(found, wanted)
    assert_same(state, wanted_state)


def test_points_do_not_disturb_one_another(model) -> None:
    alone, _ = stream(model, [1] * FRAMES, {})
    together, _ = stream(model, [1] * FRAMES, {3: ([], [[5.0, 6.0]])})
    assert_same({'xy': together['xy_px'][:, :, :2]}, {'xy': alone['xy_px'][:, :, :2]})


def test_a_reused_slot_starts_afresh(model) -> None:
    found, _ = stream(model, [1] * FRAMES, SCHEDULE)
    slot = 1  # retired before frame 6 and taken at once
    assert torch.equal(found['xy_px'][0, 6, slot], torch.tensor([20.0, 33.5]))
    fresh, _ = stream(model, [1] * FRAMES, {6: ([], [[20.0, 33.5]])})
    assert_same({'xy': found['xy_px'][:, 6:, slot]}, {'xy': fresh['xy_px'][:, 6:, 2]})


def test_state_has_one_size_for_ever(model) -> None:
    state, sizes = start(model), []
    frames = clip()[:, :1].expand(-1, 10, -1, -1, -1)
    with torch.no_grad():
        for index in range(100):
            _, state = model.step(frames, state)
            if index in (0, 99):  # frame 10 and frame 1000
                sizes.append(({key: tuple(value.shape) for key, value in state.items()}, state.nbytes))
    assert sizes[0] == sizes[1]


def test_forgetting_keeps_the_question_and_drops_the_memory(model) -> None:
    _, state = stream(model, [FRAMES], {})
    forgotten = model.forget(state, 'all').scope('heads.points')
    kept = state.scope('heads.points')
    assert not any(key.startswith('backbone') for key in model.forget(state))
    assert torch.equal(forgotten['query_txy'], kept['query_txy'])
    assert torch.equal(forgotten['template'][..., 0, :], kept['template'][..., 0, :])
    assert torch.equal(forgotten['xy'], kept['query_txy'][..., 1:])
    backbone_only = model.forget(state, 'backbone').scope('heads.points')
    assert torch.equal(backbone_only['xy'], kept['xy'])
