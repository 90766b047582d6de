"""Label propagation: right against plain loops, exact where features are, and each object as if it were alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trecvit_dense.models.heads.label_propagation import LabelPropagationHead
from trecvit_dense.models.heads.mask_slots import retire_objects, set_masks
from trecvit_dense.models.heads.point_slots import CapacityError
from trecvit_dense.models.layers.local_matching import best_matches
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import FeatureLevel, Features, RecurrentState

SIZE, STRIDE = (15, 20), 4
CELLS = SIZE  # one cell of the test's features is STRIDE pixels
INPUT = SIZE[0] * STRIDE, SIZE[1] * STRIDE


def features(maps: Tensor) -> Features:
    """``maps (T, h, w, C)`` as the only level of a backbone."""
    return Features((FeatureLevel(maps.flatten(1, 2)[None], tuple(maps.shape[1:3]), (STRIDE, STRIDE)),))


def moving(shifts: list[tuple[int, int]], channels: int = 24, seed: int = 0) -> Tensor:
    """A random texture, moved by ``(down, right)`` cells frame by frame; it enters from outside, nothing repeats."""
    margin = max(abs(part) for shift in shifts for part in shift)
    height, width = SIZE[0] + 2 * margin, SIZE[1] + 2 * margin
    texture = torch.randn(height, width, channels, generator=torch.Generator().manual_seed(seed))
    return torch.stack([texture[margin - y :, margin - x :][: SIZE[0], : SIZE[1]] for y, x in shifts])


def square(top: int, left: int, side: int = 5) -> Tensor:
    """``(H, W)`` mask of whole cells, given by cells."""
    cells = torch.zeros(CELLS)
    cells[max(top, 0) : top + side, max(left, 0) : left + side] = 1
    return cells.repeat_interleave(STRIDE, 0).repeat_interleave(STRIDE, 1)


def build(**options) -> LabelPropagationHead:
    return LabelPropagationHead((24,), ((STRIDE, STRIDE),), **options)


def known(shifts: list[tuple[int, int]]) -> Tensor:
    """Cells of the last frame that were in view on every frame: what came in later has no true match."""
    row, column = torch.meshgrid(*map(torch.arange, CELLS), indexing='ij')
    there = torch.ones(CELLS, dtype=torch.bool)
    for y, x in shifts:
        down, right = row - shifts[-1][0] + y, column - shifts[-1][1] + x
        there &= (down >= 0) & (down < CELLS[0]) & (right >= 0) & (right < CELLS[1])
    return there


def run(
    head: LabelPropagationHead,
    maps: Tensor,
    schedule: dict[int, dict[int, Tensor | None]],
    capacity: int = 3,
) -> tuple[Tensor, RecurrentState]:
    """Probabilities ``(T, K + 1, h, w)``; ``schedule``: before frame t, slot to mask, or None to retire it."""
    state, found = head.begin(1, 'cpu', capacity=capacity), []
    for frame, part in enumerate(maps):
        for slot, mask in schedule.get(frame, {}).items():
            if mask is None:
                retire_objects(state, torch.tensor([slot]))
            else:
                set_masks(state, torch.tensor([slot]), mask[None], stride=head.stride)
        output, state = head(features(part[None]), state, INPUT)
        found.append(output.probabilities[0, 0])
    return torch.stack(found), state


def labels(mask: Tensor) -> Tensor:
    return mask[::STRIDE, ::STRIDE].bool()


# ------------------------------------------------------------------------------------------------------- matching


def naive_matches(frame: Tensor, references: Tensor, members: list[int], k: int, radius: int | None) -> Tensor:
    """Sorted similarities of each cell, by loops over everything."""
    height, width, _ = frame.shape
    found = torch.full((height, width, k), -torch.inf)
    for y in range(height):
        for x in range(width):
            scores = [
                references[r, v, u] @ frame[y, x]
                for r in members
                for v in range(height)
                for u in range(width)
                if radius is None or max(abs(v - y), abs(u - x)) <= radius
            ]
            best = torch.stack(scores).sort(descending=True).values[:k]
            found[y, x, : len(best)] = best
    return found.flatten(0, 1)


@pytest.mark.parametrize('radius', [0, 2, None])
@pytest.mark.parametrize('size', [(9, 11), (3, 17), (1, 1)])
def test_best_matches_are_those_of_a_dense_search(size: tuple[int, int], radius: int | None) -> None:
    torch.manual_seed(0)
    frame, references = torch.randn(*size, 6), torch.randn(3, *size, 6)
    sets = [[0, 1, 2], [2], [0, 2]]
    found = best_matches(frame, list(references), sets, k=5, radius=radius)
    for members, (similar, places) in zip(sets, found, strict=True):
        torch.testing.assert_close(similar, naive_matches(frame, references, members, 5, radius))
        there = similar > -torch.inf
        again = (references.flatten(0, 2)[places] * frame.flatten(0, 1)[:, None]).sum(-1)
        torch.testing.assert_close(similar[there], again[there])
        assert set((places[there] // (size[0] * size[1])).tolist()) <= set(members)
        assert all(len(set(row[ok].tolist())) == ok.sum() for row, ok in zip(places, there, strict=True))


def test_among_equals_the_nearer_ones() -> None:
    """A bare wall: every cell is like every other, and takes over from where it is."""
    frame = F.normalize(torch.ones(20, 30, 4), dim=-1)
    ((_, places),) = best_matches(frame, [frame], [[0]], k=5, radius=12, nearness=1e-6)
    assert torch.equal(places[:, 0], torch.arange(600))


# ----------------------------------------------------------------------------------------------------- following


def test_a_mask_on_a_still_video_stays() -> None:
    found, _ = run(build(), moving([(0, 0)] * 6), {0: {0: square(4, 5)}})
    for probabilities in found:
        assert torch.equal(probabilities.argmax(0) == 1, labels(square(4, 5)))


@pytest.mark.parametrize('given_radius', [-1, None, 3])
def test_a_moving_texture_is_followed_exactly(given_radius: int | None) -> None:
    shifts = [(0, 0), (1, 2), (2, 3), (2, 6), (0, 8), (-2, 8)]
    found, _ = run(build(top_k=1, given_radius=given_radius), moving(shifts), {0: {0: square(4, 3)}})
    for step, (down, right) in enumerate(shifts):
        there = known(shifts[: step + 1])
        assert torch.equal(found[step].argmax(0)[there] == 1, labels(square(4 + down, 3 + right))[there])


def test_a_soft_vote_is_the_one_of_loops() -> None:
    """Second frame of a clip, all numbers of the protocol, against its definition written out."""
    torch.manual_seed(0)
    maps = torch.randn(2, *CELLS, 24) + 0.3
    masks = {0: square(4, 5), 1: square(8, 9, 6) * (1 - square(4, 5))}
    found, _ = run(build(radius=3, top_k=4, temperature=0.2, stretch_from=0.0, nearness=0.0), maps, {0: masks})
    unit = F.normalize(maps, dim=-1)
    given = torch.stack([labels(mask) for mask in masks.values()]).float()
    given = torch.cat([1 - given.sum(0, keepdim=True), given])  # (3, h, w)
    wanted = torch.zeros(3, *CELLS)
    for y in range(CELLS[0]):
        for x in range(CELLS[1]):
            window = slice(max(y - 3, 0), y + 4), slice(max(x - 3, 0), x + 4)
            similar = (unit[0][window] @ unit[1, y, x]).flatten()
            best = similar.topk(4)
            weights = (best.values / 0.2).exp()
            votes = given[:, window[0], window[1]].flatten(1)[:, best.indices]
            wanted[:, y, x] = (votes * weights).sum(1) / weights.sum()
    low, high = wanted.amin((1, 2), keepdim=True), wanted.amax((1, 2), keepdim=True)
    wanted = (wanted - low) / (high - low)
    torch.testing.assert_close(found[1, :3], wanted / wanted.sum(0), atol=1e-5, rtol=1e-4)
    assert not found[:, 3].any(), 'an empty slot has nothing'


def test_context_is_the_last_frames_and_the_given_one() -> None:
    """A texture that fades into another is followed by the frames between, and lost without them."""
    start, end = moving([(0, 0)], seed=0)[0], moving([(0, 0)], seed=1)[0]
    maps = torch.stack([start * (1 - part) + end * part for part in torch.linspace(0, 1, 9)])
    wanted = labels(square(4, 5))
    followed, _ = run(build(top_k=1), maps, {0: {0: square(4, 5)}})
    alone, _ = run(build(top_k=1, num_context=0), maps, {0: {0: square(4, 5)}})
    assert torch.equal(followed[-1].argmax(0) == 1, wanted)
    assert not torch.equal(alone[-1].argmax(0) == 1, wanted)
    assert torch.equal(alone[1].argmax(0) == 1, wanted)


def test_an_object_that_left_has_no_ghost_unless_asked_for() -> None:
    maps = torch.cat([moving([(0, 0), (0, 0)]), moving([(0, 0), (0, 0)], seed=1)])
    quiet, _ = run(build(stretch_from=2.0), maps, {0: {0: square(4, 5, 1)}})
    stretched, _ = run(build(stretch_from=0.0), maps, {0: {0: square(4, 5, 1)}})
    torch.testing.assert_close(quiet.sum(1), torch.ones(4, *CELLS))
    torch.testing.assert_close(stretched.sum(1), torch.ones(4, *CELLS))
    assert quiet[2, 1].amax() < stretched[2, 1].amax()


# ------------------------------------------------------------------------------------------------- several objects


def noisy(frames: int = 9) -> Tensor:
    maps = moving([(0, step) for step in range(frames)])
    return maps + 0.7 * torch.randn(maps.shape, generator=torch.Generator().manual_seed(5))


RAW = dict(stretch_from=2.0)  # without the normalisation over the frame, and where masks do not meet, objects are alone


def test_each_object_is_as_if_it_were_alone() -> None:
    first, second, late = square(2, 2, 4), square(9, 3, 4), square(3, 13, 4)
    _, together = run(build(**RAW), noisy(), {0: {0: first, 1: second}, 3: {2: late}})
    for slot, schedule in enumerate([{0: {0: first}}, {0: {1: second}}, {3: {2: late}}]):
        _, alone = run(build(**RAW), noisy(), schedule)
        for index in range(3):
            key = f'recent.{index}.labels'
            torch.testing.assert_close(together[key][..., slot], alone[key][..., slot])
            assert alone[key][..., slot].amax() > 0.3, 'the object must still be there'


def test_videos_of_a_batch_are_apart() -> None:
    head, clips = build(), [noisy(4), noisy(4).flip(1)]
    given = [torch.stack([square(2, 2), square(9, 9)]), torch.stack([square(6, 6), torch.zeros(INPUT)])]
    rows = [torch.tensor([True, True]), torch.tensor([True, False])]
    together, _ = head(
        Features((FeatureLevel(torch.stack(clips).flatten(2, 3), SIZE, (STRIDE, STRIDE)),)),
        head.begin(2, 'cpu', masks=torch.stack(given), rows=torch.stack(rows)),
        INPUT,
    )
    for index, maps in enumerate(clips):
        state = head.begin(1, 'cpu', masks=given[index][None], rows=rows[index][None])
        alone, _ = head(features(maps), state, INPUT)
        torch.testing.assert_close(together.probabilities[index], alone.probabilities[0])


def test_an_object_given_late_is_followed_from_then_on() -> None:
    shifts = [(0, step) for step in range(8)]
    found, _ = run(build(top_k=1), moving(shifts), {0: {0: square(2, 2)}, 3: {1: square(8, 6)}})
    assert not found[:3, 2].any()
    for step in range(8):
        there = known(shifts[: step + 1])
        assert torch.equal(found[step].argmax(0)[there] == 1, labels(square(2, 2 + step))[there])
        if step >= 3:
            assert torch.equal(found[step].argmax(0)[there] == 2, labels(square(8, 3 + step))[there])


def test_a_correction_replaces_what_was_given() -> None:
    maps = moving([(0, 0)] * 8)
    wrong, right = square(2, 2), square(8, 10)
    found, state = run(build(), maps, {0: {0: wrong}, 4: {0: right}})
    assert torch.equal(found[3].argmax(0) == 1, labels(wrong))
    for probabilities in found[4:]:
        assert torch.equal(probabilities.argmax(0) == 1, labels(right))
    fresh, other = run(build(), maps[4:], {0: {0: right}})
    torch.testing.assert_close(found[4:], fresh)
    assert state['age'][0, 0] == other['age'][0, 0] == 4


def test_a_retired_slot_starts_afresh() -> None:
    maps = noisy()
    schedule = {0: {0: square(2, 2), 1: square(8, 8)}, 4: {0: None}, 6: {0: square(3, 12)}}
    found, state = run(build(**RAW), maps, schedule)
    assert not found[4:6, 1].any()
    _, fresh = run(build(**RAW), maps[6:], {0: {0: square(3, 12)}})
    for index in range(3):
        key = f'recent.{index}.labels'
        torch.testing.assert_close(state[key][..., 0], fresh[key][..., 0])


def test_given_frames_are_kept_while_they_are_needed() -> None:
    maps = moving([(0, 0)] * 6)
    schedule = {0: {0: square(1, 1)}, 1: {1: square(8, 1)}, 2: {2: square(1, 12)}}
    with pytest.raises(CapacityError, match='3 different frames and max_references is 2'):
        run(build(max_references=2), maps, schedule)
    found, state = run(build(max_references=2), maps, schedule | {2: {0: None, 2: square(1, 12)}})
    assert torch.equal(found[-1].argmax(0) == 3, labels(square(1, 12)))
    assert torch.equal(found[-1].argmax(0) == 2, labels(square(8, 1)))
    assert 'given_frames.2' not in state


def test_forgetting_leaves_what_was_given() -> None:
    head, maps = build(), noisy()
    _, state = run(head, maps[:5], {0: {0: square(2, 2)}})
    found, _ = head(features(maps[5:6]), head.forget(state), INPUT)
    alone, _ = run(build(num_context=0), maps[:6], {0: {0: square(2, 2)}})
    torch.testing.assert_close(found.probabilities[0, 0], alone[-1])


# ------------------------------------------------------------------------------------------------- levels, backbones


@pytest.mark.parametrize(
    'options', [dict(), dict(levels=(0,)), dict(levels=(0, 1, 2)), dict(levels=(2,), stride=8), dict(centre=True)]
)
def test_levels_of_a_backbone(options: dict) -> None:
    """Frames that no patch divides, several levels and strides; no parameters, and nothing to learn."""
    use_scope()
    torch.manual_seed(0)
    backbone = dict(
        type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=32, patch_size=16, image_size=48,
        stem='conv', stem_channels=(4, 8, 12, 16), stem_levels=(4, 8),
    )  # fmt: skip
    head = dict(type='LabelPropagationHead', **options)
    model = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(masks=head))).eval()
    assert not list(model.heads['masks'].parameters()) and model.heads['masks'].loss(None, [], (1.0, 1.0)) == {}
    video = torch.rand(1, 1, 3, 40, 56).expand(-1, 3, -1, -1, -1)
    mask = torch.zeros(1, 1, 40, 56)
    mask[..., 8:24, 16:40] = 1
    outputs, _ = model.step(video, model.start(1, masks=dict(masks=mask)))
    stride = model.heads['masks'].stride
    assert stride == options.get('stride', 4)
    found = outputs['masks'].probabilities
    assert found.shape == (1, 3, 2, -(-40 // stride), -(-56 // stride))
    torch.testing.assert_close(found.sum(2), torch.ones_like(found[:, :, 0]))
    assert found[:, -1, 1, 16 // stride, 28 // stride] > 0.5


def test_one_level_of_every_stride_unless_told_otherwise() -> None:
    """Four blocks of a plain transformer would cost four times as much, and low levels are local enough."""
    assert LabelPropagationHead((24,) * 4, ((8, 8),) * 4).levels == (0,)
    assert LabelPropagationHead((8, 16, 24, 24), ((2, 2), (4, 4), (8, 8), (8, 8))).levels == (1, 2)
    assert LabelPropagationHead((24, 24), ((16, 16),) * 2).levels == (-1,)


def test_a_level_that_is_not_there() -> None:
    with pytest.raises(IndexError, match=r'levels are \[0, 3\]; the backbone has 1'):
        build(levels=(0, 3))
