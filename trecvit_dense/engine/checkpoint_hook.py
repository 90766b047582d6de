"""Checkpoints that torch loads safely: only tensors and plain Python values, no class is named in the file.

MMEngine 0.10.7 stores HistoryBuffer objects and numpy scalars, which ``torch.load(weights_only=True)``, the default of
torch >= 2.6, refuses: its own checkpoints could not be resumed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

from trecvit_dense.registry import HOOKS

_HISTORY = '__history_buffer__'
_LEAVES = (bool, int, float, str, bytes, type(None), torch.Tensor, torch.Size, torch.dtype)


def to_plain(value: Any) -> Any:
    """``value`` with only what ``torch.load(weights_only=True)`` accepts.

    Raises:
        TypeError: a value has no plain form.
    """
    if isinstance(value, HistoryBuffer):
        history, counts = value.data
        return {_HISTORY: [torch.from_numpy(history.copy()), torch.from_numpy(counts.copy()), value.max_length]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, OrderedDict):
        return OrderedDict((key, to_plain(item)) for key, item in value.items())
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, deque)):
        return [to_plain(item) for item in value]
    if isinstance(value, tuple) and not isinstance(value, torch.Size):
        return tuple(to_plain(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, _LEAVES):
        return value
    raise TypeError(f'{type(value).__name__} cannot be stored in a checkpoint; wanted tensors and plain Python values')


def from_plain(value: Any) -> Any:
    """Undo :func:`to_plain` for the history buffers, the only objects that MMEngine needs back."""
    if isinstance(value, dict):
        if _HISTORY in value:
            history, counts, length = value[_HISTORY]
            return HistoryBuffer(history.numpy(), counts.numpy(), length)
        return type(value)((key, from_plain(item)) for key, item in value.items())
    return value


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Turns every checkpoint into plain values before it is written and back after it is read.

    The file also carries the model's config (``meta['model']``) and the whole config as text (``meta['cfg']``), so
    that the model can be rebuilt from the file alone. Runs last on saving, after hooks that add entries (EMA).
    """

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model = runner.cfg.get('model')
        if model is not None:
            checkpoint['meta']['model'] = model.to_dict() if hasattr(model, 'to_dict') else model
        plain = to_plain(checkpoint)
        checkpoint.clear()
        checkpoint.update(plain)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = from_plain(checkpoint['message_hub'])
