"""Mobile-Former for images and video: sizes, costs, what time does, training, options and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trecvit_dense.checkpoints.mobile_former_names import inflate_mobile_former
from trecvit_dense.models.backbones.mobile_former_sizes import SIZES
from trecvit_dense.models.backbones.video_mobile_former import VARIANTS, to_frames
from trecvit_dense.models.layers.space_time_conv import SpaceTimeConv
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import VideoSample

ROWS = [
    ('first', 2, 8, 1, 0),
    ('lite', 2, 12, 2, 2),
    ('dna', 2, 12, 1, 0),
    ('lite', 2, 16, 2, 2),
    ('dna', 2, 20, 1, 0),
    ('lite', 2, 24, 2, 2),
    ('lite', 2, 28, 2, 2),
]
SMALL = dict(stem_channels=8, num_tokens=6, token_dim=32, rows=ROWS)


def build(backbone: dict, classes: int = 5, rep_size: int = 12, head: dict | None = None) -> nn.Module:
    """A perceiver with the authors' classifier."""
    use_scope()
    torch.manual_seed(0)
    size = SIZES.get(VARIANTS.get(backbone.get('size'), (backbone.get('size'),))[0])
    fields = dict(token_dim=32, rep_size=rep_size)
    if size:
        fields = dict(token_dim=size.token_dim, rep_size=size.rep_size, groups=size.groups)
    head = head or dict(type='MobileFormerClassifier', num_classes=classes, **fields)
    return MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head))).eval()


def small(**options: object) -> nn.Module:
    model = build(dict(type='VideoMobileFormer', **SMALL, **options))
    with torch.no_grad():  # tokens that matter: the authors' initial bridges hardly say anything
        for name, parameter in model.named_parameters():
            if 'former' in name or 'to_mobile' in name or 'hyper' in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def clip(frames: int = 4, batch: int = 2, size: int = 32) -> Tensor:
    return torch.rand(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: nn.Module, video: Tensor) -> Tensor:
    return model.step(video, model.start(len(video)))[0]['classification'].logits


