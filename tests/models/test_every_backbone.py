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
SIZE, FRAMES, CLASSES = (32, 48), 4, 3
WIDTH = 16  # of the final level of all backbones here
VIT = dict(embed_dim=WIDTH, depth=2, num_heads=2, image_size=32)
ROWS = (('first', 2, 8, 1, 0), ('lite', 2, 12, 2, 2), ('dna', 2, 12, 1, 0), ('lite', 2, WIDTH, 2, 2))
MOBILE = dict(stem_channels=8, num_tokens=2, token_dim=32, rows=ROWS)  # narrower ones have dead units
BARE = dict(class_token=False)  # without the last bridge, which gives that token
PROMPTS, HIDING = 'takes prompt tokens', 'leaves patches out'
READOUT = dict.fromkeys(
    ['backbone.stages.0.linear', 'backbone.stages.1.', 'backbone.stages.2.'],
    'behind the first stage stands the class token, which the head does not read; readout=False leaves it out',
)


@dataclass
class Entry:
    """A backbone: its config and what it gives.

    Args:
        token: Width of its class token; 0: it has none.
        traits: ``PROMPTS``, ``HIDING``.
        whole: It wants whole clips.
        video: It is given video, and no stored tokens.
        bare: Changes of the config for heads that read no class token, so that nothing is left without gradient.
        idle: Start of the name of parameters that may have no gradient under some head, to the reason.
    """

    config: dict
    token: int = 0
    traits: set[str] = field(default_factory=set)
    whole: bool = False
    video: bool = True
    bare: dict = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.config['type']

    def inputs(self) -> torch.Tensor:
        """What a forward pass is given for two clips."""
        shape = (2, FRAMES, 3, *SIZE) if self.video else (2, FRAMES, 24, WIDTH)
        return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@dataclass
class HeadEntry:
    """A head: its config and what it needs.

    Args:
        task: Under which it stands.
        token: ``'wide'``: a class token as wide as the final level; ``'any'``: of any width, which ``token_dim`` says.
        traits: As above.
        idle: As above.
    """

    config: dict
    task: str = 'classification'
    token: str = ''
    traits: set[str] = field(default_factory=set)
    idle: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.config['type']

    def fits(self, backbone: Entry) -> bool:
        if not backbone.video and self.task != 'classification':
            return False
        token = not self.token or backbone.token == WIDTH or (self.token == 'any' and backbone.token > 0)
        return token and self.traits <= backbone.traits


BACKBONES = {
    'TRecViT': Entry(dict(type='TRecViT', patch_size=8, class_token=True, **VIT), WIDTH, {PROMPTS, HIDING}),
    'TRecViT-stem': Entry(
        dict(type='TRecViT', patch_size=8, stem='conv', stem_levels=(2, 4), position='sincos2d', **VIT),
        traits={PROMPTS, HIDING},
    ),
    'ViViT-joint': Entry(dict(type='ViViT', tubelet_size=(2, 8, 8), num_frames=4, **VIT), WIDTH, whole=True),
    'ViViT-factorised': Entry(
        dict(type='ViViT', tubelet_size=(2, 8, 8), num_frames=4, encoder='factorised', temporal_depth=1,
             class_token=False, window=4, out_indices=(0, 1), **VIT),
    ),
    'XViT': Entry(dict(type='XViT', patch_size=8, out_indices=(0, 1), **VIT), WIDTH, whole=True),
    'XViT-causal': Entry(dict(type='XViT', patch_size=8, future=False, **VIT), WIDTH),
    'MobileFormer': Entry(dict(type='MobileFormer', **MOBILE), 32, bare=BARE),
    'VideoMobileFormer': Entry(dict(type='VideoMobileFormer', **MOBILE), 32, whole=True, bare=BARE),
    'VideoMobileFormer-causal': Entry(dict(type='VideoMobileFormer', causal=True, **MOBILE), 32, bare=BARE),
    'ViS4mer': Entry(
        dict(type='ViS4mer', encoder=dict(type='TRecViT', patch_size=8, class_token=True, **VIT), l_max=100, d_state=8),
        2, idle=READOUT,
    ),
    'ViS4mer-dense': Entry(
        dict(type='ViS4mer', encoder=dict(type='XViT', patch_size=8, window=2, **VIT), l_max=100, d_state=8,
             readout=False, freeze_encoder=False),
        WIDTH,
    ),
    'RGBDifference': Entry(
        dict(type='RGBDifference', backbone=dict(type='TRecViT', patch_size=8, **VIT)), traits={PROMPTS, HIDING}
    ),
    'RGBDifference-whole': Entry(
        dict(type='RGBDifference', backbone=dict(type='XViT', patch_size=8, **VIT)), WIDTH, whole=True
    ),
    'StoredFeatures': Entry(dict(type='StoredFeatures', embed_dim=WIDTH, grid=(4, 6), stride=8), video=False),
}  # fmt: skip

