"""Hidden patches on a stream: frames, chunks and clip agree, what waits goes on, and nothing leaks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.equivalence.several import SIZE, assert_same, clip
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import RecurrentState

FRAMES = 9
GRID = (SIZE[0] // 8, SIZE[1] // 8)
PATCHES = GRID[0] * GRID[1]
BACKBONES = dict(
    patches=dict(out_indices=(0, 1)),
    stem=dict(stem='conv', stem_channels=(8, 12, 16), stem_levels=(4,)),
    token=dict(class_token=True, conv_width=2),
)


def build(backbone: str = 'patches', **options: object) -> nn.Module:
    use_scope()
    torch.manual_seed(0)
    sizes = dict(type='TRecViT', embed_dim=16, depth=2, num_heads=2, mlp_dim=32, patch_size=8, image_size=48)
    head = dict(type='MaskedAutoencoderHead', ratio=0.8, decoder_dim=16, decoder_depth=2, decoder_heads=2)
    cfg = dict(type='VideoPerceiver', backbone=sizes | BACKBONES[backbone], heads=dict(mae=head | options))
    return MODELS.build(cfg).eval()


def video(batch: int = 2) -> Tensor:
    frames = clip(FRAMES)
    return torch.cat([frames, frames.flip(-1)])[:batch]


@torch.no_grad()
def stream(model: nn.Module, sizes: list[int], **queries: object) -> tuple[dict[str, Tensor], RecurrentState]:
    """Painted patches and what was hidden, over all frames, and the last state."""
    state, frame, outputs = model.start(2, mae=queries), 0, []
    for size in sizes:
        before = state.clone()
        output, new_state = model.step(video()[:, frame : frame + size], state)
        assert all(torch.equal(state[key], value) for key, value in before.items()), 'a step must not write into state'
        outputs.append(output['mae'])
        state, frame = new_state, frame + size
    return {name: torch.cat([getattr(o, name) for o in outputs], 1) for name in ('patches', 'hidden')}, state


@pytest.mark.parametrize('masking', ['tube', 'random'])
@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('neighbourhood', [0, 5])
def test_step_is_chunk_is_clip(backbone: str, masking: str, neighbourhood: int) -> None:
    model = build(backbone, masking=masking, neighbourhood=neighbourhood)
    seed = torch.tensor([3, 4])
    wanted, wanted_state = stream(model, [1] * FRAMES, seed=seed)
    assert not torch.equal(wanted['hidden'][0], wanted['hidden'][1]), 'each video hides its own patches'
    assert torch.equal(wanted['hidden'][:, 0], wanted['hidden'][:, 5]) == (masking == 'tube')
    for sizes in ([FRAMES], [2, 3, 1, 3]):
        found, state = stream(model, sizes, seed=seed)
        assert torch.equal(found['hidden'], wanted['hidden'])
        assert_same(found, wanted)
        assert_same(state, wanted_state)


def test_a_given_mask_streams() -> None:
    hidden = torch.rand(2, PATCHES, generator=torch.Generator().manual_seed(2)) < 0.5
    model = build()
    wanted, _ = stream(model, [1] * FRAMES, hidden=hidden)
    found, _ = stream(model, [4, 5], hidden=hidden)
    assert torch.equal(found['hidden'], hidden[:, None].expand(-1, FRAMES, -1))
    assert_same(found, wanted)


@torch.no_grad()
@pytest.mark.parametrize('masking', ['tube', 'random'])
@pytest.mark.parametrize('backbone', BACKBONES)
def test_hidden_pixels_are_seen_by_nobody(backbone: str, masking: str) -> None:
    """Other pixels in hidden patches change the targets and nothing else, through no stem and no level either."""
    model = build(backbone, masking=masking)
    state = model.start(2)
    hidden = model.heads['mae'].patch_mask(state.scope('heads.mae'), FRAMES, SIZE)
    noise = torch.rand(video().shape, generator=torch.Generator().manual_seed(5))
    cover = hidden.view(2, FRAMES, 1, *GRID).repeat_interleave(8, 3).repeat_interleave(8, 4)
    other = torch.where(cover, noise, video())
    first, first_state = model.step(video(), state)
    second, second_state = model.step(other, state)
    assert torch.equal(first['mae'].patches, second['mae'].patches)
    assert not torch.equal(first['mae'].targets, second['mae'].targets)
    for key, value in first_state.items():
        assert torch.equal(value, second_state[key]), key
    one, two = (model.backbone(x, patch_mask=hidden)[0] for x in (video(), other))
    for a, b in zip(one.levels, two.levels, strict=True):
        assert torch.equal(a.tokens, b.tokens)
    last = one.levels[-1].tokens
    assert not last[hidden].any() and last[~hidden].abs().sum(-1).min() > 0


@torch.no_grad()
@pytest.mark.parametrize('backbone', BACKBONES)
def test_a_dropped_tube_is_a_row_that_is_not_there(backbone: str) -> None:
    """Rows hidden throughout are dropped; the same rows, kept and told to wait, give the same features and state."""
    model = build(backbone).backbone
    tube = torch.zeros(2, FRAMES, PATCHES, dtype=torch.bool)
    tube[:, :, ::2] = True
    once = tube.clone()
    once[:, -1] = False  # seen on the last frame: the rows have to be carried along until then
    dropped, _ = model(video()[:, :-1], patch_mask=tube[:, :-1])
    waiting, state = model(video(), patch_mask=once)
    torch.testing.assert_close(waiting.levels[-1].tokens[:, :-1], dropped.levels[-1].tokens, rtol=1e-4, atol=1e-5)
    assert state['patch.seen'].all()


@torch.no_grad()
def test_a_row_starts_on_the_frame_on_which_it_is_first_seen() -> None:
    """With nothing else in sight, a patch that appears on frame 3 is answered as one on the first frame of a stream."""
    model = build().backbone
    mask = torch.ones(2, 6, PATCHES, dtype=torch.bool)
    mask[:, :3, 0], mask[:, 3:, 7] = False, False
    late, _ = model(video()[:, :6], patch_mask=mask)
    fresh, _ = model(video()[:, 3:6], patch_mask=mask[:, 3:])
    torch.testing.assert_close(late.levels[-1].tokens[:, 3:, 7], fresh.levels[-1].tokens[:, :, 7], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_waits_goes_on_where_it_was() -> None:
    """Alone in the frame, a patch that is hidden for longer than the convolution reaches keeps its recurrent state."""
    model = build().backbone
    mask = torch.ones(2, 6, PATCHES, dtype=torch.bool)
    mask[:, 0, 0], mask[:, 1:, 5] = False, False
    _, first = model(video()[:, :1], patch_mask=mask[:, :1])
    _, later = model(video()[:, 1:6], state=first, patch_mask=mask[:, 1:])
    for layer in range(2):
        entry = f'blocks.{layer}.patch.rg_lru'
        assert torch.equal(first[entry][:, 0], later[entry][:, 0]) and first[entry][:, 0].any()
        assert not later[f'blocks.{layer}.patch.conv'][:, :, 0].any(), 'zeros have taken the place of what was seen'


@torch.no_grad()
def test_an_empty_mask_changes_nothing_and_a_stream_may_stop_hiding() -> None:
    model = build().backbone
    mask = torch.zeros(2, FRAMES, PATCHES, dtype=torch.bool)
    plain, plain_state = model(video())
    empty, empty_state = model(video(), patch_mask=mask)
    torch.testing.assert_close(empty.levels[-1].tokens, plain.levels[-1].tokens, rtol=1e-5, atol=1e-6)
    assert set(empty_state) == {*plain_state, 'patch.seen'}
    mask[:, :4, ::3] = True
    whole, whole_state = model(video(), patch_mask=mask)
    first, state = model(video()[:, :4], patch_mask=mask[:, :4])
    second, state = model(video()[:, 4:], state=state)
    assert_same(dict(tokens=second.levels[-1].tokens), dict(tokens=whole.levels[-1].tokens[:, 4:]))
    assert 'patch.seen' not in state, 'all is seen, so nothing has to be remembered'
    assert_same(state, {key: value for key, value in whole_state.items() if key != 'patch.seen'})


@torch.no_grad()
def test_state_has_one_size_for_ever() -> None:
    model = build(masking='random')
    state, sizes = model.start(2), []
    for index in range(40):
        _, state = model.step(video()[:, index % FRAMES, None], state)
        if index in (0, 39):
            sizes.append({key: (tuple(value.shape), value.dtype) for key, value in state.items()})
    assert sizes[0] == sizes[1]


@torch.no_grad()
def test_the_decoder_is_causal_and_can_forget() -> None:
    model = build()
    other = video().clone()
    other[:, 5:] = 0.5
    one, two = (model.step(x, model.start(2))[0]['mae'].patches for x in (video(), other))
    assert torch.equal(one[:, :5], two[:, :5]) and not torch.equal(one[:, 5:], two[:, 5:])
    _, state = model.step(video()[:, :4], model.start(2))
    kept = model.forget(state, 'all')
    assert set(kept) == {'heads.mae.seed', 'heads.mae.frame'}
    backbone_only = model.forget(state, 'backbone')
    assert any(key.startswith('heads.mae.decoder.') for key in backbone_only)
