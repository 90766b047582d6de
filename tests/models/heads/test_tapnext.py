"""The TAPNext head: what it reads, what it learns from, and that its options do what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.checkpoints.official import tapnext_config
from trecvit_dense.models.heads.tapnext import (
    TAPNextHead,
    certainty_in_disc,
    position_encoding,
    truncated_soft_argmax,
)
from trecvit_dense.models.layers.embedding import sincos2d
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import PointTracks, VideoSample

SIZES = dict(embed_dim=16, depth=2, num_heads=2, mlp_dim=32, lru_width=16, patch_size=8, image_size=(16, 24))


def build(**head):
    use_scope()
    torch.manual_seed(0)
    return MODELS.build(tapnext_config(**SIZES, num_bins=head.pop('num_bins', 32), head=head))


def sample(count: int, frames: int = 4) -> VideoSample:
    rng = np.random.default_rng(count)
    xy = rng.uniform(0, 16, (count, frames, 2)).astype(np.float32)
    visible = rng.random((count, frames)) < 0.7
    query = np.concatenate([rng.integers(0, frames, (count, 1)), xy[:, 0]], 1).astype(np.float32)
    video = rng.integers(0, 255, (frames, 16, 24, 3)).astype(np.uint8)
    return VideoSample(video, PointTracks(xy, visible, query))


def batch(*counts: int) -> dict:
    samples = [sample(count) for count in counts]
    inputs = [torch.from_numpy(item.video.transpose(0, 3, 1, 2).copy()) for item in samples]
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('attention', ['full', 'read_only'])
@pytest.mark.parametrize('certainty_weight', [0.0, 0.5])
def test_every_parameter_learns(attention, certainty_weight) -> None:
    loss = dict(type='TAPNextLoss', certainty_weight=certainty_weight, occluded_weight=0.2)
    model = build(attention=attention, loss=loss).train()
    losses = model(**model.data_preprocessor(batch(5, 3), True), mode='loss')
    assert {'loss_huber', 'loss_ce', 'loss_visibility', 'loss_layers'} <= losses.keys()
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not without


def test_padding_changes_no_loss() -> None:
    """A clip with fewer points beside one with more: the mean over both is that of the two clips alone."""
    model = build(attention='read_only', loss=dict(type='TAPNextLoss', huber_weight=0, ce_weight=0)).train()

    def visibility(*counts: int) -> tuple[float, int]:
        data = batch(*counts)
        frames = [int((4 - item.points.query_txy[:, 0]).sum()) for item in data['data_samples']]
        loss = model(**model.data_preprocessor(data, True), mode='loss')['loss_visibility']
        return loss.item(), sum(frames)

    (both, count), (first, count_first), (second, count_second) = visibility(6, 2), visibility(6), visibility(2)
    assert both == pytest.approx((first * count_first + second * count_second) / count, rel=1e-4)


def test_predictions_are_in_pixels_of_the_sample() -> None:
    model = build().eval()
    data = batch(3)
    result = model.test_step(data)[0].predictions['points']
    assert result.xy_px.shape == (3, 4, 2) and result.visible.shape == (3, 4)
    assert (result.xy_px >= 0).all() and (result.xy_px <= np.array([24, 16])).all()


def test_bins_may_be_few_and_large() -> None:
    """64 bins of 4 units span the same 256 units as the released ones."""
    head = build(num_bins=64, bin_size=4.0).heads['points']
    assert head.extent == 256
    logits = torch.zeros(1, 1, 1, 128)
    head.coordinate_head = torch.nn.Identity()
    head.visible_head = torch.nn.Identity()
    logits[..., 10], logits[..., 64 + 50] = 200.0, 200.0
    assert torch.allclose(head.decode(logits)['yx'], torch.tensor([[[[10.5 * 4, 50.5 * 4]]]]))


def test_soft_argmax_ignores_what_is_far() -> None:
    logits = torch.full((256,), -50.0)
    logits[100], logits[101], logits[180] = 5.0, 5.0, 4.9
    assert truncated_soft_argmax(logits).item() == pytest.approx(101.0, abs=1e-3)
    assert truncated_soft_argmax(logits, threshold=255).item() > 110


def test_certainty_is_the_mass_in_the_disc() -> None:
    torch.manual_seed(0)
    logits, yx = torch.randn(2, 256), torch.tensor([3.3, 200.9])
    p = logits.softmax(-1)
    centre = torch.arange(256) + 0.5
    inside = (centre[:, None] - yx[0]) ** 2 + (centre[None] - yx[1]) ** 2 <= 64
    wanted = (p[0][:, None] * p[1][None] * inside).sum()
    assert certainty_in_disc(logits, yx).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert certainty_in_disc(logits, yx, radius=400).item() == pytest.approx(1.0, abs=1e-5)


def test_certainty_gates_visibility() -> None:
    model, gated = build().eval(), build(use_certainty=True).eval()
    video = torch.zeros(1, 2, 3, 16, 24)
    query = dict(query_txy=torch.tensor([[[0.0, 4.0, 4.0]]]))
    with torch.no_grad():
        plain, other = (m.step(video, m.start(1, points=query))[0]['points'] for m in (model, gated))
    probability = plain.visible_logits.sigmoid() * plain.certainty
    assert torch.allclose(other.visible_logits.sigmoid(), probability, atol=1e-5)


def test_position_encoding_is_the_table_at_pixel_centres() -> None:
    table = sincos2d((6, 8), 16).view(6, 8, 16)
    yx = torch.stack(torch.meshgrid(torch.arange(6) + 0.5, torch.arange(8) + 0.5, indexing='ij'), -1)
    for border in ('clamp', 'zero'):
        assert torch.allclose(position_encoding(yx, (6, 8), 16, border=border), table, atol=1e-5)
    corner = torch.tensor([0.0, 0.0])
    assert torch.allclose(position_encoding(corner, (6, 8), 16), table[0, 0], atol=1e-6)
    assert torch.allclose(position_encoding(corner, (6, 8), 16, border='zero'), table[0, 0] / 4, atol=1e-6)


@pytest.mark.parametrize('option', ['numerics', 'border', 'attention'])
def test_an_unknown_option_is_an_error(option) -> None:
    with pytest.raises(ValueError, match=f"{option} is 'no'; wanted one of"):
        TAPNextHead((16,), **{option: 'no'})
