"""Every registered backbone under every registered head: forward, backward, predict, or a refusal that names both.

A backbone or head that is registered and not in the tables below fails: a new one gets its line here. What a backbone
gives and what a head needs are written down here by hand; the code must come to the same answer.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from trecvit_dense.models.heads import Head
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import DepthMap, FeatureLevel, ObjectMasks, PointTracks, VideoSample

use_scope()
SIZE, FRAMES, CLASSES = (32, 64), 5, 3
VIT = dict(embed_dim=16, depth=2, num_heads=2, image_size=32)
ROWS = [('first', 2, 8, 1, 1), ('lite', 2, 12, 2, 2), ('dna', 2, 16, 2, 1)]


@dataclass
class Entry:
    """One line of a table: a config, what is special, and which parameters may stay without gradient.

    Args:
        config: Of the backbone or of the head.
        traits: What the backbone gives beside features, or what the head needs: ``'prompts'``, ``'hiding'``,
            ``'token'`` (a class token as wide as the final level), ``'own token'`` (of another width).
        idle: Substring of a parameter's name to the reason.
        task: Under which a head stands.
    """

    config: dict
    traits: set[str] = field(default_factory=set)
    idle: dict[str, str] = field(default_factory=dict)
    task: str = 'classification'


BACKBONES = {
    'TRecViT': Entry(dict(type='TRecViT', patch_size=8, class_token=True, **VIT), {'prompts', 'hiding', 'token'}),
    'TRecViT-stem': Entry(
        dict(type='TRecViT', patch_size=8, stem='conv', stem_levels=(2, 4), position='sincos2d', **VIT),
        {'prompts', 'hiding'},
    ),
    'ViViT-joint': Entry(dict(type='ViViT', tubelet_size=(2, 8, 8), num_frames=4, **VIT), {'token'}),
    'ViViT-factorised': Entry(
        dict(type='ViViT', tubelet_size=(2, 8, 8), num_frames=4, encoder='factorised', class_token=False, window=4,
             out_indices=(0, 1), temporal_depth=1, **VIT),
    ),
    'XViT': Entry(dict(type='XViT', patch_size=8, out_indices=(0, 1), **VIT), {'token'}),
    'XViT-causal': Entry(dict(type='XViT', patch_size=8, future=False, **VIT), {'token'}),
}  # fmt: skip

HEADS = {
    'ClassificationHead-tok': Entry(
        dict(type='ClassificationHead', num_classes=CLASSES, rep_size=24, pool='tok'), {'token'}
    ),
    'ClassificationHead-gap': Entry(dict(type='ClassificationHead', num_classes=CLASSES, rep_size=None, pool='gap')),
    'TemporalAggregationHead': Entry(
        dict(type='TemporalAggregationHead', num_classes=CLASSES, num_heads=2, dropout=0.0), {'token'}
    ),
    'CostVolumePointHead': Entry(
        dict(type='CostVolumePointHead', channels=8, hidden_dim=16, fine_channels=4, num_levels=2, iterations=2),
        task='points',
    ),
    'TAPNextHead': Entry(
        dict(type='TAPNextHead', image_size=SIZE, num_bins=32, hidden_dim=16), {'prompts'}, task='points'
    ),
    'DPTDepthHead': Entry(
        dict(type='DPTDepthHead', scales=(4, 8, 16), widths=8, context=dict(stride=16, depth=1, num_heads=2)),
        task='depth',
    ),
    'LabelPropagationHead': Entry(dict(type='LabelPropagationHead', num_context=2), task='masks'),
    'ObjectTokenHead': Entry(
        dict(type='ObjectTokenHead', channels=8, fine_channels=4, hidden_dim=8, target_dim=8), {'prompts'}, task='masks'
    ),
    'ObjectTokenHead-alone': Entry(
        dict(type='ObjectTokenHead', channels=8, fine_channels=4, hidden_dim=8, target_dim=8, use_prompts=False),
        task='masks',
    ),
    'MaskedAutoencoderHead': Entry(
        dict(type='MaskedAutoencoderHead', decoder_dim=16, decoder_depth=1, decoder_heads=2), {'hiding'}, task='mae'
    ),
}


def registered() -> list[type]:
    """Classes of the package that the registry finds by itself."""
    MODELS.import_from_location()
    found = [cls for cls in MODELS.module_dict.values() if inspect.isclass(cls)]
    return [cls for cls in found if cls.__module__.startswith('trecvit_dense.')]


def names(entries: dict[str, Entry]) -> set[str]:
    return {entry.config['type'] for entry in entries.values()}


def test_no_backbone_is_left_out() -> None:
    backbones = {cls.__name__ for cls in registered() if 'models.backbones' in cls.__module__}
    assert backbones == names(BACKBONES)


def test_no_head_is_left_out() -> None:
    assert {cls.__name__ for cls in registered() if issubclass(cls, Head)} == names(HEADS)


def make_samples() -> list[VideoSample]:
    """A bright square that moves over noise: its points, its mask, its label, and a slope behind it."""
    rng, samples = np.random.default_rng(0), []
    for label in range(2):
        video = rng.integers(0, 120, (FRAMES, *SIZE, 3), dtype=np.uint8)
        labels = np.zeros((FRAMES, *SIZE), np.uint8)
        xy = np.zeros((4, FRAMES, 2), np.float32)
        for frame in range(FRAMES):
            left, top = 8 + 4 * frame, 6 + 2 * frame * label
            video[frame, top : top + 12, left : left + 20] += 100
            labels[frame, top : top + 12, left : left + 20] = 1
            labels[frame, 24:30, 4:20] = 2 * (frame > 1)
            xy[:, frame] = [[left + 3, top + 3], [left + 10, top + 6], [left + 15, top + 9], [60, 5]]
        visible = np.ones((4, FRAMES), bool)
        visible[3, 3:] = False
        query = np.concatenate([np.array([[0], [0], [1], [0]]), xy[np.arange(4), [0, 0, 1, 0]]], 1).astype(np.float32)
        depth = np.broadcast_to(np.linspace(4, 1.5, SIZE[0], dtype=np.float32)[None, :, None], labels.shape).copy()
        samples.append(
            VideoSample(
                video,
                points=PointTracks(xy, visible, query),
                masks=ObjectMasks(labels, [1, 2], first_frame=[0, 2]),
                depth=DepthMap(depth, np.ones(depth.shape, bool)),
                label=label,
                name=f'square {label}',
                meta=dict(target=0.5 - label),
            )
        )
    return samples


def build(backbone: Entry, head: Entry) -> torch.nn.Module:
    torch.manual_seed(0)
    heads = {head.task: head.config}
    return MODELS.build(dict(type='VideoPerceiver', backbone=backbone.config, heads=heads, chunk_frames=2))


PAIRS = [(backbone, head) for backbone in BACKBONES for head in HEADS]
FITTING = [pair for pair in PAIRS if HEADS[pair[1]].traits <= BACKBONES[pair[0]].traits]


@pytest.mark.parametrize(('backbone', 'head'), FITTING, ids=map(' + '.join, FITTING))
def test_fits(backbone: str, head: str) -> None:
    """Loss and gradient of a training step, then an answer, of one pair."""
    entries = BACKBONES[backbone], HEADS[head]
    model, samples = build(*entries).train(), make_samples()
    inputs = [torch.from_numpy(sample.video).permute(0, 3, 1, 2) for sample in samples]
    losses = model(**model.data_preprocessor(dict(inputs=inputs, data_samples=samples)), mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())
    if any(parameter.requires_grad for parameter in model.heads.parameters()):
        sum(losses.values()).backward()
        idle = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().any()]
        reasons = entries[0].idle | entries[1].idle
        unexplained = [name for name in idle if not any(part in name for part in reasons)]
        assert not unexplained
        unneeded = [part for part in entries[1].idle if not any(part in name for name in idle)]
        assert not unneeded, 'these parameters do have a gradient'
    else:
        assert not losses  # nothing to learn: a probe
    data = model.eval().data_preprocessor(dict(inputs=inputs[:1], data_samples=samples[:1]))
    sample = samples[0]
    if entries[1].task not in ('points', 'masks', 'depth'):
        sample.points = sample.masks = sample.depth = None
    answer = model(**data, mode='predict')[0].predictions[entries[1].task]
    check_answer(entries[1].task, answer, sample)


def check_answer(task: str, answer: object, sample: VideoSample) -> None:
    if task == 'points':
        assert np.isfinite(answer.xy_px).all() and answer.xy_px.shape == sample.points.xy_px.shape
    elif task == 'masks':
        assert answer.labels.shape == sample.masks.labels.shape and set(np.unique(answer.labels)) <= {0, 1, 2}
        assert (answer.labels[2] == 2).any()  # given on this frame, between two chunks
    elif task == 'depth':
        assert np.isfinite(answer.values).all() and answer.values.shape == (FRAMES, *SIZE)
    elif task == 'classification' and 'probs' in answer:
        assert answer['probs'].shape == (CLASSES,) and abs(float(answer['probs'].sum()) - 1) < 1e-5
    else:
        assert answer is not None


@pytest.mark.parametrize('pair', [pair for pair in PAIRS if pair not in FITTING], ids=' + '.join)
def test_does_not_fit_and_says_so(pair: tuple[str, str]) -> None:
    backbone, head = BACKBONES[pair[0]], HEADS[pair[1]]
    with pytest.raises(ValueError) as error:
        build(backbone, head)
    assert head.config['type'] in str(error.value) and backbone.config['type'] in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', BACKBONES)
def test_features_contract(name: str) -> None:
    """Dense features of every frame at the sizes that the attributes say; streaming is what a clip is."""
    torch.manual_seed(0)
    entry = BACKBONES[name]
    backbone = MODELS.build(entry.config).eval()
    video = torch.rand(2, FRAMES, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features, state = backbone(video)
    assert len(features.levels) == len(backbone.out_channels) == len(backbone.strides)
    for level, width, stride in zip(features.levels, backbone.out_channels, backbone.strides, strict=True):
        grid = tuple(-(-side // step) for side, step in zip(SIZE, stride, strict=True))
        assert isinstance(level, FeatureLevel) and level.grid == grid and tuple(level.stride) == tuple(stride)
        assert level.tokens.shape == (2, FRAMES, grid[0] * grid[1], width)
    token = None if features.class_token is None else features.class_token.shape
    assert token == (None if backbone.class_token_dim is None else (2, FRAMES, backbone.class_token_dim))
    assert (token is not None) == bool(entry.traits & {'token', 'own token'})
    assert backbone.supports_prompts == ('prompts' in entry.traits)
    assert getattr(backbone, 'supports_patch_mask', False) == ('hiding' in entry.traits)
    assert backbone.embed_dim == backbone.out_channels[-1]
    if not backbone.causal and 'window' not in entry.config:
        with pytest.raises(ValueError, match='window'):
            backbone(video, state=state)
        return
    chunks, memory = [], None
    with torch.no_grad():
        for chunk in video.split([1, 3, 1], 1):
            found, memory = backbone(chunk, state=memory)
            assert memory.nbytes == state.nbytes
            chunks.append(found)
    for index, level in enumerate(features.levels):
        joined = torch.cat([chunk.levels[index].tokens for chunk in chunks], 1)
        torch.testing.assert_close(joined, level.tokens, atol=2e-5, rtol=1e-4)
