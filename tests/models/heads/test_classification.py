"""The heads of classification and regression: losses, answers, names, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trecvit_dense.checkpoints import load_model, save_model
from trecvit_dense.models.heads import ClassificationHead, RegressionHead
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import FeatureLevel, Features, VideoSample

use_scope()
UNIT = (1.0, 1.0)


def make_samples(*labels, **meta) -> list[VideoSample]:
    return [
        VideoSample(np.zeros((2, 8, 8, 3), np.uint8), label=label, name=f'clip{i}', meta=dict(meta))
        for i, label in enumerate(labels)
    ]


def run_head(head, batch: int = 3):
    torch.manual_seed(0)
    features = Features((FeatureLevel(torch.randn(batch, 4, 6, 8), (2, 3), (4, 4)),))
    return head(features, head.begin(batch, 'cpu'), (8, 12))[0]


def make_head(num_classes: int = 4, **options) -> ClassificationHead:
    torch.manual_seed(1)
    return ClassificationHead(num_classes, rep_size=5, pool='gap', backbone_channels=(8,), **options)


@pytest.mark.parametrize('smoothing', [0.0, 0.3])
def test_loss_of_labels_and_of_mixtures(smoothing):
    head = make_head(label_smoothing=smoothing)
    output, samples = run_head(head), make_samples(0, 3, np.int64(2))
    loss = head.loss(output, samples, UNIT)['loss_cls']
    torch.testing.assert_close(loss, F.cross_entropy(output.logits, torch.tensor([0, 3, 2]), label_smoothing=smoothing))
    samples[1].meta['label_weights'] = {3: 0.6, 0: 0.4}
    parts = [F.cross_entropy(output.logits, torch.tensor([0, b, 2]), label_smoothing=smoothing) for b in (3, 0)]
    torch.testing.assert_close(head.loss(output, samples, UNIT)['loss_cls'], 0.6 * parts[0] + 0.4 * parts[1])


@pytest.mark.parametrize(
    ('label', 'words'),
    [
        (None, "sample 'clip1' has no label"),
        (4, r"sample 'clip1' has label 4; the head has 4 classes, wanted a whole number from 0 to 3"),
        (-1, 'label -1'),
        (1.5, r'label 1\.5'),
        ('jump', "label 'jump'"),
    ],
)
def test_labels_that_are_no_class(label, words):
    head = make_head()
    with pytest.raises(ValueError, match=words):
        head.loss(run_head(head), make_samples(0, label, 1), UNIT)


def test_views_are_not_for_training():
    head = make_head()
    with pytest.raises(ValueError, match="sample 'clip0' is cut into views, which are for testing"):
        head.loss(run_head(head), make_samples(0, 1, 1, views=(3, 1)), UNIT)


def test_answers_carry_names_and_views():
    head = make_head(classes=['left', 'right', 'up', 'down'])
    (sample,) = make_samples(0)
    first, second = run_head(head, 1), run_head(head, 2)
    answer = head.predict([first, second], sample, UNIT)  # of two steps the last one counts
    assert answer['logits'].shape == (4,) and torch.equal(answer['view_logits'], second.logits)
    (views,) = make_samples(0, views=(3, 1))
    answer = head.predict([first, second], views, UNIT)  # of three views in two groups all do
    torch.testing.assert_close(answer['view_probs'], torch.cat([first.probs, second.probs]))
    torch.testing.assert_close(answer['probs'], answer['view_probs'].mean(0))
    assert answer['class_name'] == ('left', 'right', 'up', 'down')[int(answer['probs'].argmax())]
    assert make_head().predict([first], sample, UNIT)['class_name'] is None


def test_names_travel_in_the_checkpoint(tmp_path):
    head = dict(type='ClassificationHead', num_classes=3, rep_size=4, pool='gap', classes=['a', 'b/c', 'd'])
    backbone = dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=16, patch_size=8, image_size=16)
    config = dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head))
    path = save_model(MODELS.build(config), config, tmp_path / 'm.safetensors', {})
    assert load_model(path).heads['classification'].classes == ('a', 'b/c', 'd')


def test_regression_has_no_classes():
    with pytest.raises(ValueError, match='has no num_classes'):
        RegressionHead(num_classes=2, backbone_channels=(8,))


def test_regression():
    torch.manual_seed(0)
    head = RegressionHead(rep_size=5, pool='gap', backbone_channels=(8,))
    output, samples = run_head(head), make_samples(None, None, None)
    with pytest.raises(ValueError, match=r"sample 'clip0' has no meta\['target'\]"):
        head.loss(output, samples, UNIT)
    for sample, target in zip(samples, (0.5, -1, 2), strict=True):
        sample.meta['target'] = target
    loss = head.loss(output, samples, UNIT)['loss_mse']
    torch.testing.assert_close(loss, F.mse_loss(output.logits[:, 0], torch.tensor([0.5, -1, 2])))
    loss.backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    answer = head.predict([output], make_samples(None, views=(3, 1))[0], UNIT)
    assert answer['value'] == pytest.approx(float(output.logits.detach().mean())) and answer['view_values'].shape == (
        3,
    )
