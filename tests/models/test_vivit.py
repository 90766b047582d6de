"""ViViT: sizes of the papers, attention by hand, dense features in time, positions, streaming, errors for users."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from trecvit_dense.models.backbones.vivit import ViViT
from trecvit_dense.models.layers.attention import attend
from trecvit_dense.registry import MODELS

SMALL = dict(type='ViViT', embed_dim=16, depth=2, num_heads=2, tubelet_size=(2, 8, 8), num_frames=6, image_size=16)


def build(**options: object) -> ViViT:
    torch.manual_seed(0)
    return MODELS.build(dict(SMALL, **options)).eval()


def shake(model: ViViT) -> ViViT:
    """Weights so large that every part of the model shows in its output."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def video(batch: int = 2, frames: int = 6, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_of_the_papers() -> None:
    with torch.device('meta'):
        base, large, thin = (ViViT(name) for name in ('B', 'L/16x2', 'L/16x1'))
        factorised = ViViT('B/16x2', encoder='factorised')
    assert (base.embed_dim, base.depth, base.num_heads, base.tubelet_size) == (768, 12, 12, (2, 16, 16))
    block = 12 * 768**2 + 13 * 768
    assert count(base) == 12 * block + (3 * 512 + 1) * 768 + (1 + 16 * 14 * 14) * 768 + 3 * 768
    # 310.8 M in table 3 of arXiv 2412.14294 (174 classes), with a representation as wide as the model
    head = 1024 * 1024 + 1024 + 1024 * 174 + 174
    assert round((count(thin) + head) / 1e6, 1) == 310.8
    assert count(large) < count(thin)
    places = (1 + 14 * 14) * 768 + (1 + 16) * 768
    assert count(factorised) == 16 * block + (3 * 512 + 1) * 768 + places + 2 * 3 * 768


@pytest.mark.parametrize('encoder', ['joint', 'factorised'])
@pytest.mark.parametrize('class_token', [True, False])
@pytest.mark.parametrize('options', [dict(), dict(checkpointing=True, drop_path_rate=0.1, fused=False)])
def test_gradient_reaches_every_parameter(encoder: str, class_token: bool, options: dict) -> None:
    model = build(encoder=encoder, class_token=class_token, out_indices=(0, 1), **options).train()
    features, _ = model(video())
    assert model.out_channels == (16, 16) and model.strides == ((8, 8), (8, 8))
    assert [level.tokens.shape for level in features.levels] == [(2, 6, 6, 16)] * 2
    assert all(level.grid == (2, 3) and level.stride == (8, 8) for level in features.levels)
    total = sum((level.tokens * torch.randn_like(level.tokens)).sum() for level in features.levels)
    if class_token:
        total = total + (features.class_token * torch.randn(16)).sum()
    assert (features.class_token is not None) is class_token is (model.class_token_dim is not None)
    total.backward()
    idle = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().any()]
    assert not idle


@pytest.mark.parametrize('encoder', ['joint', 'factorised'])
def test_attention_that_keeps_its_weights_is_the_same(encoder: str) -> None:
    fused, plain = (shake(build(encoder=encoder, fused=fused)) for fused in (True, False))
    with torch.no_grad():
        one, two = fused(video())[0], plain(video())[0]
    torch.testing.assert_close(one.levels[0].tokens, two.levels[0].tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.class_token, two.class_token, atol=1e-5, rtol=1e-5)


