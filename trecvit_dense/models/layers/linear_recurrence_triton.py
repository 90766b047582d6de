"""The linear recurrence as one Triton kernel each way: every number is read once and written once.

A program owns a few hundred features of one sequence and walks through time with their state in registers; features
are contiguous, so its loads are. The loads of later frames do not wait for the state, which is what hides their
latency; tokens ``(B, T, N, C)`` have features enough to fill a GPU without splitting time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 256


@triton.jit
def _scan_kernel(x, a, h0, h, time, features, has_h0: tl.constexpr, reverse: tl.constexpr, block: tl.constexpr):
    batch = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * block + tl.arange(0, block)
    valid = feature < features
    state = tl.zeros([block], dtype=h.dtype.element_ty)
    if has_h0:
        state = tl.load(h0 + batch * features + feature, mask=valid, other=0.0)
    for step in range(time):
        t = time - 1 - step if reverse else step
        at = (batch * time + t) * features + feature
        decay = tl.load(a + at, mask=valid, other=0.0)
        state = decay * state + tl.load(x + at, mask=valid, other=0.0)
        tl.store(h + at, state, mask=valid)


@triton.jit
def _scan_backward_kernel(
    grad_h,
    a,
    h,
    h0,
    grad_x,
    grad_a,
    grad_h0,
    time,
    features,
    has_h0: tl.constexpr,
    reverse: tl.constexpr,
    block: tl.constexpr,
):
    batch = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * block + tl.arange(0, block)
    valid = feature < features
    carried = tl.zeros([block], dtype=h.dtype.element_ty)  # a_{t+1} * dL/dx_{t+1}
    for back in range(time - 1):
        t = back if reverse else time - 1 - back
        at = (batch * time + t) * features + feature
        grad = tl.load(grad_h + at, mask=valid, other=0.0) + carried
        past = tl.load(h + at + (features if reverse else -features), mask=valid, other=0.0)
        tl.store(grad_x + at, grad, mask=valid)
        tl.store(grad_a + at, grad * past, mask=valid)
        carried = tl.load(a + at, mask=valid, other=0.0) * grad
    at = (batch * time + (time - 1 if reverse else 0)) * features + feature  # the first frame
    grad = tl.load(grad_h + at, mask=valid, other=0.0) + carried
    tl.store(grad_x + at, grad, mask=valid)
    if has_h0:
        past = tl.load(h0 + batch * features + feature, mask=valid, other=0.0)
        tl.store(grad_a + at, grad * past, mask=valid)
        tl.store(grad_h0 + batch * features + feature, tl.load(a + at, mask=valid, other=0.0) * grad, mask=valid)
    else:
        tl.store(grad_a + at, tl.zeros_like(grad), mask=valid)


def _grid(x: Tensor) -> tuple[int, int]:
    return x.shape[0], triton.cdiv(x.shape[2], _BLOCK)


def scan(x: Tensor, a: Tensor, h0: Tensor | None, h: Tensor, *, reverse: bool) -> None:
    """Write all states of ``(B, T, F)`` to ``h``."""
    start = x if h0 is None else h0.contiguous()
    with _on(x):
        _scan_kernel[_grid(x)](
            x.contiguous(), a.contiguous(), start, h, *x.shape[1:], has_h0=h0 is not None, reverse=reverse, block=_BLOCK
        )


def scan_backward(
    grad_h: Tensor,
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor | None],
    *,
    reverse: bool,
) -> None:
    """Write the gradients of ``x``, ``a`` and ``h0``."""
    grad_x, grad_a, grad_h0 = grads
    start, out = (h, grad_x) if h0 is None else (h0.contiguous(), grad_h0)
    given = grad_h.contiguous(), a.contiguous(), h, start
    with _on(a):
        _scan_backward_kernel[_grid(a)](
            *given, grad_x, grad_a, out, *a.shape[1:], has_h0=h0 is not None, reverse=reverse, block=_BLOCK
        )


def _on(x: Tensor) -> torch.cuda.device:
    """Triton launches on the current device; on a CPU (in the interpreter) there is none to choose."""
    return torch.cuda.device(x.device if x.is_cuda else -1)
