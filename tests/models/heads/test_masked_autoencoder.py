"""Masked pre-training: what is hidden, targets, loss, gradients, metric, picture, and what cannot be built."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from trecvit_dense.evaluation import ReconstructionMetric
from trecvit_dense.models.heads.masked_autoencoder import SeenNeighbours
from trecvit_dense.models.layers.patch_hiding import draw_hidden
from trecvit_dense.models.layers.pixel_patches import from_patches, normalise_patches, patch_grid, to_patches
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import RecurrentState, VideoSample
from trecvit_dense.visualization import draw_reconstruction

BACKBONE = dict(type='TRecViT', embed_dim=16, depth=2, num_heads=2, mlp_dim=32, patch_size=8, image_size=32)
HEAD = dict(type='MaskedAutoencoderHead', ratio=0.75, decoder_dim=16, decoder_depth=2, decoder_heads=2)


def build(backbone: dict | None = None, heads: dict | None = None, **options: object) -> nn.Module:
    use_scope()
    torch.manual_seed(0)
    heads = dict(reconstruction=HEAD | options) if heads is None else heads
    return MODELS.build(dict(type='VideoPerceiver', backbone=BACKBONE | (backbone or {}), heads=heads))


def video(batch: int = 2, frames: int = 5, height: int = 32, width: int = 40) -> torch.Tensor:
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


# --------------------------------------------------------------------------------------------------- hiding


@pytest.mark.parametrize(('ratio', 'count'), [(0.9, 18), (0.5, 10), (0.001, 1), (0.999, 19)])
@pytest.mark.parametrize('masking', ['tube', 'random'])
def test_every_frame_hides_its_share(ratio: float, count: int, masking: str) -> None:
    seed, frame = torch.tensor([1, 2, 3]), torch.tensor([0, 0, 5])
    hidden = draw_hidden(seed, frame, num_frames=6, num_patches=20, ratio=ratio, masking=masking)
    assert hidden.shape == (3, 6, 20) and (hidden.sum(-1) == count).all()
    assert (hidden == hidden[:, :1]).all() == (masking == 'tube')


def test_places_are_hidden_alike() -> None:
    """Over many seeds and frames every place, and every pair of neighbours, is hidden as often as any other."""
    seed = torch.arange(4000)
    hidden = draw_hidden(seed, torch.zeros_like(seed), num_frames=4, num_patches=16, ratio=0.75, masking='random')
    share = hidden.float().mean((0, 1))
    assert (share - 0.75).abs().max() < 0.02
    together = (hidden[..., 1:] & hidden[..., :-1]).float().mean((0, 1))
    assert (together - 12 / 16 * 11 / 15).abs().max() < 0.02
    in_time = (hidden[:, 1:] & hidden[:, :-1]).float().mean((0, 1))
    assert (in_time - 0.75**2).abs().max() < 0.02, 'frames are drawn apart from each other'


def test_training_draws_new_masks_and_evaluation_belongs_to_the_video() -> None:
    head = build().heads['reconstruction']
    torch.manual_seed(3)
    first, second = (head.train().begin(2, 'cpu')['seed'] for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, head.begin(2, 'cpu')['seed']), 'a resumed run hides the same'
    seeds = [head.sample_queries(VideoSample(np.zeros(0), name=name))['seed'] for name in ('a', 'b', 'a')]
    assert seeds[0] == seeds[2] != seeds[1]


# -------------------------------------------------------------------------------------------------- patches


def test_patches_there_and_back() -> None:
    frames = video(height=33, width=45)
    grid, patch = patch_grid((33, 45), (8, 16))
    patches = to_patches(frames, grid, patch)
    assert grid == (4, 2) and patches.shape == (2, 5, 8, 8 * 16 * 3)
    assert torch.equal(from_patches(patches, grid, patch), frames[..., :32, :32])
    expected = frames[1, 2, :, 8:16, 16:32].permute(1, 2, 0).flatten()  # second row, second column
    assert torch.equal(patches[1, 2, 3], expected)


def test_targets_are_normalised_by_the_patch() -> None:
    patches = torch.rand(2, 3, 4, 192) * torch.tensor([0.1, 1.0, 5.0])[None, :, None, None] + 3
    normal, mean, deviation = normalise_patches(patches, 0.0)
    torch.testing.assert_close(normal.mean(-1), torch.zeros(2, 3, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std(-1), torch.ones(2, 3, 4), atol=1e-3, rtol=0)
    torch.testing.assert_close(normal * deviation + mean, patches)
    flat, _, _ = normalise_patches(0.5 + 1e-4 * torch.randn(1, 1, 1, 192), 1e-4)
    assert flat.abs().max() < 0.1, 'the noise of a flat patch stays small'


# ------------------------------------------------------------------------------------------- loss and training


def test_loss_is_of_hidden_patches_only() -> None:
    model = build()
    output = model.step(video(), model.start(2))[0]['reconstruction']
    head = model.heads['reconstruction']
    loss = head.loss(output, [], (1, 1))['loss_mae']
    error = (output.patches - output.targets).square().mean(-1)
    torch.testing.assert_close(loss, error[output.hidden].mean())
    output.patches = torch.where(output.hidden[..., None], output.targets, output.patches + 7)
    assert head.loss(output, [], (1, 1))['loss_mae'] == 0
    assert build(loss_on='all').heads['reconstruction'].loss(output, [], (1, 1))['loss_mae'] > 1
    output.patches = torch.zeros_like(output.targets)
    assert head.loss(output, [], (1, 1))['loss_mae'] == pytest.approx(1, abs=0.02), 'the mean of a patch costs 1'


@pytest.mark.parametrize('masking', ['tube', 'random'])
@pytest.mark.parametrize('backbone', [{}, dict(stem='conv', stem_channels=(8, 12, 16)), dict(class_token=True)])
@pytest.mark.parametrize('neighbourhood', [0, 3])
def test_every_parameter_has_a_gradient(masking: str, backbone: dict, neighbourhood: int) -> None:
    model = build(backbone, masking=masking, neighbourhood=neighbourhood).train()
    model(video(), None, mode='loss')['loss_mae'].backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    untouched = [name for name, p in model.named_parameters() if not p.grad.any()]
    # The first frame has no past, and hidden places give their positions to nobody in the encoder.
    assert not untouched, untouched


def test_a_hidden_place_begins_as_the_mean_of_what_is_seen_near_it() -> None:
    tokens = torch.randn(2, 3, 20, 5, generator=torch.Generator().manual_seed(3))
    seen = torch.rand(2, 3, 20, generator=torch.Generator().manual_seed(4)) < 0.3
    layer = SeenNeighbours(5, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(5)))
        found = layer(tokens, seen, (4, 5))
    for b, t, place in np.ndindex(2, 3, 20):
        row, column = divmod(place, 5)
        near = [
            (y, x)
            for y in range(max(row - 1, 0), min(row + 2, 4))
            for x in range(max(column - 1, 0), min(column + 2, 5))
        ]
        near = [(y, x) for y, x in near if seen[b, t, y * 5 + x]]
        wanted = sum(
            (layer.weight[:, 0, y - row + 1, x - column + 1] * tokens[b, t, y * 5 + x] for y, x in near), torch.zeros(5)
        )
        torch.testing.assert_close(found[b, t, place], wanted / max(len(near), 1))


def test_it_learns_to_paint() -> None:
    """Smooth clips: hidden patches follow from the seen ones, and after a few steps they are painted so."""
    model = build(ratio=0.5, target_eps=1e-4).train()
    row = torch.linspace(0, 1, 32)
    clips = torch.stack([row[:, None] * a + row * b for a, b in ((1, 0), (0, 1), (0.5, 0.5), (0.9, 0.1))])
    clips = clips[:, None, None].expand(-1, 3, 3, -1, -1).contiguous()
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=5e-3), []
    for _ in range(25):
        loss = model(clips, None, mode='loss')['loss_mae']
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.9 and np.mean(losses[-3:]) < 0.35, losses


def test_hidden_work_is_saved() -> None:
    """With tubes the encoder's blocks get a quarter of the tokens."""
    model, seen = build(), []
    model.backbone.blocks[0].temporal.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[2]))
    model.step(video(), model.start(2))
    assert seen == [5], 'of 4 x 5 patches'