def test_attention_with_a_mask() -> None:
    query, key, value = torch.randn(3, 2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([True, True, False, True, False])
    wanted = attend(query, key[..., mask, :], value[..., mask, :])
    for fused in (True, False):
        torch.testing.assert_close(attend(query, key, value, mask=mask.expand(2, 1, 1, 5), fused=fused), wanted)


def test_what_sees_what() -> None:
    """Joint: everything sees everything. Factorised: only the final level, through the temporal encoder, and in it."""
    for encoder in ('joint', 'factorised'):
        model, clip = shake(build(encoder=encoder, out_indices=(0, 1))), video(1)
        other = clip.clone()
        other[:, 0, :, :8, :8] += 1  # one patch of the first tubelet
        with torch.no_grad():
            first, second = model(clip)[0], model(other)[0]
        moved = [
            (a.tokens - b.tokens).abs().amax((0, 3)) > 1e-6 for a, b in zip(first.levels, second.levels, strict=True)
        ]
        assert moved[1].all() and (first.class_token - second.class_token).abs().min() > 0
        assert moved[0][:3].all()  # frames 1 and 2 are interpolated to it
        assert moved[0][3:].all() == (encoder == 'joint') and moved[0][3:].any() == (encoder == 'joint')


def test_frames_are_interpolated_between_tubelets() -> None:
    model = build()
    tokens = torch.tensor([0.0, 10.0, 30.0]).view(1, 3, 1, 1)  # tubelets at frames 0.5, 2.5 and 4.5
    wanted = torch.tensor([0.0, 2.5, 7.5, 15.0, 25.0, 30.0])
    torch.testing.assert_close(model._to_frames(tokens, 6).flatten(), wanted)
    torch.testing.assert_close(model._to_frames(tokens, 5).flatten(), wanted[:5])
    assert build(tubelet_size=(1, 8, 8))._to_frames(tokens, 3) is tokens
    last = build(tubelet_size=(4, 8, 8))._to_frames(tokens, 12).flatten()
    torch.testing.assert_close(last[:4], torch.tensor([0.0, 0.0, 1.25, 3.75]))


def test_odd_lengths_go_on_with_the_last_frame() -> None:
    model, clip = shake(build()), video()
    with torch.no_grad():
        odd = model(clip[:, :5])[0]
        even = model(torch.cat([clip[:, :5], clip[:, 4:5]], 1))[0]
    assert odd.levels[0].tokens.shape[1] == odd.class_token.shape[1] == 5
    torch.testing.assert_close(odd.levels[0].tokens, even.levels[0].tokens[:, :5])
    torch.testing.assert_close(odd.class_token, even.class_token[:, :5])


def test_positions_of_other_grids() -> None:
    table = build().positions
    assert table((3, 2, 2)) is table.table
    ramp = torch.arange(3.0)[:, None, None] + torch.zeros(3, 2, 2)  # grows along time alone
    with torch.no_grad():
        table.table[0, 1:] = ramp.reshape(-1, 1)
        found = table((6, 3, 5))
    assert found.shape == (1, 1 + 6 * 3 * 5, 16)
    assert torch.equal(found[:, 0], table.table[:, 0])
    wanted = F.interpolate(torch.arange(3.0)[None, None], 6, mode='linear', align_corners=False)[0, 0]
    places = found[0, 1:].view(6, 15, 16)
    torch.testing.assert_close(places, wanted[:, None, None].expand_as(places))


@pytest.mark.parametrize('encoder', ['joint', 'factorised'])
def test_streams_through_a_window(encoder: str) -> None:
    model, clip = shake(build(encoder=encoder, window=4)), video(frames=6)
    with torch.no_grad():
        whole, last = model(clip)
        state, parts = None, []
        for chunk in clip.split([1, 1, 3, 1], 1):
            features, state = model(chunk, state=state)
            assert state.nbytes == last.nbytes
            parts.append(features)
        alone = build(encoder=encoder)
        alone.load_state_dict(model.state_dict())
        reference = alone(clip[:, 2:6])[0]
    for pick in (lambda f: f.levels[0].tokens, lambda f: f.class_token):
        assert torch.equal(torch.cat([pick(part) for part in parts], 1), pick(whole))
        torch.testing.assert_close(pick(whole)[:, -1], pick(reference)[:, -1])
    assert not model.causal and model.delay_frames == 0


def test_whole_clips_refuse_to_go_on() -> None:
    model = build()
    _, state = model(video())
    with pytest.raises(ValueError, match='set window=W in its config'):
        model(video(), state=state)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(variant='C/16x2'), "'C/16x2' is no ViViT variant; known: mu, Ti"),
        (dict(variant='B/16'), r"variant 'B/16': behind '/' stand pixels and frames of a tubelet, e.g. 'B/16x2'"),
        (dict(embed_dim=None, depth=None), 'embed_dim and depth missing: name a variant'),
        (dict(encoder='axial'), "encoder is 'axial'; wanted 'joint' or 'factorised'"),
        (dict(window=3), 'window is 3; wanted a multiple of the 2 frames of a tubelet'),
        (dict(tubelet_size=(2, 8)), r'tubelet_size is \(2, 8\); wanted \(frames, height, width\)'),
        (dict(out_indices=(0,)), r'out_indices is \(0,\); wanted ascending block numbers that end with 1'),
        (dict(temporal_depth=0), 'temporal_depth is 0; wanted 1 or more'),
        (dict(image_size=4), r'6 frames of \(4, 4\) px hold no tubelet of \(2, 8, 8\); enlarge them'),
    ],
)
def test_errors_say_what_is_wrong(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_frames_must_be_whole_patches() -> None:
    with pytest.raises(ValueError, match='frames have 16x20 px; wanted multiples of the patch of 8x8 px'):
        build()(video(width=20))
    with pytest.raises(ValueError, match='ViViT takes no prompt tokens'):
        build()(video(), [object()])
