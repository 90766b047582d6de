"""The weights in the box: small, described, and better than standing still on video that training never saw."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from trecvit_dense.checkpoints import load_model
from trecvit_dense.checkpoints.io import BOXED
from trecvit_dense.datasets.synthetic import SyntheticVideoDataset
from trecvit_dense.datasets.synthetic_scenes import SyntheticSceneDataset
from trecvit_dense.evaluation import DepthMetric
from trecvit_dense.evaluation.functional.tapvid import compute_tapvid_metrics
from trecvit_dense.structures import PointTracks, VideoSample


def test_they_are_small_and_have_a_card() -> None:
    files = list(BOXED.parent.glob('*.safetensors'))
    assert sum(file.stat().st_size for file in files) <= 16_000_000
    card = json.loads(BOXED.with_suffix('.json').read_text())
    assert {'data', 'commands', 'hours', 'hardware', 'scores', 'limits', 'licence', 'model'} <= set(card)
    assert sum(p.numel() for p in load_model('boxed').parameters()) == card['parameters']


def test_they_track() -> None:
    model = load_model('boxed')
    clips = SyntheticVideoDataset(length=3, size=(96, 96), num_frames=8, num_points=32, motion=0.6, split='test')
    found, still = [], []
    for index in range(len(clips)):
        item = clips[index]
        batch = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        sample = model(**model.data_preprocessor(batch), mode='predict')[0]
        query = sample.points.query_txy
        stay = PointTracks(np.repeat(query[:, None, 1:], sample.num_frames, 1), np.ones_like(sample.points.visible))
        found.append(delta_avg(sample, sample.predictions['points']))
        still.append(delta_avg(sample, stay))
    assert np.mean(found) > 2 * np.mean(still)


def test_they_segment() -> None:
    model = load_model('boxed')
    model.tasks = ('masks',)
    clips = SyntheticVideoDataset(
        length=3, size=(96, 128), num_frames=10, num_points=1, num_targets=(1, 2), shared_surfaces=0.5, split='test'
    )
    found, copied = [], []
    for index in range(len(clips)):
        item = clips[index]
        batch = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        sample = model(**model.data_preprocessor(batch), mode='predict')[0]
        truth, labels = sample.masks, sample.predictions['masks'].labels
        for identity, first in zip(truth.ids, truth.first_frame, strict=True):
            later = truth.labels[first + 1 :] == identity
            found.append(iou(labels[first + 1 :] == identity, later))
            copied.append(iou(np.broadcast_to(truth.labels[first] == identity, later.shape), later))
    assert np.mean(found) > np.mean(copied) + 0.2


@pytest.mark.filterwarnings('ignore:no positive scale')
def test_they_see_depth() -> None:
    model = load_model('boxed')
    clips = SyntheticSceneDataset(length=16, size=(112, 168), num_frames=12, num_points=1, travel=0.7, split='val')
    metric = DepthMetric(dataset_name='scenes', alignment='scale_shift_disparity_clip', cap_m=80.0)
    for index in range(6):
        sample = clips.sample(index)
        sample.points = sample.masks = None
        batch = dict(inputs=[torch.from_numpy(sample.video).permute(0, 3, 1, 2)], data_samples=[sample])
        found = model(**model.data_preprocessor(batch), mode='predict')
        assert set(found[0].predictions) == {'depth'}
        metric.process({}, found)
    scores = metric.evaluate(6)
    key = 'scenes/scale_shift_disparity_clip'
    assert scores[f'{key}/AbsRel'] < 0.7 * scores[f'{key}/constant_frame/AbsRel']


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean over frames ``(T, H, W)``; 1 where neither shows anything."""
    union = (found | truth).sum((1, 2))
    return float(np.where(union > 0, (found & truth).sum((1, 2)) / np.maximum(union, 1), 1.0).mean())


def delta_avg(sample: VideoSample, tracks: PointTracks) -> float:
    truth, factor = sample.points, 256 / np.array(sample.size[::-1])
    result = compute_tapvid_metrics(
        truth.query_txy[None, :, [0, 2, 1]],
        ~truth.visible[None],
        (truth.xy_px * factor)[None],
        ~tracks.visible[None],
        (tracks.xy_px * factor)[None],
        query_mode='first',
    )
    return float(result['average_pts_within_thresh'][0])
