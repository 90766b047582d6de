"""TRecViT: variants, gradients to every parameter, levels, checkpointing, drop path, positions, errors for users."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from trecvit_dense.engine.costs import PeakMemory
from trecvit_dense.models.backbones.trecvit import TRecViT
from trecvit_dense.models.backbones.vit_family import VARIANTS
from trecvit_dense.models.heads.classification import merge_clips, split_clips
from trecvit_dense.models.layers import interpolate_table, sincos2d
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import PromptGroup, RecurrentState, VideoSample

SMALL = dict(type='TRecViT', embed_dim=16, depth=2, num_heads=2, image_size=16, patch_size=8)
# Kinetics-400 classifiers at 224 px with state_multiplier 2, counted on the official models
OFFICIAL_PARAMETERS = {
    'mu': 1_385_200,
    'Ti': 11_230_864,
    'S': 37_154_704,
    'M': 63_284_624,
    'B': 136_778_128,
    'L': 471_797_136,
    'So400m': 650_944_000,
    'H': 977_769_872,
    'g': 1_533_607_312,
    'g-opt': 1_755_467_152,
}


def build(**options: object) -> TRecViT:
    torch.manual_seed(0)
    return MODELS.build(dict(SMALL, **options))


def video(batch: int = 2, frames: int = 3, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_has_the_official_size(variant: str) -> None:
    with torch.device('meta'):
        backbone = MODELS.build(dict(type='TRecViT', variant=variant, class_token=True))
        head = dict(type='ClassificationHead', num_classes=400, backbone_channels=backbone.out_channels)
        total = count(backbone) + count(MODELS.build(head))
    assert total == OFFICIAL_PARAMETERS.get(variant, total)
    assert total > 1.7e9 or variant in OFFICIAL_PARAMETERS
    assert backbone.strides == ((16, 16),)


def test_paper_and_tapnext_sizes() -> None:
    with torch.device('meta'):
        paper = TRecViT('B/16', class_token=True, state_multiplier=1)
        tapnext = TRecViT('B/8', image_size=256, lru_width=768, temporal_mlp=True, min_rad=0.9)
    head = 768 * 3072 + 3072 + 3072 * 174 + 174
    assert count(paper) + head == 111_218_862  # 111.2 M in the paper's table, 174 classes
    # three learned tokens and two heads are TAPNext's own
    heads = sum(768 * 256 + 256 + 256 * 256 + 256 + 4 * 256 + 256 * out + out for out in (1, 512))
    assert count(tapnext) + 3 * 768 + heads == 194_202_881


@pytest.mark.parametrize(
    'options',
    [
        dict(class_token=True),
        dict(temporal_mlp=True, lru_width=16, drop_path_rate=0.1),
        dict(stem='conv', stem_levels=(2, 4), out_indices=(0, 1), position='sincos2d'),
        dict(checkpointing=True, class_token=True),
        dict(checkpointing='selective', temporal_mlp=True, lru_width=16),
    ],
    ids=['plain', 'mlp', 'conv_stem', 'checkpointing', 'selective'],
)
def test_gradient_reaches_every_parameter(options: dict) -> None:
    model = build(**options).train()
    tokens = torch.randn(2, 3, 4, 16, requires_grad=True)
    prompts = [PromptGroup('full', tokens), PromptGroup('reader', tokens, 'read_only', item_size=2)]
    features, _ = model(video(), prompts)
    outputs = [level.tokens for level in features.levels] + list(features.prompts.values())
    sum(output.square().sum() for output in outputs).backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not without
    assert tokens.grad.abs().sum() > 0


def test_levels_and_what_is_said_of_them() -> None:
    model = build(stem='conv', stem_channels=(8, 12, 16), stem_levels=(2, 4), out_indices=(0, -1), class_token=True)
    features, _ = model.eval()(video())
    assert model.out_channels == (8, 12, 16, 16)
    assert model.strides == ((2, 2), (4, 4), (8, 8), (8, 8))
    for level, channels, stride in zip(features.levels, model.out_channels, model.strides, strict=True):
        assert level.stride == stride
        assert level.grid == (16 // stride[0], 24 // stride[1])
        assert level.maps().shape == (2, 3, *level.grid, channels)
    assert features.class_token.shape == (2, 3, 16)


def test_final_level_is_normalised_and_earlier_ones_are_not() -> None:
    model = build(out_indices=(0, 1)).eval()
    features, _ = model(video())
    spread = [level.tokens.var(dim=-1, unbiased=False) for level in features.levels]
    torch.testing.assert_close(spread[1], torch.ones_like(spread[1]), rtol=1e-2, atol=1e-2)
    assert (spread[0] - 1).abs().mean() > 0.05


def test_prompt_layers() -> None:
    model = build().eval()
    prompts = [PromptGroup('a', torch.randn(2, 3, 4, 16)), PromptGroup('b', torch.randn(2, 3, 1, 16), 'read_only')]
    features, _ = model(video(), prompts, prompt_layers=True)
    assert {name: len(layers) for name, layers in features.prompt_layers.items()} == {'a': 2, 'b': 2}
    torch.testing.assert_close(model.norm(features.prompt_layers['a'][-1]), features.prompts['a'])
    torch.testing.assert_close(model.norm(features.prompt_layers['b'][-1]), features.prompts['b'])
    assert not model(video(), prompts)[0].prompt_layers


@pytest.mark.parametrize('attention', ['full', 'read_only'])
def test_no_prompts_in_a_group_is_fine(attention: str) -> None:
    features, state = build().eval()(video(), [PromptGroup('a', torch.zeros(2, 3, 0, 16), attention)])
    assert features.prompts['a'].shape == (2, 3, 0, 16)
    assert state['blocks.0.prompt.a.rg_lru'].shape == (2, 0, 32)


def test_checkpointing_gives_equal_gradients() -> None:
    gradients = []
    for checkpointing in (False, True, 'selective'):
        model = build(checkpointing=checkpointing, drop_path_rate=0.3).train()
        torch.manual_seed(3)
        prompts = [PromptGroup('a', torch.ones(2, 3, 2, 16), 'read_only')]
        features, _ = model(video(), prompts)
        (features.levels[0].tokens.square().sum() + features.prompts['a'].sum()).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        for recomputed in gradients[1:]:
            torch.testing.assert_close(recomputed[name], gradient, msg=name)


def test_what_checkpointing_keeps() -> None:
    """Bytes that live between the passes: what the docstring says, for every token and block."""
    kept, (tokens, width, depth, heads) = {}, (2 * 30 * 6, 64, 4, 4)
    for mode in (False, 'selective', 'block'):
        with torch.device('meta'), PeakMemory() as memory:
            model = build(embed_dim=width, num_heads=heads, depth=depth, checkpointing=mode).train()
            features, state = model(torch.empty(2, 30, 3, 16, 24))
            del state  # it has the graph, too
            live = memory.live
            del features
            kept[mode] = (live - memory.live) / 4 / tokens / depth
    lru, mlp = 2 * width, model.mlp_dim
    assert kept[False] == pytest.approx(11 * width + 5 * lru + 2 * mlp + heads, rel=0.08)
    assert kept['selective'] == pytest.approx(8 * width + 3 * lru + mlp + heads, rel=0.05)
    assert width < kept['block'] < 2.5 * width  # and the stem's output, once


def test_drop_path_drops_whole_samples_in_training_only() -> None:
    model = build(drop_path_rate=0.9)
    assert [block.temporal.drop_path.rate for block in model.blocks] == [0.0, 0.9]
    clip = video(1).expand(32, -1, -1, -1, -1)
    assert (model.eval()(clip)[0].levels[0].tokens.std(dim=0) < 1e-5).all()
    tokens = model.train()(clip)[0].levels[0].tokens
    assert len({sample.sum().item() for sample in tokens}) > 1


def test_positions() -> None:
    table = torch.randn(1, 12, 8)
    assert interpolate_table(table, (3, 4), (3, 4)) is table
    wanted = F.interpolate(table.view(1, 3, 4, 8).permute(0, 3, 1, 2), (6, 5), mode='bicubic').flatten(2).mT
    torch.testing.assert_close(interpolate_table(table, (3, 4), (6, 5)), wanted)
    encoding = sincos2d((2, 3), 8).view(2, 3, 8)
    x, y = torch.tensor(2.0), torch.tensor(1.0)
    low = 10000.0**-1
    wanted = torch.stack(
        [x.sin(), (x * low).sin(), x.cos(), (x * low).cos(), y.sin(), (y * low).sin(), y.cos(), (y * low).cos()]
    )
    torch.testing.assert_close(encoding[1, 2], wanted)


def test_a_remainder_of_the_frame_is_dropped() -> None:
    for options in (dict(), dict(stem='conv')):
        model = build(**options).eval()
        odd = video(height=21, width=30)
        torch.testing.assert_close(model(odd)[0].levels[-1].tokens, model(odd[..., :16, :24])[0].levels[-1].tokens)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(variant='BB'), 'no TRecViT variant'),
        (dict(variant='B/x'), 'patch size'),
        (dict(variant='B/8', patch_size=16), 'disagree'),
        (dict(num_heads=3), 'does not divide'),
        (dict(depth=None), 'depth missing'),
        (dict(out_indices=(0,)), 'end with 1'),
        (dict(out_indices=(1, 0)), 'ascending'),
        (dict(stem='convs'), "'patch' or 'conv'"),
        (dict(stem='conv', patch_size=12), 'power of two'),
        (dict(stem='conv', stem_channels=(8,)), 'needs 3'),
        (dict(stem='conv', stem_levels=(3,)), 'stem_levels'),
        (dict(position='rope'), "'learned' or 'sincos2d'"),
        (dict(gelu='relu'), "'tanh'"),
        (dict(image_size=4), 'smaller than one patch'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
        (dict(embed_dim=18, position='sincos2d'), 'multiple of 4'),
        (dict(patch_size=0), 'no size'),
        (dict(checkpointing='some'), r"wanted False, True \('block'\) or 'selective'"),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str) -> None:
    sizes = {} if options.get('variant') else {key: value for key, value in SMALL.items() if key != 'type'}
    with pytest.raises(ValueError, match=message):
        TRecViT(**{**sizes, **options})


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((2, 3, 3, 1, 1), 'smaller than one patch'),
        ((2, 0, 3, 16, 16), 'no frames'),
        ((2, 3, 16, 16), r'\(B, T, 3, H, W\)'),
    ],
)
def test_wrong_videos_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()(torch.zeros(shape))


@pytest.mark.parametrize(
    ('group', 'message'),
    [
        (dict(tokens=torch.zeros(2, 2, 4, 16)), 'wanted'),
        (dict(tokens=torch.zeros(2, 3, 4, 16), attention='causal'), 'read_only'),
        (dict(tokens=torch.zeros(2, 3, 4, 16), item_size=3), 'items of 3'),
        (dict(tokens=torch.zeros(2, 3, 4, 16), active=torch.ones(2, 3, 4)), 'active is torch.float32'),
        (dict(tokens=torch.zeros(2, 3, 4, 16), reset=torch.ones(2, 4, dtype=torch.bool)), 'reset'),
    ],
)
def test_wrong_prompts_are_refused(group: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()(video(), [PromptGroup('p', **group)])
    with pytest.raises(ValueError, match='names must differ'):
        build()(video(), [PromptGroup('p', torch.zeros(2, 3, 1, 16))] * 2)


def test_state_of_another_size_is_refused() -> None:
    model = build()
    _, state = model(video())
    with pytest.raises(ValueError, match='blocks.0.patch.rg_lru.*this call needs'):
        model(video(height=24), state=state)
    with pytest.raises(ValueError, match='another model'):
        model(video(), state=RecurrentState({k: v for k, v in state.items() if 'blocks.1' not in k}))


def test_classification_streams_and_trains() -> None:
    config = dict(
        type='VideoPerceiver',
        backbone=dict(SMALL, class_token=True),
        heads=dict(classification=dict(type='ClassificationHead', num_classes=5, rep_size=12)),
    )
    model = MODELS.build(config)
    clip = video(frames=4)
    whole, final = model.step(clip, model.start(2))
    state = model.start(2)
    for part in clip.split([1, 3], dim=1):
        output, state = model.step(part, state)
    torch.testing.assert_close(output['classification'].logits, whole['classification'].logits, rtol=1e-4, atol=1e-5)
    assert {name: tensor.shape for name, tensor in state.items()} == {name: t.shape for name, t in final.items()}
    samples = [VideoSample(clip[i].permute(0, 2, 3, 1).mul(255).byte().numpy(), label=i) for i in range(2)]
    model(clip, samples, mode='loss')['loss_cls'].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.predict(clip, samples, (1.0, 1.0))[1].predictions['classification']['probs'].shape == (5,)
    merged = merge_clips(model.step(split_clips(clip, 2), model.start(4))[0]['classification'], 2)
    assert merged.logits.shape == (2, 5) and merged.pre_logits.shape == (2, 2, 12)
    with pytest.raises(ValueError, match='do not divide'):
        split_clips(video(frames=5), 2)
    with pytest.raises(ValueError, match='no label'):
        model(clip, [VideoSample(samples[0].video)], mode='loss')
