"""Segmentation heads on a stream: frames, chunks and clip agree while objects come, go and are corrected; constant
memory; any number of objects in one pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trecvit_dense.models.heads.mask_slots import retire_objects
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import RecurrentState

SIZE, FRAMES, CAPACITY = (40, 56), 11, 4
HEADS = dict(
    propagation=dict(type='LabelPropagationHead', levels=(0, 1), stride=4, radius=4, num_context=3),
    object=dict(type='ObjectTokenHead', channels=8, fine_channels=4, hidden_dim=8, target_dim=8, window=2),
)


def build(head: str) -> nn.Module:
    use_scope()
    torch.manual_seed(0)
    backbone = dict(
        type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=32, patch_size=8, image_size=48,
        stem='conv', stem_channels=(8, 12, 16), stem_levels=(4,),
    )  # fmt: skip
    return MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(masks=HEADS[head]))).eval()


@pytest.fixture(scope='module', params=list(HEADS))
def model(request) -> nn.Module:
    return build(request.param)


def clip(frames: int = FRAMES, size: tuple[int, int] = SIZE) -> Tensor:
    """Texture that moves to the right, with noise that differs from frame to frame."""
    generator = torch.Generator().manual_seed(1)
    texture = torch.rand(1, 3, size[0], size[1] + 64, generator=generator)
    moved = [texture[..., 64 - 2 * (t % 32) :][..., : size[1]] for t in range(frames)]
    return torch.stack(moved, 1) + 0.05 * torch.rand(1, frames, 3, *size, generator=generator)


def box(top: int, left: int, height: int = 14, width: int = 18) -> Tensor:
    mask = torch.zeros(SIZE)
    mask[top : top + height, left : left + width] = 1
    return mask


START = {0: box(4, 4), 2: box(20, 24)}
# before frame: slot to mask (a new object, or a correction of one that is followed), or None to retire it
SCHEDULE = {3: {1: box(6, 30)}, 5: {0: box(5, 14), 2: None}, 8: {2: box(22, 6)}}


def tell(model: nn.Module, state: RecurrentState, events: dict[int, Tensor | None]) -> RecurrentState:
    masks, rows = torch.zeros(1, CAPACITY, *SIZE), torch.zeros(1, CAPACITY, dtype=torch.bool)
    scope = state.scope('heads.masks')
    for slot, mask in events.items():
        if mask is None:
            retire_objects(scope, torch.tensor([slot]))
        else:
            masks[0, slot], rows[0, slot] = mask, True
    model.heads['masks'].give(scope, masks, rows)
    return RecurrentState(state).put('heads.masks', scope)


@torch.no_grad()
def stream(model: nn.Module, sizes: list[int], schedule: dict) -> tuple[dict[str, Tensor], RecurrentState]:
    video, frame, parts = clip(), 0, []
    state = tell(model, model.start(1, masks=dict(capacity=CAPACITY)), START)
    for size in sizes:
        if frame in schedule:
            state = tell(model, state, schedule[frame])
        before = state.clone()
        outputs, new_state = model.step(video[:, frame : frame + size], state)
        assert all(torch.equal(state[key], value) for key, value in before.items()), 'a step must not write into state'
        parts.append(outputs['masks'])
        state, frame = new_state, frame + size
    names = ('probabilities', 'active', 'given')
    return {name: torch.cat([getattr(part, name) for part in parts], 1).float() for name in names}, state


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        value, other = value.float(), found[name].float()
        assert (value - other).abs().max() <= 1e-4 * value.abs().max().clamp_min(1e-6), name


@pytest.mark.parametrize('sizes', [[FRAMES], [1, 4, 2, 3, 1], [5, 6]])
def test_step_is_chunk_is_clip(model: nn.Module, sizes: list[int]) -> None:
    wanted, wanted_state = stream(model, [1] * FRAMES, {})
    found, state = stream(model, sizes, {})
    assert_same(found, wanted)
    assert_same(state, wanted_state)
    assert (wanted['probabilities'][:, -1] - wanted['probabilities'][:, 0]).abs().max() > 0.1, 'masks must change'


def test_same_schedule_in_steps_and_chunks(model: nn.Module) -> None:
    wanted, wanted_state = stream(model, [1] * FRAMES, SCHEDULE)
    found, state = stream(model, [3, 2, 3, 3], SCHEDULE)
    assert_same(found, wanted)
    assert_same(state, wanted_state)
    assert wanted['given'][0].nonzero().tolist() == [[0, 0], [0, 2], [3, 1], [5, 0], [8, 2]]
    assert not wanted['probabilities'][0, 5:8, 3].any(), 'a retired object has no mask'


def test_given_masks_are_answered_as_they_are(model: nn.Module) -> None:
    found, _ = stream(model, [1] * FRAMES, SCHEDULE)
    stride = model.heads['masks'].stride
    for frame, slot in ((0, 0), (3, 1), (5, 0), (8, 2)):
        mask = START[slot] if frame == 0 else SCHEDULE[frame][slot]
        cells = torch.nn.functional.avg_pool2d(mask[None, None], stride)[0, 0]
        torch.testing.assert_close(found['probabilities'][0, frame, slot + 1], cells)


@torch.no_grad()
@pytest.mark.parametrize('head', list(HEADS))
@pytest.mark.parametrize('count', [1, 5, 20])
def test_memory_is_constant_and_objects_share_one_pass(head: str, count: int, monkeypatch) -> None:
    """Bytes at frame 10 and at frame 1000, and the frames that the backbone has seen."""
    model, size, chunk = build(head), (16, 24), 99
    passed = []
    backbone = model.backbone.forward

    def counted(video: Tensor, **options):
        passed.append(video.shape[1])
        return backbone(video, **options)

    monkeypatch.setattr(model.backbone, 'forward', counted)
    pixels = torch.arange(size[0] * size[1]).view(size)
    masks = torch.stack([pixels % count == slot for slot in range(count)])[None].float()
    state = model.start(1, masks=dict(masks=masks))
    video, taken, known = clip(chunk, size), 0, {}
    while taken < 1000:
        take = 10 if taken == 0 else chunk if taken + chunk <= 1000 else 1000 - taken
        outputs, state = model.step(video[:, :take], state)
        taken += take
        known[taken] = {key: (value.shape, value.dtype) for key, value in state.items()}, state.nbytes
    assert known[10] == known[1000]
    assert sum(passed) == 1000 and outputs['masks'].probabilities.shape[2] == count + 1
    assert outputs['masks'].active.all() and outputs['masks'].probabilities.isfinite().all()
