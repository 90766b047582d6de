"""ObjectTokenHead: what it learns from, what it remembers, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.models.heads.mask_slots import fill_cells, place_given, soft_aggregate
from trecvit_dense.models.heads.target_model import TargetModel
from trecvit_dense.models.layers import mask_matching
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import ObjectMasks, PointTracks, VideoSample

HEAD = dict(type='ObjectTokenHead', channels=8, fine_channels=4, hidden_dim=8, target_dim=8, window=2, max_objects=5)
POINTS = dict(type='CostVolumePointHead', channels=8, hidden_dim=8, fine_channels=4, iterations=1)


def build(heads: dict | None = None, **options):
    use_scope()
    torch.manual_seed(0)
    backbone = dict(
        type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=32, patch_size=8, image_size=48,
        stem='conv', stem_channels=(8, 12, 16), stem_levels=(2, 4),
    )  # fmt: skip
    preprocessor = dict(type='VideoPreprocessor', pad_multiple=8)
    config = dict(type='VideoPerceiver', backbone=backbone, data_preprocessor=preprocessor)
    return MODELS.build(config | dict(heads=heads or dict(masks=HEAD)) | options)


def sample(*, size: tuple[int, int] = (48, 56), frames: int = 6, points: bool = False) -> VideoSample:
    """A bright square and a dark disc on noise; the disc is given on frame 2."""
    rng = np.random.default_rng(0)
    video = np.repeat(rng.integers(90, 160, (1, *size, 3), dtype=np.uint8), frames, 0)
    labels = np.zeros((frames, *size), np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    for t in range(frames):
        labels[t][(abs(y - 14) < 8) & (abs(x - 14 - 2 * t) < 8)] = 3
        if t >= 2:
            labels[t][(y - 34) ** 2 + (x - 40 + 2 * t) ** 2 < 50] = 7
        video[t][labels[t] == 3] = (220, 200, 60)
        video[t][labels[t] == 7] = (30, 20, 90)
    found = VideoSample(video, masks=ObjectMasks(labels, [3, 7], [0, 2]), name='two')
    if points:
        xy = np.tile(np.array([[[14.0, 14.0]], [[30.0, 40.0]]], np.float32), (1, frames, 1))
        found.points = PointTracks(xy, np.ones((2, frames), bool), np.array([[0, 14, 14], [1, 30, 40]], np.float32))
    return found


def batch(samples: list[VideoSample]) -> dict:
    inputs = [torch.from_numpy(one.video).permute(0, 3, 1, 2) for one in samples]
    return dict(inputs=inputs, data_samples=samples)


def iou(model, one: VideoSample) -> float:
    model.eval().test_step(batch([one]))
    found, truth = one.predictions['masks'].labels, one.masks.labels
    return float(np.mean([(found == i)[3:][truth[3:] == i].mean() for i in (3, 7)]))


def test_every_parameter_learns_and_a_clip_can_be_learned():
    model, clip = build().train(), sample()
    data = model.data_preprocessor(batch([clip]), True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    history = []
    for _ in range(12):
        losses = model(**data, mode='loss')
        optimizer.zero_grad()
        sum(losses.values()).backward()
        assert set(losses) == {'loss_ce', 'loss_dice', 'loss_match', 'loss_target'}
        optimizer.step()
        history.append(float(sum(losses.values()).detach()))
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent
    assert history[-1] < 0.5 * history[0]
    assert iou(model, clip) > 0.8


def test_given_masks_come_back_and_late_objects_wait():
    model, clip = build(), sample()
    model.eval().test_step(batch([clip]))
    labels = clip.predictions['masks'].labels
    assert labels.shape == clip.masks.labels.shape and clip.predictions['masks'].ids == [3, 7]
    assert (labels[0] == clip.masks.labels[0]).mean() > 0.97  # up to cells of 2 pixels
    assert ((labels[2] == 7) == (clip.masks.labels[2] == 7)).mean() > 0.97
    assert not (labels[:2] == 7).any()


def test_truth_of_another_size_is_answered_in_its_size():
    model, clip = build(), sample()
    large = clip.masks.labels.repeat(2, 1).repeat(2, 2)
    clip.masks = ObjectMasks(large, [3, 7], [0, 2])
    model.eval().test_step(batch([clip]))
    assert clip.predictions['masks'].labels.shape == large.shape
    assert (clip.predictions['masks'].labels[0] == large[0]).mean() > 0.97


@torch.no_grad()
def test_empty_slots_change_nothing():
    model = build().eval()
    video = torch.rand(1, 4, 3, 48, 56)
    mask = torch.zeros(1, 2, 48, 56)
    mask[0, 0, 4:20, 6:30], mask[0, 1, 30:44, 20:50] = 1, 1
    tight, _ = model.step(video, model.start(1, masks=dict(masks=mask)))
    wide = torch.zeros(1, 5, 48, 56)
    wide[:, [1, 4]] = mask
    rows = torch.tensor([[False, True, False, False, True]])
    loose, state = model.step(video, model.start(1, masks=dict(masks=wide, rows=rows)))
    found = loose['masks'].probabilities
    torch.testing.assert_close(found[:, :, [0, 2, 5]], tight['masks'].probabilities)
    assert not found[:, :, [1, 3, 4]].any()
    assert state['heads.masks.sums'].shape[1] == 5 and not state['heads.masks.sums'][:, 0].any()


@torch.no_grad()
def test_nobody_to_follow_is_background():
    model = build().eval()
    outputs, state = model.step(torch.rand(1, 2, 3, 48, 56), model.start(1))
    assert (outputs['masks'].probabilities[:, :, 0] == 1).all()
    assert state['heads.masks.frame'].tolist() == [2]


def test_heads_do_not_disturb_each_other():
    model, clip = build(dict(masks=HEAD, points=POINTS)).eval(), sample(points=True)
    model.test_step(batch([clip]))
    together = clip.predictions
    for task in ('points', 'masks'):
        model.tasks = (task,)
        alone = sample(points=True)
        model.test_step(batch([alone]))
        assert set(alone.predictions) == {task}
        if task == 'points':
            np.testing.assert_allclose(alone.predictions[task].xy_px, together[task].xy_px, atol=1e-3)
        else:
            assert (alone.predictions[task].labels == together[task].labels).mean() > 0.999


def test_frozen_parts_stay_and_train_no_loss():
    model, clip = build(dict(masks=HEAD, points=POINTS), freeze=('backbone', 'points')).train(), sample(points=True)
    losses = model(**model.data_preprocessor(batch([clip]), True), mode='loss')
    assert losses and all(name.startswith('masks.') for name in losses)
    sum(losses.values()).backward()
    assert not any(p.requires_grad for p in [*model.backbone.parameters(), *model.heads['points'].parameters()])
    with pytest.raises(ValueError, match="freeze names 'mask'.*did you mean 'masks'"):
        build(freeze=('mask',))


def test_other_heads_on_the_same_backbone():
    model = build()
    probe = model.with_heads(dict(masks=dict(type='LabelPropagationHead', levels=(1,))))
    assert probe.backbone is model.backbone and type(model.heads['masks']) is not type(probe.heads['masks'])
    clip = sample()
    probe.eval().test_step(batch([clip]))
    assert clip.predictions['masks'].labels.shape == clip.masks.labels.shape


def test_works_without_prompts_and_refuses_a_backbone_without():
    head = dict(HEAD, use_prompts=False)
    model, clip = build(dict(masks=head)).train(), sample()
    sum(model(**model.data_preprocessor(batch([clip]), True), mode='loss').values()).backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent


def test_reset_prediction_keeps_the_given_masks():
    model, clip = build(), sample()
    clip.meta['ablate'] = 'all'
    model.eval().test_step(batch([clip]))
    reset = clip.predictions['masks_reset'].labels
    assert reset.shape == clip.masks.labels.shape and (reset[0] == clip.masks.labels[0]).mean() > 0.97


def test_objects_given_on_different_frames_keep_their_own_frame():
    model = build().eval()
    mask = torch.zeros(1, 5, 48, 56)
    mask[0, :, 4:20, 6:30] = 1
    state = model.start(1)
    with torch.no_grad():
        for slot in range(5):
            scope = state.scope('heads.masks')
            model.heads['masks'].give(scope, mask, torch.arange(5)[None] == slot)
            _, state = model.step(torch.rand(1, 1, 3, 48, 56), state.put('heads.masks', scope))
    assert sorted(state['heads.masks.given_on'][0].tolist()) == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------------------------------------------ parts


def test_target_model_tells_two_colours_apart_and_forgets_slowly():
    model, features = TargetModel(3), torch.eye(3)[torch.tensor([0, 0, 1, 2])][None]
    masks = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    first = model.sums(features, masks)
    score = model(features, model.fit(first, first))[0, 0]
    assert (score[:2] > 0.5).all() and (score[2:] < -0.5).all()
    past = first
    for _ in range(3):
        past = model.gather(past, torch.zeros_like(first))
    torch.testing.assert_close(past, first * model.decay.sigmoid() ** 3)


def test_pixels_in_doubt_do_not_count():
    model, features = TargetModel(3), torch.eye(3)[None]
    sure = model.sums(features, torch.tensor([[[1.0, 0.0, 0.5]]]))
    assert not sure[0, 0, 2].any()


@torch.no_grad()
def test_reading_masks_in_parts_is_reading_them_at_once(monkeypatch):
    torch.manual_seed(0)
    keys, past = (torch.nn.functional.normalize(torch.randn(2, 6, 4, 5), dim=1) for _ in range(2))
    masks = torch.rand(2, 3, 8, 10)
    values = mask_matching.split_cells(masks)
    torch.testing.assert_close(mask_matching.merge_cells(values, (4, 5)), masks)
    allowed = mask_matching.nearby((4, 5), 1, keys.device)
    whole = mask_matching.read_masks(keys, past, values, torch.tensor(9.0), allowed=allowed)
    monkeypatch.setattr(mask_matching, 'CHUNK', 100)
    for a, b in zip(
        whole, mask_matching.read_masks(keys, past, values, torch.tensor(9.0), allowed=allowed), strict=True
    ):
        torch.testing.assert_close(a, b)
    weights = (keys.flatten(2).transpose(1, 2) @ past.flatten(2) * 9).masked_fill(~allowed, -torch.inf).softmax(-1)
    torch.testing.assert_close(whole[0], torch.einsum('bnm,bkmq->bknq', weights, values), rtol=0, atol=5e-3)


def test_nearby_is_a_window():
    near = mask_matching.nearby((3, 4), 1, torch.device('cpu')).view(3, 4, 3, 4)
    assert near[1, 1].sum() == 9 and near[0, 0].sum() == 4


def test_motion_is_where_a_cell_came_from():
    keys = torch.eye(12).view(1, 12, 3, 4)
    moved = keys.roll(1, -1)  # everything one cell to the right
    masks = mask_matching.split_cells(torch.zeros(1, 1, 6, 8))
    motion = mask_matching.read_masks(moved, keys, masks, torch.tensor(40.0))[2]
    torch.testing.assert_close(motion[0, 0, :, 1:], torch.ones(3, 3))
    torch.testing.assert_close(motion[0, 1], torch.zeros(3, 4), atol=1e-4, rtol=0)


def test_aggregation_is_a_distribution_without_inactive_objects():
    found = soft_aggregate(torch.rand(2, 3, 4, 4), torch.tensor([[True, False, True]] * 2))
    torch.testing.assert_close(found.sum(1), torch.ones(2, 4, 4))
    assert not found[:, 2].any()


def test_given_masks_take_their_place_and_the_others_share_the_rest():
    probabilities = torch.full((1, 3, 1, 2), 1 / 3)
    given = torch.tensor([[[[1.0, 0.25]], [[0.0, 0.0]]]])
    found = place_given(probabilities, given, torch.tensor([[True, False]]))[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.375], [1.0, 0.25], [0.0, 0.375]]))


def test_cells_beyond_the_last_patch_repeat_the_edge():
    assert fill_cells(torch.arange(4.0).view(1, 1, 2, 2), (3, 2))[0, 0, 2].tolist() == [2, 3]
