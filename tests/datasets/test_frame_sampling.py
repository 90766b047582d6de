"""Frame numbers of clips: the published rules, written out a second time, and their limits."""

from __future__ import annotations

import numpy as np
import pytest

from trecvit_dense.datasets.frame_sampling import clip_frames


@pytest.mark.parametrize('total', [1, 5, 16, 17, 49, 120])
@pytest.mark.parametrize('num_frames', [8, 16])
def test_segments_are_those_of_xvit(total, num_frames):
    segment = float(total - 1) / num_frames
    borders = [(int(np.round(segment * i)), int(np.round(segment * (i + 1)))) for i in range(num_frames)]
    for view, pick in enumerate((lambda a, b: (a + b) // 2, lambda a, b: a, lambda a, b: b)):
        frames = clip_frames(total, num_frames, sampling='segments', view=view, views=3)
        assert frames.tolist() == [pick(*border) for border in borders]
    drawn = np.stack(
        [clip_frames(total, num_frames, sampling='segments', rng=np.random.default_rng(i)) for i in range(60)]
    )
    low, high = np.array(borders).T
    assert ((drawn >= low) & (drawn <= high)).all()
    if total > 4 * num_frames:
        assert (drawn.min(0) == low).mean() > 0.9 and (drawn.max(0) == high).mean() > 0.9  # both borders are drawn


@pytest.mark.parametrize(('total', 'fps'), [(300, 30.0), (250, 25.0), (100, None), (60, 60.0)])
def test_window_is_that_of_slowfast(total, fps):
    """256 frames at 30 a second for 16 frames; the only test view begins with frame 0."""
    window = 16 * 16 * (fps or 30) / 30
    for views in (1, 4):
        for view in range(views):
            start = max(total - window, 0) * view / views
            wanted = [min(max(int(start + i * (window - 1) / 15), 0), total - 1) for i in range(16)]
            frames = clip_frames(total, 16, sampling='window', stride=16, fps=fps, view=view, views=views)
            assert frames.tolist() == wanted and (view or frames[0] == 0)
    starts = {
        int(clip_frames(total, 16, sampling='window', stride=16, fps=fps, rng=np.random.default_rng(i))[0])
        for i in range(40)
    }
    assert (len(starts) > 5) == (total - window > 10) and max(starts) <= max(total - window, 0)


def test_strides_spread_over_the_video():
    assert clip_frames(20, 4, stride=2).tolist() == [6, 8, 10, 12]  # in the middle
    assert [clip_frames(20, 4, stride=2, view=v, views=3)[0] for v in range(3)] == [0, 6, 13]
    assert clip_frames(20, 4, stride=2, view=2, views=3)[-1] == 19
    assert clip_frames(6, 4, stride=5).tolist() == [1, 2, 3, 4]  # a smaller stride
    assert clip_frames(3, 5, stride=2).tolist() == [0, 1, 2, 2, 2]  # the last frame stands in
    starts = [int(clip_frames(20, 4, stride=2, rng=np.random.default_rng(i))[0]) for i in range(100)]
    assert set(starts) == set(range(14))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(sampling='dense'), "sampling is 'dense'"),
        (dict(view=3, views=3), 'view is 3 of 3'),
        (dict(stride=0), 'stride is 0'),
        (dict(sampling='segments', views=4), 'views is 4; segments have 3: middle, start, end'),
    ],
)
def test_mistakes(options, words):
    with pytest.raises(ValueError, match=words):
        clip_frames(10, 4, **options)
