"""The temporal aggregation head: running sums equal attention, streaming, gradients, what it answers, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.models.heads.temporal_aggregation import TemporalAggregationHead
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import FeatureLevel, Features, VideoSample

WIDTH = 12
KINDS = {
    'running': dict(),
    'window': dict(window=4),
    'deep': dict(depth=2, window=4),
    'clip': dict(depth=2),
    'average': dict(consensus='average'),
    'patches': dict(pool='gap'),
}


def build(**options: object) -> TemporalAggregationHead:
    torch.manual_seed(0)
    config = dict(type='TemporalAggregationHead', num_classes=5, num_heads=3, backbone_channels=(WIDTH,))
    head = MODELS.build(dict(config, **options)).eval()
    for name, parameter in head.named_parameters():
        torch.nn.init.normal_(parameter, mean=float('norm' in name and 'weight' in name), std=0.5)
    return head


def features(frames: int = 7, batch: int = 2) -> Features:
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(batch, frames, 4, WIDTH, generator=generator)
    token = torch.randn(batch, frames, WIDTH, generator=generator) * 3
    return Features((FeatureLevel(patches, (2, 2), (8, 8)),), token)


def part_of(whole: Features, frames: slice) -> Features:
    level = whole.levels[0]
    return Features((FeatureLevel(level.tokens[:, frames], level.grid, level.stride),), whole.class_token[:, frames])


def answer(head: TemporalAggregationHead, parts: list[Features]) -> tuple:
    state = head.begin(len(parts[0].class_token), 'cpu')
    for part in parts:
        output, state = head(part, state, (16, 16))
    return output, state


@pytest.mark.parametrize('options', [option for name, option in KINDS.items() if name != 'clip'], ids=str)
@torch.no_grad()
def test_frames_chunks_and_the_clip_are_equal_and_the_state_is_constant(options: dict) -> None:
    head, whole = build(**options), features()
    wanted, final = answer(head, [whole])
    for edges in ([0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 3, 7]):
        parts = [part_of(whole, slice(a, b)) for a, b in zip(edges, edges[1:], strict=False)]
        found, state = answer(head, parts)
        for name in ('logits', 'probs', 'pre_logits'):
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-4, atol=1e-5)
        for key, value in final.items():
            torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5)
        assert state.nbytes == head.begin(2, 'cpu').nbytes and state.keys() == head.begin(2, 'cpu').keys()


@torch.no_grad()
def test_running_sums_are_the_attention_of_the_class_token() -> None:
    """The same head with a window over all frames computes the whole block, tokens of the frames included."""
    head, whole = build(), features()
    found, _ = answer(head, [part_of(whole, slice(t, t + 1)) for t in range(7)])
    head.window = 7
    torch.testing.assert_close(found.logits, answer(head, [whole])[0].logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_scores_too_large_for_an_exponential_do_no_harm() -> None:
    head, whole = build(), features()
    head.blocks[0].attn.qkv.weight.mul_(30.0)
    found, _ = answer(head, [part_of(whole, slice(t, t + 1)) for t in range(7)])
    head.window = 7
    wanted, _ = answer(head, [whole])
    assert found.logits.isfinite().all()
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_window_reads_the_last_frames_and_those_alone() -> None:
    whole = features()
    for depth in (1, 2):
        found, _ = answer(build(depth=depth, window=3), [whole])
        wanted, _ = answer(build(depth=depth), [part_of(whole, slice(4, 7))])
        torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_knows_no_order_of_frames() -> None:
    head, whole = build(depth=2), features()
    turned = Features(whole.levels, whole.class_token.flip(1))
    torch.testing.assert_close(answer(head, [turned])[0].logits, answer(head, [whole])[0].logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_average_is_the_mean_over_frames_of_what_the_classifier_says() -> None:
    head, whole = build(consensus='average'), features()
    wanted = head.classifier(whole.class_token).mean(dim=1)
    torch.testing.assert_close(answer(head, [whole])[0].logits, wanted)


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_gradient_reaches_every_parameter_and_every_frame(options: dict) -> None:
    head, whole = build(dropout=0.1, **options).train(), features(4)
    source = whole.levels[0].tokens if options.get('pool') == 'gap' else whole.class_token
    source.requires_grad_()
    output, _ = answer(head, [whole])
    samples = [VideoSample(np.zeros((1, 1, 1, 3), np.uint8), label=label) for label in (0, 3)]
    head.loss(output, samples, (1.0, 1.0))['loss_cls'].backward()
    assert not [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert (source.grad.flatten(2).abs().amax(dim=2) > 0).all()


def test_running_sums_have_the_gradients_of_attention() -> None:
    gradients = []
    for window in (None, 7):
        head = build(window=window)
        answer(head, [features()])[0].logits.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in head.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_it_trains_and_answers_in_a_perceiver_with_names() -> None:
    backbone = dict(type='XViT', embed_dim=12, depth=1, num_heads=2, image_size=16, patch_size=8, future=False)
    head = dict(type='TemporalAggregationHead', num_classes=3, num_heads=3, classes=['a', 'b', 'c'])
    model = MODELS.build(
        dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head), chunk_frames=2)
    )
    clip = torch.rand(2, 5, 3, 16, 16)
    samples = [VideoSample(np.zeros((5, 16, 16, 3), np.uint8), label=label) for label in (0, 2)]
    model(clip, samples, mode='loss')['loss_cls'].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    found = model.predict(clip, samples, (1.0, 1.0))[1].predictions['classification']
    with torch.no_grad():
        outputs, _ = model.step(clip, model.start(2))
    torch.testing.assert_close(found['probs'], outputs['classification'].probs[1], rtol=1e-4, atol=1e-5)
    assert found['class_name'] in ('a', 'b', 'c')


def test_whole_clips_are_not_gone_on_from() -> None:
    with pytest.raises(ValueError, match='window=W'):
        answer(build(depth=2), [features(2), features(2)])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(consensus='vit'), "'attention' or 'average'"),
        (dict(depth=0), 'depth is 0'),
        (dict(window=0), 'window is 0'),
        (dict(consensus='average', window=4), 'only with'),
        (dict(num_heads=5), 'does not divide'),
        (dict(pool='mean'), "'tok'"),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_backbone_without_class_token_is_named() -> None:
    head = build()
    with pytest.raises(ValueError, match='class_token'):
        head(Features(features().levels), head.begin(2, 'cpu'), (16, 16))
