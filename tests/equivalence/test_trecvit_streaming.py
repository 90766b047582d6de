"""TRecViT frame by frame, in uneven chunks and as a clip; prompts that come, go and start afresh; constant state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trecvit_dense.models.layers import RGLRU
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, PromptGroup, RecurrentState

FRAMES, WIDTH = 7, 32
SMALL = dict(type='TRecViT', embed_dim=WIDTH, depth=2, num_heads=2, mlp_dim=48, image_size=16, patch_size=8)
VARIANTS = {
    'plain': dict(class_token=True),
    'tapnext': dict(temporal_mlp=True, lru_width=WIDTH, gelu='erf'),
    'conv_stem': dict(stem='conv', stem_channels=(8, 8, 16), stem_levels=(2, 4), out_indices=(0, 1)),
    'short_conv': dict(conv_width=1, position='sincos2d'),
}
CUTS = {'frames': [1] * FRAMES, 'uneven': [2, 1, 4], 'late': [6, 1]}
Prompts = Callable[[int, int], list[PromptGroup]]


def build(seed: int = 0, **options: object) -> torch.nn.Module:
    """A small backbone with every parameter moved off its initial value."""
    torch.manual_seed(seed)
    model = MODELS.build(dict(SMALL, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def make_video(batch: int = 2, frames: int = FRAMES, size: tuple[int, int] = (16, 24)) -> Tensor:
    return torch.rand(batch, frames, 3, *size, generator=torch.Generator().manual_seed(1))


def make_prompts(attention: str, *, masks: bool, count: int = 6) -> Prompts:
    """Two groups, one of items of two tokens; with ``masks`` rows come, go and start afresh at random."""
    draw = torch.Generator().manual_seed(2)
    tokens = torch.randn(2, 2, FRAMES, count, WIDTH, generator=draw)
    active, reset = torch.rand(2, 2, FRAMES, count, generator=draw) > torch.tensor([0.3, 0.7]).view(2, 1, 1, 1)

    def prompts(first: int, end: int) -> list[PromptGroup]:
        part = slice(first, end)
        given = dict(active=active[:, part], reset=reset[:, part]) if masks else {}
        second = 'read_only' if attention == 'mixed' else attention
        return [
            PromptGroup('a', tokens[0, :, part], 'full' if attention == 'mixed' else attention, 2, **given),
            PromptGroup('b', tokens[1, :, part], second),
        ]

    return prompts


def no_prompts(first: int, end: int) -> list[PromptGroup]:
    return []


def flat(features: Features) -> dict[str, Tensor]:
    """Every tensor of the features, time in dimension 1."""
    found = {f'level{i}': level.tokens for i, level in enumerate(features.levels)}
    if features.class_token is not None:
        found['class_token'] = features.class_token
    found |= features.prompts
    for name, layers in features.prompt_layers.items():
        found |= {f'{name}.layer{i}': layer for i, layer in enumerate(layers)}
    return found


def stream(
    model: torch.nn.Module, video: Tensor, prompts: Prompts, chunks: list[int]
) -> tuple[dict[str, Tensor], RecurrentState]:
    """Features of all chunks, joined in time, and the final state."""
    state, parts, first = None, [], 0
    for length in chunks:
        end = first + length
        features, state = model(video[:, first:end], prompts(first, end), state, prompt_layers=True)
        parts.append(flat(features))
        first = end
    return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}, state


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], tol: float = 1e-4) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].shape == tensor.shape and found[name].dtype == tensor.dtype, name
        if tensor.numel():
            error = (found[name].float() - tensor.float()).abs().max()
            assert error <= tol * tensor.float().abs().max(), f'{name}: {error}'


@pytest.mark.parametrize('chunks', CUTS.values(), ids=CUTS)
@pytest.mark.parametrize('variant', VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_chunks_are_the_clip(variant: dict, chunks: list[int]) -> None:
    model, video = build(**variant), make_video()
    wanted, final = stream(model, video, no_prompts, [FRAMES])
    found, state = stream(model, video, no_prompts, chunks)
    assert_same(found, wanted)
    assert_same(state, final)
    forgotten, _ = model(video[:, -1:])
    last = f'level{len(forgotten.levels) - 1}'
    assert not torch.allclose(forgotten.levels[-1].tokens, wanted[last][:, -1:]), 'the state must matter'


@pytest.mark.parametrize('chunks', CUTS.values(), ids=CUTS)
@pytest.mark.parametrize('masks', [False, True], ids=['always', 'come_and_go'])
@pytest.mark.parametrize('attention', ['full', 'read_only', 'mixed'])
@torch.no_grad()
def test_chunks_are_the_clip_with_prompts(attention: str, masks: bool, chunks: list[int]) -> None:
    model, video, prompts = build(class_token=True), make_video(), make_prompts(attention, masks=masks)
    wanted, final = stream(model, video, prompts, [FRAMES])
    found, state = stream(model, video, prompts, chunks)
    assert_same(found, wanted)
    assert_same(state, final)


def test_gradients_of_chunks_are_those_of_the_clip() -> None:
    model, video, prompts = build(), make_video(), make_prompts('full', masks=True)
    gradients = []
    for chunks in ([FRAMES], CUTS['uneven']):
        model.zero_grad()
        found, _ = stream(model, video, prompts, chunks)
        sum(tensor.square().sum() for tensor in found.values()).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    # the gradient of a key bias is zero but for rounding, so the largest gradient of all is the measure
    scale = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).abs().max() <= 1e-4 * scale, name


@torch.no_grad()
def test_later_frames_change_nothing_before_them() -> None:
    model, video = build(stem='conv', stem_levels=(4,)), make_video()
    changed = video.clone()
    changed[:, 4:] = 0.0
    before, _ = stream(model, video, no_prompts, [FRAMES])
    after, _ = stream(model, changed, no_prompts, [FRAMES])
    for name, tensor in before.items():
        torch.testing.assert_close(after[name][:, :4], tensor[:, :4])
        assert not torch.allclose(after[name][:, 4:], tensor[:, 4:])


@torch.no_grad()
def test_state_never_grows() -> None:
    model = MODELS.build(dict(SMALL, depth=1, image_size=8)).eval()
    state, seen, sizes = None, 0, {}
    for frames in [1] * 10 + [9] * 110:
        video, tokens = torch.rand(1, frames, 3, 8, 8), torch.randn(1, frames, 2, WIDTH)
        _, state = model(video, [PromptGroup('p', tokens)], state)
        seen += frames
        sizes[seen] = state.nbytes
    assert sizes[10] == sizes[1000]
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


@torch.no_grad()
def test_state_keeps_no_clip_alive() -> None:
    model = build()
    held = []
    for frames in (4, 40):
        _, state = model(make_video(1, frames))
        held.append(
            sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.values()}.values())
        )
    assert held[0] == held[1]


@torch.no_grad()
def test_step_leaves_the_given_state_alone() -> None:
    model, video = build(), make_video()
    _, state = model(video[:, :3])
    kept = state.clone()
    model(video[:, 3:], state=state)
    assert all(torch.equal(state[name], kept[name]) for name in kept)


@torch.no_grad()
def test_read_only_prompts_leave_patches_bit_equal() -> None:
    model, video = build(class_token=True, out_indices=(0, 1)), make_video()
    alone, _ = model(video)
    read, _ = model(video, make_prompts('read_only', masks=True)(0, FRAMES))
    for wanted, found in zip(alone.levels, read.levels, strict=True):
        assert torch.equal(found.tokens, wanted.tokens)
    assert torch.equal(read.class_token, alone.class_token)
    full, _ = model(video, make_prompts('full', masks=False)(0, FRAMES))
    assert not torch.allclose(full.levels[-1].tokens, alone.levels[-1].tokens)


@torch.no_grad()
def test_read_only_items_do_not_disturb_one_another() -> None:
    model, video = build(), make_video()
    tokens = torch.randn(2, FRAMES, 300, WIDTH)  # more than one slice of the masked attention
    together = model(video, [PromptGroup('p', tokens, 'read_only', item_size=3)])[0].prompts['p']
    for first in (0, 252, 255, 297):
        item = tokens[:, :, first : first + 3]
        alone = model(video, [PromptGroup('p', item, 'read_only', item_size=3)])[0].prompts['p']
        torch.testing.assert_close(together[:, :, first : first + 3], alone, rtol=1e-4, atol=1e-5)
    split = model(video, [PromptGroup('p', tokens[:, :, :3], 'read_only', item_size=1)])[0].prompts['p']
    assert not torch.allclose(split, together[:, :, :3]), 'tokens of one item must see each other'


@pytest.mark.parametrize('attention', ['full', 'read_only'])
@torch.no_grad()
def test_inactive_tokens_take_no_part(attention: str) -> None:
    model, video = build(), make_video()
    tokens = torch.randn(2, FRAMES, 5, WIDTH)
    tokens[:, :, 3:] = float('nan')  # whatever an empty slot holds
    active = torch.tensor([True, True, True, False, False]).expand(2, FRAMES, 5)
    with_slots, state = model(video, [PromptGroup('p', tokens, attention, active=active)])
    without, _ = model(video, [PromptGroup('p', tokens[:, :, :3], attention)])
    torch.testing.assert_close(with_slots.levels[-1].tokens, without.levels[-1].tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(with_slots.prompts['p'][:, :, :3], without.prompts['p'], rtol=1e-4, atol=1e-5)
    assert not with_slots.prompts['p'][:, :, 3:].any()
    for name in ('rg_lru', 'conv'):
        assert not state[f'blocks.1.prompt.p.{name}'][..., 3:, :].any()


@pytest.mark.parametrize('attention', ['full', 'read_only'])
@torch.no_grad()
def test_a_reset_row_is_a_new_row(attention: str) -> None:
    """A slot used again at frame 3 equals a group that first appears there, and a cleared state does not."""
    model, video = build(), make_video()
    tokens = torch.randn(2, FRAMES, 2, WIDTH)
    reset = torch.zeros(2, FRAMES, 2, dtype=torch.bool)
    reset[:, 3] = True
    # read-only, or the earlier life of the slots would have been seen by the patches
    clip = model(video, [PromptGroup('p', tokens, 'read_only', reset=reset)])[0].prompts['p']
    _, state = model(video[:, :3])
    late, _ = model(video[:, 3:], [PromptGroup('p', tokens[:, 3:], 'read_only')], state)
    torch.testing.assert_close(clip[:, 3:], late.prompts['p'], rtol=1e-4, atol=1e-5)

    _, state = model(video[:, :3], [PromptGroup('p', tokens[:, :3], attention)])
    flagged, _ = model(video[:, 3:], [PromptGroup('p', tokens[:, 3:], attention, reset=reset[:, 3:])], state)
    dropped = RecurrentState({name: tensor for name, tensor in state.items() if '.prompt.' not in name})
    absent, _ = model(video[:, 3:], [PromptGroup('p', tokens[:, 3:], attention)], dropped)
    zeroed = RecurrentState({n: torch.zeros_like(t) if '.prompt.' in n else t for n, t in state.items()})
    cleared, _ = model(video[:, 3:], [PromptGroup('p', tokens[:, 3:], attention)], zeroed)
    torch.testing.assert_close(flagged.prompts['p'], absent.prompts['p'], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(cleared.prompts['p'], absent.prompts['p'], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_bf16_autocast_streams_with_a_float32_recurrence() -> None:
    model, video, prompts = build(), make_video(), make_prompts('full', masks=True)
    with torch.autocast('cpu', torch.bfloat16):
        wanted, final = stream(model, video, prompts, [FRAMES])
        found, state = stream(model, video, prompts, CUTS['frames'])
    assert {tensor.dtype for name, tensor in state.items() if name.endswith('rg_lru')} == {torch.float32}
    assert_same(found, wanted, tol=2e-2)
    assert_same(state, final, tol=2e-2)


@torch.no_grad()
def test_long_memory_survives_bf16_autocast() -> None:
    """A slow row sums hundreds of small inputs; in bfloat16 the sum would stop growing after a few."""
    layer = RGLRU(4, 1)
    for parameter in layer.parameters():
        parameter.zero_()
    layer.a_param.fill_(-9.0)
    x = torch.ones(1, 500, 4)
    exact, _ = layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        h, state = layer(x.bfloat16())
    assert h.dtype == state.dtype == torch.float32
    torch.testing.assert_close(h, exact, rtol=1e-3, atol=1e-4)
