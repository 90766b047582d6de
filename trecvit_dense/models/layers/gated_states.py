"""``gelu(y) * h``, the output gate of the temporal block, which keeps ``y`` and ``h`` and no GELU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .linear_recurrence import choose_backend


def gate_states(y: Tensor, h: Tensor) -> Tensor:
    """``gelu(y) * h`` in the dtype of ``y``, with the tangent's GELU; ``h`` of the same shape may be more precise."""
    return _GatedStates.apply(y, h)


class _GatedStates(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y: Tensor, h: Tensor) -> Tensor:
        ctx.save_for_backward(y, h)
        if _compiled(y, h):
            return _native().gate(y.contiguous(), h.contiguous())
        return F.gelu(y, approximate='tanh').mul_(h.to(y.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        y, h = ctx.saved_tensors
        if _compiled(y, h):
            return _native().gate_backward(grad.contiguous(), y.contiguous(), h.contiguous())
        grad_h = F.gelu(y, approximate='tanh').mul_(grad)
        return torch.ops.aten.gelu_backward(grad * h.to(y.dtype), y, approximate='tanh'), grad_h.to(h.dtype)


def _compiled(y: Tensor, h: Tensor) -> bool:
    """Whether compiled code does it."""
    return y.dtype == h.dtype and choose_backend(y) == 'native' and y.numel() > 0


def _native():
    from trecvit_dense import native

    return native
