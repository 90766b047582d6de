"""The whole TRecViT classifier against the official model: tokens, every block, states, logits, gradients, names."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.parity.goldens import Golden, assert_close_max, golden_files
from trecvit_dense.checkpoints.trecvit_names import trecvit_from_official, trecvit_to_official
from trecvit_dense.models import VideoPerceiver
from trecvit_dense.models.heads.classification import classify_clips, split_clips
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import VideoSample


def build(golden: Golden) -> VideoPerceiver:
    """A perceiver of the golden's sizes with its weights; every key must have a place, and every place a key."""
    config = golden.config
    backbone = dict(
        type='TRecViT',
        embed_dim=config['width'],
        depth=config['depth'],
        num_heads=config['num_heads'],
        mlp_dim=config['mlp_dim'],
        patch_size=config['patch_size'][1:],
        image_size=config['image_size'],
        state_multiplier=config['state_multiplier'],
        temporal_mlp=config['use_mlp'],
        conv_width=config['conv1d_temporal_width'],
        position={'learn': 'learned', 'sincos2d': 'sincos2d'}[config['posemb']],
        class_token=config['pool_type'] == 'tok',
    )
    head = dict(
        type='ClassificationHead',
        num_classes=config['num_classes'],
        rep_size=config['rep_size'],
        pool=config['pool_type'],
    )
    model = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head))).eval()
    model.load_state_dict(trecvit_from_official(golden.group('params/')))
    return model


def channels_first(video: torch.Tensor) -> torch.Tensor:
    return video.permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize('path', golden_files('trecvit_'))
def test_trecvit(path) -> None:
    golden = Golden(path)
    model = build(golden)
    video = golden.tensor('video').requires_grad_()
    clips = split_clips(channels_first(video), golden.config['frames_per_clip'])
    seen = watch_blocks(model.backbone)
    output = classify_clips(model, channels_first(video), golden.config['frames_per_clip'])
    for name in ('pre_logits', 'logits', 'probs'):
        assert_close_max(getattr(output, name), golden[f'out/{name}'], name=f'out/{name}')
    compare_insides(golden, seen)
    compare_tokens(golden, model, clips)
    if 'labels' in golden:
        compare_gradients(golden, model, video, output)
    golden.assert_all_compared()


def watch_blocks(backbone: torch.nn.Module) -> dict[str, tuple]:
    """Outputs of every temporal and spatial block of the next pass, by name."""
    seen: dict[str, tuple] = {}
    for name, module in backbone.named_modules():
        if re.fullmatch(r'blocks\.\d+\.(temporal|spatial)', name):
            module.register_forward_hook(lambda _, inputs, result, name=name: seen.__setitem__(name, result))
    return seen


def compare_insides(golden: Golden, seen: dict[str, tuple]) -> None:
    for key in golden.keys('inter/'):
        kind, layer = re.fullmatch(r'inter/(residual|encoder)block_(\d+)', key).groups()
        part = {'residual': 'temporal', 'encoder': 'spatial'}[kind]
        assert_close_max(seen[f'blocks.{int(layer)}.{part}'][0], golden[key], name=key)
    for key in golden.keys('state/'):
        layer, name = re.fullmatch(r'state/residualblock_(\d+)/(rg_lru|conv1d)_state', key).groups()
        state = seen[f'blocks.{int(layer)}.temporal'][1]
        if name == 'rg_lru':
            assert_close_max(state['rg_lru'], golden[key], name=key)
        else:  # official: (rows, taps, L); ours: (taps, rows, L)
            assert_close_max(state['conv'].transpose(1, 2), golden[key], name=key)


@torch.no_grad()
def compare_tokens(golden: Golden, model: VideoPerceiver, clips: torch.Tensor) -> None:
    assert_close_max(model.backbone._tokens(clips)[0], golden['out/tokens'], name='out/tokens')
    features, _ = model.backbone(clips)
    encoded = features.levels[-1].tokens
    if features.class_token is not None:
        encoded = torch.cat([features.class_token[:, :, None], encoded], dim=2)
    assert_close_max(encoded, golden['out/encoded'], name='out/encoded')


def compare_gradients(golden: Golden, model: VideoPerceiver, video: torch.Tensor, output) -> None:
    samples = [VideoSample(np.zeros((1, 1, 1, 3), np.uint8), label=int(label)) for label in golden['labels']]
    loss = model.heads['classification'].loss(output, samples, (1.0, 1.0))['loss_cls']
    assert_close_max(loss, golden['loss'], name='loss')
    loss.backward()
    assert_close_max(video.grad, golden['grad/video'], 1e-3, 'grad/video')
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    official = trecvit_to_official(gradients)
    # A bias on the keys shifts all scores of a softmax alike: its true gradient is zero, and both programs return
    # rounding noise. It is held to the scale of the query bias beside it.
    for key in golden.keys('grad/params/'):
        name = key.removeprefix('grad/params/')
        if name.endswith('/key/bias'):
            query = golden[key.replace('/key/', '/query/')]
            assert np.abs(official[name] - golden[key]).max() <= 1e-3 * np.abs(query).max(), key
        else:
            assert_close_max(official[name], golden[key], 1e-3, key)


@pytest.mark.parametrize('path', golden_files('trecvit_'))
def test_official_names_round_trip(path) -> None:
    golden = Golden(path)
    arrays = golden.group('params/')
    back = trecvit_to_official(build(golden).state_dict())
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype
        np.testing.assert_array_equal(back[key], array, err_msg=key)


@pytest.mark.parametrize('path', golden_files('trecvit_'))
@torch.no_grad()
def test_frame_by_frame_gives_the_official_encoding(path) -> None:
    golden = Golden(path)
    model = build(golden)
    clips = split_clips(channels_first(golden.tensor('video')), golden.config['frames_per_clip'])
    state, logits = model.start(len(clips)), None
    for frame in clips.split(1, dim=1):
        outputs, state = model.step(frame, state)
        logits = outputs['classification'].logits
    assert_close_max(logits.view(len(golden['video']), -1, logits.shape[-1]).mean(dim=1), golden['out/logits'])
