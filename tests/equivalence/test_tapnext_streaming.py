"""TAPNext on a stream: one by one, in chunks and as a clip, while points come, go and leave their slots to others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trecvit_dense.checkpoints.official import tapnext_config
from trecvit_dense.models import VideoPerceiver
from trecvit_dense.models.heads.point_slots import CapacityError, add_points, retire_points
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import PromptGroup, RecurrentState

SIZE, FRAMES, CAPACITY = (24, 32), 11, 5
# frame: slots to retire, points (x, y) to add; slots 0 to 2 are taken from the start
SCHEDULE = {3: ([], [[5.0, 6.0]]), 5: ([1, 3], []), 6: ([], [[20.0, 3.5], [9.0, 17.0]]), 9: ([3, 1], [[30.0, 2.0]])}
MODES = ['full', 'read_only']


def build(attention: str, image_size: tuple[int, int] = SIZE) -> VideoPerceiver:
    use_scope()
    torch.manual_seed(0)
    sizes = dict(embed_dim=16, depth=2, num_heads=2, mlp_dim=32, lru_width=16, patch_size=8)
    return MODELS.build(
        tapnext_config(image_size=image_size, num_bins=32, head=dict(attention=attention), **sizes)
    ).eval()


def clip(frames: int = FRAMES, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(1, frames, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def start(model: VideoPerceiver, count: int = 3, capacity: int | None = CAPACITY) -> RecurrentState:
    """Points asked for on frames 0, 4 and 7: unknown tokens until then."""
    query = torch.tensor([[[0.0, 3.0, 4.0], [4.0, 30.5, 20.0], [7.0, 12.0, 8.0]]])[:, :count]
    return model.start(1, points=dict(query_txy=query, capacity=capacity))


def apply_events(state: RecurrentState, frame: int, schedule: dict = SCHEDULE) -> RecurrentState:
    retired, added = schedule.get(frame, ([], []))
    points = state.scope('heads.points')
    if retired:
        retire_points(points, torch.tensor(retired))
    if added:
        add_points(points, torch.tensor(added))
    return RecurrentState(state).put('heads.points', points)


@torch.no_grad()
def stream(
    model: VideoPerceiver, video: Tensor, sizes: list[int], schedule: dict = SCHEDULE
) -> tuple[dict, RecurrentState]:
    """Outputs over all frames and the last state; events happen before the frame that they name."""
    state, frame, parts = start(model), 0, []
    for size in sizes:
        assert not any(frame < event < frame + size for event in schedule), 'events lie between chunks'
        state = apply_events(state, frame, schedule)
        outputs, state = model.step(video[:, frame : frame + size], state)
        parts.append(outputs['points'])
        frame += size
    names = ('xy_px', 'visible_logits', 'active', 'certainty')
    return {name: torch.cat([getattr(part, name) for part in parts], 1) for name in names}, state


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Equal up to 1e-4 of the largest value."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        value, other = value.float(), right[name].float()
        assert value.shape == other.shape and value.isfinite().all()
        assert (value - other).abs().max() <= 1e-4 * value.abs().max().clamp_min(1e-6), name


@pytest.mark.parametrize('attention', MODES)
@pytest.mark.parametrize('sizes', [[FRAMES], [1, 4, 2, 3, 1], [5, 6]])
def test_step_is_chunk_is_clip(attention, sizes) -> None:
    model, video = build(attention), clip()
    wanted, wanted_state = stream(model, video, [1] * FRAMES, {})
    found, state = stream(model, video, sizes, {})
    assert_same(found, wanted)
    assert_same(state, wanted_state)


@pytest.mark.parametrize('attention', MODES)
def test_the_same_schedule_in_steps_and_chunks(attention) -> None:
    model, video = build(attention), clip()
    wanted, wanted_state = stream(model, video, [1] * FRAMES)
    found, state = stream(model, video, [2, 1, 2, 1, 3, 2])
    assert_same(found, wanted)
    assert_same(state, wanted_state)
    assert wanted['active'][0].sum(-1).tolist() == [1, 1, 1, 2, 3, 1, 3, 4, 4, 3, 3]


@pytest.mark.parametrize('attention', MODES)
@torch.no_grad()
def test_the_same_schedule_as_one_clip(attention) -> None:
    """The tokens, resets and empty slots of all frames in one call of the backbone."""
    model, video = build(attention), clip()
    head = model.heads['points']
    wanted, wanted_state = stream(model, video, [1] * FRAMES)
    groups, state = [], start(model)
    for frame in range(FRAMES):
        state = apply_events(state, frame)
        points = state.scope('heads.points')
        groups += head.prompts(points, 1, SIZE)
        state.put('heads.points', {'frame': points['frame'] + 1})
    joined = [torch.cat([getattr(group, name) for group in groups], 1) for name in ('tokens', 'active', 'reset')]
    group = PromptGroup('points', joined[0], attention=attention, active=joined[1], reset=joined[2])
    features, memory = model.backbone(video, prompts=[group])
    estimate = head.decode(features.prompts['points'])
    yx = estimate['yx'] * torch.tensor(SIZE) / head.extent
    assert_same(dict(xy_px=yx.flip(-1)), dict(xy_px=wanted['xy_px']))
    assert_same(memory, wanted_state.scope('backbone'))


@torch.no_grad()
def test_read_only_points_do_not_disturb_one_another() -> None:
    """Points 0 and 2 and the patches keep their state to the bit, whoever comes and goes beside them."""
    model, video = build('read_only'), clip()
    quiet, quiet_state = stream(model, video, [1] * FRAMES, {})
    busy, busy_state = stream(model, video, [1] * FRAMES)
    for name, value in quiet.items():
        assert torch.equal(value[:, :, [0, 2]], busy[name][:, :, [0, 2]]), name
    for name, value in quiet_state.scope('backbone').items():
        other = busy_state['backbone.' + name]
        if '.prompt.' in name:
            value, other = value[..., [0, 2], :], other[..., [0, 2], :]
        assert torch.equal(value, other), name


@pytest.mark.parametrize('attention', MODES)
@torch.no_grad()
def test_empty_slots_take_no_part(attention) -> None:
    model, video = build(attention), clip(4)
    tight, _ = model.step(video, start(model, capacity=None))
    roomy, _ = model.step(video, start(model, capacity=9))
    assert_same(dict(xy=roomy['points'].xy_px[:, :, :3]), dict(xy=tight['points'].xy_px))
    assert not roomy['points'].active[:, :, 3:].any()


@pytest.mark.parametrize('attention', MODES)
@torch.no_grad()
def test_a_reused_slot_starts_afresh(attention) -> None:
    """What a slot held before leaves no trace: as in a stream whose point rows the backbone has never seen."""
    model, video = build(attention), clip(6)
    _, state = model.step(video[:, :4], start(model, 1, capacity=1))
    points = state.scope('heads.points')
    retire_points(points, torch.tensor([0]))
    add_points(points, torch.tensor([[7.0, 9.0]]))
    state = RecurrentState(state).put('heads.points', points)
    forgotten = RecurrentState({name: value for name, value in state.items() if '.prompt.' not in name})
    found, found_state = model.step(video[:, 4:], state)
    wanted, wanted_state = model.step(video[:, 4:], forgotten)
    assert_same(dict(xy=found['points'].xy_px), dict(xy=wanted['points'].xy_px))
    assert_same(found_state, wanted_state)
    cleared = state.map(torch.zeros_like)
    zeros = RecurrentState({name: cleared[name] if '.prompt.' in name else value for name, value in state.items()})
    points['start'] = points['start'] - 1  # no reset on the coming frame: a zero state alone is not a fresh start
    other, _ = model.step(video[:, 4:], zeros.put('heads.points', points))
    assert (other['points'].xy_px - wanted['points'].xy_px).abs().max() > 1e-4


@torch.no_grad()
def test_state_has_one_size_for_ever() -> None:
    model = build('read_only', (8, 8))
    video = clip(1000, (8, 8))
    _, state = model.step(video[:, :10], start(model))
    bytes_at_10 = state.nbytes
    for first in range(10, 1000, 90):
        outputs, state = model.step(video[:, first : first + 90], state)
    assert state.nbytes == bytes_at_10 and state['heads.points.frame'].item() == 1000
    assert outputs['points'].xy_px.isfinite().all()


def test_no_point_beyond_the_capacity() -> None:
    state = start(build('full')).scope('heads.points')
    before = state.clone()
    with pytest.raises(CapacityError, match='3 points to add, but 2 slots are free'):
        add_points(state, torch.zeros(3, 2))
    assert all(torch.equal(state[name], before[name]) for name in before)


@torch.no_grad()
def test_no_points_at_all() -> None:
    model = build('full')
    outputs, state = model.step(clip(2), model.start(1))
    assert outputs['points'].xy_px.shape == (1, 2, 0, 2)
    outputs, _ = model.step(clip(2), state)
    assert outputs['points'].visible.shape == (1, 2, 0)
