"""XViT against the official model: tokens, exchanged keys and values, every block, the heads, gradients, names."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.goldens import Golden, golden_files, goldens_dir, to_numpy
from trecvit_dense.checkpoints.xvit_names import LAYOUT, xvit_from_official, xvit_to_official
from trecvit_dense.models import VideoPerceiver
from trecvit_dense.models.heads.temporal_aggregation import TemporalAggregationHead
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import VideoSample

SHAPES = 'xvit_b16_ssv2_state_dict_shapes.json'


def number(golden: Golden, name: str) -> int:
    return int(golden[f'cfg/{name}'])


def build(golden: Golden) -> VideoPerceiver:
    """A perceiver of the golden's sizes with its weights; every key must have a place, and every place a key."""
    arrays = golden.group('param/')
    patch = number(golden, 'patch_size')
    grid = round((arrays['base_model.pos_embed'].shape[1] - 1) ** 0.5)
    backbone = dict(
        type='XViT',
        embed_dim=number(golden, 'embed_dim'),
        depth=number(golden, 'depth'),
        num_heads=number(golden, 'num_heads'),
        patch_size=patch,
        image_size=grid * patch,
        frame_positions=number(golden, 'temp_embed_frames'),
        num_segments=number(golden, 'num_segments'),
        shift_div=number(golden, 'shift_div'),
        shift_layers=golden['cfg/shift_layers'].tolist(),
    )
    head = dict(type='TemporalAggregationHead', num_classes=number(golden, 'num_classes'))
    if number(golden, 'consensus_avg'):
        head.update(consensus='average')
    else:
        head.update(
            depth=number(golden, 'head_layers'),
            num_heads=number(golden, 'head_heads'),
            rep_size=number(golden, 'head_mlp_dim'),
        )
    model = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head))).eval()
    model.load_state_dict(xvit_from_official(arrays))
    return model


def clip_of(golden: Golden) -> Tensor:
    return golden.tensor('input').transpose(1, 2)  # official: (B, 3, T, H, W)


def close(actual: object, golden: Golden, key: str, atol: float = 5e-5) -> None:
    """The tolerance of the FORMAT file: 5e-5 absolute, for any array; more for large values, which lose digits."""
    actual, expected = to_numpy(actual), golden[key]
    assert actual.shape == expected.shape, f'{key}: shape {actual.shape}, wanted {expected.shape}'
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol, err_msg=key)


@pytest.mark.parametrize('path', golden_files('xvit_'))
def test_xvit(path) -> None:
    golden = Golden(path)
    model, clip = build(golden), clip_of(golden)
    seen = watch(model.backbone)
    outputs, _ = model.step(clip, model.start(len(clip)))
    output = outputs['classification']
    close(output.logits, golden, 'out/logits')
    compare_insides(golden, model, clip, seen)
    compare_head(golden, model, clip)
    compare_gradients(golden, model, output)
    golden.assert_all_compared(ignore=['cfg/*'])


def watch(backbone: torch.nn.Module) -> dict[str, Tensor]:
    """Outputs of the tokens' embedding, of every block and of every projection to queries, keys and values."""
    seen: dict[str, Tensor] = {}
    for name, module in backbone.named_modules():
        if re.fullmatch(r'patch_embed|norm|blocks\.\d+(\.attn\.qkv)?', name):
            module.register_forward_hook(lambda _, inputs, result, name=name: seen.__setitem__(name, result))
    return seen


@torch.no_grad()
def compare_insides(golden: Golden, model: VideoPerceiver, clip: Tensor, seen: dict[str, Tensor]) -> None:
    backbone = model.backbone
    close(seen['patch_embed'][0].flatten(1, 2), golden, 'out/patch_tokens')
    close(backbone._tokens(clip)[0].flatten(0, 1), golden, 'out/tokens_in')
    for key in golden.keys('out/block'):
        index = re.fullmatch(r'out/block(\d+)_out', key).group(1)
        close(seen[f'blocks.{index}'][0].flatten(0, 1), golden, key)
    close(seen['norm'].flatten(0, 1), golden, 'out/tokens_normed')
    index = number(golden, 'shift_block')
    attention = backbone.blocks[index].attn
    before = attention.split(seen[f'blocks.{index}.attn.qkv'])[1]  # (B, T, N, 2, C): keys and values
    after = attention.exchange(before)[0]
    for stage, pair in (('before', before), ('after', after)):
        for name, part in zip('kv', pair.unbind(3), strict=True):
            close(attention.by_head(part), golden, f'out/{name}_{stage}')


