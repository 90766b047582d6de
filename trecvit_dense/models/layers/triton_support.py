"""Whether Triton's kernels can run, and the few things that all of them need."""

from __future__ import annotations

import functools
import os

import torch

_LEAST_CAPABILITY = (7, 0)  # what Triton compiles for


def interpreted() -> bool:
    """Kernels run in Triton's interpreter, on any tensor: ``TRITON_INTERPRET=1`` when they are imported."""
    return os.environ.get('TRITON_INTERPRET', '0') == '1'


@functools.cache
def missing() -> str:
    """Why Triton cannot be imported; empty: it can."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f'{error} (pip install triton)'
    return ''


def refuses(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Why the kernels cannot work on tensors of this device and dtype; empty: they can."""
    if dtype not in (torch.float32, torch.float64):
        return f'it computes in float32 or float64 and this is {dtype}'
    if missing():
        return missing()
    if interpreted():
        return ''
    if device.type != 'cuda':
        return f'it needs a CUDA or ROCm device and this is {device.type}'
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        found = '.'.join(map(str, torch.cuda.get_device_capability(device)))
        return f'{torch.cuda.get_device_name(device)} has compute capability {found}; wanted at least 7.0'
    return ''