# ------------------------------------------------------------------------------------------ answers and metric


@pytest.fixture(scope='module')
def answered() -> VideoSample:
    model = build().eval()
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 40, 3), dtype=np.uint8)
    sample = VideoSample(frames, name='clip')
    data = dict(inputs=[torch.from_numpy(frames).permute(0, 3, 1, 2)], data_samples=[sample])
    return model.test_step(data)[0]


def test_metric_reports_model_and_what_it_must_beat(answered: VideoSample) -> None:
    metric = ReconstructionMetric('toy')
    metric.process(None, [answered])
    found = metric.evaluate(1)
    assert set(found) == {f'toy/{key}mse' for key in ('', 'mean_patch/', 'copy_visible/', 'copy_previous/')}
    assert found['toy/mean_patch/mse'] == pytest.approx(1, abs=0.02)
    assert found['toy/copy_previous/mse'] == pytest.approx(2, abs=0.1), 'frames of noise have nothing in common'
    recon = answered.predictions['reconstruction']
    assert recon.hidden.mean() == 0.75 and recon.patches.shape == recon.targets.shape == (6, 20, 192)


def test_metric_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"'clip' has no predictions\['reconstruction'\]"):
        ReconstructionMetric().process(None, [VideoSample(np.zeros(0), name='clip')])


