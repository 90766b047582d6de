"""What data sets of labelled videos share: frames decoded when they are picked, videos that are missing or damaged."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from ..io import FrameSource, VideoError
from ..structures import VideoSample
from .items import build_pipeline, one_thread_in_workers, place_of, run_pipeline, video_item
from .procedural_base import SPLITS
from .transforms.classification import MultiView, SampleFrames
from .transforms.geometry import TemporalStride
from .transforms.long_videos import SpreadClips

BLACK = -1  # in place of a frame number: a black frame, where a video is too short
_PICKERS = (SampleFrames, SpreadClips, TemporalStride, MultiView)
_TRIES = 20


@dataclass
class LabelledVideo:
    """One video of a list.

    Args:
        path: File, or folder of frames.
        label: Class, or None where it is not known.
        name: Identity in reports.
        meta: Goes into the sample's.
    """

    path: Path
    label: int | None
    name: str
    meta: dict[str, Any] = field(default_factory=dict)


class LazyVideo:
    """Stands in for the pixels of a video until a transform picks frames; only those are decoded then.

    Args:
        source: Where frames come from.
        frames: ``(T,)`` numbers of the source's frames that make the video, :data:`BLACK` for none; None: all.
        size: ``(H, W)`` to which frames are resized as they are read; None keeps theirs.
    """

    def __init__(self, source: FrameSource, frames: np.ndarray | None, size: tuple[int, int] | None) -> None:
        self.source, self.size = source, tuple(source.size if size is None else size)
        self.frames = np.arange(source.num_frames) if frames is None else frames

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.frames), *self.size, 3)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, places: np.ndarray | slice) -> np.ndarray:
        """``(T, H, W, 3)`` uint8 of frames in any order; each is decoded once, the earliest one first."""
        wanted, back = np.unique(self.frames[places], return_inverse=True)
        pixels = np.stack([self._picture(int(number)) for number in wanted])
        return pixels if np.array_equal(back, np.arange(len(wanted))) else pixels[back]

    def _picture(self, number: int) -> np.ndarray:
        if number == BLACK:
            return np.zeros((*self.size, 3), np.uint8)
        picture = self.source.read(number)
        if picture.shape[:2] == self.size:
            return picture
        shrinks = self.size[0] < picture.shape[0] or self.size[1] < picture.shape[1]
        return cv2.resize(picture, self.size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class LabelledVideosDataset(Dataset):
    """Videos with a class each. In the split ``'train'`` item ``i`` is drawn from ``(seed, draw, index)``.

    Which frames are read, how they are cut, and on how many views a video is tested, is up to the pipeline, whose
    first step should be ``SampleFrames``, ``MultiView``, ``SpreadClips`` or ``TemporalStride``: nothing but what it
    picks is then decoded. Without one of them a video is read as a whole. Left and right may be classes: nothing is
    mirrored here. A subclass gives its list to :meth:`take`.

    Args:
        dataset_name: First part of the keys of metrics.
        split: ``'train'``, ``'val'`` or ``'test'``.
        size: ``(H, W)`` to which frames are resized as they are read, whatever their aspect ratio; areas are averaged.
            None keeps theirs: pipelines have ``ShortSide``.
        broken: ``'error'``, or ``'skip'``: leave out videos that are missing and, but for ``'train'``, those that
            cannot be opened (every file is looked at first); training takes another video in place of a damaged one.
            ``dataset.skipped`` counts them: path to reason.
        pipeline: Transforms, configs or callables ``(sample, rng) -> sample``.
        max_videos: Use only the first so many.
        seed: Another seed draws other clips.

    Raises:
        FileNotFoundError, ValueError: no video, or one that is missing; the message names the file.
        ValueError: a value is out of range; the message says which.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        split: str = 'train',
        size: tuple[int, int] | None = None,
        broken: str = 'error',
        pipeline: Sequence[dict | Callable] | None = None,
        max_videos: int | None = None,
        seed: int = 0,
    ) -> None:
        if broken not in ('error', 'skip'):
            raise ValueError(f"broken is '{broken}'; wanted 'error' or 'skip'")
        if split not in SPLITS:
            raise ValueError(f"split is '{split}'; wanted one of {SPLITS}")
        for name, value in dict(size=size, max_videos=None if max_videos is None else (max_videos,)).items():
            if value is not None and min(value) < 1:
                raise ValueError(f'{name} is {tuple(value)}; wanted at least 1, or none')
        self.split, self.size, self.broken, self.max_videos, self.seed = split, size, broken, max_videos, seed
        self.pipeline = build_pipeline(pipeline)
        self.metainfo: dict[str, Any] = dict(dataset_name=dataset_name)
        self.videos: list[LabelledVideo] = []
        self.skipped: dict[str, str] = {}

    # ---- the list

    def take(self, videos: Sequence[LabelledVideo], classes: Sequence[str] | None, *, where: Path | str) -> None:
        """Use these videos; ``where`` they were listed goes into messages."""
        videos = self._present(videos[: self.max_videos], where)
        if self.broken == 'skip' and self.split != 'train':
            videos = [video for video in videos if self._opens(video)]
        if self.skipped:
            path, reason = next(iter(self.skipped.items()))
            warnings.warn(f'{where}: {len(self.skipped)} videos left out, first {path} ({reason})', stacklevel=3)
        if not videos:
            raise ValueError(f'{where}: no video to read; wanted at least one')
        self.videos = list(videos)
        if classes is not None:
            self.metainfo['classes'] = tuple(classes)

    def _present(self, videos: Sequence[LabelledVideo], where: Path | str) -> Sequence[LabelledVideo]:
        gone = {str(video.path) for video in videos if not os.path.exists(video.path)}
        if not gone:
            return videos
        if self.broken == 'error':
            first = next(video.path for video in videos if str(video.path) in gone)
            others = f' ({len(gone)} of {len(videos)} videos are missing)' if len(gone) > 1 else ''
            raise FileNotFoundError(
                f"{first}: no such video{others}; it is listed in {where}; broken='skip' leaves such videos out"
            )
        self.skipped.update(dict.fromkeys(sorted(gone), 'missing'))
        return [video for video in videos if str(video.path) not in gone]

    def _opens(self, video: LabelledVideo) -> bool:
        try:
            FrameSource.open(video.path).close()
        except VideoError as error:
            self.skipped[str(video.path)] = _reason(error, video)
        return str(video.path) not in self.skipped

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order of their labels; empty where they are not known."""
        return self.metainfo.get('classes', ())

    # ---- items

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``; of V views, T is V times the frames."""
        one_thread_in_workers()
        draw, place = place_of(index, len(self), once=None if self.split == 'train' else 'items')
        rng = np.random.default_rng([self.seed, draw, place])
        for _ in range(_TRIES if self.split == 'train' else 1):
            try:
                return video_item(self.sample(place, rng))
            except VideoError as error:
                if self.broken == 'error' or self.split != 'train':
                    raise
                self._note_damage(self.video_of(place), error)
            place = int(rng.integers(len(self)))
        raise VideoError(f'{self.metainfo["dataset_name"]}: {_TRIES} videos in a row cannot be read')

    def _note_damage(self, video: LabelledVideo, error: VideoError) -> None:
        if str(video.path) not in self.skipped:
            self.skipped[str(video.path)] = _reason(error, video)
            warnings.warn(f'{error}; another video in its place', stacklevel=3)

    def sample(self, place: int, rng: np.random.Generator) -> VideoSample:
        """Item ``place`` after the pipeline."""
        video = self.video_of(place)
        with FrameSource.open(video.path) as source:
            frames, meta = self.frames_of(place, source, rng)
            sample = VideoSample(
                video=LazyVideo(source, frames, self.size), label=video.label, name=video.name, meta=video.meta | meta
            )
            sample.meta.update(original_size=tuple(int(n) for n in source.size), fps=float(source.fps))
            sample.meta.setdefault('video', video.name)
            if video.label is not None and video.label < len(self.classes):
                sample.meta['class_name'] = self.classes[video.label]
            if not self.pipeline or not isinstance(self.pipeline[0], _PICKERS):
                sample.video = sample.video[:]
            sample = run_pipeline(self.pipeline, sample, rng)
        return sample

    def video_of(self, place: int) -> LabelledVideo:
        """The video of item ``place``."""
        return self.videos[place]

    def frames_of(
        self, place: int, source: FrameSource, rng: np.random.Generator
    ) -> tuple[np.ndarray | None, dict[str, Any]]:
        """What of the source is the video of item ``place``: frame numbers, or None for all; and more for ``meta``."""
        return None, {}


def _reason(error: Exception, video: LabelledVideo) -> str:
    return str(error).removeprefix(f'{video.path}: ')
