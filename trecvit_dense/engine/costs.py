"""What a model costs, counted: operations, and the bytes that are alive at once.

On torch's ``meta`` device a tensor has a shape and no numbers, so a model that no machine here could run is counted in
a second. What is counted is every tensor that an operation returns, for as long as it lives; what an operation needs
inside and gives back before it returns is not, and neither is what an allocator keeps in reserve.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from trecvit_dense.registry import MODELS, use_scope


def count_flops(function: Callable[[], Any]) -> int:
    """Operations of the matrix products and convolutions in ``function()``, two per multiply-add.

    Attention is run as matrix products meanwhile: torch counts none for its fused kernel on a CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


class PeakMemory(TorchDispatchMode):
    """Bytes of the tensors that are alive at once while this is active.

    Attributes:
        live: Bytes now, of what was made (or given to :meth:`add`) since the beginning.
        peak: The most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are there already; each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = id(storage), storage.nbytes()
            if key not in self._known:
                self._known[key] = weakref.ref(storage, lambda _, key=key, size=size: self._forget(key, size))
                self.live += size
                self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int) -> None:
        self.live -= size
        del self._known[key]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
        return found


class FusedAttention:
    """Lets fused attention be that on the ``meta`` device, where it would come apart into what it saves.

    In the place of torch's function, because a mode would rest in the backward pass, where checkpoints are run again.
    """

    def __enter__(self) -> None:
        self.plain = F.scaled_dot_product_attention
        F.scaled_dot_product_attention = self._attend

    def __exit__(self, *_: object) -> None:
        F.scaled_dot_product_attention = self.plain

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        if query.is_meta and attn_mask is None:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
        return self.plain(query, key, value, attn_mask, **kwargs)


@dataclass
class Cost:
    """Of one call with one clip.

    Attributes:
        parameters: Numbers.
        flops: See :func:`count_flops`, of the forward pass.
        peak_bytes: Parameters, input and what lives at the worst moment. With ``train`` the backward pass is in it, and
            the gradients of the parameters are; the optimiser's memory is not.
    """

    parameters: int
    flops: int
    peak_bytes: int


def count(
    build: Callable[[], nn.Module],
    run: Callable[[nn.Module], Tensor],
    *,
    train: bool = False,
    fused: bool = True,
) -> Cost:
    """Cost of ``run(build())``, which returns a tensor to start the backward pass from; all on the ``meta`` device.

    Args:
        build: Makes the model.
        run: Makes the input, too; it runs with ``meta`` as the default device.
        train: A training step; else a forward pass in eval mode without gradients.
        fused: Attention that is written as fused is. False: it keeps its weights.
    """
    with torch.device('meta'):
        model = build().train(train)
        with torch.no_grad():
            flops = count_flops(lambda: run(model))
        memory = PeakMemory()
        attention = FusedAttention() if fused else contextlib.nullcontext()
        with attention, memory, torch.set_grad_enabled(train):
            memory.add([*model.parameters(), *model.buffers()])
            result = run(model)
            if train:
                result.sum().backward()
    return Cost(sum(parameter.numel() for parameter in model.parameters()), flops, memory.peak)


def count_classifier(config: dict, clip: tuple[int, int, int], *, train: bool = False, fused: bool = True) -> Cost:
    """Cost of a perceiver with a classification head for one clip of ``(frames, height, width)``."""
    frames, height, width = clip
    use_scope()

    def run(model: nn.Module) -> Tensor:
        video = torch.empty(1, frames, 3, height, width)
        return model.step(video, model.start(1, 'meta'))[0]['classification'].logits

    return count(lambda: MODELS.build(config), run, train=train, fused=fused)
