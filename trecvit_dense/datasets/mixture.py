"""Several data sets as one, each with its share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..registry import DATASETS


@DATASETS.register_module()
class MixtureDataset(Dataset):
    """Item ``index + length * draw`` comes from one of ``datasets``, drawn by ``weights`` from ``(seed, draw, index)``.

    Args:
        datasets: Configs or data sets that make their items from ``index + len * draw`` as ours do.
        weights: How often each is drawn, in any unit; None: all alike.
        length: Items of one pass.
        seed: Another seed draws another order.

    Raises:
        ValueError: no data set, or weights that do not fit.
    """

    def __init__(
        self,
        datasets: Sequence[dict | Dataset],
        weights: Sequence[float] | None = None,
        *,
        length: int = 10000,
        seed: int = 0,
    ) -> None:
        weights = np.ones(len(datasets)) if weights is None else np.asarray(weights, float)
        if len(datasets) == 0 or len(weights) != len(datasets) or (weights < 0).any() or not weights.sum() > 0:
            raise ValueError(
                f'{len(datasets)} data sets with the weights {weights.tolist()}; wanted at least one, and a positive '
                f'number for each'
            )
        if length < 1:
            raise ValueError(f'length is {length}; wanted at least 1')
        self.datasets = [DATASETS.build(part) if isinstance(part, dict) else part for part in datasets]
        self.shares, self.length, self.seed = weights / weights.sum(), length, seed
        self.metainfo = dict(dataset_name='mixture')

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < 0:
            raise IndexError(f'index is {index}; wanted 0 or more')
        draw, place = divmod(int(index), self.length)
        rng = np.random.default_rng([self.seed, draw, place])
        dataset = self.datasets[int(rng.choice(len(self.datasets), p=self.shares))]
        # An item of some later pass of that data set, so that the same video comes back as another clip.
        return dataset[int(rng.integers(len(dataset))) + len(dataset) * int(rng.integers(1 << 30))]
