"""Mixed precision that runs on any device: MMEngine's AmpOptimWrapper refuses to start on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from trecvit_dense.registry import OPTIM_WRAPPERS

_DTYPES = {'bfloat16': torch.bfloat16, 'float32': None}


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """OptimWrapper whose forward pass runs under ``torch.autocast`` on the model's device.

    bfloat16 has the exponent range of float32, so there is no loss scaling and nothing extra to save. Weights,
    gradients and the optimiser stay float32. float16 is not offered: it needs a scaler, and on a CPU it is slower
    than float32.

    Args:
        dtype: ``'bfloat16'``, or ``'float32'`` to switch autocast off.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"dtype is '{dtype}'; wanted one of {', '.join(_DTYPES)}")
        super().__init__(optimizer, **kwargs)
        self.dtype = _DTYPES[dtype]

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, self.dtype, enabled=self.dtype is not None):
            yield