def count(model: nn.Module, frames: int, size: int) -> float:
    """Multiply-adds of convolutions and matrix products, for one clip."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.step(torch.zeros(1, frames, 3, size, size), model.start(1))
    return counter.get_total_flops() / 2


@cache
def cost(kind: str, size: str, classes: int) -> tuple[float, float, float]:
    """Millions of parameters; multiply-adds of one frame of 32 x 32 and of 64 x 64 pixels."""
    model = build(dict(type=kind, size=size), classes)
    return sum(value.numel() for value in model.parameters()) / 1e6, count(model, 1, 32), count(model, 1, 64)


def macs(kind: str, size: str, classes: int, shapes: Sequence[tuple[int, int]]) -> list[float]:
    """Billions for larger clips: all there is grows with the number of pixels, or not at all."""
    _, one, four = cost(kind, size, classes)
    each = (four - one) / 3  # per 32 x 32 pixels
    return [(one - each + each * frames * (pixels / 32) ** 2) / 1e9 for frames, pixels in shapes]


# ------------------------------------------------------------------------------------------------------- sizes

# size: parameters and multiply-adds at 224 x 224, in millions: as the authors' README rounds them, and as counted
# from their code
IMAGE = {
    '508M': (14.0, 498.5),
    '294M': (11.4, 286.7),
    '214M': (9.4, 208.4),
    '151M': (7.6, 146.2),
    '96M': (4.6, 92.0),
    '52M': (3.5, 49.3),
    '26M': (3.2, 23.6),
}
# size: parameters in millions with 400 classes; billions of multiply-adds per clip shape
CLIPS = ((8, 160), (8, 224), (16, 160), (16, 192), (16, 224))
VIDEO = {
    '52M': (2.90, (0.24, 0.46, 0.47, 0.67, 0.91)),
    '96M': (3.88, (0.46, 0.88, 0.90, 1.30, 1.76)),
    '151M': (6.91, (0.64, 1.24, 1.26, 1.81, 2.45)),
    '214M': (8.57, (0.91, 1.76, 1.80, 2.57, 3.50)),
    '294M': (10.40, (1.26, 2.44, 2.49, 3.58, 4.86)),
    '508M': (12.99, (2.19, 4.26, 4.35, 6.25, 8.50)),
}


@pytest.mark.parametrize('size', IMAGE)
def test_image_sizes(size: str) -> None:
    parameters, wanted = IMAGE[size]
    assert round(cost('MobileFormer', size, 1000)[0], 1) == parameters
    assert macs('MobileFormer', size, 1000, [(1, 224)])[0] * 1e3 == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize('size', VIDEO)
def test_video_costs(size: str) -> None:
    parameters, wanted = VIDEO[size]
    assert round(cost('VideoMobileFormer', size, 400)[0], 2) == parameters
    assert macs('VideoMobileFormer', size, 400, CLIPS) == pytest.approx(wanted, abs=0.006)


@pytest.mark.parametrize('name', VARIANTS)
def test_what_the_abstract_fixes(name: str) -> None:
    """Six global tokens for a clip, 3D convolutions, from 500 M to 6 G, and one model below 1 GFLOP."""
    with torch.device('meta'):
        model = build(dict(type='VideoMobileFormer', size=name), 400)
    parent, *shape = VARIANTS[name]
    assert model.backbone.tokens.shape[0] == 6 and model.backbone.clip_shape == tuple(shape)
    spans = [conv.weight.shape[2] for conv in model.modules() if getattr(conv, 'groups', 0) > 1]
    assert spans and set(spans) == {3}, 'depthwise convolutions span three frames'
    billions = macs('VideoMobileFormer', parent, 400, [tuple(shape)])[0]
    assert billions == pytest.approx(float(name[4:-1]), rel=0.15)
    assert name != 'vmf_1g' or billions < 1


def test_cost_grows_linearly_with_frames() -> None:
    model = small()
    one, two, four, large = (count(model, *shape) for shape in ((1, 32), (2, 32), (4, 32), (2, 64)))
    assert four - two == 2 * (two - one) > 0
    assert large - one == 7 * (two - one), 'eight times the pixels'


# -------------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize(('kernel', 'blind'), [(1, True), (3, False), ([1, 1, 3, 1, 1], False)])
def test_order_of_frames(kernel, blind: bool) -> None:
    """With a temporal kernel of 1 the order makes no difference, with 3 in a single stage it does."""
    model, video = small(temporal_kernel=kernel), clip(5)
    found, shuffled = logits(model, video), logits(model, video[:, [3, 0, 4, 2, 1]])
    assert torch.allclose(found, shuffled, atol=1e-6) == blind


@torch.no_grad()
def test_one_frame_is_the_image_model() -> None:
    """The same weights, with a temporal kernel of 1."""
    image = build(dict(type='MobileFormer', **SMALL))
    video = small(temporal_kernel=1)
    image.load_state_dict(video.state_dict())
    assert torch.allclose(logits(image, clip(1)), logits(video, clip(1)), atol=1e-6)
    frames, _ = image.backbone(clip(3))
    alone, _ = image.backbone(clip(3)[:, 1:2])
    assert torch.allclose(frames.levels[-1].tokens[:, 1:2], alone.levels[-1].tokens, atol=1e-6)
    assert torch.allclose(frames.class_token[:, 1:2], alone.class_token, atol=1e-6)


@torch.no_grad()
def test_tokens_see_the_whole_clip() -> None:
    """A change in the last frame reaches the features of the first, through the tokens alone."""
    model = small(temporal_kernel=1).backbone
    video = clip(6)
    changed = video.clone()
    changed[:, -1] = 1 - changed[:, -1]
    before, after = model(video)[0], model(changed)[0]
    assert (before.levels[-1].tokens[:, 0] - after.levels[-1].tokens[:, 0]).abs().max() > 1e-4
    assert torch.equal(before.class_token[:, 0], before.class_token[:, -1]), 'one set of tokens for the clip'


# ---------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize(
    'options', [{}, dict(causal=True), dict(stem_temporal_kernel=3, stem_temporal_stride=2), dict(groups=2)]
)
@torch.no_grad()
def test_levels(options: dict) -> None:
    backbone = small(**options).backbone
    features, _ = backbone(clip(5, size=64))
    assert backbone.strides == ((4, 4), (8, 8), (16, 16), (32, 32))
    assert backbone.out_channels == (12, 20, 24, 28) and backbone.embed_dim == 28
    for level, channels, stride in zip(features.levels, backbone.out_channels, backbone.strides, strict=True):
        grid = 64 // stride[0]
        assert level.grid == (grid, grid) and level.stride == stride
        assert level.tokens.shape == (2, 5, grid**2, channels)
    assert features.class_token.shape == (2, 5, 32)


@pytest.mark.parametrize('options', [{}, dict(causal=True), dict(causal=True, stem_temporal_stride=2)])
@torch.no_grad()
def test_without_class_token(options: dict) -> None:
    """The last bridge is not there, and all levels are as they were."""
    head = dict(type='ClassificationHead', num_classes=5, rep_size=None, pool='gap')
    bare = build(dict(type='VideoMobileFormer', class_token=False, **SMALL, **options), head=head).backbone
    whole = small(**options).backbone
    fitted, notes = bare.fit_weights(whole.state_dict())
    assert notes == ['to_former: left out (class_token=False)']
    bare.load_state_dict(fitted)
    found, wanted = bare(clip(3))[0], whole(clip(3))[0]
    assert found.class_token is None and bare.class_token_dim is None
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(found.levels, wanted.levels, strict=True))


@torch.no_grad()
def test_chosen_levels_and_any_temporal_stride() -> None:
    backbone = small(out_strides=[8, 32], stem_temporal_kernel=5, stem_temporal_stride=3).backbone
    features, _ = backbone(clip(7))
    assert [level.stride[0] for level in features.levels] == [8, 32]
    tokens = features.levels[0].tokens
    between = torch.lerp(tokens[:, 0], tokens[:, 3], 2 / 3)
    assert torch.allclose(tokens[:, 2], between, atol=1e-5)


def test_interpolation_over_time() -> None:
    x = torch.tensor([0.0, 10.0, 40.0]).view(1, 1, 3, 1, 1)
    assert to_frames(x, 6, 2).flatten().tolist() == [0, 5, 10, 25, 40, 40]


# ---------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize('options', [{}, dict(causal=True, token_decay=0.9), dict(drop_path_rate=0.5, groups=2)])
def test_every_parameter_learns(options: dict) -> None:
    model = small(**options).train()
    video = clip(3, batch=4, size=64)
    samples = [VideoSample(video[0].numpy().astype('uint8'), label=index) for index in range(4)]
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if name.endswith('running_mean')}
    losses = model(video, samples, mode='loss')
    losses['loss_cls'].backward()
    still = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not still
    if 'drop_path_rate' not in options:
        zero = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0]
        assert not zero
    assert all(not torch.equal(dict(model.named_buffers())[name], value) for name, value in before.items())


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('causal', [False, True])
def test_training_and_inference_convolve_alike(causal: bool, stride: int) -> None:
    """On a CPU they take different ways."""
    conv = SpaceTimeConv(6, 6, groups=6, temporal_kernel=3, temporal_stride=stride, stride=2, causal=causal)
    x = torch.randn(2, 6, 5, 8, 10)
    trained, past = conv(x)
    with torch.no_grad():
        wanted, wanted_past = conv(x)
    assert trained.shape == wanted.shape == (2, 6, 5 if stride == 1 else 3, 4, 5)
    assert torch.allclose(trained, wanted, atol=1e-6)
    assert (past is None and wanted_past is None) or torch.equal(past, wanted_past)


def test_average_pooling_works_too() -> None:
    head = dict(type='ClassificationHead', num_classes=5, rep_size=None, pool='gap')
    assert logits(build(dict(type='VideoMobileFormer', **SMALL), head=head), clip()).shape == (2, 5)


# ----------------------------------------------------------------------------------------------------- weights


def test_inflation_says_what_it_did() -> None:
    """Fewer tokens and other classes in the image model: what starts afresh is named, and left as it was."""
    image = build(dict(type='MobileFormer', **{**SMALL, 'num_tokens': 4}), classes=9)
    video = small()
    before = {name: value.clone() for name, value in video.state_dict().items()}
    report = inflate_mobile_former(video, image.state_dict(), slices='mean')
    assert report.resized == ['tokens: 4 -> 6, 2 of them start afresh', '11 kernels: 1 -> 3 frames, mean']
    assert report.dropped == [
        f'heads.classification.classifier.{part}: 9 classes, the model has 5; it starts afresh'
        for part in ('weight', 'bias')
    ]
    assert not report.missing and not report.unexpected
    after = video.state_dict()
    assert torch.equal(after['backbone.tokens'][4:], before['backbone.tokens'][4:])
    assert torch.equal(after['backbone.tokens'][:4], image.state_dict()['backbone.tokens'])
    name = 'backbone.blocks.0.depthwise.conv.weight'
    assert torch.allclose(after[name].sum(2), image.state_dict()[name][:, :, 0], atol=1e-6)
    with pytest.raises(ValueError, match="slices is 'middle'; wanted 'centre' or 'mean'"):
        inflate_mobile_former(video, image.state_dict(), slices='middle')


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(size='vmf_2g'), "'vmf_2g' is no size of Video Mobile-Former; known: .*did you mean 'vmf_"),
        (dict(), 'without a named size needs stem_channels, token_dim, rows'),
        (dict(SMALL, rows=[('light', 2, 8, 1, 0)]), 'is no block; wanted .*one of first, lite, dna'),
        (dict(SMALL, rows=[('first', 2, 7, 1, 0)]), 'wanted a stride of 1 or 2, and even channels'),
        (dict(SMALL, token_dim=18), 'tokens of width 18; wanted .*multiple of 4'),
        (dict(SMALL, temporal_kernel=2), 'temporal_kernel is 2; wanted 1, 3 or 5, or a list'),
        (dict(SMALL, temporal_kernel=[3, 3]), r'one per stride \[2, 4, 8, 16, 32\]'),
        (dict(SMALL, stem_temporal_stride=0), 'the stem has temporal kernel 1 and stride 0'),
        (dict(SMALL, token_decay=0.5), 'below 1 with causal=True only'),
        (dict(SMALL, causal=True, window=4), 'causal=True streams by itself'),
        (dict(SMALL, out_strides=[8, 16]), r'out_strides are \[8, 16\]; wanted some of .*with 32 last'),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(dict(type='VideoMobileFormer', **options))


def test_bad_input() -> None:
    model = small()
    with pytest.raises(ValueError, match='frames of 40x40 px do not divide by 32.*pad_multiple=32'):
        model.backbone(clip(2, size=40))
    with pytest.raises(ValueError, match=r'wanted \(B, T, 3, H, W\) with at least one frame'):
        model.backbone(clip(0))
    with pytest.raises(ValueError, match='at least 2 clips a batch'):
        model.train().step(clip(2, batch=1), model.start(1))


def test_head_and_backbone_must_agree() -> None:
    """Both are named when the model is built."""
    head = dict(type='MobileFormerClassifier', num_classes=5, token_dim=24)
    with pytest.raises(
        ValueError, match='MobileFormerClassifier reads a class token of width 24, but VideoMobileFormer'
    ):
        build(dict(type='VideoMobileFormer', **SMALL), head=head)
