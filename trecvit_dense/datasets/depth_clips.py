"""What every data set of videos with depth shares: reading, which pixels count, clips for training, and the sample.

An adapter only says where the frames and depth maps of each video lie: it makes a ``DepthSequence`` of each. To
evaluate, an item is a whole video; to train, a clip of it that a generator draws from ``(seed, draw, index)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..structures import VideoSample
from .depth_sequence import Crop, DepthSequence, NoDepthError
from .items import run_pipeline
from .transforms.depth import depth_at
from .transforms.geometry import pick_frames
from .video_clips import TRIES, VideoClipsDataset


class DepthVideoDataset(VideoClipsDataset):
    """Videos with depth. Not used by itself: adapters pass ``sequences`` and hand the rest through.

    Args:
        sequences: Where the videos lie.
        dataset_name: First part of metric keys.
        max_depth_m: Pixels at this depth and beyond do not count: sky, and what a sensor makes up. None: all count.
        min_depth_m: Pixels at this depth and nearer do not count.
        crop: ``(top, bottom, left, right)`` of the depth files, as in ``depth[top:bottom, left:right]``: frames and
            depth are cut alike, and the intrinsics shifted.
        max_side: Frames are reduced until no side exceeds this; depth keeps its own size. None: as they are.
        frame_range: Evaluation: only frames ``start`` to ``stop``, as in ``video[start:stop]``.
        frame_step: Evaluation: then every n-th of them.
        max_frames: Evaluation: then at most so many.
        num_frames: Frames of a training clip; None yields whole videos, for evaluation.
        frame_stride: Training: every n-th frame, or (least, greatest) to draw n from; less where a video is too short.
            One with fewer than ``num_frames`` frames with depth is played back and forth.
        pipeline: Transforms, configs or callables ``(sample, rng) -> sample``, applied in order; before them depth is
            brought to the size of the frames.
        seed: Another seed draws other clips.
        check: Evaluation: look at the header of every file first, so that a bad one is found before any work.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: frames and depth do not fit together, or a value is out of range; the message names the file.
    """

    def __init__(
        self,
        sequences: list[DepthSequence],
        *,
        dataset_name: str,
        max_depth_m: float | None = None,
        min_depth_m: float = 1e-3,
        crop: Crop | None = None,
        max_side: int | None = None,
        frame_range: tuple[int, int] | None = None,
        frame_step: int = 1,
        max_frames: int | None = None,
        num_frames: int | None = None,
        frame_stride: int | tuple[int, int] = 1,
        pipeline: Sequence[dict | Callable] | None = None,
        seed: int = 0,
        check: bool = True,
    ) -> None:
        super().__init__(
            dataset_name=dataset_name,
            max_side=max_side,
            num_frames=num_frames,
            frame_stride=frame_stride,
            pipeline=pipeline,
            seed=seed,
            frame_step=frame_step,
            max_frames=max_frames,
        )
        _check_options(min_depth_m, max_depth_m, crop, frame_range)
        if num_frames is None:
            sequences = [_selected(sequence, frame_range, frame_step, max_frames) for sequence in sequences]
        else:
            sequences = [sequence for sequence in sequences if any(path is not None for path in sequence.depth)]
        self.take(sequences, check=check, wanted='video with depth')
        self.crop = None if crop is None else tuple(crop)
        self.limits = dict(min_depth_m=min_depth_m, max_depth_m=max_depth_m)

    def whole(self, index: int, rng: np.random.Generator) -> VideoSample:
        sample = self._sample(self.sequences[index])
        return self._transform(sample, rng) if self.pipeline else sample

    def clip(self, index: int, rng: np.random.Generator) -> VideoSample:
        """A clip in which some pixel has depth; where a video has none to offer, of another video."""
        problem = ''
        for sequence, frames in self.tries(index, rng):
            order = sorted(set(frames))  # a short video comes back and forth; each file is read once
            try:
                sample = self._sample(sequence.only(order))
            except NoDepthError as error:
                problem = str(error)
                continue
            if frames != order:
                sample = pick_frames(sample, np.searchsorted(order, frames))
            sample = self._transform(sample, rng)
            if sample.depth.valid.any():
                return sample
        problem = problem or 'wanted weaker crops in the pipeline'
        raise ValueError(f'{sequence.name}: {TRIES} clips were drawn and none holds any depth; {problem}')

    def _sample(self, sequence: DepthSequence) -> VideoSample:
        depth, grid = sequence.depth_map(crop=self.crop, **self.limits)
        video, original = sequence.video(self.max_side, self.crop, grid)
        names = [path.stem for path in sequence.frames]
        meta = dict(frame_names=names, original_size=original, dataset=self.metainfo['dataset_name'], **sequence.meta)
        return VideoSample(video=video, depth=depth, name=sequence.name, meta=meta)

    def _transform(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        sample = replace(sample, depth=depth_at(sample.depth, sample.size))
        return run_pipeline(self.pipeline, sample, rng)


def _selected(
    sequence: DepthSequence, frame_range: tuple[int, int] | None, step: int, most: int | None
) -> DepthSequence:
    frames = range(len(sequence.frames))
    chosen = frames[slice(*frame_range) if frame_range else slice(None)][::step][:most]
    if not chosen:
        raise ValueError(f'{sequence.name}: {len(frames)} frames, none of them in frame_range={list(frame_range)}')
    return sequence if len(chosen) == len(frames) else sequence.only(chosen)


def _check_options(
    least: float, most: float | None, crop: Sequence[int] | None, frame_range: Sequence[int] | None
) -> None:
    if not least >= 0 or (most is not None and not most > least):
        raise ValueError(f'min_depth_m is {least}, max_depth_m {most}; wanted metres from 0, the smaller first')
    if crop is not None and len(crop) != 4:
        raise ValueError(f'crop is {crop}; wanted (top, bottom, left, right) as in depth[top:bottom, left:right]')
    if frame_range is not None and len(frame_range) != 2:
        raise ValueError(f'frame_range is {frame_range}; wanted (start, stop) as in video[start:stop]')
