"""Clips, crops and views for classification: how a video is cut to train, and how often it is looked at to test.

A tested video stays one sample: :class:`MultiView` lays its views one after the other and writes ``(clips, crops)`` to
``meta['views']``, where the model finds how to part them and the metric how to name them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trecvit_dense.datasets.frame_sampling import SAMPLING, SEGMENT_PLACES, clip_frames
from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import VideoSample

from .geometry import crop, pick_frames, resize

CROPS = {1: (1,), 3: (0, 1, 2)}  # number of crops to their places: left or top, middle, right or bottom


@TRANSFORMS.register_module()
class SampleFrames:
    """Draw the frames of a training clip.

    Args:
        num_frames: Of the clip.
        sampling, stride: See :func:`trecvit_dense.datasets.frame_sampling.clip_frames`; ``'window'`` reads
            ``meta['fps']``.
    """

    def __init__(self, num_frames: int, *, sampling: str = 'stride', stride: int = 1) -> None:
        check_sampling('SampleFrames', num_frames, sampling, stride)
        self.num_frames, self.sampling, self.stride = num_frames, sampling, stride

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        frames = clip_frames(
            sample.num_frames,
            self.num_frames,
            sampling=self.sampling,
            stride=self.stride,
            fps=sample.meta.get('fps'),
            rng=rng,
        )
        return pick_frames(sample, frames)


@TRANSFORMS.register_module()
class ShortSide:
    """Resize in proportion so that the shorter side has ``size`` pixels.

    Args:
        size: Pixels, or ``(least, greatest)`` to draw from (XViT on SSv2: 256 to 320; its paper: 0.9 to 1.3 times).
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        least, greatest = (size, size) if isinstance(size, int) else tuple(size)
        if not 1 <= least <= greatest:
            raise ValueError(f'ShortSide: size is {size}; wanted pixels, or (least, greatest) from 1 up')
        self.limits = least, greatest

    def __call__(self, sample: VideoSample, rng: np.random.Generator | None = None) -> VideoSample:
        least, greatest = self.limits
        # no draw where there is no choice: the numbers of the transforms behind it stay the same
        return short_side(sample, least if least == greatest else int(rng.integers(least, greatest + 1)))


@TRANSFORMS.register_module()
class CropTo:
    """Cut a window of ``size`` out of larger frames, without resizing.

    Args:
        size: ``(H, W)`` pixels, or one number for a square.
        place: ``'random'`` or ``'centre'``.

    Raises:
        ValueError: (on call) a frame smaller than the window.
    """

    def __init__(self, size: int | tuple[int, int], *, place: str = 'random') -> None:
        self.size = square('CropTo', size)
        if place not in ('random', 'centre'):
            raise ValueError(f"CropTo: place is '{place}'; wanted 'random' or 'centre'")
        self.place = place

    def __call__(self, sample: VideoSample, rng: np.random.Generator | None = None) -> VideoSample:
        room = tuple(side - wanted for side, wanted in zip(sample.size, self.size, strict=True))
        if min(room) < 0:
            raise ValueError(
                f"CropTo: '{sample.name}' has frames of {sample.size[1]}x{sample.size[0]} px; wanted at least "
                f"{self.size[1]}x{self.size[0]}: put dict(type='ShortSide', size=...) before it"
            )
        if self.place == 'centre':
            return crop(sample, room[0] // 2, room[1] // 2, *self.size)
        top, left = (int(rng.integers(free + 1)) for free in room)
        return crop(sample, top, left, *self.size)


@TRANSFORMS.register_module()
class MultiScaleCrop:
    """Crops of a few sizes at a few places, resized: TSN (arXiv 1608.00859, section 3.3), XViT on Kinetics.

    Height and width are each one of ``scales`` of the shorter side, and no more than ``distort`` steps apart in that
    list.

    Args:
        size: ``(H, W)`` pixels of the result, or one number for a square.
        scales: From large to small.
        distort: Most steps between the scale of the height and that of the width; 0: squares.
        places: ``'corners'``: four corners and the centre. ``'grid'``: also the middles of the sides and half the
            way to the corners, 13 in all, as the authors' programs. ``'random'``: anywhere.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        *,
        scales: Sequence[float] = (1, 0.875, 0.75, 0.66),
        distort: int = 1,
        places: str = 'grid',
    ) -> None:
        self.size = square('MultiScaleCrop', size)
        if not scales or not 0 < min(scales) <= max(scales) <= 1 or distort < 0:
            raise ValueError(
                f'MultiScaleCrop: scales {tuple(scales)}, distort {distort}; wanted shares of the shorter side in '
                f'(0, 1], and 0 or more steps'
            )
        if places not in ('corners', 'grid', 'random'):
            raise ValueError(f"MultiScaleCrop: places is '{places}'; wanted 'corners', 'grid' or 'random'")
        self.scales, self.places = tuple(scales), places
        steps = range(len(self.scales))
        self.pairs = [(self.scales[i], self.scales[j]) for i in steps for j in steps if abs(i - j) <= distort]

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        return resize(crop(sample, *self.window(sample.size, rng)), self.size)

    def window(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width in a frame of ``size``."""
        pair = self.pairs[int(rng.integers(len(self.pairs)))]
        height, width = (max(1, int(min(size) * scale)) for scale in pair)
        room = size[0] - height, size[1] - width
        if self.places == 'random':
            return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)), height, width
        choices = fixed_places(room, more=self.places == 'grid')
        return (*choices[int(rng.integers(len(choices)))], height, width)


