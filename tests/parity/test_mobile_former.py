"""Mobile-Former against the authors' code: stem, blocks, bridges, dynamic ReLU, classifier, names; and inflated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.parity.goldens import Golden, assert_close_max, golden_files, to_numpy
from trecvit_dense.checkpoints.mobile_former_names import (
    inflate_mobile_former,
    mobile_former_from_official,
    mobile_former_to_official,
)
from trecvit_dense.models import VideoPerceiver
from trecvit_dense.registry import MODELS, use_scope

TOLERANCE = 3e-5  # absolute, of the FORMAT file


def build(golden: Golden, video: dict[str, Any] | None = None) -> VideoPerceiver:
    """The image model of a golden's sizes, or with ``video`` options the video one; its weights are not loaded."""
    use_scope()
    cfg = {key.removeprefix('cfg/'): golden[key] for key in golden.keys('cfg/')}
    sizes = dict(
        stem_channels=int(cfg['stem']),
        rows=[tuple(row) for row in _rows(cfg['rows'])],
        num_tokens=int(cfg['tokens']),
        token_dim=int(cfg['token_dim']),
        groups=int(cfg.get('groups', 1)),
    )
    kind = 'MobileFormer' if video is None else 'VideoMobileFormer'
    head = dict(
        type='MobileFormerClassifier',
        num_classes=int(cfg['classes']),
        rep_size=int(cfg['fc']),
        token_dim=sizes['token_dim'],
        groups=sizes['groups'],
    )
    backbone = dict(type=kind, **sizes, **(video or {}))
    model = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head)))
    model.backbone.any_size = True  # the authors' code rounds up where a side does not divide
    return model.eval()


def _rows(rows: np.ndarray) -> list[list]:
    """``(lite?, e1, out, stride, e2)`` of the file in our words."""
    return [
        ['first' if not e2 or e1 == 1 else 'lite' if lite else 'dna', e1, out, s, e2]
        for lite, e1, out, s, e2 in rows.tolist()
    ]


def load_image(golden: Golden) -> VideoPerceiver:
    model = build(golden)
    model.load_state_dict(mobile_former_from_official(golden.group('param/')), strict=False)
    return model


def close(actual: Any, expected: np.ndarray, name: str) -> None:
    actual = to_numpy(actual)
    assert actual.shape == expected.shape, f'{name}: shape {actual.shape}, wanted {expected.shape}'
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE, err_msg=name)


def watch(model: VideoPerceiver) -> dict[str, Tensor]:
    """Everything a golden names, filled by the next pass: maps ``(B, C, T, H, W)``, tokens ``(B, G, M, d)``."""
    seen: dict[str, Tensor] = {}
    trunk, head = model.backbone, model.heads['classification']
    hook(trunk.stem_relu, lambda _, output: seen.update(stem=output))
    for index, block in enumerate(trunk.blocks):
        hook(block, lambda _, output, i=index: seen.update({f'block{i}_x': output[0], f'block{i}_tokens': output[1]}))
    if len(trunk.blocks) > 1 and hasattr(trunk.blocks[1], 'relu1'):
        first = trunk.blocks[1]
        hook(first.to_former, lambda _, output: seen.update(block1_mobile2former_tokens=output[0]))
        hook(first.relu1, lambda inputs, output: seen.update(block1_dyrelu_in=inputs[0], block1_dyrelu_out=output))
        hook(first.relu1.hyper, lambda _, output: seen.update(block1_dyrelu_coef=output))
        hook(first.to_mobile, lambda inputs, _: seen.update(block1_before_former2mobile=inputs[0]))
    hook(trunk.to_former, lambda _, output: seen.update(final_tokens=output[0]))
    hook(head.pre_logits, lambda inputs, _: seen.update(head_in=inputs[0]))
    return seen


def hook(module: nn.Module, keep: Any) -> None:
    module.register_forward_hook(lambda _, inputs, output: keep(inputs, output))


def in_official_shape(name: str, value: Tensor, frame: int = 0) -> Tensor:
    """One frame of a watched tensor as the image model returns it."""
    if name == 'block1_dyrelu_coef':
        return value[:, 0, :, None, None]
    if value.ndim == 5:
        return value[:, :, frame]
    return value[:, 0] if value.ndim == 4 else value


