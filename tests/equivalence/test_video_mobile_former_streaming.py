"""Video Mobile-Former frame by frame, in chunks and as a clip: causal, with a stride in time, and through a window."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_video_mobile_former import clip, small
from trecvit_dense.models.layers.global_tokens import MobileToFormer
from trecvit_dense.structures import Features, RecurrentState

FRAMES = 7
CUTS = {'frames': [1] * FRAMES, 'uneven': [2, 1, 4], 'late': [6, 1]}
VARIANTS = {
    'causal': dict(causal=True),
    'kernels': dict(causal=True, temporal_kernel=[5, 3, 1, 3, 5], token_decay=0.8),
    'stem': dict(causal=True, stem_temporal_kernel=3),
    'stride': dict(causal=True, stem_temporal_kernel=5, stem_temporal_stride=3),
    'skip': dict(causal=True, stem_temporal_stride=2),
    'window': dict(window=3),
}


def flat(features: Features) -> dict[str, Tensor]:
    found = {f'level{index}': level.tokens for index, level in enumerate(features.levels)}
    return found | dict(class_token=features.class_token)


@torch.no_grad()
def stream(model: nn.Module, video: Tensor, cuts: list[int]) -> tuple[dict[str, Tensor], Tensor, RecurrentState]:
    """Features of all frames, the logits after the last one, and the state of the whole model."""
    parts: list[dict[str, Tensor]] = []
    model.backbone.register_forward_hook(lambda _, inputs, output: parts.append(flat(output[0])))
    state = model.start(len(video))
    for chunk in video.split(cuts, dim=1):
        before = state.clone()
        outputs, new_state = model.step(chunk, state)
        assert all(torch.equal(state[key], value) for key, value in before.items()), 'a step must not write into state'
        state = new_state
    model.backbone._forward_hooks.clear()
    return (
        {key: torch.cat([part[key] for part in parts], 1) for key in parts[0]},
        outputs['classification'].logits,
        state,
    )


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        error = (found[name].float() - value.float()).abs().max()
        assert error <= 1e-4 * value.float().abs().max(), f'{name}: {error}'


@pytest.mark.parametrize('variant', VARIANTS)
def test_step_is_chunk_is_clip(variant: str) -> None:
    model, video = small(**VARIANTS[variant]), clip(FRAMES)
    features, logits, state = stream(model, video, [FRAMES])
    for cuts in CUTS.values():
        found, found_logits, found_state = stream(model, video, cuts)
        assert_same(found, features)
        assert_same(found_state, state)
        assert_same(dict(logits=found_logits), dict(logits=logits))
    assert (features['class_token'][:, -1] - features['class_token'][:, 0]).abs().max() > 1e-3, 'frames must differ'


@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_the_future_does_not_matter_and_the_past_does(variant: str) -> None:
    model, video = small(**VARIANTS[variant]).backbone, clip(FRAMES)
    later, earlier = video.clone(), video.clone()
    later[:, 5:], earlier[:, 3:4] = 0.5, 0.5
    wanted = flat(model(video)[0])
    for name, value in flat(model(later)[0]).items():
        assert torch.allclose(value[:, :5], wanted[name][:, :5], atol=1e-5), name
    if variant != 'skip':  # frame 3 is looked at, and reaches frame 5
        assert (flat(model(earlier)[0])['level3'][:, 5] - wanted['level3'][:, 5]).abs().max() > 1e-4


@pytest.mark.parametrize('variant', ['kernels', 'stride', 'window'])
@torch.no_grad()
def test_state_has_one_size(variant: str) -> None:
    model, video, sizes = small(**VARIANTS[variant]), clip(4, 1), []
    state = model.start(1)
    for index in range(6):
        _, state = model.step(video, state)
        if index in (0, 5):
            sizes.append(({key: (tuple(value.shape), value.dtype) for key, value in state.items()}, state.nbytes))
    assert sizes[0] == sizes[1]
    assert all(value.isfinite().all() for value in state.values())


@torch.no_grad()
def test_causal_state_is_what_the_docstring_says() -> None:
    model = small(causal=True).backbone
    _, state = model(clip(2))
    shapes = {key: tuple(value.shape) for key, value in state.items() if key.startswith(('blocks.1.', 'to_former.'))}
    assert shapes == {
        'blocks.1.depthwise1': (2, 8, 2, 16, 16),
        'blocks.1.depthwise2': (2, 12, 2, 8, 8),
        'blocks.1.to_former.mean': (2, 2, 6, 4),
        'blocks.1.to_former.weight': (2, 2, 6),
        'to_former.mean': (2, 2, 6, 14),
        'to_former.weight': (2, 2, 6),
    }


@torch.no_grad()
def test_a_bridge_with_equal_tokens_is_attention_over_all_frames_so_far() -> None:
    """Then the carried mean is exactly the softmax over every position up to the frame."""
    torch.manual_seed(0)
    causal, whole = MobileToFormer(8, 16, causal=True), MobileToFormer(8, 16)
    for parameter in causal.parameters():
        parameter.normal_()
    whole.load_state_dict(causal.state_dict())
    x, tokens = torch.randn(2, 8, 5, 3, 4), torch.randn(2, 1, 6, 16)
    found, _ = causal(x, tokens.expand(-1, 5, -1, -1))
    for frame in range(5):
        wanted, _ = whole(x[:, :, : frame + 1], tokens)
        assert torch.allclose(found[:, frame : frame + 1], wanted, atol=1e-5)


@torch.no_grad()
def test_decay_forgets() -> None:
    """The first frame of a long stream has no say in the tokens any more, unless nothing is forgotten."""
    shares = []
    for decay in (1.0, 0.5):
        bridge = MobileToFormer(8, 16, causal=True, decay=decay)
        torch.manual_seed(0)
        for parameter in bridge.parameters():
            parameter.normal_()
        x, tokens = torch.randn(1, 8, 40, 3, 4), torch.randn(1, 1, 6, 16).expand(-1, 40, -1, -1)
        other = x.clone()
        other[:, :, 0] += 1
        shares.append((bridge(x, tokens)[0] - bridge(other, tokens)[0])[:, -1].abs().max())
    assert shares[0] > 1e-3 and shares[1] < 1e-6


def test_whole_clips_refuse_to_go_on() -> None:
    model = small().backbone
    _, state = model(clip(2))
    with pytest.raises(ValueError, match='looks both ways.*set window=W'):
        model(clip(2), state=state)


def test_causality_is_declared() -> None:
    assert not small().backbone.causal and not small(window=2).backbone.causal
    assert small(causal=True).backbone.causal and small(causal=True).backbone.delay_frames == 0
