"""Mixed precision that runs on any device: MMEngine's AmpOptimWrapper refuses to start on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from trecvit_dense.registry import OPTIM_WRAPPERS

DTYPES = ('auto', 'bfloat16', 'float32')


def bfloat16_is_fast(device_type: str) -> bool:
    """Whether a device computes in bfloat16.

    A CPU without the instructions emulates it, several times slower than float32.
    """
    if device_type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == 'cpu':
        probes = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """OptimWrapper whose forward pass runs under ``torch.autocast`` on the model's device.

    bfloat16 has the exponent range of float32, so there is no loss scaling and nothing extra to save. Weights,
    gradients and the optimiser stay float32. float16 is not offered: it needs a scaler, and on a CPU it is slower
    than float32.

    Args:
        dtype: ``'bfloat16'``, ``'float32'`` (no autocast), or ``'auto'``: bfloat16 where the device has it in hardware.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is '{dtype}'; wanted one of {', '.join(DTYPES)}")
        super().__init__(optimizer, **kwargs)
        self.dtype = dtype

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        low = self.dtype == 'bfloat16' or (self.dtype == 'auto' and bfloat16_is_fast(device))
        with super().optim_context(model), torch.autocast(device, torch.bfloat16, enabled=low):
            yield