@pytest.mark.parametrize('path', golden_files('mobileformer_'))
def test_mobile_former(path) -> None:
    golden = Golden(path)
    model = load_image(golden)
    image = golden.tensor('input').requires_grad_()
    seen = watch(model)
    outputs, _ = model.step(image[:, None], model.start(len(image)))
    found = outputs['classification']
    seen |= dict(logits=found.logits, head_features=found.pre_logits[:, 0])
    for key in golden.keys('out/'):
        name = key.removeprefix('out/')
        if name != 'loss':
            close(in_official_shape(name, seen[name]), golden[key], key)
    compare_gradients(golden, model, image, found.logits)
    golden.assert_all_compared(ignore=['cfg/*'])


def compare_gradients(golden: Golden, model: VideoPerceiver, image: Tensor, logits: Tensor) -> None:
    """Of the cross-entropy, where the file holds them."""
    if 'out/loss' not in golden:
        assert not golden.keys('grad/')
        return
    batch, classes = logits.shape
    labels = golden.tensor('labels') if 'labels' in golden else torch.arange(batch) % classes
    loss = F.cross_entropy(logits, labels)
    close(loss, golden['out/loss'], 'out/loss')
    loss.backward()
    official = mobile_former_to_official({name: value.grad for name, value in model.named_parameters()})
    for key in golden.keys('grad/'):
        name = key.removeprefix('grad/')
        assert_close_max(image.grad if name == 'input' else official[name], golden[key], 1e-3, key)


@pytest.mark.parametrize('path', golden_files('mobileformer_'))
def test_names_are_total_both_ways(path) -> None:
    """Every array of the file has a place, every tensor of ours comes from the file, and all return bit for bit."""
    golden = Golden(path)
    arrays = golden.group('param/')
    state = mobile_former_from_official(arrays)
    model = build(golden)
    counters = {name for name in model.state_dict() if name.endswith('num_batches_tracked')}
    assert state.keys() == model.state_dict().keys() - counters
    back = mobile_former_to_official(state)
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(back[key], array, err_msg=key)
    whole = mobile_former_to_official(model.state_dict())
    assert len(whole) == len(arrays) + len(counters), 'counters of batch norm have official names too'


@pytest.mark.parametrize('slices', ['centre', 'mean'])
@pytest.mark.parametrize('temporal_kernel', [1, 3, 5])
@pytest.mark.parametrize('path', golden_files('mobileformer_'))
@torch.no_grad()
def test_still_clip_of_the_inflated_model_is_the_image(path, temporal_kernel, slices) -> None:
    """Every map of every frame, and the logits; with 'mean' the ends of the clip differ, where zeros come in."""
    golden = Golden(path)
    model = build(golden, dict(temporal_kernel=temporal_kernel))
    report = inflate_mobile_former(model, mobile_former_from_official(golden.group('param/')), slices=slices)
    assert not report.missing and not report.unexpected
    seen = watch(model)
    frames = 5
    clip = golden.tensor('input')[:, None].expand(-1, frames, -1, -1, -1)
    outputs, _ = model.step(clip, model.start(len(clip)))
    if slices == 'centre' or temporal_kernel == 1:
        close(outputs['classification'].logits, golden['out/logits'], 'out/logits')
        for key in golden.keys('out/block'):
            for frame in range(frames):
                value = in_official_shape(key.removeprefix('out/'), seen[key.removeprefix('out/')], frame)
                close(value, golden[key], f'{key}, frame {frame}')
    else:  # the ends of the clip are zero padding, which reaches further with every layer
        middle = in_official_shape('stem', seen['stem'], frames // 2)
        close(middle, golden['out/stem'], 'out/stem')
        assert not np.allclose(outputs['classification'].logits, golden['out/logits'], atol=TOLERANCE)


@pytest.mark.parametrize('path', golden_files('mobileformer_'))
@torch.no_grad()
def test_still_stream_of_the_causal_model_is_the_image_on_every_frame(path) -> None:
    """The 2D kernels are in the slice of the current frame: what is before the first frame does not matter."""
    golden = Golden(path)
    model = build(golden, dict(temporal_kernel=3, causal=True))
    inflate_mobile_former(model, mobile_former_from_official(golden.group('param/')))
    state, image = model.start(len(golden['input'])), golden.tensor('input')[:, None]
    for _ in range(3):
        outputs, state = model.step(image, state)
        close(outputs['classification'].logits, golden['out/logits'], 'out/logits')
