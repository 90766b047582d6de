"""The depth head on every kind of backbone levels, its memories, its losses and its answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trecvit_dense.models.heads.base import DepthOutput
from trecvit_dense.models.heads.depth import DPTDepthHead
from trecvit_dense.models.layers.dense_fusion import assign_levels
from trecvit_dense.models.layers.depth_filter import DepthFilter
from trecvit_dense.models.layers.motion_parallax import Parallax
from trecvit_dense.models.losses.depth_loss import expected_residual
from trecvit_dense.structures import DepthMap, FeatureLevel, Features, RecurrentState, VideoSample

SIZE = (48, 64)
MEMORIES = dict(
    parallax=dict(),
    steadiness=0.5,
    context=dict(stride=16, depth=1, num_heads=2),
    encode=True,
    confidence=True,
)


def make_features(strides, channels=8, *, batch=2, time=3, seed=0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    levels = []
    for stride in strides:
        grid = (-(-SIZE[0] // stride), -(-SIZE[1] // stride))
        tokens = torch.randn(batch, time, grid[0] * grid[1], channels, generator=generator)
        levels.append(FeatureLevel(tokens, grid, (stride, stride)))
    texture = F.avg_pool2d(torch.rand(batch, 1, SIZE[0], SIZE[1] + 4 * time, generator=generator), 5, 1, 2)[:, 0]
    grey = torch.stack([texture[..., 4 * t : 4 * t + SIZE[1]] for t in range(time)], 1)
    return Features(tuple(levels), grey=grey)


def make_head(strides, **options) -> DPTDepthHead:
    torch.manual_seed(0)
    options = dict(scales=(4, 8, 16), widths=(8, 12, 16)) | options
    return DPTDepthHead(
        backbone_channels=(8,) * len(strides), backbone_strides=tuple((s, s) for s in strides), **options
    )


def make_parallax(batch=2, time=3, grid=(12, 16)) -> Parallax:
    generator = torch.Generator().manual_seed(5)
    noise = torch.rand(3, batch, time, *grid, generator=generator)
    corners = torch.zeros(batch, time, *grid, 2)
    return Parallax(noise[0] - 0.5, noise[1], corners, noise[2] / 10, noise[1])


def make_sample(*, time=3, size=SIZE) -> VideoSample:
    """A slanted plane before a camera that moves to the right."""
    height, width = size
    depth = np.broadcast_to(np.linspace(4, 1.5, height, dtype=np.float32)[None, :, None], (time, height, width))
    matrix = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    camera = np.tile(np.eye(4), (time, 1, 1))
    camera[:, 0, 3] = 0.1 * np.arange(time)
    truth = DepthMap(depth.copy(), np.ones(depth.shape, bool), matrix, camera)
    return VideoSample(np.zeros((time, *size, 3), np.uint8), depth=truth, name='plane')


def test_levels_find_their_scales():
    assert assign_levels([16, 16, 16, 16], (4, 8, 16, 32)) == [[0], [1], [2], [3]]
    assert assign_levels([2, 4, 8, 16], (4, 8, 16, 32)) == [[0, 1], [2], [3], [3]]
    assert assign_levels([16], (4, 8, 16, 32)) == [[0], [0], [0], [0]]
    assert assign_levels([8, 8], (4, 8, 16, 32)) == [[0], [1], [1], [1]]


@pytest.mark.parametrize('strides', [(16,), (8, 8, 8), (2, 4, 8, 16), (4, 32)])
@pytest.mark.parametrize('options', [{}, MEMORIES])
def test_every_backbone_and_no_idle_parameter(strides, options):
    head = make_head(strides, **options).train()
    features = make_features(strides)
    output, state = head(features, RecurrentState(), SIZE)
    assert output.log_values.shape == (2, 3, SIZE[0] // 4, SIZE[1] // 4)
    losses = head.loss(output, [make_sample(), make_sample()], (1.0, 1.0))
    sum(losses.values()).backward()
    idle = {name for name, value in head.named_parameters() if value.grad is None or not value.grad.abs().any()}
    assert idle <= {'out.2.bias'}  # the scale of relative depth: nothing can depend on it
    assert all(torch.isfinite(value) for value in losses.values())
    assert {key.split('.')[0] for key in state} == ({'context'} if options else set())
    _, state = head.eval()(features, RecurrentState(), SIZE)
    assert {key.split('.')[0] for key in state} == ({'parallax', 'context', 'filter'} if options else set())


def test_step_equals_clip():
    strides = (4, 16)
    head = make_head(strides, **MEMORIES).eval()
    features = make_features(strides, time=5)
    with torch.no_grad():
        clip, end = head(features, RecurrentState(), SIZE)
        state, parts = RecurrentState(), []
        for first, last in ((0, 1), (1, 3), (3, 5)):
            levels = tuple(FeatureLevel(x.tokens[:, first:last], x.grid, x.stride) for x in features.levels)
            output, state = head(Features(levels, grey=features.grey[:, first:last]), state, SIZE)
            parts.append(output.log_values)
    torch.testing.assert_close(torch.cat(parts, 1), clip.log_values)
    for key in end:
        torch.testing.assert_close(state[key], end[key])


@torch.no_grad()
@pytest.mark.parametrize(('kind', 'sign'), [('disparity', 1), ('depth', -1)])
def test_what_the_filter_says_is_the_answer(kind, sign, monkeypatch):
    """It works on the logarithm of inverse depth (metres are the other way round), and hears how sure looks are."""
    options = dict(confidence=True) if kind == 'depth' else dict()
    head = make_head((4, 16), parallax=dict(), kind=kind, motion_share=0.7, steadiness=0.5, **options).eval()
    features, found = make_features((4, 16)), make_parallax()
    monkeypatch.setattr(head.parallax, 'forward', lambda *_: (found, RecurrentState()))
    output, state = head(features, RecurrentState(), SIZE)
    head.parallax = None
    alone = head(features, RecurrentState(), SIZE)[0]
    looks, logits = sign * alone.log_values, alone.confidence_logits
    error = None if logits is None else expected_residual(logits).mean((2, 3))
    wanted, memory = DepthFilter(0.7, 0.5)(looks, found, RecurrentState(), error)
    torch.testing.assert_close(output.log_values, sign * wanted)
    torch.testing.assert_close(state['filter.values'], memory['values'])
    assert (wanted - looks).abs().max() > 0.05


def test_training_teaches_looks_alone(monkeypatch):
    """Depth from motion is not even measured."""
    head = make_head((4, 16), **MEMORIES)
    monkeypatch.setattr(head.parallax, 'forward', lambda *_: pytest.fail('not in training'))
    output, state = head.train()(make_features((4, 16)), RecurrentState(), SIZE)
    assert output.log_values.requires_grad and not any(key.startswith('parallax') for key in state)


def test_truth_of_another_size_is_the_same_truth():
    head = make_head((4, 16))
    output, _ = head(make_features((4, 16), batch=1), RecurrentState(), SIZE)
    one, other = make_sample(), make_sample(size=(96, 128))
    other.video = one.video
    first, second = (head.loss(output, [sample], (1.0, 1.0)) for sample in (one, other))
    assert first['loss_ssi'].item() == pytest.approx(second['loss_ssi'].item(), rel=0.02)


def test_sparse_truth_and_clips_without_any():
    head = make_head((16,), kind='depth')
    output, _ = head(make_features((16,)), RecurrentState(), SIZE)
    sparse = make_sample()
    sparse.depth.valid[:] = False
    sparse.depth.valid[1, ::7, ::5] = True
    sparse.depth.depth_m[~sparse.depth.valid] = np.nan
    without = make_sample()
    without.depth = None
    losses = head.loss(output, [sparse, without], (1.0, 1.0))
    assert losses['loss_silog'] > 0
    assert all(torch.isfinite(value) for value in losses.values())
    assert sum(head.loss(output, [without, without], (1.0, 1.0)).values()) == 0


def test_metric_depth_is_seen_by_the_canonical_camera():
    """Twice the focal length and twice the distance look the same."""
    head = make_head((16,), kind='depth', canonical_focal_px=64.0)
    output, _ = head(make_features((16,), batch=1), RecurrentState(), SIZE)
    near, far = make_sample(), make_sample()
    far.depth.depth_m = far.depth.depth_m * 2
    far.depth.intrinsics = far.depth.intrinsics * np.array([[2], [2], [1]])
    torch.testing.assert_close(
        head.loss(output, [near], (1.0, 1.0))['loss_silog'], head.loss(output, [far], (1.0, 1.0))['loss_silog']
    )
    first, second = (head.predict([output], sample, (1.0, 1.0)).values for sample in (near, far))
    np.testing.assert_allclose(second, 2 * first, rtol=1e-5)


def test_a_level_is_told_in_the_metres_of_one_camera():
    """A frame that is off by a factor costs, the same for twice the focal length at twice the distance."""
    options = dict(kind='disparity', invariance='scale')
    head = make_head((16,), **options, loss_weights=dict(level=1.0))
    output, _ = head(make_features((16,), batch=1), RecurrentState(), SIZE)
    near, far, off = make_sample(), make_sample(), make_sample()
    far.depth.depth_m = far.depth.depth_m * 2
    far.depth.intrinsics = far.depth.intrinsics * np.array([[2], [2], [1]])
    off.depth.depth_m = off.depth.depth_m * 20
    first, second, third = (head.loss(output, [one], (1.0, 1.0))['loss_level'] for one in (near, far, off))
    torch.testing.assert_close(first, second)
    assert abs(third - first) > 0.5
    assert 'loss_level' not in make_head((16,), **options).loss(output, [near], (1.0, 1.0))
    metric = make_head((16,), kind='depth', loss_weights=dict(level=1.0))
    output, _ = metric(make_features((16,), batch=1), RecurrentState(), SIZE)
    assert 'loss_level' not in metric.loss(output, [near], (1.0, 1.0))  # its SILog says so


@pytest.mark.parametrize('kind', ['disparity', 'depth'])
def test_predictions_have_the_size_of_the_video(kind):
    head = make_head((16,), kind=kind, confidence=True)
    output, _ = head(make_features((16,), batch=1), RecurrentState(), SIZE)
    sample = VideoSample(np.zeros((3, 90, 120, 3), np.uint8))
    answer = head.predict([output], sample, (SIZE[1] / 120, SIZE[0] / 90))
    assert answer.kind == kind
    assert answer.values.shape == answer.confidence.shape == (3, 90, 120)
    assert answer.values.min() > 0
    assert 0 < answer.confidence.min() <= answer.confidence.max() < 1


def test_resizing_keeps_places():
    """A ramp of log values stays the same ramp at any size, up to its ends."""
    ramp = torch.arange(16.0).expand(1, 1, 12, 16)  # cell centres at 4 * (j + 0.5)
    full = DepthOutput(ramp, 'disparity', 4).at_size((24, 32), (2.0, 2.0)).log_values
    expected = ((torch.arange(32) + 0.5) * 2 / 4 - 0.5).clamp(0, 15)
    torch.testing.assert_close(full[0, 0, 5], expected)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda depth: depth.valid.fill(False), "sample 'plane' has no pixel with valid depth"),
        (lambda depth: depth.depth_m.__setitem__((0, 0, 0), np.nan), 'zero, negative or not a number'),
        (lambda depth: depth.depth_m.__setitem__((0, 0, 0), 0), 'zero, negative or not a number'),
    ],
)
def test_bad_truth_is_named(change, message):
    head = make_head((16,))
    output, _ = head(make_features((16,), batch=1), RecurrentState(), SIZE)
    sample = make_sample()
    change(sample.depth)
    with pytest.raises(ValueError, match=message):
        head.loss(output, [sample], (1.0, 1.0))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kind='metres'), "kind is 'metres'; wanted 'disparity' or 'depth'"),
        (dict(invariance='shift'), "invariance is 'shift'"),
        (dict(alignment='mean'), "alignment is 'mean'"),
        (dict(context=dict(stride=2)), 'context has stride 2; wanted one of the scales'),
        (dict(parallax=dict(window=1)), 'over 1 frames'),
        (dict(motion_share=1.5), 'motion_share is 1.5'),
        (dict(steadiness=1.0), 'steadiness is 1.0; wanted a share'),
        (dict(loss_weights=dict(sillog=1.0)), "loss_weights names 'sillog'"),
        (dict(kind='depth', max_depth_m=0.0), 'wanted two numbers, the smaller first'),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_head((16,), **options)