@torch.no_grad()
def compare_head(golden: Golden, model: VideoPerceiver, clip: Tensor) -> None:
    features, _ = model.backbone(clip)
    head: TemporalAggregationHead = model.heads['classification']
    if number(golden, 'consensus_avg'):
        close(head.classifier(features.class_token), golden, 'out/frame_logits')
        return
    close(features.class_token, golden, 'out/frame_features')
    tokens = torch.cat([head.class_token.expand(len(clip), -1, -1), features.class_token], dim=1)
    close(head.encode(tokens), golden, 'out/temporal_encoder_out')


def compare_gradients(golden: Golden, model: VideoPerceiver, output) -> None:
    samples = [VideoSample(np.zeros((1, 1, 1, 3), np.uint8), label=int(label)) for label in golden['labels']]
    loss = model.heads['classification'].loss(output, samples, (1.0, 1.0))['loss_cls']
    close(loss, golden, 'out/loss')
    loss.backward()
    official = xvit_to_official({name: parameter.grad for name, parameter in model.named_parameters()})
    for key in golden.keys('grad/'):
        close(official[key.removeprefix('grad/')], golden, key)


def idle_names(arrays: dict[str, np.ndarray]) -> list[str]:
    """Official names that are left out, each with its reason."""
    notes = [note.split(': ') for note in LAYOUT.drop(dict(arrays))]
    assert all(reason for _, reason in notes)
    return [name for name, _ in notes]


@pytest.mark.parametrize('path', golden_files('xvit_'))
def test_official_names_round_trip(path) -> None:
    """Every official key is loaded or named as unused, and all that are loaded come back bit for bit."""
    golden = Golden(path)
    arrays = golden.group('param/')
    back = xvit_to_official(build(golden).state_dict())
    idle = idle_names(arrays)
    assert set(idle) <= {'new_fc.weight', 'new_fc.bias'}
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype
        np.testing.assert_array_equal(back[key], np.zeros_like(array) if key in idle else array, err_msg=key)


@pytest.mark.parametrize('path', golden_files('xvit_'))
@torch.no_grad()
def test_the_head_streams_what_the_official_head_says(path) -> None:
    """Class tokens of the frames one by one: one block keeps running sums, more of them a window of the clip."""
    golden = Golden(path)
    model, clip = build(golden), clip_of(golden)
    head = model.heads['classification']
    if head.mode == 'clip':
        head.window = clip.shape[1]
    features, _ = model.backbone(clip)
    state = head.begin(len(clip), clip.device)
    for index in range(clip.shape[1]):
        frame = type(features)(features.levels, features.class_token[:, index : index + 1])
        output, state = head(frame, state, tuple(clip.shape[-2:]))
    close(output.logits, golden, 'out/logits')


def test_every_key_and_shape_of_the_released_model() -> None:
    path = goldens_dir() / SHAPES
    if not path.is_file():
        pytest.skip(f'no {SHAPES} in {path.parent}; set TRECVIT_GOLDENS to the folder of reference outputs')
    shapes = json.loads(path.read_text())
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    head = dict(type='TemporalAggregationHead', num_classes=174)
    backbone = dict(type='XViT', variant='B/16')
    with torch.device('meta'):
        model = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head)))
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    loaded = {name: tuple(value.shape) for name, value in xvit_from_official(arrays).items()}
    assert loaded == wanted
    idle = idle_names(arrays)
    assert sorted(idle) == ['new_fc.bias', 'new_fc.weight']
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == 93_617_070 and parameters + sum(arrays[name].size for name in idle) == 93_750_876