@TRANSFORMS.register_module()
class MultiView:
    """Cut a video into the views on which it is tested: ``clips`` in time, and of each ``crops`` in space.

    The result is one sample of ``clips * crops * num_frames`` square frames, the crops of the first clip first, with
    ``meta['views'] = (clips, crops)`` and the label; points, masks and depth are not kept, as they belong to whole
    frames.

    Args:
        num_frames: Of a clip.
        size: Pixels of the shorter side, and of the square crops out of it.
        clips: How many, placed as ``sampling`` says.
        crops: 1 (centre) or 3: left, centre and right, or top, middle and bottom where frames are upright.
        sampling, stride: See :func:`trecvit_dense.datasets.frame_sampling.clip_frames`. ``'stride'``: clips spread
            evenly; ``'segments'``: XViT on SSv2, 1 to 3 clips; ``'window'``: XViT on Kinetics and SlowFast.
        short_side: Pixels of the shorter side, where the crops are smaller.
    """

    def __init__(
        self,
        num_frames: int,
        size: int,
        *,
        clips: int = 1,
        crops: int = 3,
        sampling: str = 'stride',
        stride: int = 1,
        short_side: int | None = None,
    ) -> None:
        check_sampling('MultiView', num_frames, sampling, stride)
        short_side = size if short_side is None else short_side
        if clips < 1 or crops not in CROPS or not 1 <= size <= short_side:
            raise ValueError(
                f'MultiView: clips {clips}, crops {crops}, size {size} of {short_side} px; wanted at least one clip, '
                f'1 or 3 crops, and crops that fit into the shorter side'
            )
        if sampling == 'segments' and clips > len(SEGMENT_PLACES):
            raise ValueError(f"MultiView: clips is {clips}; sampling='segments' has {', '.join(SEGMENT_PLACES)}")
        self.num_frames, self.size, self.clips, self.crops = num_frames, size, clips, crops
        self.sampling, self.stride, self.short_side = sampling, stride, short_side

    def __call__(self, sample: VideoSample, rng: np.random.Generator | None = None) -> VideoSample:
        whole = VideoSample(sample.video, label=sample.label, name=sample.name, meta=dict(sample.meta))
        views = []
        for frames in self.frames(sample.num_frames, sample.meta.get('fps')):
            clip = short_side(pick_frames(whole, frames), self.short_side)
            views += [crop(clip, *place, self.size, self.size).video for place in self.places(clip.size)]
        whole.meta.pop('frame_names', None)
        whole.meta['views'] = (self.clips, self.crops)
        return replace(whole, video=np.concatenate(views))

    def frames(self, total: int, fps: float | None = None) -> list[np.ndarray]:
        """Frame numbers of every clip, out of ``total``."""
        options = dict(sampling=self.sampling, stride=self.stride, fps=fps, views=self.clips)
        return [clip_frames(total, self.num_frames, view=view, **options) for view in range(self.clips)]

    def places(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Top and left of every crop in frames of ``size``: three along the longer side, in the middle of the other."""
        room = size[0] - self.size, size[1] - self.size
        middle = tuple(math.ceil(free / 2) for free in room)
        if room[0] > room[1]:
            return [((0, middle[0], room[0])[place], middle[1]) for place in CROPS[self.crops]]
        return [(middle[0], (0, middle[1], room[1])[place]) for place in CROPS[self.crops]]


# ---- what they are made of


def short_side(sample: VideoSample, pixels: int) -> VideoSample:
    """Resized in proportion, the longer side rounded down as SlowFast does."""
    shorter = min(sample.size)
    return resize(sample, tuple(pixels if side == shorter else side * pixels // shorter for side in sample.size))


def fixed_places(room: tuple[int, int], *, more: bool) -> list[tuple[int, int]]:
    """Top and left of windows that leave ``room`` pixels in y and x: corners and centre, or 13 places."""
    ys, xs = ([free // 4 * quarter for quarter in range(5)] for free in room)  # TSN's steps are whole pixels
    quarters = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    if more:
        quarters += [(2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
    return [(ys[i], xs[j]) for i, j in quarters]


def square(who: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """``(H, W)``; raises ValueError below 1 pixel."""
    found = (size, size) if isinstance(size, int) else tuple(size)
    if len(found) != 2 or min(found) < 1:
        raise ValueError(f'{who}: size is {size}; wanted (H, W), or one number, of at least 1 pixel')
    return found


def check_sampling(who: str, num_frames: int, sampling: str, stride: int) -> None:
    if num_frames < 1 or stride < 1 or sampling not in SAMPLING:
        raise ValueError(
            f"{who}: num_frames {num_frames}, stride {stride}, sampling '{sampling}'; wanted at least 1 each, and one "
            f'of {", ".join(SAMPLING)}'
        )