OBJECTS = dict(type='ObjectTokenHead', channels=8, fine_channels=4, hidden_dim=8, target_dim=8)
HEADS = {
    'ClassificationHead-tok': HeadEntry(
        dict(type='ClassificationHead', num_classes=CLASSES, rep_size=24, pool='tok'), token='wide'
    ),
    'ClassificationHead-last': HeadEntry(
        dict(type='ClassificationHead', num_classes=CLASSES, rep_size=None, pool='last', token_dim=None), token='any'
    ),
    'ClassificationHead-gap': HeadEntry(
        dict(type='ClassificationHead', num_classes=CLASSES, rep_size=None, pool='gap')
    ),
    'RegressionHead': HeadEntry(dict(type='RegressionHead', rep_size=24, pool='gap')),
    'TemporalAggregationHead': HeadEntry(
        dict(type='TemporalAggregationHead', num_classes=CLASSES, num_heads=2, dropout=0.0, token_dim=None), token='any'
    ),
    'AttentiveProbe': HeadEntry(dict(type='AttentiveProbe', num_classes=CLASSES, num_heads=2, mlp_dim=24)),
    'MobileFormerClassifier': HeadEntry(
        dict(type='MobileFormerClassifier', num_classes=CLASSES, rep_size=24, token_dim=None), token='any'
    ),
    'CostVolumePointHead': HeadEntry(
        dict(type='CostVolumePointHead', channels=8, hidden_dim=16, fine_channels=4, num_levels=2, iterations=2),
        'points',
    ),
    'TAPNextHead': HeadEntry(
        dict(type='TAPNextHead', image_size=SIZE, num_bins=32, hidden_dim=16), 'points', traits={PROMPTS}
    ),
    'DPTDepthHead': HeadEntry(
        dict(type='DPTDepthHead', scales=(4, 8, 16), widths=8, context=dict(stride=16, depth=1, num_heads=2)),
        'depth',
        idle={'heads.depth.out.2.bias': 'the scale of relative depth, which the loss forgives: its gradient is zero'},
    ),
    'LabelPropagationHead': HeadEntry(dict(type='LabelPropagationHead', num_context=2), 'masks'),
    'ObjectTokenHead': HeadEntry(OBJECTS, 'masks', traits={PROMPTS}),
    'ObjectTokenHead-alone': HeadEntry(dict(OBJECTS, use_prompts=False), 'masks'),
    'MaskedAutoencoderHead': HeadEntry(
        dict(type='MaskedAutoencoderHead', decoder_dim=16, decoder_depth=1, decoder_heads=2), 'mae', traits={HIDING}
    ),
    'FrameRecall': HeadEntry(dict(type='FrameRecall', distances=(0, 1, 2), hidden_dim=16), 'recall'),
}


def registered() -> list[type]:
    """Classes of the package that the registry finds by itself."""
    MODELS.import_from_location()
    found = [cls for cls in MODELS.module_dict.values() if inspect.isclass(cls)]
    return [cls for cls in found if cls.__module__.startswith('trecvit_dense.')]


def test_no_backbone_is_left_out() -> None:
    backbones = {cls.__name__ for cls in registered() if 'models.backbones' in cls.__module__}
    assert backbones == {entry.name for entry in BACKBONES.values()}


def test_no_head_is_left_out() -> None:
    heads = {cls.__name__ for cls in registered() if issubclass(cls, Head)}
    assert heads == {entry.name for entry in HEADS.values()}


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
            xy[:, frame] = [[left + 3, top + 3], [left + 10, top + 6], [left + 15, top + 9], [45, 5]]
        visible = np.ones((4, FRAMES), bool)
        visible[3, 2:] = False
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


def build(backbone: Entry, head: HeadEntry) -> torch.nn.Module:
    torch.manual_seed(0)
    config = dict(head.config)
    if 'token_dim' in config:
        config['token_dim'] = backbone.token or WIDTH
    heads = {head.task: config}
    config = backbone.config if head.token else backbone.config | backbone.bare
    return MODELS.build(dict(type='VideoPerceiver', backbone=config, heads=heads, chunk_frames=2))


PAIRS = [(backbone, head) for backbone in BACKBONES for head in HEADS]
FITTING = [pair for pair in PAIRS if HEADS[pair[1]].fits(BACKBONES[pair[0]])]


