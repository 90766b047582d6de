"""Mixup, cutmix and random erasing: pixels, labels, and what reaches the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.models import MixVideos, RandomErasing
from trecvit_dense.models.losses.classification import class_targets, classification_loss
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import DepthMap, VideoSample

use_scope()
SIZE = (20, 30)


def batch(count: int = 4) -> tuple[torch.Tensor, list[VideoSample]]:
    """Clip ``i`` has the value ``i + 1`` everywhere, and the label ``i``."""
    video = torch.arange(1.0, count + 1)[:, None, None, None, None].expand(count, 3, 3, *SIZE).clone()
    return video, [VideoSample(np.zeros((3, *SIZE, 3), np.uint8), label=i, name=f'clip{i}') for i in range(count)]


def test_mixup_shares_pixels_and_labels():
    video, samples = batch()
    mixed, labels = MixVideos(cutmix_alpha=0)(video, samples, np.random.default_rng(1))
    targets = class_targets(labels, 4)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed[:, 0, 0, 0, 0], targets @ torch.arange(1.0, 5))
    assert (mixed == mixed[:, :1, :1, :1, :1]).all() and ((targets > 0).sum(1) == 2).any()
    assert torch.equal(video, batch()[0]) and all(not sample.meta for sample in samples)  # left as they were


def test_cutmix_labels_follow_the_area_and_the_box_stays():
    video, samples = batch()
    areas = set()
    for seed in range(30):
        mixed, labels = MixVideos(mixup_alpha=0)(video, samples, np.random.default_rng(seed))
        assert (mixed == mixed[:, :1, :1]).all()  # the same box in all frames and channels
        targets = class_targets(labels, 4)
        means = mixed.mean((1, 2, 3, 4))
        torch.testing.assert_close(means, targets @ torch.arange(1.0, 5))
        assert set(mixed.unique().tolist()) <= {1.0, 2.0, 3.0, 4.0}
        areas.add(round(float(targets.max(1).values.min()), 3))
    assert len(areas) > 15


def test_both_take_turns_and_some_batches_stay():
    video, samples = batch()
    counts = dict(mixup=0, cutmix=0, none=0)
    augment = MixVideos(p=0.7)
    for seed in range(60):
        mixed, labels = augment(video, samples, np.random.default_rng(seed))
        if labels is samples:
            counts['none'] += 1
        elif set(mixed.unique().tolist()) <= {1.0, 2.0, 3.0, 4.0}:
            counts['cutmix'] += 1
        else:
            counts['mixup'] += 1
    assert min(counts.values()) > 8, counts


def test_mixed_again_labels_still_sum_to_one():
    video, samples = batch()
    rng = np.random.default_rng(0)
    for _ in range(3):
        video, samples = MixVideos()(video, samples, rng)
    torch.testing.assert_close(class_targets(samples, 4).sum(1), torch.ones(4))


def test_erasing_is_one_box_of_zeros_in_all_frames():
    video, samples = batch(200)
    erased, same = RandomErasing(p=0.5)(video, samples, np.random.default_rng(0))
    assert same is samples and torch.equal(video, batch(200)[0])
    gone = erased == 0
    assert (gone == gone[:, :1, :1]).all()
    share = gone[:, 0, 0].float().mean((1, 2))
    assert 0.4 < (share > 0).float().mean() < 0.6
    touched = share[share > 0]
    assert 0.01 < touched.min() and touched.max() < 0.35 and touched.max() > 0.2
    for clip in gone[share > 0][:, 0, 0]:
        rows, columns = clip.any(1), clip.any(0)
        assert clip.sum() == rows.sum() * columns.sum()  # a full rectangle
        assert 0.2 < rows.sum() / columns.sum() < 5  # 0.3 and rounding


def test_training_alone_is_augmented_and_the_seed_of_torch_decides():
    preprocessor = MODELS.build(
        dict(
            type='VideoPreprocessor',
            value_range='signed',
            batch_augments=[dict(type='MixVideos'), dict(type='RandomErasing', p=1.0)],
        )
    )
    rng = np.random.default_rng(0)
    clips = [torch.from_numpy(rng.integers(1, 255, (2, 3, 16, 16), np.uint8)) for _ in range(3)]
    data = dict(inputs=clips, data_samples=batch(3)[1])
    plain = preprocessor(data, training=False)
    torch.manual_seed(3)
    first = preprocessor(data, training=True)
    torch.manual_seed(3)
    second = preprocessor(data, training=True)
    assert torch.equal(first['inputs'], second['inputs']) and not torch.equal(first['inputs'], plain['inputs'])
    assert [s.meta for s in first['data_samples']] == [s.meta for s in second['data_samples']]
    assert (first['inputs'] == 0).any() and not (plain['inputs'] == 0).any()
    assert not torch.equal(preprocessor(data, training=True)['inputs'], first['inputs'])


def test_a_model_learns_from_mixtures():
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='VideoPerceiver',
            data_preprocessor=dict(type='VideoPreprocessor', batch_augments=[dict(type='MixVideos')]),
            backbone=dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=16, patch_size=8, image_size=16),
            heads=dict(classification=dict(type='ClassificationHead', num_classes=4, rep_size=8, pool='gap')),
        )
    )
    clips = [torch.zeros(2, 3, 16, 16, dtype=torch.uint8) for _ in range(4)]
    data = model.data_preprocessor(dict(inputs=clips, data_samples=batch()[1]), True)
    loss = model(**data, mode='loss')['loss_cls']
    logits = model.step(data['inputs'], model.start(4))[0]['classification'].logits
    targets = class_targets(data['data_samples'], 4)
    torch.testing.assert_close(loss, -(targets * logits.log_softmax(-1)).sum(1).mean())
    loss.backward()


def test_smoothing_of_mixtures_is_that_of_labels():
    logits, (_, samples) = torch.randn(4, 4), batch()
    torch.testing.assert_close(
        classification_loss(logits, samples, label_smoothing=0.1),
        torch.nn.functional.cross_entropy(logits, torch.arange(4), label_smoothing=0.1),
    )
    for sample in samples:
        sample.meta['label_weights'] = {sample.label: 0.75, (sample.label + 1) % 4: 0.25}
    hard = [torch.nn.functional.cross_entropy(logits, (torch.arange(4) + k) % 4, label_smoothing=0.1) for k in (0, 1)]
    torch.testing.assert_close(
        classification_loss(logits, samples, label_smoothing=0.1), 0.75 * hard[0] + 0.25 * hard[1]
    )


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: MixVideos(mixup_alpha=-1), 'mixup_alpha is -1'),
        (lambda: MixVideos(mixup_alpha=0, cutmix_alpha=0), 'both 0'),
        (lambda: MixVideos(p=2), 'p is 2'),
        (lambda: RandomErasing(area=(0.5, 0.1)), 'area'),
        (lambda: RandomErasing(aspect=3), 'aspect'),
    ],
)
def test_mistakes_in_options(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_what_cannot_be_mixed_is_refused():
    video, samples = batch()
    samples[2].depth = DepthMap(np.ones((3, *SIZE)), np.ones((3, *SIZE), bool))
    with pytest.raises(ValueError, match=r"sample 'clip2' has depth.*DropAnnotations"):
        MixVideos()(video, samples, np.random.default_rng(0))
    samples[2].depth, samples[2].label = None, None
    with pytest.raises(ValueError, match="sample 'clip2' has no label"):
        MixVideos()(video, samples, np.random.default_rng(0))
