"""Several processes, with or without GPUs: MMEngine 0.10.7 calls CUDA on machines that have none."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import distributed

LAUNCHERS = ('none', 'pytorch')


def setup(launcher: str) -> bool:
    """Join the process group of ``torchrun``; gloo where there is no CUDA. Returns whether training is distributed.

    On CUDA machines the Runner does it. Call before the Runner is built: it then skips its own start.

    Raises:
        ValueError: an unknown launcher, or a process that was not started by ``torchrun``.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher is '{launcher}'; wanted one of {', '.join(LAUNCHERS)}")
    if launcher == 'none':
        return False
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK') if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher pytorch, but {", ".join(missing)} is not set; start with '
            f'torchrun --nproc_per_node N tools/train.py CONFIG --launcher pytorch'
        )
    if not torch.cuda.is_available() and not distributed.is_initialized():
        distributed.init_process_group('gloo')
    return True


def teardown() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def model_wrapper_cfg(**options: Any) -> dict | None:
    """``cfg.model_wrapper_cfg`` for this machine; None where MMEngine's default (one GPU per process) is right."""
    if torch.cuda.is_available():
        return dict(type='MMDistributedDataParallel', broadcast_buffers=False, **options) if options else None
    return dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False, **options)
