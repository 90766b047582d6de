"""Which frames of a video make a clip: the rules by which the published models were trained and tested.

Pure index arithmetic, so that a data set can draw frames before it decodes them. Frames past the end of a short video
are its last one.
"""

from __future__ import annotations

import numpy as np

SAMPLING = ('stride', 'segments', 'window')
SEGMENT_PLACES = ('middle', 'start', 'end')
WINDOW_FPS = 30.0  # at which a window is ``num_frames * stride`` frames long


def clip_frames(
    total: int,
    num_frames: int,
    *,
    sampling: str = 'stride',
    stride: int = 1,
    fps: float | None = None,
    view: int = 0,
    views: int = 1,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """``(num_frames,)`` int64 frame numbers of one clip out of a video of ``total`` frames.

    Args:
        sampling: ``'stride'``, ``'segments'`` or ``'window'``: see the functions below.
        stride: Frames from one to the next (stride, window).
        fps: Of the video, where it is known (window).
        view, views: Which clip of how many, in testing.
        rng: Draws a clip, in training; ``view`` then says nothing.

    Raises:
        ValueError: a number out of range, or an unknown rule.
    """
    for name, value in dict(total=total, num_frames=num_frames, stride=stride, views=views).items():
        if value < 1:
            raise ValueError(f'{name} is {value}; wanted at least 1')
    if not 0 <= view < views:
        raise ValueError(f'view is {view} of {views}; wanted 0 to {views - 1}')
    if sampling == 'stride':
        return stride_frames(total, num_frames, stride, view=view, views=views, rng=rng)
    if sampling == 'segments':
        return segment_frames(total, num_frames, view=view, views=views, rng=rng)
    if sampling == 'window':
        return window_frames(total, num_frames, stride, fps=fps, view=view, views=views, rng=rng)
    raise ValueError(f"sampling is '{sampling}'; wanted one of {', '.join(SAMPLING)}")


def stride_frames(
    total: int, num_frames: int, stride: int, *, view: int, views: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Every ``stride``-th frame from a start: drawn, or spread evenly from the first possible to the last possible one.

    A single view lies in the middle. A video that is too short for the stride has a smaller one.
    """
    stride = max(1, min(stride, (total - 1) // max(1, num_frames - 1)))
    room = max(0, total - 1 - stride * (num_frames - 1))
    if rng is not None:
        start = int(rng.integers(room + 1))
    else:
        start = room // 2 if views == 1 else round(room * view / (views - 1))
    return np.minimum(start + stride * np.arange(num_frames), total - 1)


def segment_frames(
    total: int, num_frames: int, *, view: int, views: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """One frame of each of ``num_frames`` equal parts: XViT on Something-Something v2 (its ``get_seq_frames``).

    Parts are ``(total - 1) / num_frames`` long and their borders rounded, half to even. In training a frame is drawn,
    both borders included; in testing view 0 takes the middle, view 1 the start, view 2 the end of each part.
    """
    if views > len(SEGMENT_PLACES):
        raise ValueError(f'views is {views}; segments have {len(SEGMENT_PLACES)}: {", ".join(SEGMENT_PLACES)}')
    borders = np.round((total - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64)
    start, end = borders[:-1], borders[1:]
    if rng is not None:
        return rng.integers(start, end + 1)
    return dict(middle=(start + end) // 2, start=start, end=end)[SEGMENT_PLACES[view]]


def window_frames(
    total: int,
    num_frames: int,
    stride: int,
    *,
    fps: float | None = None,
    view: int,
    views: int,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Frames spread over a window of a fixed time: SlowFast's rule, XViT's on Kinetics.

    The window is ``num_frames * stride`` frames of a video of 30 frames a second long. In training its start is drawn
    from all real numbers that fit; in testing it is ``room * view / views``: the only view begins with the first frame,
    and the last one does not end with the last frame. Frames are spread over the window, truncated and limited.
    """
    window = num_frames * stride * (WINDOW_FPS if fps is None else fps) / WINDOW_FPS
    room = max(total - window, 0.0)
    start = rng.uniform(0, room) if rng is not None else room * view / views
    frames = np.linspace(start, start + window - 1, num_frames)
    return np.clip(frames, 0, total - 1).astype(np.int64)
