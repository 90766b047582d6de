"""VideoPreprocessor: sizes, scales and what a bad batch is told."""

import numpy as np
import pytest
import torch

from trecvit_dense.models.preprocessor import VideoPreprocessor


def _clip(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 2, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize(('value_range', 'low'), [('unit', 0.0), ('signed', -1.0)])
def test_values(value_range: str, low: float) -> None:
    video, scale = VideoPreprocessor(value_range=value_range).prepare(torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8))
    assert scale == (1.0, 1.0)
    assert torch.equal(video, torch.full_like(video, low))


def test_padding_repeats_the_edge_and_moves_nothing() -> None:
    clip = _clip(30, 50)
    video, scale = VideoPreprocessor(pad_multiple=16).prepare(clip)
    assert video.shape[-2:] == (32, 64)
    assert scale == (1.0, 1.0)
    assert torch.equal(video[..., :30, :50], clip.float() / 255)
    assert torch.equal(video[..., :30, 63], video[..., :30, 49])


def test_max_side_reduces_in_proportion_and_never_enlarges() -> None:
    preprocessor = VideoPreprocessor(max_side=64)
    video, scale = preprocessor.prepare(_clip(54, 96))
    assert video.shape[-2:] == (36, 64)
    np.testing.assert_allclose(scale, (64 / 96, 36 / 54))
    assert preprocessor.prepare(_clip(32, 48))[0].shape[-2:] == (32, 48)


def test_one_task_alone_may_have_a_size_of_its_own() -> None:
    preprocessor = VideoPreprocessor(max_side=64, min_side=64, alone=dict(depth=32))
    clip = _clip(48, 96)
    for tasks, longer in (((), 64), (('depth',), 32), (('points',), 64), (('points', 'depth'), 64)):
        video, scale = preprocessor.prepare(clip, tasks)
        assert video.shape[-2:] == (longer // 2, longer) and scale == (longer / 96, longer / 96)
        data = preprocessor(dict(inputs=[clip[0]], tasks=tasks))
        assert torch.equal(data['inputs'], video) and data['scale'] == scale
    assert preprocessor.prepare(_clip(12, 24), ('depth',))[0].shape[-2:] == (12, 24)
    with pytest.raises(ValueError, match='wanted pixels'):
        VideoPreprocessor(alone=dict(depth=0))


def test_a_task_beside_others_may_want_smaller_frames() -> None:
    clip, options = _clip(48, 96), dict(alone=dict(depth=32), beside=dict(depth=48, points=60))
    preprocessor = VideoPreprocessor(max_side=64, **options)
    for tasks, longer in (
        ((), 64),
        (('depth',), 32),
        (('points',), 64),
        (('points', 'masks'), 60),
        (('points', 'masks', 'depth'), 48),
    ):
        assert preprocessor.prepare(clip, tasks)[0].shape[-2:] == (longer // 2, longer)
    unlimited = VideoPreprocessor(**options)
    assert unlimited.prepare(clip, ('masks', 'classification'))[0].shape[-2:] == (48, 96)
    assert unlimited.prepare(clip, ('masks', 'depth'))[0].shape[-2:] == (24, 48)
    with pytest.raises(ValueError, match='beside is'):
        VideoPreprocessor(beside=dict(depth=0))


def test_min_side_enlarges_in_proportion() -> None:
    preprocessor = VideoPreprocessor(min_side=64, max_side=80)
    video, scale = preprocessor.prepare(_clip(16, 32))
    assert video.shape[-2:] == (32, 64)
    assert scale == (2.0, 2.0)
    assert preprocessor.prepare(_clip(70, 72))[0].shape[-2:] == (70, 72)
    assert preprocessor.prepare(_clip(80, 160))[0].shape[-2:] == (40, 80)
    with pytest.raises(ValueError, match='exceeds max_side'):
        VideoPreprocessor(min_side=64, max_side=32)


def test_input_size_stretches() -> None:
    video, scale = VideoPreprocessor((32, 32)).prepare(_clip(16, 64))
    assert video.shape[-2:] == (32, 32)
    assert scale == (0.5, 2.0)


def test_clips_of_one_batch_must_agree() -> None:
    clips = [torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 8, 16, dtype=torch.uint8)]
    with pytest.raises(ValueError, match='differ in shape'):
        VideoPreprocessor()(dict(inputs=clips))


def test_unknown_range() -> None:
    with pytest.raises(ValueError, match='value_range'):
        VideoPreprocessor(value_range='half')


def test_imagenet_range_and_grey_of_it() -> None:
    """Mean and deviation of each channel; grey undoes them."""
    clip = _clip(8, 8)
    preprocessor = VideoPreprocessor(value_range='imagenet')
    video, _ = preprocessor.prepare(clip)
    wanted = (clip[0, 0, 1].float() / 255 - 0.456) / 0.224
    torch.testing.assert_close(video[0, 0, 1], wanted)
    plain = VideoPreprocessor()
    torch.testing.assert_close(preprocessor.grey(video), plain.grey(plain.prepare(clip)[0]), atol=1e-6, rtol=1e-5)
