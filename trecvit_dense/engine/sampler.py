"""An endless sampler whose position is a number: resuming costs nothing and augmentation does not repeat."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from trecvit_dense.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class DrawSampler(Sampler):
    """Yields ``index + N * draw`` for a dataset of ``N`` items, for ever.

    ``draw`` counts the passes over the data. The dataset takes ``draw, index = divmod(item, N)`` and gives each item
    its own generator ``np.random.default_rng([seed, draw, index])``: the samples then depend neither on the number
    of workers nor on where a run was interrupted, and no pass repeats the augmentation of another.

    Args:
        dataset: Anything with a length.
        shuffle: A new permutation for each draw; otherwise in order.
        seed: Of the permutations. None: 0.
    """

    def __init__(self, dataset: Sized, *, shuffle: bool = True, seed: int | None = None) -> None:
        if len(dataset) == 0:
            raise ValueError('the training dataset is empty; wanted at least one item')
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = seed or 0
        self.position = 0

    def skip(self, samples: int) -> None:
        """Start the next iteration after ``samples`` items of this process."""
        self.position = samples

    def order(self, draw: int) -> list[int]:
        """Indices of one draw, the same on every process."""
        if not self.shuffle:
            return list(range(self.size))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + draw)
        return torch.randperm(self.size, generator=generator).tolist()

    def __iter__(self) -> Iterator[int]:
        place, draw, order = self.position * self.world_size + self.rank, -1, []
        while True:
            now, offset = divmod(place, self.size)
            if now != draw:
                draw, order = now, self.order(now)
            yield order[offset] + self.size * draw
            place += self.world_size

    def __len__(self) -> int:
        """Items of one draw on this process."""
        return -(-self.size // self.world_size)
