"""The depth head on every kind of backbone levels, its motion memory, its losses and its answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trecvit_dense.models.depth_truth import motion_to_previous
from trecvit_dense.models.heads.base import DepthOutput
from trecvit_dense.models.heads.depth import DPTDepthHead
from trecvit_dense.models.layers.dense_fusion import assign_levels
from trecvit_dense.models.layers.motion_memory import MotionMemory, compare, follow, planar_motion
from trecvit_dense.structures import DepthMap, FeatureLevel, Features, RecurrentState, VideoSample

SIZE = (48, 64)
MEMORIES = dict(
    motion=dict(stride=8, channels=4, radius=2),
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
    return Features(tuple(levels))


def make_head(strides, **options) -> DPTDepthHead:
    torch.manual_seed(0)
    options = dict(scales=(4, 8, 16), widths=(8, 12, 16)) | options
    return DPTDepthHead(
        backbone_channels=(8,) * len(strides), backbone_strides=tuple((s, s) for s in strides), **options
    )


def make_sample(*, time=3, size=SIZE, poses=True) -> VideoSample:
    """A slanted plane before a camera that moves to the right."""
    height, width = size
    depth = np.broadcast_to(np.linspace(4, 1.5, height, dtype=np.float32)[None, :, None], (time, height, width))
    matrix = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    camera = np.tile(np.eye(4), (time, 1, 1))
    camera[:, 0, 3] = 0.1 * np.arange(time)
    truth = DepthMap(depth.copy(), np.ones(depth.shape, bool), matrix, camera if poses else None)
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
    assert {key.split('.')[0] for key in state} == ({'motion', 'context'} if options else set())


def test_step_equals_clip():
    strides = (4, 16)
    head = make_head(strides, **MEMORIES).eval()
    features = make_features(strides, time=5)
    with torch.no_grad():
        clip, end = head(features, RecurrentState(), SIZE)
        state, parts = RecurrentState(), []
        for first, last in ((0, 1), (1, 3), (3, 5)):
            levels = tuple(FeatureLevel(x.tokens[:, first:last], x.grid, x.stride) for x in features.levels)
            output, state = head(Features(levels), state, SIZE)
            parts.append(output.log_values)
    torch.testing.assert_close(torch.cat(parts, 1), clip.log_values)
    for key in end:
        torch.testing.assert_close(state[key], end[key])


def test_motion_memory_sees_what_moved():
    """A picture that moves by one cell to the right: the motion points back to the left, at both strides."""
    torch.manual_seed(0)
    memory = MotionMemory(6, 5, channels=16, radius=2)
    memory.temperature.data.fill_(4.0)
    nn.init.zeros_(memory.refine[-1].weight)
    wide, fine = torch.randn(1, 6, 12, 14), torch.randn(1, 5, 24, 28)
    maps = torch.stack([wide[..., 1:13], wide[..., :12]], 1)  # (B, T, C, h, w)
    fine_maps = torch.stack([fine[..., 2:26], fine[..., :24]], 1)
    added, fine_added, (coarse, refined), state = memory(maps, fine_maps, RecurrentState())
    assert (coarse[0, 1, 2:-2, 3:-2] - torch.tensor([-1.0, 0.0])).abs().max() < 0.1  # away from the border
    assert (refined[0, 1, 4:-4, 6:-4] - torch.tensor([-2.0, 0.0])).abs().mean() < 0.2
    assert added.shape == maps.shape
    assert fine_added.shape == fine_maps.shape
    assert coarse[:, 0].abs().max() < 1e-6  # nothing came before
    assert {key: tuple(value.shape) for key, value in state.items()} == dict(
        looks=(1, 16, 12, 12), fine_looks=(1, 16, 24, 24), memory=(1, 16, 12, 12)
    )


def test_windows_of_whole_rows_are_windows():
    torch.manual_seed(0)
    now, before = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 5, 7)
    around = F.unfold(before, 5, padding=2).view(2, 3, 25, 5, 7)
    torch.testing.assert_close(compare(now, before, 2), torch.einsum('nchw,ncshw->nshw', now, around))


def test_what_follows_the_motion_is_read_where_it_came_from():
    maps = torch.randn(1, 2, 6, 8)
    motion = torch.zeros(1, 2, 6, 8)
    motion[:, 0] = -1
    torch.testing.assert_close(follow(maps, motion)[..., 1:], maps[..., :-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(follow(maps, motion * 0), maps, atol=1e-5, rtol=1e-5)


def test_a_plane_shows_no_parallax():
    """Eight numbers say how the picture of a plane moves, whatever the camera does; what stands out is left over."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 16), indexing='ij')
    motion = torch.stack([1 + 0.3 * x - 0.2 * y + 0.1 * x * x, -0.5 + 0.2 * x + 0.1 * x * y])[None]
    weight = torch.ones(1, 1, 12, 16)
    assert (motion - planar_motion(motion, weight)).abs().max() < 0.01
    near = motion.clone()
    near[:, 0, 4:7, 5:8] += 2
    weight[..., 4:7, 5:8] = 0.01
    left = near - planar_motion(near, weight)
    assert left[:, 0, 4:7, 5:8].min() > 1.9
    assert left[..., :3].abs().max() < 0.05


def test_truth_of_motion_follows_the_camera():
    """The camera moves by 0.1 m to the right: the scene lay ``0.1 f / z`` to the right one frame before."""
    sample = make_sample()
    motion, known = motion_to_previous(sample.depth, (6, 8), 8, (1.0, 1.0))
    rows = ((np.arange(6) + 0.5) * 8).astype(int)
    expected = 0.1 * SIZE[1] / sample.depth.depth_m[0, rows, 0] / 8
    np.testing.assert_allclose(motion[1, :, 2, 0], expected, rtol=1e-5)
    assert motion[..., 1].abs().max() < 1e-5
    assert not known[0].any()
    assert known[1, :, :6].all()
    assert motion_to_previous(make_sample(poses=False).depth, (6, 8), 8, (1.0, 1.0)) is None


def test_truth_of_another_size_is_the_same_truth():
    head = make_head((4, 16), motion=dict(stride=8, channels=4, radius=2))
    output, _ = head(make_features((4, 16), batch=1), RecurrentState(), SIZE)
    one, other = make_sample(), make_sample(size=(96, 128))
    other.video = one.video
    first, second = (head.loss(output, [sample], (1.0, 1.0)) for sample in (one, other))
    for name in ('loss_ssi', 'loss_motion'):
        assert first[name].item() == pytest.approx(second[name].item(), rel=0.02)


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
        (dict(motion=dict(stride=2)), 'motion has stride 2; wanted one of the scales'),
        (dict(motion=dict(stride=4)), 'motion has no scale of half its stride'),
        (dict(loss_weights=dict(sillog=1.0)), "loss_weights names 'sillog'"),
        (dict(kind='depth', max_depth_m=0.0), 'wanted two numbers, the smaller first'),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_head((16,), **options)
