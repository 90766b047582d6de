"""A clip trained in chunks of time: losses and gradients of the whole clip, memory of one chunk."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.equivalence.several import DEPTH, MASKS, POINTS, SIZE, build
from tests.equivalence.test_several_heads import losses_of, sample
from trecvit_dense.engine.costs import PeakMemory
from trecvit_dense.models.heads.base import join_in_time
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import VideoSample

FRAMES = 7
HEADS = dict(
    volume=dict(points=POINTS['volume'], masks=MASKS, depth=DEPTH['parallax']),
    tokens=dict(points=POINTS['tokens'], masks=MASKS, depth=DEPTH['blocks']),
)


def steps(model: nn.Module, samples: list[VideoSample], chunk: int | None) -> tuple[dict[str, Tensor], dict]:
    """Losses, and gradients by name, of a fresh copy of ``model`` that works ``chunk`` frames at a time."""
    model = deepcopy(model).train()
    model.train_chunk_frames = chunk
    torch.manual_seed(0)
    losses = losses_of(model, samples)
    sum(losses.values()).backward()
    return losses, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_like_the_whole_clip(model: nn.Module, samples: list[VideoSample], chunk: int) -> None:
    (wanted, slopes), (found, chunked) = steps(model, samples, None), steps(model, samples, chunk)
    assert wanted.keys() == found.keys() and slopes.keys() == chunked.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
    for name, slope in slopes.items():
        largest = max(float(slope.abs().max()), 1e-3)
        torch.testing.assert_close(chunked[name], slope, rtol=0, atol=2e-3 * largest, msg=name)
    assert any(slope.abs().max() > 1e-3 for slope in slopes.values())


@pytest.mark.parametrize('chunk', [1, 3, 20])
@pytest.mark.parametrize('heads', list(HEADS))
def test_points_masks_and_depth(heads: str, chunk: int) -> None:
    """An object is given on frame 1, inside the first chunk or at its end."""
    assert_like_the_whole_clip(build(HEADS[heads]), [sample(frames=FRAMES), sample(frames=FRAMES)], chunk)


@pytest.mark.parametrize('chunk', [1, 2, 5])
def test_a_head_for_whole_videos_and_one_that_hides_patches(chunk: int) -> None:
    one = sample(frames=FRAMES)
    one.label = 2
    classes = build(dict(classification=dict(type='ClassificationHead', num_classes=4, pool='gap')))
    assert_like_the_whole_clip(classes, [one], chunk)
    painter = build(dict(mae=dict(type='MaskedAutoencoderHead', decoder_dim=16, decoder_depth=1, decoder_heads=2)))
    with torch.no_grad():
        painter.heads['mae'].paint.weight.normal_(std=0.2)
    assert_like_the_whole_clip(painter, [one], chunk)


def test_what_the_backbone_remembers_is_taught_across_chunks() -> None:
    """The last frame's loss reaches what the first frames wrote into the state, as it does in the whole clip."""
    model = build(dict(depth=DEPTH['plain'])).train()
    video = torch.rand(1, 6, 3, *SIZE)
    reach = {}
    for chunk in (None, 2):
        model.train_chunk_frames, entry = chunk, video.clone().requires_grad_()
        state = model.start(1)
        outputs = model.heads['depth'].join(model.train_outputs(entry, state, {0: {}})['depth'])
        outputs.log_values[:, -1].square().sum().backward()
        reach[chunk] = entry.grad[:, :2].abs().sum()
    assert reach[None] > 1e-3
    torch.testing.assert_close(reach[2], reach[None], rtol=1e-3, atol=0)


def peak_bytes(frames: int, chunk: int | None) -> int:
    """Of the tensors of a forward and a backward pass, without the video."""
    model = build(dict(depth=DEPTH['plain']), train_chunk_frames=chunk).train()
    video = torch.rand(1, frames, 3, *SIZE)

    def step() -> None:
        outputs = model.train_outputs(video, model.start(1), {0: {}})['depth']
        model.heads['depth'].join(outputs).log_values.square().sum().backward()

    step()  # first uses
    model.zero_grad()
    with PeakMemory() as memory:
        memory.add([*model.parameters(), *model.buffers()])
        step()
    return memory.peak


def test_a_long_clip_needs_the_memory_of_a_chunk() -> None:
    """What a frame more costs, in chunks and without."""
    whole = (peak_bytes(48, None) - peak_bytes(16, None)) / 32
    chunked = (peak_bytes(48, 4) - peak_bytes(16, 4)) / 32
    assert chunked < whole / 7, (chunked, whole)


def test_a_chunk_must_have_frames_and_a_causal_backbone() -> None:
    with pytest.raises(ValueError, match='train_chunk_frames is 0; wanted at least 1'):
        build(dict(depth=DEPTH['plain']), train_chunk_frames=0)
    use_scope()
    both_ways = dict(type='ViViT', embed_dim=32, depth=1, num_heads=2, mlp_dim=32, image_size=32)
    heads = dict(classification=dict(type='ClassificationHead', num_classes=2, pool='gap'))
    with pytest.raises(ValueError, match='looks both ways in time'):
        MODELS.build(dict(type='VideoPerceiver', backbone=both_ways, heads=heads, train_chunk_frames=4))


@pytest.mark.parametrize('mode', ['block', 'selective'])
def test_what_would_keep_a_part_of_every_chunk_is_refused(mode: str) -> None:
    use_scope()
    backbone = dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, patch_size=8, image_size=16, checkpointing=mode)
    with pytest.raises(ValueError, match=f"checkpointing='{mode}' keeps its part of every chunk"):
        MODELS.build(dict(type='VideoPerceiver', heads={}, train_chunk_frames=2, backbone=backbone))


def test_joining_says_what_every_part_said() -> None:
    parts = [dict(a=torch.full((2, n, 3), float(n)), b=[torch.ones(2, n)], c=(4, 5), d=torch.ones(1)) for n in (1, 2)]
    joined = join_in_time(parts)
    np.testing.assert_array_equal(joined['a'][0, :, 0], [1, 2, 2])
    assert joined['b'][0].shape == (2, 3) and joined['c'] == (4, 5) and joined['d'].shape == (1,)
