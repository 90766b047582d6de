"""RecurrentState: the whole memory of a model between two frames, as a flat, named set of tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class RecurrentState(dict[str, Tensor]):
    """Flat dictionary of tensors that a model carries from one frame (or chunk) to the next.

    Keys are dotted paths, e.g. ``backbone.blocks.3.patch.rg_lru`` or ``head.points.query_txy``. The batch is always the
    first dimension. The size never depends on how many frames have passed; :attr:`nbytes` lets a test say so.
    """

    @property
    def nbytes(self) -> int:
        """Bytes held by all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.values())

    def scope(self, prefix: str) -> RecurrentState:
        """The entries below ``prefix.``, with that prefix removed (a new dictionary over the same tensors)."""
        start = prefix + '.'
        return RecurrentState({key[len(start) :]: value for key, value in self.items() if key.startswith(start)})

    def put(self, prefix: str, entries: dict[str, Tensor]) -> RecurrentState:
        """Store ``entries`` below ``prefix.``; returns self."""
        self.update({f'{prefix}.{key}': value for key, value in entries.items()})
        return self

    def map(self, function: Callable[[Tensor], Tensor]) -> RecurrentState:
        """A new state with ``function`` applied to every tensor."""
        return RecurrentState({key: function(value) for key, value in self.items()})

    def clone(self) -> RecurrentState:
        return self.map(torch.Tensor.clone)

    def detach(self) -> RecurrentState:
        return self.map(torch.Tensor.detach)

    def to(self, device: torch.device | str) -> RecurrentState:
        return self.map(lambda tensor: tensor.to(device))
