"""Clips, crops and views of classification, and the model and metric that read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.datasets.frame_sampling import clip_frames
from trecvit_dense.datasets.transforms import CropTo, MultiScaleCrop, MultiView, SampleFrames, ShortSide
from trecvit_dense.registry import MODELS, TRANSFORMS, use_scope
from trecvit_dense.structures import PointTracks, VideoSample

use_scope()


def make_sample(frames=20, size=(40, 64), **meta) -> VideoSample:
    """Red is the frame, green the row, blue the column."""
    video = np.zeros((frames, *size, 3), np.uint8)
    video[..., 0] = np.arange(frames)[:, None, None]
    video[..., 1], video[..., 2] = np.arange(size[0])[:, None], np.arange(size[1])
    points = PointTracks(np.full((1, frames, 2), 20.0), np.ones((1, frames), bool), np.array([[0.0, 20, 20]]))
    return VideoSample(video, points=points, label=3, name='clip', meta=meta)


def views_of(sample: VideoSample) -> np.ndarray:
    clips, crops = sample.meta['views']
    return sample.video.reshape(clips, crops, -1, *sample.video.shape[1:])


def test_views_are_clips_times_three_crops():
    sample = make_sample()
    cut = MultiView(4, 40, clips=2, crops=3, stride=2)(sample)
    views = views_of(cut)
    assert views.shape == (2, 3, 4, 40, 40, 3) and cut.label == 3 and cut.points is None
    for clip in range(2):
        frames = clip_frames(20, 4, stride=2, view=clip, views=2)
        for place, left in enumerate((0, 12, 24)):
            np.testing.assert_array_equal(views[clip, place], sample.video[frames][:, :, left : left + 40])
    assert 'views' not in sample.meta and sample.points is not None


def test_upright_videos_are_cut_from_top_to_bottom():
    views = views_of(MultiView(2, 40)(make_sample(size=(65, 40))))
    assert [int(views[0, place, 0, 0, 0, 1]) for place in range(3)] == [0, 13, 25]  # ceil of the half
    centre = views_of(MultiView(2, 40, crops=1)(make_sample(size=(65, 40))))
    np.testing.assert_array_equal(centre[0, 0], views[0, 1])


def test_views_resize_the_shorter_side():
    cut = MultiView(3, 16, crops=3, short_side=20)(make_sample(size=(40, 65)))
    assert views_of(cut).shape == (1, 3, 3, 16, 16, 3)
    assert ShortSide(20)(make_sample(size=(40, 65))).size == (20, 32)  # rounded down
    assert ShortSide(80)(make_sample(size=(65, 40))).size == (130, 80)


def test_views_of_the_published_rules():
    sample = make_sample(frames=50, fps=25.0)
    for sampling in ('segments', 'window'):
        cut = views_of(MultiView(8, 40, clips=3, crops=1, sampling=sampling, stride=4)(sample))
        for view in range(3):
            wanted = clip_frames(50, 8, sampling=sampling, stride=4, fps=25.0, view=view, views=3)
            np.testing.assert_array_equal(cut[view, 0, :, 0, 0, 0], wanted)


def test_training_clips():
    rng = np.random.default_rng(0)
    for sampling in ('stride', 'segments', 'window'):
        clip = SampleFrames(6, sampling=sampling, stride=3)(make_sample(frames=60), rng)
        shown = clip.video[:, 0, 0, 0]
        assert len(shown) == 6 and (np.diff(shown.astype(int)) > 0).all()
        assert clip.points.xy_px.shape == (1, 6, 2)
    sizes = {ShortSide((20, 24))(make_sample(2), rng).size[0] for _ in range(40)}
    assert sizes == set(range(20, 25))
    crops = [CropTo(30)(make_sample(2), rng).video[0, 0, 0, 1:] for _ in range(60)]
    assert np.ptp(crops, axis=0).min() > 8
    assert CropTo((30, 20), place='centre')(make_sample(2)).video[0, 0, 0].tolist() == [0, 5, 22]


def test_multi_scale_crops_are_few():
    rng = np.random.default_rng(0)
    transform = MultiScaleCrop(16)
    windows = {transform.window((40, 64), rng) for _ in range(3000)}
    assert {window[2] for window in windows} == {40, 35, 30, 26}
    assert {window[3] for window in windows} == {40, 35, 30, 26}
    steps = {40: 0, 35: 1, 30: 2, 26: 3}
    assert max(abs(steps[h] - steps[w]) for _, _, h, w in windows) == 1
    assert all(0 <= top <= 40 - h and 0 <= left <= 64 - w for top, left, h, w in windows)
    assert {window[:2] for window in windows if window[2:] == (30, 30)} == {
        (2 * i, 8 * j)
        for i, j in [
            (0, 0),
            (0, 4),
            (4, 0),
            (4, 4),
            (2, 2),
            (2, 0),
            (2, 4),
            (4, 2),
            (0, 2),
            (1, 1),
            (1, 3),
            (3, 1),
            (3, 3),
        ]
    }
    corners = {MultiScaleCrop(16, places='corners', scales=(0.5,)).window((40, 64), rng) for _ in range(200)}
    assert len(corners) == 5
    assert transform(make_sample(2), rng).size == (16, 16)


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (dict(type='MultiView', num_frames=4, size=32, crops=2), 'crops 2'),
        (dict(type='MultiView', num_frames=4, size=32, clips=4, sampling='segments'), 'middle, start, end'),
        (dict(type='MultiView', num_frames=4, size=32, short_side=20), 'fit into the shorter side'),
        (dict(type='SampleFrames', num_frames=4, sampling='all'), "sampling 'all'"),
        (dict(type='ShortSide', size=(5, 3)), r'size is \(5, 3\)'),
        (dict(type='CropTo', size=0), 'size is 0'),
        (dict(type='CropTo', size=8, place='left'), "place is 'left'"),
        (dict(type='MultiScaleCrop', size=8, scales=(2,)), r'scales \(2,\)'),
    ],
)
def test_mistakes(config, words):
    with pytest.raises(ValueError, match=words):
        TRANSFORMS.build(config)


def test_frames_that_are_too_small():
    with pytest.raises(ValueError, match="'clip' has frames of 64x40 px; wanted at least 50x50"):
        CropTo(50)(make_sample(2), np.random.default_rng(0))


def perceiver(chunk_frames: int = 8, head: str = 'classification') -> torch.nn.Module:
    torch.manual_seed(0)
    heads = dict(
        classification=dict(type='ClassificationHead', num_classes=5, rep_size=8, pool='gap', classes=list('abcde')),
        depth=dict(type='DPTDepthHead', scales=(4, 8), widths=4),
    )
    backbone = dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=16, patch_size=8, image_size=32)
    return MODELS.build(
        dict(type='VideoPerceiver', backbone=backbone, heads={head: heads[head]}, chunk_frames=chunk_frames)
    ).eval()


@pytest.mark.parametrize('chunk_frames', [2, 8, 100])
def test_a_model_answers_for_each_view_alone(chunk_frames):
    """Views see nothing of each other: each gets the answer that it gets as a video of its own."""
    rng = np.random.default_rng(0)
    sample = VideoSample(rng.integers(0, 255, (12, 40, 60, 3), np.uint8), label=1, name='v')
    sample = MultiView(4, 32, clips=2, crops=3)(sample)
    model = perceiver(chunk_frames)
    data = dict(inputs=[torch.from_numpy(sample.video.copy()).permute(0, 3, 1, 2)], data_samples=[sample])
    answer = model.test_step(data)[0].predictions['classification']
    video, _ = model.data_preprocessor.prepare(data['inputs'][0][None])
    for index, view in enumerate(video[0].unflatten(0, (6, 4))):
        alone = model.step(view[None], model.start(1))[0]['classification']
        torch.testing.assert_close(answer['view_logits'][index], alone.logits[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer['probs'], answer['view_logits'].softmax(-1).mean(0), rtol=1e-4, atol=1e-5)
    assert answer['class_name'] == 'abcde'[answer['label']] and answer['label'] == int(answer['probs'].argmax())


def test_views_need_a_head_for_whole_videos():
    sample = MultiView(2, 32)(make_sample())
    data = dict(inputs=[torch.from_numpy(sample.video.copy()).permute(0, 3, 1, 2)], data_samples=[sample])
    with pytest.raises(ValueError, match=r"'clip' is cut into views.*heads here are: depth"):
        perceiver(head='depth').test_step(data)