def test_picture_shows_seen_patches_as_they_are(answered: VideoSample) -> None:
    recon = answered.predictions['reconstruction']
    sheet = draw_reconstruction(recon, num_frames=3, width=None)
    assert sheet.shape == (3 * 32 + 2 * 4, 3 * 40 + 2 * 4, 3) and sheet.dtype == np.uint8
    shown, painted, true = (sheet[36 * row : 36 * row + 32, :40] for row in range(3))
    assert np.array_equal(true, answered.video[0])
    cover = np.kron(recon.hidden[0].reshape(4, 5), np.ones((8, 8), bool))
    assert (shown[cover] == 127).all() and np.array_equal(shown[~cover], true[~cover])
    assert np.array_equal(painted[~cover], true[~cover]) and not np.array_equal(painted[cover], true[cover])


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(masking='block'), "masking is 'block'; wanted 'tube' or 'random'"),
        (dict(ratio=1.0), 'ratio is 1.0; wanted the share of hidden patches'),
        (dict(loss_on='seen'), "loss_on is 'seen'"),
        (dict(neighbourhood=4), 'neighbourhood is 4; wanted an odd number of places, or 0'),
        (dict(neighbourhood=-1), 'neighbourhood is -1'),
    ],
)
def test_options_that_do_not_exist(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize('name', ['ViViT'])
def test_backbones_that_cannot_hide_are_named(name: str) -> None:
    backbone = dict(type=name, embed_dim=16, depth=1, num_heads=2, image_size=32, tubelet_size=(1, 8, 8), num_frames=4)
    with pytest.raises(ValueError, match=f'MaskedAutoencoderHead hides patches.*{name} cannot leave patches out'):
        MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(reconstruction=HEAD)))


def test_heads_that_do_not_go_together_are_named() -> None:
    points = dict(type='TAPNextHead', image_size=(32, 32), num_bins=32)
    with pytest.raises(ValueError, match='MaskedAutoencoderHead hides patches, which TAPNextHead cannot have'):
        build(heads=dict(reconstruction=HEAD, points=points))
    with pytest.raises(ValueError, match='MaskedAutoencoderHead hides patches, which MaskedAutoencoderHead cannot'):
        build(heads=dict(reconstruction=HEAD, again=HEAD))


def test_masks_that_do_not_fit() -> None:
    model = build()
    mask = torch.zeros(2, 5, 20, dtype=torch.bool)
    for bad in (mask[:, :4], mask[..., :-1], mask.float()):
        with pytest.raises(ValueError, match='patch_mask is'):
            model.backbone(video(), patch_mask=bad)
    mask[0, 3] = True
    with pytest.raises(ValueError, match='hides every patch of a frame'):
        model.backbone(video(), patch_mask=mask)
    with pytest.raises(ValueError, match='the given mask has 7 patches; frames have 20'):
        model.step(video(), model.start(2, reconstruction=dict(hidden=torch.zeros(2, 7, dtype=torch.bool))))
    with pytest.raises(ValueError, match='frames of at least two'):
        model.step(video(height=8, width=8), model.start(2))
    with pytest.raises(ValueError, match='keep the frame size'):
        _, state = model.backbone(video(), patch_mask=torch.eye(20, dtype=torch.bool)[:5].expand(2, -1, -1))
        wider = video(width=48)
        model.backbone(wider, state=RecurrentState(state), patch_mask=torch.zeros(2, 5, 24, dtype=torch.bool))
