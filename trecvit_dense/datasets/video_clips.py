"""What every data set of annotated videos shares: whole videos to evaluate, clips of them to train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..structures import VideoSample
from .items import build_pipeline, one_thread_in_workers, place_of, video_item

TRIES = 20


class VideoClipsDataset(Dataset):
    """To evaluate, item ``i`` is video ``i``; to train, a clip that a generator draws from ``(seed, draw, index)``.

    A subclass passes its sequences (each has ``name``, ``frames``, ``annotated`` ``(T,)`` bool and ``check()``) to
    :meth:`take` and defines :meth:`whole` and :meth:`clip`.

    Args:
        dataset_name, max_side, num_frames, frame_stride, pipeline, seed: As the subclass says.
        counts: More options that are at least 1, or None.

    Raises:
        ValueError: a value is out of range; the message says which.
    """

    def __init__(
        self,
        *,
        dataset_name: str,
        max_side: int | None,
        num_frames: int | None,
        frame_stride: int | tuple[int, int],
        pipeline: Sequence[dict | Callable] | None,
        seed: int,
        **counts: int | None,
    ) -> None:
        strides = (frame_stride, frame_stride) if isinstance(frame_stride, int) else tuple(frame_stride)
        if len(strides) != 2 or not 1 <= strides[0] <= strides[1]:
            raise ValueError(f'frame_stride is {frame_stride}; wanted a number from 1, or (least, greatest)')
        for name, value in dict(num_frames=num_frames, max_side=max_side, **counts).items():
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}; wanted at least 1, or none')
        self.sequences: list[Any] = []
        self.metainfo = dict(dataset_name=dataset_name)
        self.max_side, self.num_frames, self.strides, self.seed = max_side, num_frames, strides, seed
        self.pipeline = build_pipeline(pipeline)

    def take(self, sequences: Sequence[Any], *, check: bool, wanted: str) -> None:
        """Use these; with ``check``, and to evaluate, the header of every file is looked at first.

        Raises:
            FileNotFoundError, ValueError: there is none (``wanted``: of what), or a file that does not fit.
        """
        if not sequences:
            raise ValueError(f'{self.metainfo["dataset_name"]}: no {wanted}; wanted at least one')
        if check and self.num_frames is None:
            for sequence in sequences:
                sequence.check()
        self.sequences = list(sequences)

    def whole(self, index: int, rng: np.random.Generator) -> VideoSample:
        """Video ``index``."""
        raise NotImplementedError

    def clip(self, index: int, rng: np.random.Generator) -> VideoSample:
        """A clip of video ``index``; where it has none to offer, of another."""
        raise NotImplementedError

    @property
    def names(self) -> list[str]:
        return [sequence.name for sequence in self.sequences]

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``."""
        one_thread_in_workers()
        draw, place = place_of(index, len(self), once='videos' if self.num_frames is None else None)
        rng = np.random.default_rng([self.seed, draw, place])
        return video_item(self.whole(place, rng) if self.num_frames is None else self.clip(place, rng))

    def tries(self, index: int, rng: np.random.Generator) -> Iterator[tuple[Any, list[int]]]:
        """``TRIES`` clips to choose from: sequence and frame numbers, of other videos in time too."""
        for attempt in range(TRIES):
            if attempt and attempt % 4 == 0:
                index = int(rng.integers(len(self)))
            sequence = self.sequences[index]
            yield sequence, self.draw_frames(np.flatnonzero(sequence.annotated), rng)

    def draw_frames(self, usable: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Frame numbers of a clip, out of those that are annotated; a short video is played back and forth."""
        if len(usable) < self.num_frames:
            mode = 'reflect' if len(usable) > 1 else 'edge'
            usable = np.pad(usable, (0, self.num_frames - len(usable)), mode=mode)
        longest = (len(usable) - 1) // max(1, self.num_frames - 1)
        stride = min(int(rng.integers(self.strides[0], self.strides[1] + 1)), max(1, longest))
        start = int(rng.integers(len(usable) - stride * (self.num_frames - 1)))
        return usable[start + stride * np.arange(self.num_frames)].tolist()
