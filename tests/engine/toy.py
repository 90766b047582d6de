"""A regression model and dataset small enough to train in a test; random in the ways that a real one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from trecvit_dense.engine import TrecvitRunner
from trecvit_dense.registry import DATASETS, METRICS, MODELS, use_scope


@MODELS.register_module()
class ToyModel(BaseModel):
    """Dropout makes the forward pass random; ``width`` is there to be changed by options."""

    def __init__(self, width: int = 8, drop: float = 0.5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Dropout(drop), nn.GELU())
        self.tail = nn.Linear(width, 1)
        self.dtypes: list[torch.dtype] = []

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor, mode: str = 'tensor') -> Any:
        hidden = self.body(inputs)
        self.dtypes.append(hidden.dtype)
        output = self.tail(hidden)[:, 0]
        if mode == 'loss':
            return dict(loss_l2=((output.float() - targets) ** 2).mean())
        return list(output.float() - targets)


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Samples follow (draw, index); the items that were made are kept in ``made``."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, length: int = 10) -> None:
        self.length = length
        self.made: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> dict:
        draw, index = divmod(item, self.length)
        self.made.append(item)
        inputs = np.random.default_rng([draw, index]).normal(size=4).astype(np.float32)
        return dict(inputs=torch.from_numpy(inputs), targets=torch.tensor(float(inputs.sum())))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch: Any, data_samples: list) -> None:
        self.results += [float(error) ** 2 for error in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return dict(AJ=float(np.mean(results)))


def toy_config(work_dir: Path | str, name: str, **changes: Any) -> Config:
    """A complete config in the manner of ``configs/_base_/default_runtime.py``; ``changes`` have dotted keys."""
    loader = dict(
        dataset=dict(type='ToyDataset'),
        batch_size=3,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
    )
    cfg = Config.fromfile(Path(__file__).parents[2] / 'configs/_base_/default_runtime.py')
    cfg.merge_from_dict(
        dict(
            model=dict(type='ToyModel'),
            work_dir=str(work_dir),
            experiment_name=name,
            train_dataloader=dict(loader, sampler=dict(type='DrawSampler')),
            val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            train_cfg=dict(type='FastResumeIterLoop', max_iters=12, val_interval=5),
            val_cfg=dict(),
            val_evaluator=dict(type='ToyMetric'),
            optim_wrapper=dict(
                type='AutocastOptimWrapper', optimizer=dict(type='AdamW', fused=True, lr=0.01), dtype='float32'
            ),
            param_scheduler=[dict(type='CosineAnnealingLR', T_max=12, by_epoch=False)],
        )
    )
    cfg.default_hooks.checkpoint.interval = 6
    cfg.default_hooks.curves.interval = 2
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return cfg


def toy_runner(work_dir: Path | str, name: str, **changes: Any) -> TrecvitRunner:
    use_scope()
    return TrecvitRunner.from_cfg(toy_config(work_dir, name, **changes))
