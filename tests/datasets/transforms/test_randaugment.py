"""RandAugment and AutoAugment for clips: operations equal Pillow's, one change for the clip, nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from trecvit_dense.datasets.transforms import AutoAugment, RandAugment
from trecvit_dense.datasets.transforms import clip_operations as ops
from trecvit_dense.datasets.transforms.randaugment import (
    POLICY_V0,
    RANDAUGMENT_OPERATIONS,
    growing_amount,
    published_amount,
)
from trecvit_dense.structures import PointTracks, VideoSample


def make_frame(seed=0, size=(37, 52)) -> np.ndarray:
    """Smooth and coloured, with a part that is bright and a part that is dark."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 230, (5, 6, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def make_sample(frames=4, **annotations) -> VideoSample:
    video = np.stack([make_frame(seed) for seed in range(frames)])
    return VideoSample(video, label=1, name='clip', **annotations)


PILLOW = {
    'AutoContrast': lambda image, amount: ImageOps.autocontrast(image),
    'Equalize': lambda image, amount: ImageOps.equalize(image),
    'Invert': lambda image, amount: ImageOps.invert(image),
    'Solarize': lambda image, amount: ImageOps.solarize(image, int(amount)),
    'Posterize': lambda image, amount: ImageOps.posterize(image, int(amount)),
    'Color': lambda image, amount: ImageEnhance.Color(image).enhance(amount),
    'Contrast': lambda image, amount: ImageEnhance.Contrast(image).enhance(amount),
    'Brightness': lambda image, amount: ImageEnhance.Brightness(image).enhance(amount),
    'Sharpness': lambda image, amount: ImageEnhance.Sharpness(image).enhance(amount),
}


@pytest.mark.parametrize('name', PILLOW)
def test_values_are_those_of_pillow(name):
    """On a single frame; one or two grey levels are rounding."""
    frame = make_frame()
    amounts = dict(Solarize=(0, 100, 256), Posterize=(1, 4, 8)).get(name, (0.1, 0.6, 1.0, 1.9))
    for amount in amounts:
        found = ops.OPERATIONS[name](frame[None], amount)[0]
        wanted = np.array(PILLOW[name](Image.fromarray(frame), amount))
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= (2 if name in ('Color', 'Sharpness') else 1), (
            amount
        )


@pytest.mark.parametrize(
    ('name', 'amount', 'matrix'),
    [
        ('ShearX', 0.3, (1, 0.3, 0, 0, 1, 0)),
        ('ShearY', -0.2, (1, 0, 0, -0.2, 1, 0)),
        ('TranslateX', 0.25, (1, 0, 13, 0, 1, 0)),
        ('TranslateY', -0.25, (1, 0, 0, 0, 1, -10)),
    ],
)
def test_movements_are_those_of_pillow_about_the_centre(name, amount, matrix):
    frame = make_frame(size=(40, 52))
    centre = np.array([26.0, 20.0])  # Pillow counts from the corner of the first pixel
    linear = np.array(matrix, float).reshape(2, 3)
    linear[:, 2] += centre - linear[:, :2] @ centre
    options = dict(resample=Image.Resampling.BILINEAR, fillcolor=(ops.GREY,) * 3)
    wanted = np.array(Image.fromarray(frame).transform((52, 40), Image.Transform.AFFINE, linear.ravel(), **options))
    found = ops.OPERATIONS[name](frame[None], amount)[0]
    inside = np.abs(found.astype(int) - wanted.astype(int))[1:-1, 1:-1]
    assert np.mean(inside.max(-1) <= 4) > 0.93  # borders of the moved frame are blended or not


def test_rotation_is_that_of_pillow():
    frame = make_frame(size=(41, 41))
    wanted = np.array(Image.fromarray(frame).rotate(20, Image.Resampling.BILINEAR, fillcolor=(ops.GREY,) * 3))
    found = ops.rotate(frame[None], 20)[0]
    assert np.mean(np.abs(found.astype(int) - wanted.astype(int)).max(-1) <= 4) > 0.9


def test_one_change_for_the_whole_clip():
    """Equal frames stay equal, and a frame is changed as the clip's histogram says, not its own."""
    still = VideoSample(np.repeat(make_frame()[None], 5, axis=0), label=0)
    for seed in range(40):
        for transform in (RandAugment(3, 9, magnitude_std=2), AutoAugment()):
            video = transform(still, np.random.default_rng(seed)).video
            assert video.shape == still.video.shape and video.dtype == np.uint8 and (video == video[:1]).all()
    dark, bright = np.full((1, 4, 4, 3), 50, np.uint8), np.full((1, 4, 4, 3), 150, np.uint8)
    both = ops.auto_contrast(np.concatenate([dark, bright]))
    assert (both[0] == 0).all() and (both[1] == 255).all()
    assert (ops.auto_contrast(dark) == dark).all() and (ops.equalize(dark) == dark).all()


def test_magnitude_grows_and_zero_is_almost_nothing():
    frame = make_frame()[None]
    for name in RANDAUGMENT_OPERATIONS:
        if name in ('Identity', 'AutoContrast', 'Equalize'):
            continue
        changes = [
            np.mean(np.abs(ops.OPERATIONS[name](frame, growing_amount(name, m, 1)).astype(float) - frame))
            for m in (0, 3, 10)
        ]
        assert changes[0] < 1 and changes[0] < changes[1] < changes[2], (name, changes)
    assert published_amount('Solarize', 3, 1) == 76 and published_amount('Color', 0, 1) == 0.1
    assert published_amount('ShearY', 4, -1) == pytest.approx(-0.12)
    assert all(name in ops.OPERATIONS for pair in POLICY_V0 for name, _, _ in pair) and len(POLICY_V0) == 25


def test_no_clip_is_painted_black():
    for seed in range(200):
        assert AutoAugment()(make_sample(1), np.random.default_rng(seed)).video.max() > 20


def test_number_of_operations_and_probability():
    sample = make_sample()
    assert (RandAugment(2, p=0)(sample, np.random.default_rng(0)).video == sample.video).all()
    assert (RandAugment(1, operations=['Invert'])(sample, np.random.default_rng(0)).video == 255 - sample.video).all()
    twice = RandAugment(2, operations=['Invert'])(sample, np.random.default_rng(0))
    assert (twice.video == sample.video).all() and twice.label == 1
    seen = {RandAugment(1)(sample, np.random.default_rng(seed)).video.tobytes() for seed in range(60)}
    assert len(seen) > 12


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(num_operations=0), 'num_operations 0'),
        (dict(magnitude=31), 'magnitude 31'),
        (dict(operations=['Rotat']), "did you mean 'Rotate'"),
    ],
)
def test_mistakes(options, words):
    with pytest.raises(ValueError, match=words):
        RandAugment(**options)


def test_points_do_not_stay_behind():
    points = PointTracks(np.zeros((1, 4, 2)), np.ones((1, 4), bool))
    sample = make_sample(points=points)
    for transform in (RandAugment(), AutoAugment()):
        with pytest.raises(ValueError, match=r"'clip' has points.*DropAnnotations"):
            transform(sample, np.random.default_rng(0))
    assert RandAugment(operations=['Color', 'Solarize'])(sample, np.random.default_rng(0)).points is points
