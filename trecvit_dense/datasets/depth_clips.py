"""What every data set of videos with depth shares: reading, which pixels count, clips for training, and the sample.

An adapter only says where the frames and depth maps of each video lie (:class:`DepthSequence`). To evaluate, an item is
a whole video; to train, a clip of it that a generator draws from ``(seed, draw, index)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset, get_worker_info

from ..io.depth_file import DEPTH_SUFFIXES, depth_size, read_depth
from ..io.frame_source import read_image
from ..registry import TRANSFORMS
from ..structures import DepthMap, VideoSample
from .transforms.geometry import depth_at, pick_frames
from .video_files import image_size, misfit, reduce_image, video_item

Crop = tuple[int, int, int, int]
_TRIES = 20
_SMALLEST_M = 0.02  # half of a picture nearer than this is in another unit


class NoDepthError(ValueError):
    """Frames without a single value that counts. The message is one line and names the first file."""


@dataclass
class DepthSequence:
    """Where one video lies.

    Args:
        name: Identity in reports and results.
        frames: Image files, in order.
        depth: One for each frame, or None for a frame without truth.
        read: File to ``(H, W)`` float32 metres, 0 where there is no value.
        intrinsics: ``(3, 3)`` or ``(T, 3, 3)``, in pixels of the depth files; None: not known.
        camera_to_world: ``(T, 4, 4)``, metres, x right, y down, z forward; None: not known.
        meta: What else the adapter knows.
    """

    name: str
    frames: list[Path]
    depth: list[Path | None]
    read: Callable[[Path], np.ndarray] = read_depth
    intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def annotated(self) -> np.ndarray:
        """``(T,)`` bool, frames that have a depth map."""
        return np.array([path is not None for path in self.depth])

    def only(self, frames: Sequence[int]) -> DepthSequence:
        """The video that consists of these frames."""
        poses, matrix = self.camera_to_world, self.intrinsics
        return replace(
            self,
            frames=[self.frames[t] for t in frames],
            depth=[self.depth[t] for t in frames],
            intrinsics=matrix[list(frames)] if matrix is not None and matrix.ndim == 3 else matrix,
            camera_to_world=None if poses is None else poses[list(frames)],
        )

    def image(self, t: int) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB of frame ``t``."""
        return read_image(self.frames[t])

    def depth_m(self, t: int) -> np.ndarray:
        """``(H, W)`` float32 metres of frame ``t``, which has some; 0 where there is no value."""
        return self.read(self.depth[t])

    def depth_map(
        self, *, min_depth_m: float, max_depth_m: float | None, crop: Crop | None = None
    ) -> tuple[DepthMap, tuple[int, int]]:
        """Depth of all frames, 0 where it is not valid, and the ``(H, W)`` of the files before the crop.

        Raises:
            NoDepthError: no value in the range.
            ValueError: depth of different sizes, or in another unit; the file is named.
        """
        known = np.flatnonzero(self.annotated)
        stacked = valid = nearest = None
        size: tuple[int, int] = (0, 0)
        for t in known:
            depth_m = self.depth_m(int(t))
            if stacked is not None and depth_m.shape != size:
                raise ValueError(misfit(self.depth[t], depth_m.shape, 'the other depth maps of the video', size))
            size = depth_m.shape
            depth_m = cut(depth_m, crop, self.depth[t])
            if stacked is None:
                stacked = np.zeros((len(self.depth), *depth_m.shape), np.float32)
                valid = np.zeros(stacked.shape, bool)
            inside = depth_m > min_depth_m
            if inside.any():
                nearest = min(float(depth_m[inside].min()), nearest or np.inf)
            if max_depth_m is not None:
                inside &= depth_m < max_depth_m
            stacked[t], valid[t] = np.where(inside, depth_m, np.float32(0)), inside
        self._check_values(stacked, valid, nearest, min_depth_m, max_depth_m)
        matrix = self.intrinsics
        if matrix is not None and crop is not None:
            top, left = slice(*crop[:2]).indices(size[0])[0], slice(*crop[2:]).indices(size[1])[0]
            matrix = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]) @ matrix
        return DepthMap(stacked, valid, matrix, self.camera_to_world), size

    def _check_values(
        self,
        depth_m: np.ndarray | None,
        valid: np.ndarray | None,
        nearest: float | None,
        least: float,
        most: float | None,
    ) -> None:
        first = next((path for path in self.depth if path is not None), self.name)
        if depth_m is None or nearest is None:
            raise NoDepthError(
                f'{first}: no depth at all, nor in the other {len(self.frames) - 1} frames of {self.name}: every value '
                f'is 0, NaN or infinite; wanted metres'
            )
        if not valid.any():
            raise NoDepthError(
                f'{first}: no value between {least:g} and {most:g} m in {len(self.frames)} frames of {self.name}, the '
                f'nearest is {nearest:.4g} m; are these millimetres? wanted metres, or another max_depth_m'
            )
        frame = int(valid.any(axis=(1, 2)).argmax())
        typical = float(np.median(depth_m[frame][valid[frame]]))
        if typical < _SMALLEST_M:
            raise ValueError(
                f'{self.depth[frame]}: half of the values are below {typical * 1000:.3g} mm; wanted metres, is the '
                f'number of units per metre (depth_scale) right?'
            )

    def video(
        self, max_side: int | None = None, crop: Crop | None = None, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """``(T, H, W, 3)`` uint8 RGB, reduced until no side exceeds ``max_side``, and the size before that.

        Args:
            size: ``(H, W)`` of the depth files. A frame of another size is brought to it before it is cropped.
        """
        original, stacked = None, None
        for t in range(len(self.frames)):
            image = self.image(t)
            if original not in (None, image.shape[:2]):
                raise ValueError(misfit(self.frames[t], image.shape[:2], 'the other frames of the video', original))
            original = image.shape[:2]
            if crop is not None and size is not None and size != original:
                image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
            image = reduce_image(cut(image, crop, self.frames[t]), max_side)
            stacked = np.empty((len(self.frames), *image.shape), np.uint8) if stacked is None else stacked
            stacked[t] = image
        return stacked, (int(original[0]), int(original[1]))

    def check(self) -> None:
        """See from the headers whether frames and depth fit together, before any work is done.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: sizes differ, a picture where depth is wanted, or no depth at all.
        """
        frame_size = truth_size = None
        if not self.annotated.any():
            raise ValueError(f'{self.name}: no frame has a depth map; wanted at least one')
        for path, truth in zip(self.frames, self.depth, strict=True):
            size = image_size(path)
            if size != (frame_size := frame_size or size):
                raise ValueError(misfit(path, size, 'the first frame of the video', frame_size))
            if truth is None:
                continue
            if truth.suffix.lower() not in DEPTH_SUFFIXES:
                if not truth.is_file():
                    raise FileNotFoundError(f'{truth}: no such depth file')
                continue
            size = depth_size(truth)
            if size != (truth_size := truth_size or size):
                raise ValueError(misfit(truth, size, 'the first depth map of the video', truth_size))
            ratio = (size[1] / size[0]) / (frame_size[1] / frame_size[0])
            if not 0.9 < ratio < 1.1:
                raise ValueError(misfit(truth, size, 'the frames', frame_size) + ', another shape')


class DepthVideoDataset(Dataset):
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
        strides = (frame_stride, frame_stride) if isinstance(frame_stride, int) else tuple(frame_stride)
        if len(strides) != 2 or not 1 <= strides[0] <= strides[1]:
            raise ValueError(f'frame_stride is {frame_stride}; wanted a number from 1, or (least, greatest)')
        _check_options(min_depth_m, max_depth_m, crop, frame_range)
        given = dict(num_frames=num_frames, max_side=max_side, frame_step=frame_step, max_frames=max_frames)
        for name, value in given.items():
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}; wanted at least 1, or none')
        if num_frames is None:
            sequences = [_selected(sequence, frame_range, frame_step, max_frames) for sequence in sequences]
        else:
            sequences = [sequence for sequence in sequences if sequence.annotated.any()]
        if not sequences:
            raise ValueError(f'{dataset_name}: no video with depth; wanted at least one')
        if check and num_frames is None:
            for sequence in sequences:
                sequence.check()
        self.sequences, self.metainfo = sequences, dict(dataset_name=dataset_name)
        self.crop = None if crop is None else tuple(crop)
        self.limits = dict(min_depth_m=min_depth_m, max_depth_m=max_depth_m)
        self.max_side, self.num_frames, self.strides, self.seed = max_side, num_frames, strides, seed
        self.pipeline = [TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline or ()]

    @property
    def names(self) -> list[str]:
        return [sequence.name for sequence in self.sequences]

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``."""
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # one thread per worker; more only fight each other
        if index < 0:
            raise IndexError(f'index is {index}; wanted 0 or more')
        draw, place = divmod(int(index), len(self))
        if draw and self.num_frames is None:
            raise IndexError(f'index is {index}; there are {len(self)} videos')
        rng = np.random.default_rng([self.seed, draw, place])
        sample = self._whole(place, rng) if self.num_frames is None else self._clip(place, rng)
        return video_item(sample)

    def _whole(self, index: int, rng: np.random.Generator) -> VideoSample:
        sample = self._sample(self.sequences[index])
        return self._transform(sample, rng) if self.pipeline else sample

    def _clip(self, index: int, rng: np.random.Generator) -> VideoSample:
        """A clip in which some pixel has depth; where a video has none to offer, of another video."""
        problem = ''
        for attempt in range(_TRIES):
            if attempt and attempt % 4 == 0:
                index = int(rng.integers(len(self)))
            sequence = self.sequences[index]
            frames = self._frames(np.flatnonzero(sequence.annotated), rng)
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
        raise ValueError(f'{sequence.name}: {_TRIES} clips were drawn and none holds any depth; {problem}')

    def _frames(self, usable: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Frame numbers of a clip, out of those that have depth."""
        if len(usable) < self.num_frames:
            mode = 'reflect' if len(usable) > 1 else 'edge'
            usable = np.pad(usable, (0, self.num_frames - len(usable)), mode=mode)
        longest = (len(usable) - 1) // max(1, self.num_frames - 1)
        stride = min(int(rng.integers(self.strides[0], self.strides[1] + 1)), max(1, longest))
        start = int(rng.integers(len(usable) - stride * (self.num_frames - 1)))
        return usable[start + stride * np.arange(self.num_frames)].tolist()

    def _sample(self, sequence: DepthSequence) -> VideoSample:
        depth, grid = sequence.depth_map(crop=self.crop, **self.limits)
        video, original = sequence.video(self.max_side, self.crop, grid)
        names = [path.stem for path in sequence.frames]
        meta = dict(frame_names=names, original_size=original, dataset=self.metainfo['dataset_name'], **sequence.meta)
        return VideoSample(video=video, depth=depth, name=sequence.name, meta=meta)

    def _transform(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        sample = replace(sample, depth=depth_at(sample.depth, sample.size))
        for transform in self.pipeline:
            sample = transform(sample, rng)
        return sample


def cut(picture: np.ndarray, crop: Crop | None, name: Path | None) -> np.ndarray:
    """``picture[top:bottom, left:right]``.

    Raises:
        ValueError: nothing is left.
    """
    if crop is None:
        return picture
    part = picture[crop[0] : crop[1], crop[2] : crop[3]]
    if not part.size:
        height, width = picture.shape[:2]
        raise ValueError(f'{name}: nothing is left of {width}x{height} px by crop={list(crop)}; wanted a smaller crop')
    return part


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