@pytest.mark.parametrize('pair', FITTING, ids=' + '.join)
def test_fits(pair: tuple[str, str]) -> None:
    """Loss and gradient of a training step, then an answer."""
    backbone, head = BACKBONES[pair[0]], HEADS[pair[1]]
    model, samples = build(backbone, head).train(), make_samples()
    inputs = [torch.from_numpy(sample.video).permute(0, 3, 1, 2) for sample in samples]
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples))
    if not backbone.video:
        data['inputs'] = backbone.inputs()
    losses = model(**data, mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if any(name.startswith('heads.') for name in trained):
        sum(losses.values()).backward()
        idle = [name for name, value in trained.items() if value.grad is None or not value.grad.abs().any()]
        assert not [name for name in idle if not name.startswith((*backbone.idle, *head.idle))]
    else:
        assert not losses  # nothing to learn: a probe
    sample = samples[0]
    if head.task not in ('points', 'masks', 'depth'):
        sample.points = sample.masks = sample.depth = None
    data = dict(data, inputs=data['inputs'][:1], data_samples=[sample])
    answer = model.eval()(**data, mode='predict')[0].predictions[head.task]
    check_answer(head.task, answer, sample)


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


@pytest.mark.parametrize('pair', sorted(set(PAIRS) - set(FITTING)), ids=' + '.join)
def test_does_not_fit_and_says_so(pair: tuple[str, str]) -> None:
    backbone, head = BACKBONES[pair[0]], HEADS[pair[1]]
    with pytest.raises(ValueError) as error:
        build(backbone, head)
    assert_names(error, head.name, backbone.name)


def assert_names(error: pytest.ExceptionInfo, *names: str) -> None:
    """One line, and every name in it."""
    message = str(error.value)
    assert all(name in message for name in names) and '\n' not in message, message


SQUARE, WIDE = dict(patch_size=6, image_size=36), dict(patch_size=(8, 16))
MISFITS = {
    'cells-points': (SQUARE, 'points', dict(type='CostVolumePointHead'), 'makes no cells of 4 px'),
    'cells-objects': (WIDE, 'masks', dict(type='ObjectTokenHead'), 'one token per 8x16 px'),
    'cells-depth': (SQUARE, 'depth', dict(type='DPTDepthHead'), 'makes no cells of 4 px'),
    'levels': (dict(patch_size=8), 'masks', dict(type='LabelPropagationHead', levels=[1]), 'the backbone has 1'),
    'width': (dict(patch_size=8, embed_dim=6), 'points', dict(type='TAPNextHead'), 'a multiple of 4, got 6'),
    'heads': (
        dict(patch_size=8),
        'probe',
        dict(type='AttentiveProbe', num_classes=2, num_heads=5),
        'divides the width',
    ),
}


@pytest.mark.parametrize('case', MISFITS)
def test_sizes_that_do_not_fit(case: str) -> None:
    options, task, head, message = MISFITS[case]
    backbone = dict(type='TRecViT', **VIT) | options
    with pytest.raises((ValueError, IndexError), match=message) as error:
        MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads={task: head}))
    assert_names(error, head['type'], 'TRecViT')


@pytest.mark.parametrize('name', BACKBONES)
def test_features_contract(name: str) -> None:
    """Dense features of every frame at the sizes that the attributes say; streaming is what a clip is."""
    torch.manual_seed(0)
    entry = BACKBONES[name]
    backbone, video = MODELS.build(entry.config).eval(), entry.inputs()
    with torch.no_grad():
        features, state = backbone(video)
    assert len(features.levels) == len(backbone.out_channels) == len(backbone.strides)
    for level, width, stride in zip(features.levels, backbone.out_channels, backbone.strides, strict=True):
        grid = tuple(side // step for side, step in zip(SIZE, stride, strict=True))
        assert isinstance(level, FeatureLevel) and level.grid == grid and tuple(level.stride) == tuple(stride)
        assert level.tokens.shape == (2, FRAMES, grid[0] * grid[1], width)
    token = None if features.class_token is None else features.class_token.shape
    assert token == ((2, FRAMES, entry.token) if entry.token else None)
    assert (backbone.class_token_dim or 0) == entry.token and backbone.embed_dim == backbone.out_channels[-1] == WIDTH
    assert backbone.supports_prompts == (PROMPTS in entry.traits)
    assert getattr(backbone, 'supports_patch_mask', False) == (HIDING in entry.traits)
    if entry.whole:
        assert not backbone.causal
        with pytest.raises(ValueError, match='set window=W'):
            backbone(video, state=state)
        return
    chunks, memory = [], None
    with torch.no_grad():
        for chunk in video.split([1, 2, 1], 1):
            found, memory = backbone(chunk, state=memory)
            assert memory.nbytes == state.nbytes  # from the first step on
            chunks.append(found)
    for index, level in enumerate(features.levels):
        joined = torch.cat([chunk.levels[index].tokens for chunk in chunks], 1)
        torch.testing.assert_close(joined, level.tokens, atol=5e-5, rtol=1e-4)
