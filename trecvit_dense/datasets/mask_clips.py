"""What every data set of videos with object masks shares: reading, clips for training, and the sample.

An adapter only says where the frames and masks of each video lie (:class:`MaskSequence`). To evaluate, an item is a
whole video; to train, a clip of it that a generator draws from ``(seed, draw, index)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..io.frame_source import read_image
from ..io.mask_file import mask_header, read_mask
from ..structures import ObjectMasks, VideoSample
from .items import run_pipeline
from .transforms.objects import SelectObjects, first_frames, keep_objects, labels_at
from .video_clips import TRIES, VideoClipsDataset
from .video_files import image_size, misfit, reduce_image

MASK_FORMATS = ('index', 'binary', 'rgb')


@dataclass
class MaskSequence:
    """Where one video lies.

    Args:
        name: Identity in reports and results.
        frames: Image files, in order.
        masks: One for each frame, or None for a frame that has no annotation.
        mask_format: ``'index'``: the pixel value is the id; ``'binary'``: anything but black is object 1; ``'rgb'``:
            ``id = r + 256 g + 65536 b``.
        prompts_only: The masks introduce objects and are no truth to compare with.
        first_only: Objects that the first frame does not show are ignored (the rule of DAVIS).
        meta: What else the adapter knows.
    """

    name: str
    frames: list[Path]
    masks: list[Path | None]
    mask_format: str = 'index'
    prompts_only: bool = False
    first_only: bool = False
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def annotated(self) -> np.ndarray:
        """``(T,)`` bool, frames that have a mask."""
        return np.array([mask is not None for mask in self.masks])

    def mask_name(self, t: int) -> str:
        """What messages call the mask of frame ``t``."""
        return str(self.masks[t])

    def mask(self, t: int) -> np.ndarray:
        """``(H, W)`` uint8 labels of frame ``t``, which has some."""
        return read_mask(self.masks[t], binary=self.mask_format == 'binary', rgb_ids=self.mask_format == 'rgb')

    def labels(self, frames: Sequence[int]) -> np.ndarray:
        """``(T', H, W)`` uint8; 0 where a frame has no annotation.

        Raises:
            ValueError: masks of different sizes; the file is named.
        """
        known = np.flatnonzero(self.annotated[list(frames)])
        read = {int(k): self.mask(frames[k]) for k in known}
        shape = read[int(known[0])].shape if len(known) else (1, 1)
        stacked = np.zeros((len(frames), *shape), np.uint8)
        for k, labels in read.items():
            if labels.shape != shape:
                raise ValueError(misfit(self.mask_name(frames[k]), labels.shape, 'the other masks of the video', shape))
            stacked[k] = labels
        return stacked

    def video(self, frames: Sequence[int], max_side: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
        """``(T', H, W, 3)`` uint8 RGB, reduced until no side exceeds ``max_side``, and the size before that."""
        original, stacked = None, None
        for k, t in enumerate(frames):
            image = read_image(self.frames[t])
            if original not in (None, image.shape[:2]):
                raise ValueError(misfit(self.frames[t], image.shape[:2], 'the other frames of the video', original))
            original = image.shape[:2]
            image = reduce_image(image, max_side)
            stacked = np.empty((len(frames), *image.shape), np.uint8) if stacked is None else stacked
            stacked[k] = image
        return stacked, (int(original[0]), int(original[1]))

    def check(self) -> None:
        """See from the headers whether frames and masks fit together, before any work is done.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: sizes differ, a colour picture where ids are wanted, or no object to start with.
        """
        frame_size = mask_size = None
        for path, mask in zip(self.frames, self.masks, strict=True):
            size = image_size(path)
            if size != (frame_size := frame_size or size):
                raise ValueError(misfit(path, size, 'the first frame of the video', frame_size))
            if mask is None:
                continue
            size, doubtful = mask_header(mask)
            if doubtful and self.mask_format == 'index':
                read_mask(mask)  # colour, or 16 bits: says what is wanted
            if size != (mask_size := mask_size or size):
                raise ValueError(misfit(mask, size, 'the first mask of the video', mask_size))
            ratio = (size[1] / size[0]) / (frame_size[1] / frame_size[0])
            if not 0.9 < ratio < 1.1:
                raise ValueError(misfit(mask, size, 'the frames', frame_size) + ', another shape')
        if self.first_only:
            self.check_first()

    def check_first(self) -> None:
        """See whether the first mask shows an object.

        Raises:
            ValueError: it does not; the file is named.
        """
        first = int(self.annotated.argmax())
        if not _ids(self.mask(first)):
            raise ValueError(
                f'{self.mask_name(first)}: holds no object, and the protocol gives objects on the first frame; '
                f'late_objects=True takes those that appear later, sequences=[...] leaves this one out'
            )


class MaskVideoDataset(VideoClipsDataset):
    """Videos with object masks. Not used by itself: adapters pass ``sequences`` and hand the rest through.

    Args:
        sequences: Where the videos lie.
        dataset_name: First part of metric keys.
        max_side: Frames are reduced until no side exceeds this; masks keep their own size. None: as they are.
        num_frames: Frames of a training clip; None yields whole videos with all their objects, for evaluation.
        frame_stride: Training: every n-th annotated frame, or (least, greatest) to draw n from; less where a video is
            too short. One with fewer than ``num_frames`` annotated frames is played back and forth.
        max_objects: Training: most objects of a clip.
        min_area: Training: share of the frame that an object must show when it is given.
        pipeline: Transforms, configs or callables ``(sample, rng) -> sample``, applied in order; before them the masks
            are brought to the size of the frames.
        seed: Another seed draws other clips.
        check: Evaluation: look at the header of every file first, so that a bad one is found before any work.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: frames and masks do not fit together, or a value is out of range; the message names the file.
    """

    def __init__(
        self,
        sequences: list[MaskSequence],
        *,
        dataset_name: str,
        max_side: int | None = None,
        num_frames: int | None = None,
        frame_stride: int | tuple[int, int] = 1,
        max_objects: int | None = None,
        min_area: float = 0.002,
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
            max_objects=max_objects,
        )
        if num_frames is not None:
            sequences = [sequence for sequence in sequences if sequence.annotated.sum() > 1]
        few = ' with masks on at least two frames, which training needs' if num_frames else ''
        self.take(sequences, check=check, wanted=f'video{few}')
        self.select = SelectObjects(max_objects, min_area=min_area)

    def whole(self, index: int, rng: np.random.Generator) -> VideoSample:
        sequence = self.sequences[index]
        frames = range(len(sequence.frames))
        masks = given_objects(sequence, sequence.labels(frames))
        video, original = sequence.video(frames, self.max_side)
        sample = self._sample(sequence, video, masks, frames, original)
        return self._transform(sample, rng) if self.pipeline else sample

    def clip(self, index: int, rng: np.random.Generator) -> VideoSample:
        """A clip that shows an object on its first frame; where a video has none to offer, of another video."""
        for sequence, frames in self.tries(index, rng):
            labels = sequence.labels(frames)
            masks = ObjectMasks(labels, _ids(labels))
            if 0 not in first_frames(masks, self.select.min_area).values():
                continue
            video, original = sequence.video(frames, self.max_side)
            sample = self._transform(self._sample(sequence, video, masks, frames, original), rng)
            sample = self.select(sample, rng)
            if 0 in sample.masks.first_frame:
                return sample
        raise ValueError(
            f'{sequence.name}: {TRIES} clips were drawn and none shows an object on its first frame that '
            f'covers {self.select.min_area:g} of it; wanted a smaller min_area, or weaker crops in the pipeline'
        )

    def _sample(
        self,
        sequence: MaskSequence,
        video: np.ndarray,
        masks: ObjectMasks,
        frames: Iterable[int],
        original: tuple[int, int],
    ) -> VideoSample:
        names = [sequence.frames[t].stem for t in frames]
        meta = dict(frame_names=names, original_size=original, dataset=self.metainfo['dataset_name'], **sequence.meta)
        return VideoSample(video=video, masks=masks, name=sequence.name, meta=meta)

    def _transform(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        sample = replace(sample, masks=labels_at(sample.masks, sample.size))
        return run_pipeline(self.pipeline, sample, rng)


def given_objects(sequence: MaskSequence, labels: np.ndarray) -> ObjectMasks:
    """The objects of a whole video, each given on the first annotated frame that shows it.

    Raises:
        ValueError: there is none; the file is named.
    """
    annotated = sequence.annotated
    first = first_frames(ObjectMasks(labels, _ids(labels)))
    if sequence.first_only:
        sequence.check_first()
        first = {i: frame for i, frame in first.items() if frame == int(annotated.argmax())}
    if not first:
        file = sequence.mask_name(int(annotated.argmax()))
        raise ValueError(f'{file}: holds no object, nor does a later mask of {sequence.name}; wanted ids from 1 to 254')
    known = np.zeros_like(annotated) if sequence.prompts_only else annotated
    masks = ObjectMasks(labels, list(first), annotated=None if known.all() else known)
    return keep_objects(masks, first)


def _ids(labels: np.ndarray) -> list[int]:
    present = np.bincount(labels.ravel(), minlength=256) > 0
    return [int(i) for i in np.flatnonzero(present[1:255]) + 1]
