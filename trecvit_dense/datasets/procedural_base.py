"""What the embedded datasets share: which clip an index names, checks of options, targets, pipeline, the item."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from ..structures import VideoSample
from .items import build_pipeline, one_thread_in_workers, place_of, run_pipeline
from .transforms.objects import SelectObjects

SPLITS = ('train', 'val', 'test')
QUERY_MODES = ('random', 'first')
_TARGETS = 1  # the stream of random numbers that picks the targets
_TRIES = 20


class ProceduralDataset(Dataset):
    """Endless video made on the fly.

    Item ``index + length * draw`` is clip ``index`` of pass ``draw`` over the data: a sampler that adds ``length``
    every epoch gets new clips each time, and a resumed run gets the very clips that the straight one would have got.
    Subclasses give :meth:`render`.

    Args:
        name: Of the clips: ``<name>_<split>_<index>``.
        length, seed, split, num_targets, pipeline: Of :class:`trecvit_dense.datasets.SyntheticVideoDataset`.
        num_objects: Fewest and most, for the checks and messages.

    Raises:
        ValueError: a value is out of range; the message says which.
    """

    def __init__(
        self,
        name: str,
        length: int,
        *,
        seed: int,
        split: str,
        num_objects: tuple[int, int],
        num_targets: tuple[int, int] | None,
        pipeline: Sequence[dict | Callable] | None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is '{split}'; wanted one of {SPLITS}")
        check_at_least(1, length=length)
        check_at_least(0, seed=seed)
        if not 0 <= num_objects[0] <= num_objects[1] <= 100:
            raise ValueError(
                f'num_objects is {tuple(num_objects)}; wanted (fewest, most) with 0 <= fewest <= most <= 100'
            )
        if num_targets is not None and not (1 <= num_targets[0] <= num_targets[1] and num_objects[1] > 0):
            raise ValueError(
                f'num_targets is {tuple(num_targets)} of {tuple(num_objects)} objects; wanted (fewest, most) with '
                f'1 <= fewest <= most, or none'
            )
        self.name, self.length, self.seed, self.split = name, length, seed, split
        self.num_objects, self.num_targets = num_objects, num_targets
        self.pipeline = build_pipeline(pipeline)

    @abstractmethod
    def render(self, rng: np.random.Generator) -> VideoSample:
        """One clip, a pure function of ``rng``."""

    def __len__(self) -> int:
        return self.length

    def rng(self, index: int) -> np.random.Generator:
        """The generator from which everything about item ``index`` is drawn."""
        draw, clip = place_of(index, self.length)
        return np.random.default_rng([self.seed, draw, clip, SPLITS.index(self.split)])

    def sample(self, index: int) -> VideoSample:
        """Clip ``index``, after the pipeline."""
        rng = self.rng(index)
        if self.num_targets is None:
            return self._render(index, rng)
        # Its own generator: what a clip looks like does not depend on what is asked of it.
        choice = np.random.default_rng([*rng.bit_generator.seed_seq.entropy, _TARGETS])
        select = SelectObjects(int(choice.integers(self.num_targets[0], self.num_targets[1] + 1)))
        for _ in range(_TRIES):
            sample = select(self._render(index, rng), choice)
            if 0 in sample.masks.first_frame:
                sample.meta['frame_names'] = [f'{t:05d}' for t in range(sample.num_frames)]
                return sample
        raise ValueError(
            f'clip {index} was drawn {_TRIES} times and shows no object on its first frame; wanted more or larger '
            f'objects: num_objects is {self.num_objects}'
        )

    def _render(self, index: int, rng: np.random.Generator) -> VideoSample:
        sample = self.render(rng)
        sample.name = f'{self.name}_{self.split}_{int(index):06d}'
        sample = run_pipeline(self.pipeline, sample, rng)
        return sample

    def __getitem__(self, index: int) -> dict:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``."""
        one_thread_in_workers()
        sample = self.sample(index)
        video = torch.from_numpy(np.ascontiguousarray(sample.video.transpose(0, 3, 1, 2)))
        return dict(inputs=video, data_samples=sample)


def check_at_least(least: int, **values: int) -> None:
    """Raises ValueError when a named number is smaller."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f'{name} is {value}; wanted at least {least}')


def check_strengths(**values: float) -> None:
    """Raises ValueError when a named strength is negative, infinite or not a number."""
    for name, value in values.items():
        if not 0 <= value < float('inf'):
            raise ValueError(f'{name} is {value}; wanted a strength of 0 or more')


def check_clip(size: tuple[int, int], query_mode: str | None, split: str) -> str:
    """The query mode, by default the split's.

    Raises:
        ValueError: unknown, or frames that are too small.
    """
    if min(size) < 8:
        raise ValueError(f'size is {tuple(size)}; wanted at least 8 x 8 pixels')
    query_mode = query_mode or ('random' if split == 'train' else 'first')
    if query_mode not in QUERY_MODES:
        raise ValueError(f"query_mode is '{query_mode}'; wanted one of {QUERY_MODES}")
    return query_mode
