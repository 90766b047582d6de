"""What is made from parameters once and used on every frame: interpolated position tables, packed weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_Stamp = tuple[Hashable, ...]


class Kept(nn.Module):
    """Values that are made from tensors, kept until one of these changes.

    They are made anew when a source was written to or replaced, or has moved to another device or dtype, and they are
    dropped whenever the model is put into training or evaluation or is moved: writing through ``.data``, which leaves
    no trace on a parameter, is covered by the ``train()`` or ``eval()`` around it, and by :meth:`drop` otherwise.
    Nothing is kept where a gradient is wanted, where torch compiles, exports or counts, or across copies and files.

    A child without parameters of the module whose values it keeps: it hears of ``train()`` and ``to()``, and no state
    dict has it.

    Args:
        limit: Values at a time; the oldest goes.

    Attributes:
        values: Key to what stands for the sources, and the value.
    """

    def __init__(self, limit: int = 4) -> None:
        super().__init__()
        self.limit = limit
        self.values: dict[Hashable, tuple[Hashable, Any]] = {}

    def get(self, key: Hashable, sources: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        """``make()``, or what it gave before for the same ``key`` and the same ``sources``."""
        stamp = None if _traced(sources) else _stamp(sources)
        if stamp is None:
            return make()
        found = self.values.get(key)
        if found is None or found[0] != stamp:
            # A tensor made in inference mode could not be used in training later.
            with torch.inference_mode(False), torch.no_grad():
                found = stamp, make()
            self.values.pop(key, None)
            self.values[key] = found
            if len(self.values) > self.limit:
                del self.values[next(iter(self.values))]
        return found[1]

    def drop(self) -> None:
        """Forget all values."""
        self.values = {}

    def train(self, mode: bool = True) -> Kept:
        self.drop()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Kept:
        self.drop()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'values': {}}


def _traced(sources: Sequence[Tensor]) -> bool:
    wants_gradient = torch.is_grad_enabled() and any(source.requires_grad for source in sources)
    return wants_gradient or torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


def _stamp(sources: Sequence[Tensor]) -> _Stamp | None:
    """Changes when a source does; None: nobody could say."""
    if any(source.is_inference() or source.is_meta for source in sources):
        return None
    return tuple((source.data_ptr(), source._version, source.dtype, source.device, source.shape) for source in sources)
