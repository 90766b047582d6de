"""XViT: sizes, gradients, what sees what in time, streaming, summary tokens, cost, errors for users."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trecvit_dense.models.backbones.xvit import XViT
from trecvit_dense.models.layers.embedding import interpolate_table
from trecvit_dense.models.layers.shifted_attention import ShiftedAttention
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import PromptGroup, RecurrentState

SMALL = dict(type='XViT', embed_dim=16, depth=2, num_heads=2, image_size=16, patch_size=8)


def build(**options: object) -> XViT:
    """Small, with random tables: a temporal table of zeros would hide mistakes in it."""
    torch.manual_seed(0)
    model = MODELS.build(dict(SMALL, **options))
    torch.nn.init.normal_(model.frame_position)
    for block in model.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.3)
    return model


def video(batch: int = 2, frames: int = 6, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


def tokens_of(model: XViT, clip: torch.Tensor) -> torch.Tensor:
    """``(B, T, 1 + S, C)`` without gradients."""
    with torch.no_grad():
        features, _ = model.eval()(clip)
    return torch.cat([features.class_token[:, :, None], features.levels[-1].tokens], dim=2)


def reach(model: XViT, frame: int, frames: int = 6) -> list[int]:
    """Frames whose features change when ``frame`` does."""
    clip = video(1, frames)
    other = clip.clone()
    other[:, frame] += 1.0
    changed = (tokens_of(model, clip) - tokens_of(model, other)).abs().amax(dim=(0, 2, 3))
    return torch.nonzero(changed > 1e-6).flatten().tolist()


# ---------------------------------------------------------------------------------------------- sizes and levels


@pytest.mark.parametrize(
    ('options', 'parameters'),
    [  # of the ViT family, plus 8 temporal positions
        (dict(variant='B/16'), 85_798_656 + 8 * 768),
        (dict(variant='B/32'), 87_455_232 + 8 * 768),
        (dict(variant='L/16'), 303_301_632 + 8 * 1024),
        (dict(variant='B/16', image_size=384), 85_798_656 + (576 - 196) * 768 + 8 * 768),
    ],
)
def test_registered_variants_have_the_size_of_their_vit(options: dict, parameters: int) -> None:
    with torch.device('meta'):
        model = MODELS.build(dict(type='XViT', **options))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.causal is False and model.supports_prompts is False and model.delay_frames == 0


def test_levels_and_what_is_said_of_them() -> None:
    model = build(out_indices=(0, -1), patch_size=(4, 8))
    features, _ = model.eval()(video())
    assert model.out_channels == (16, 16) and model.strides == ((4, 8), (4, 8))
    for level in features.levels:
        assert level.grid == (4, 3) and level.maps().shape == (2, 6, 4, 3, 16)
    assert features.class_token.shape == (2, 6, 16)
    spread = [level.tokens.var(dim=-1, unbiased=False) for level in features.levels]
    torch.testing.assert_close(spread[1], torch.ones_like(spread[1]), rtol=1e-2, atol=1e-2)
    assert (spread[0] - 1).abs().mean() > 0.05


@pytest.mark.parametrize(
    'options',
    [dict(), dict(summary=True), dict(future=False), dict(checkpointing=True, drop_path_rate=0.1), dict(window=3)],
    ids=['plain', 'summary', 'causal', 'checkpointing', 'window'],
)
def test_gradient_reaches_every_parameter(options: dict) -> None:
    model = build(frame_positions=2, **options).train()
    features, _ = model(video())
    (features.levels[0].tokens.square().sum() + features.class_token.square().sum()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_checkpointing_gives_equal_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build(checkpointing=checkpointing, future=False, drop_path_rate=0.3).train()
        torch.manual_seed(3)
        features, _ = model(video())
        features.class_token.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_drop_path_drops_frames_in_training_only() -> None:
    model = build(drop_path_rate=0.9, shift_layers=())
    assert [block.drop_path.rate for block in model.blocks] == [0.0, 0.9]
    still = video(1, 1).expand(1, 8, -1, -1, -1)
    torch.nn.init.zeros_(model.frame_position)
    assert tokens_of(model, still).std(dim=1).max() < 1e-5
    assert len({round(frame[0].item(), 3) for frame in model.train()(still)[0].class_token[0]}) > 1


# --------------------------------------------------------------------------------------------------------- time


def test_a_frame_reaches_one_frame_further_with_every_mixing_block() -> None:
    assert reach(build(), 3) == [1, 2, 3, 4, 5]
    assert reach(build(shift_layers=[1]), 3) == [2, 3, 4]
    assert reach(build(shift_layers=[]), 3) == [3]
    assert reach(build(future=False), 3) == [3, 4, 5]
    assert reach(build(future=False, shift_layers=[0]), 3) == [3, 4]


def test_groups_of_frames_do_not_meet_and_the_last_may_be_short() -> None:
    model = build(num_segments=2)
    assert reach(model, 3, frames=5) == [2, 3]
    assert reach(model, 4, frames=5) == [4]
    torch.testing.assert_close(tokens_of(model, video())[:, :4], tokens_of(model, video()[:, :4]))
    assert reach(build(num_segments=3, future=False), 1) == [1, 2]


def test_temporal_positions_repeat() -> None:
    model = build(frame_positions=3, shift_layers=())
    still = video(1, 1).expand(1, 7, -1, -1, -1)
    tokens = tokens_of(model, still)
    torch.testing.assert_close(tokens[:, :4], tokens[:, 3:])
    assert (tokens[:, 0] - tokens[:, 1]).abs().max() > 0.01


def test_exchange_takes_the_channels_that_the_paper_says() -> None:
    """Against the three lines of the definition, one frame at a time; the fold crosses the borders of heads."""
    keys_values = torch.randn(2, 5, 3, 2, 12)
    found, last = ShiftedAttention(12, 3, fold=5, group=3).exchange(keys_values)
    for t in range(5):
        after = keys_values[:, t + 1] if t % 3 != 2 and t != 4 else torch.zeros(2, 3, 2, 12)
        before = keys_values[:, t - 1] if t % 3 else torch.zeros(2, 3, 2, 12)
        wanted = torch.cat([after[..., :5], before[..., 5:10], keys_values[:, t, ..., 10:]], dim=-1)
        assert torch.equal(found[:, t], wanted)
    assert torch.equal(last, keys_values[:, -1, ..., 5:10])


def test_summary_tokens_tell_every_frame_of_every_other() -> None:
    assert reach(build(summary=True, shift_layers=()), 3) == [0, 1, 2, 3, 4, 5]
    names = [name for name, _ in build(summary=True).named_parameters()]
    assert names == [name for name, _ in build().named_parameters()]


def test_summary_attention_is_attention_over_one_more_token_per_frame() -> None:
    torch.manual_seed(0)
    layer = ShiftedAttention(8, 2)
    x, summary = torch.randn(1, 3, 4, 8), torch.randn(1, 3, 8)
    query, key, value = (part.unflatten(-1, (2, 4)) for part in layer.qkv(x).chunk(3, dim=-1))
    _, more_keys, more_values = (part.unflatten(-1, (2, 4)) for part in layer.qkv(summary).chunk(3, dim=-1))
    for t in range(3):
        keys, values = torch.cat([key[0, t], more_keys[0]]), torch.cat([value[0, t], more_values[0]])
        weights = torch.softmax(torch.einsum('nhd,mhd->hnm', query[0, t], keys) / 2.0, dim=-1)
        wanted = layer.proj(torch.einsum('hnm,mhd->nhd', weights, values).flatten(1))
        torch.testing.assert_close(layer(x, summary=summary)[0][0, t], wanted)


# ---------------------------------------------------------------------------------------------------- streaming


STREAMING = [
    dict(future=False),
    dict(future=False, num_segments=4, frame_positions=3),
    dict(future=False, shift_layers=[1], out_indices=[0, 1]),
    dict(window=3),
    dict(window=4, num_segments=2, summary=True),
]


@pytest.mark.parametrize('options', STREAMING, ids=str)
@torch.no_grad()
def test_step_clip_and_chunks_are_equal_and_the_state_is_constant(options: dict) -> None:
    model, clip = build(**options).eval(), video(frames=7)
    assert model.causal is ('window' not in options)
    whole, final = model(clip)
    for sizes in ([1] * 7, [2, 1, 4]):
        state, parts, bytes_held = None, [], set()
        for part in clip.split(sizes, dim=1):
            before = None if state is None else state.clone()
            features, new_state = model(part, state=state)
            assert state is None or all(torch.equal(state[key], before[key]) for key in state)
            state = new_state
            bytes_held.add(state.nbytes)
            parts.append(features)
        joined = parts[0]
        for part in parts[1:]:
            joined = joined.then(part)
        torch.testing.assert_close(joined.class_token, whole.class_token, rtol=1e-4, atol=1e-5)
        for level, wanted in zip(joined.levels, whole.levels, strict=True):
            torch.testing.assert_close(level.tokens, wanted.tokens, rtol=1e-4, atol=1e-5)
        assert len(bytes_held) == 1 and state.keys() == final.keys()
        for key, value in final.items():
            torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rows_of_a_batch_may_stand_at_different_frames() -> None:
    """A row whose ``seen`` is 0 starts afresh, whatever is left in its memory."""
    model, clip = build(future=False, num_segments=3, frame_positions=4).eval(), video(frames=7)
    _, state = model(clip[:, :4])
    state = RecurrentState(state, seen=torch.tensor([4, 0]))
    features, _ = model(clip[:, 4:], state=state)
    torch.testing.assert_close(features.class_token[0], model(clip)[0].class_token[0, 4:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.class_token[1], model(clip[:, 4:])[0].class_token[1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_window_is_the_clip_that_ends_with_the_frame() -> None:
    clip = video(frames=6)
    windowed, whole = build(window=4).eval(), build().eval()
    found = windowed(clip)[0].class_token[:, 5]
    torch.testing.assert_close(found, whole(clip[:, 2:])[0].class_token[:, -1], rtol=1e-4, atol=1e-5)


def test_whole_clips_are_not_gone_on_from() -> None:
    model = build()
    _, state = model(video())
    with pytest.raises(ValueError, match='window=W'):
        model(video(), state=state)


# ---------------------------------------------------------------------------------------------- positions, cost


def test_positions_of_another_size_are_resized() -> None:
    model = build(depth=1, shift_layers=())
    x, grid = model._tokens(torch.zeros(1, 1, 3, 24, 40))
    assert grid == (3, 5)
    patches = model.patch_embed(torch.zeros(1, 3, 24, 40))[0].flatten(1, 2)
    wanted = patches + interpolate_table(model.position.table, (2, 2), (3, 5)) + model.frame_position[:, 0]
    torch.testing.assert_close(x[0, :, 1:], wanted)
    torch.testing.assert_close(
        x[0, 0, 0], (model.class_token + model.class_position + model.frame_position[:, 0])[0, 0]
    )


def multiply_adds(frames: int, **options: object) -> int:
    with torch.device('meta'):
        model = MODELS.build(dict(type='XViT', variant='B/16', **options)).eval()
        # only unfused attention is counted on every device
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model(torch.empty(1, frames, 3, 224, 224))
    return counter.get_total_flops() // 2


def test_cost_is_linear_in_frames_and_that_of_the_official_model() -> None:
    """140.6 G and 281.1 G multiply-adds for 8 and 16 frames, measured on the official model, head included."""
    eight, sixteen = multiply_adds(8), multiply_adds(16)
    assert sixteen == 2 * eight
    assert eight == pytest.approx(140.6e9, rel=1e-3) and sixteen == pytest.approx(281.1e9, rel=1e-3)
    assert multiply_adds(8, shift_layers=()) == eight
    assert multiply_adds(16, summary=True) < 1.03 * sixteen


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(variant='BB'), 'no XViT variant'),
        (dict(num_heads=3), 'does not divide'),
        (dict(depth=None), 'depth missing'),
        (dict(out_indices=(0,)), 'end with 1'),
        (dict(image_size=4), 'smaller than one patch'),
        (dict(shift_div=1), 'shift_div is 1'),
        (dict(shift_layers=[-1]), 'block numbers'),
        (dict(num_segments=0), 'a group has 0 frames'),
        (dict(frame_positions=0), 'frame_positions is 0'),
        (dict(window=0), 'window is 0'),
        (dict(future=False, window=4), 'streams by itself'),
        (dict(future=False, summary=True), 'set window=W'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str) -> None:
    sizes = {} if options.get('variant') else {key: value for key, value in SMALL.items() if key != 'type'}
    with pytest.raises(ValueError, match=message):
        XViT(**{**sizes, **options})


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((2, 3, 3, 16, 20), 'does not divide into patches of 8x8'),
        ((2, 3, 3, 0, 16), 'does not divide'),
        ((2, 0, 3, 16, 16), 'at least one frame'),
        ((2, 3, 16, 16), r'\(B, T, 3, H, W\)'),
    ],
)
def test_wrong_videos_are_refused(shape: tuple[int, ...], message: str) -> None:
    for options in (dict(), dict(future=False)):
        with pytest.raises(ValueError, match=message):
            build(**options)(torch.zeros(shape))


def test_prompts_and_states_that_do_not_fit_are_refused() -> None:
    model = build(future=False)
    with pytest.raises(ValueError, match='takes no prompt tokens'):
        model(video(), [PromptGroup('p', torch.zeros(2, 6, 1, 16))])
    _, state = model(video())
    with pytest.raises(ValueError, match=r'blocks\.0\.keys_values.*this call needs'):
        model(video(height=24), state=state)
    with pytest.raises(ValueError, match='seen'):
        model(video(), state=RecurrentState(other=torch.zeros(2)))


def test_a_head_with_prompts_is_refused_when_the_model_is_built() -> None:
    heads = dict(points=dict(type='TAPNextHead', image_size=(16, 16), num_bins=16))
    with pytest.raises(ValueError, match='TAPNextHead.*XViT'):
        MODELS.build(dict(type='VideoPerceiver', backbone=SMALL, heads=heads))
