"""Several clips from each video of another data set, where rendering or decoding one is dear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..registry import DATASETS
from .items import build_pipeline, place_of, run_pipeline, video_item


@DATASETS.register_module()
class RepeatedClipsDataset(Dataset):
    """Repeated sampling: each video is made once and gives ``times`` clips (arXiv 2205.09113, section 3).

    Item ``index + length * draw`` is clip ``index % times`` of video ``index // times`` in pass ``draw``, where
    ``length`` is ``times`` times that of ``dataset``. The last video is kept, so clips of one video are to be asked
    for one after the other: ``sampler=dict(type='DrawSampler', shuffle=False)``. Any other order gives the same items,
    each at the price of a whole video.

    Args:
        dataset: Config or data set that makes its items from ``index + len * draw`` as ours do.
        times: Clips of each video.
        pipeline: Transforms, configs or callables ``(sample, rng) -> sample``, applied in order to the whole video;
            those that draw make the clips of a video differ.
        seed: Another seed draws other clips of the same videos.

    Raises:
        ValueError: ``times`` below 1.
    """

    def __init__(
        self, dataset: dict | Dataset, times: int, *, pipeline: Sequence[dict | Callable] | None = None, seed: int = 0
    ) -> None:
        if times < 1:
            raise ValueError(f'times is {times}; wanted at least 1 clip of each video')
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.times, self.pipeline, self.seed = times, build_pipeline(pipeline), seed
        self.metainfo = getattr(self.dataset, 'metainfo', dict(dataset_name='repeated_clips'))
        self._last: tuple[int, dict[str, Any]] | None = None

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw, place = place_of(index, len(self))
        number = place // self.times + draw * len(self.dataset)
        if self._last is None or self._last[0] != number:
            self._last = number, self.dataset[number]
        sample = replace(self._last[1]['data_samples'])
        return video_item(run_pipeline(self.pipeline, sample, np.random.default_rng([self.seed, draw, place])))
