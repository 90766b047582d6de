"""Training counted in iterations, resumed in no time."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from trecvit_dense.registry import HOOKS, LOOPS


@LOOPS.register_module()
class FastResumeIterLoop(IterBasedTrainLoop):
    """IterBasedTrainLoop that skips by index: MMEngine's loads every past batch again, hours on real data.

    Args:
        max_iters: Iterations in all.
        val_begin: First iteration at which validation may run.
        val_interval: Iterations between two validations.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_iters: int,
        *,
        val_begin: int = 1,
        val_interval: int = 1000,
    ) -> None:
        for name, value in dict(max_iters=max_iters, val_interval=val_interval).items():
            if value < 1:
                raise ValueError(f'{name} is {value}; wanted at least 1')
        BaseLoop.__init__(self, runner, dataloader)  # the parent's __init__ starts the workers before a resume
        if not hasattr(self.dataloader.sampler, 'skip'):
            raise TypeError(
                f'FastResumeIterLoop needs an endless sampler that can skip, got '
                f"{type(self.dataloader.sampler).__name__}; use sampler=dict(type='DrawSampler')"
            )
        self._max_iters, self._max_epochs = int(max_iters), 1
        self._epoch = self._iter = 0
        self.val_begin, self.val_interval = val_begin, val_interval
        self.stop_training = False
        self.validated: tuple[int, dict[str, float]] | None = None  # iteration and metrics of the last validation
        self.runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)

    def run(self) -> torch.nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.dataloader.sampler.skip(self._iter * self.dataloader.batch_size)
        batches = iter(self.dataloader)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            if self._validation_is_due():
                self.validated = self._iter, self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _validation_is_due(self) -> bool:
        if self.runner.val_loop is None or self._iter < self.val_begin:
            return False
        return self._iter % self.val_interval == 0 or self._iter == self._max_iters


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seeds every iteration by (seed, iteration, process).

    Dropout, stochastic depth and anything else random in the forward pass are then the same after a resume, without
    generator states in the checkpoint, and whether or not validation ran in between.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        draw = np.random.SeedSequence([runner.seed or 0, runner.iter, get_rank()]).generate_state(1)
        seed = int(draw[0])
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
