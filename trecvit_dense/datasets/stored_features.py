"""A data set of stored features: clips of them to train, windows of them to evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..registry import DATASETS
from ..structures import VideoSample
from .feature_store import FeatureStore

PICKS = ('window', 'spread')


@DATASETS.register_module()
class StoredFeatureDataset(Dataset):
    """What ``trecvit extract-features`` wrote, for a model with :class:`.FeaturePreprocessor` and no encoder.

    Args:
        folder: The store.
        num_frames: Frames of an item; a shorter video is followed by zeros, as the authors of ViS4mer do. None: whole
            videos.
        random: Training: item ``index + length * draw`` is drawn from ``(seed, draw, index)``. Otherwise windows are
            items, one after the other, and ``meta['video']`` says of which video.
        pick: ``'window'``: consecutive frames. ``'spread'``: frames out of the whole video in order of time, drawn at
            random, or at equal distances (Breakfast and COIN: 64 of 512 or 256 clips).
        window_stride: Frames from one window to the next, without ``random``; None: windows side by side.
        dataset_name: First part of metric keys.
        seed: Another seed draws other windows.

    Raises:
        FileNotFoundError, FeatureStoreError: no store, or a damaged one; every file's size is looked at.
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        num_frames: int | None = None,
        random: bool = False,
        pick: str = 'window',
        window_stride: int | None = None,
        dataset_name: str = 'features',
        seed: int = 0,
    ) -> None:
        for name, value in dict(num_frames=num_frames, window_stride=window_stride).items():
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}; wanted at least 1, or none')
        if pick not in PICKS:
            raise ValueError(f"pick is '{pick}'; wanted 'window' or 'spread'")
        self.store, self.num_frames, self.random, self.pick, self.seed = (
            FeatureStore(folder),
            num_frames,
            random,
            pick,
            seed,
        )
        self.videos = [self.store.facts(index) for index in range(len(self.store))]
        if not self.videos:
            raise ValueError(f'{folder}: no video in the feature store; run the extraction again')
        self.metainfo: dict[str, Any] = dict(dataset_name=dataset_name)
        self.windows = [
            (index, start) for index in range(len(self.videos)) for start in self._starts(index, window_stride)
        ]

    def _starts(self, index: int, stride: int | None) -> range:
        frames = self.videos[index]['shape'][0]
        if self.random or self.pick == 'spread' or self.num_frames is None or frames <= self.num_frames:
            return range(1)
        return range(0, frames - self.num_frames + 1, stride or self.num_frames)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, n, C) tensor, data_samples=VideoSample)``; the sample's video has no pixels."""
        if index < 0:
            raise IndexError(f'index is {index}; wanted 0 or more')
        draw, place = divmod(int(index), len(self))
        if draw and not self.random:
            raise IndexError(f'index is {index}; there are {len(self)} items')
        video, start = self.windows[place]
        stored, facts = self.store.read(video), self.videos[video]
        frames = self._frames(len(stored), start, np.random.default_rng([self.seed, draw, place]))
        features = np.zeros((self.num_frames or len(frames), *stored.shape[1:]), stored.dtype)
        features[: len(frames)] = stored[frames]
        name = facts['name'] or f'{video:06d}'
        sample = VideoSample(
            np.zeros((len(features), 0, 0, 3), np.uint8),
            label=facts['label'],
            name=name if len(self.windows) == len(self.videos) else f'{name}@{start}',
            meta={'video': name, **facts['meta'], 'seen_frames': len(frames)},
        )
        return dict(inputs=torch.from_numpy(features), data_samples=sample)

    def _frames(self, length: int, start: int, rng: np.random.Generator) -> np.ndarray:
        wanted = min(self.num_frames or length, length)
        if self.pick == 'spread':
            if self.random:
                return np.sort(rng.choice(length, wanted, replace=False))
            return np.floor((np.arange(wanted) + 0.5) * length / wanted).astype(int)
        if self.random:
            start = int(rng.integers(length - wanted + 1))
        return np.arange(start, start + wanted)
