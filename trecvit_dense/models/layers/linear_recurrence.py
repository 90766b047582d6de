"""The linear recurrence ``h_t = a_t * h_{t-1} + x_t`` with an exact backward pass, and the back ends that compute it.

Time is dimension 1 and everything behind it is a row, so tokens ``(B, T, N, C)`` are scanned as they lie, without a
transpose. Autograd would keep every product of the loop; the gradient of a linear recurrence is itself a linear
recurrence that runs backwards in time (Martin and Cundy 2018, arXiv 1709.04057, section 2), so only ``a`` and ``h``
are kept. No decay product is ever divided by, which is where parallel scans lose their gradients.

Back ends, which agree to round-off:

- ``'sequential'``: frame by frame with operators of torch, any device; rows in blocks that stay in the cache.
- ``'native'``: the same compiled for CPUs where there is a C compiler, see :mod:`trecvit_dense.native`.
- ``'chunked'``: :mod:`.chunked_recurrence`, fewer and larger operators for long clips, and time split over ranks.
- ``'triton'``: :mod:`.linear_recurrence_triton`, one kernel each way on a GPU.

``'auto'`` takes triton on a GPU that it supports, else chunked; on a CPU sequential: nothing is compiled unless that is
asked for, by name or for all with the environment variable ``TRECVIT_NATIVE=1``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BACKENDS = ('sequential', 'native', 'chunked', 'triton')
_CHOSEN: ContextVar[str] = ContextVar('recurrence_backend', default='auto')
_SLAB = 1 << 15  # numbers of one frame that are worked on at a time: they stay in the cache from one frame to the next


def linear_recurrence(
    x: Tensor, a: Tensor, h0: Tensor | None = None, reverse: bool = False, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """All states of ``h_t = a_t * h_{t-1} + x_t`` and the last one.

    Args:
        x: ``(B, T, ...)`` float32 (or float64), inputs.
        a: Decays, shape and dtype of ``x``.
        h0: ``(B, ...)``, the state before the first frame; None is zero.
        reverse: Run from the last frame to the first, ``h_t = a_t * h_{t+1} + x_t``.
        backend: One of :data:`BACKENDS` or ``'auto'``; None: what :func:`use_backend` says. While torch traces a graph
            (``torch.compile``, ``torch.export``) the loop is written out and no back end is used.

    Returns:
        ``h (B, T, ...)`` and the state after the last frame visited, ``(B, ...)``: a copy, which does not keep ``h``
        alive.

    Raises:
        ValueError: ``x`` and ``a`` differ in shape, ``h0`` does not fit them, or the back end cannot be used.
    """
    if x.shape != a.shape:
        raise ValueError(f'x has shape {tuple(x.shape)} and a has shape {tuple(a.shape)}; both must be (B, T, ...)')
    if h0 is not None and h0.shape != x[:, 0].shape:
        raise ValueError(f'h0 has shape {tuple(h0.shape)}; wanted {tuple(x[:, 0].shape)}, one frame of x')
    if torch.compiler.is_compiling():
        h = _traceable_scan(x, a, h0, reverse)
    else:
        h = _LinearRecurrence.apply(x, a, h0, reverse, choose_backend(x, backend))
    return h, h[:, 0 if reverse else -1].clone()


# ------------------------------------------------------------------------------------------------------- choosing


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within, every recurrence (the RG-LRU, too) uses this back end; ``'auto'`` chooses.

    Raises:
        ValueError: there is no such back end.
    """
    _check_name(name)
    token = _CHOSEN.set(name)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def choose_backend(x: Tensor, backend: str | None = None, *, dtype: torch.dtype | None = None) -> str:
    """The back end for a tensor like ``x``, computed in ``dtype`` (default: its own).

    Raises:
        ValueError: there is no such back end, or it cannot be used here; the message says why.
    """
    name, dtype = _CHOSEN.get() if backend is None else backend, dtype or x.dtype
    if name == 'auto':
        return _automatic(x.device, dtype)
    _check_name(name)
    reason = _REFUSALS[name](x.device, dtype) if name in _REFUSALS else ''
    if reason:
        raise ValueError(f"back end '{name}' cannot be used here: {reason}; choose 'auto'")
    return name


def why_not(backend: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Why a back end cannot be used; empty: it can."""
    _check_name(backend)
    return _REFUSALS[backend](device, dtype) if backend in _REFUSALS else ''


def _check_name(name: str) -> None:
    if name not in ('auto', *BACKENDS):
        raise ValueError(f"no back end '{name}'; wanted 'auto', {', '.join(map(repr, BACKENDS))}")


def _automatic(device: torch.device, dtype: torch.dtype) -> str:
    if device.type in ('cpu', 'meta'):
        wanted = os.environ.get('TRECVIT_NATIVE') == '1'
        return 'native' if wanted and not _native_refuses(device, dtype) else 'sequential'
    return 'chunked' if _triton_refuses(device, dtype) else 'triton'


def _native_refuses(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != 'cpu':
        return f'it is for CPUs and this is {device.type}'
    if dtype != torch.float32:
        return f'it computes in float32 and this is {dtype}'
    from trecvit_dense import native

    return native.why_not()


def _triton_refuses(device: torch.device, dtype: torch.dtype) -> str:
    from .triton_support import refuses

    return refuses(device, dtype)


_REFUSALS = {'native': _native_refuses, 'triton': _triton_refuses}


# -------------------------------------------------------------------------------------------------------- function


class _LinearRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, a: Tensor, h0: Tensor | None, reverse: bool, backend: str) -> Tensor:
        ctx.backend, ctx.reverse, ctx.shape = _module(backend), reverse, x.shape
        # (B, T, F): a view of anything contiguous, and of what expand() made
        x, a = (tensor.reshape(*tensor.shape[:2], -1) for tensor in (x, a))
        start = None if h0 is None else h0.reshape(h0.shape[0], -1).to(x.dtype)
        h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        if h.numel():
            ctx.backend.scan(x, a, start, h, reverse=reverse)
        ctx.save_for_backward(a, h, h0)
        return h.view(ctx.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h: Tensor) -> tuple[Any, ...]:
        a, h, h0 = ctx.saved_tensors
        grad_h = grad_h.reshape(a.shape)
        start = None if h0 is None else h0.reshape(h0.shape[0], -1).to(a.dtype)
        grad_x, grad_a = (torch.empty(a.shape, dtype=a.dtype, device=a.device) for _ in range(2))
        grad_h0 = None if start is None else torch.zeros_like(start)
        if h.numel():
            ctx.backend.scan_backward(grad_h, a, h, start, (grad_x, grad_a, grad_h0), reverse=ctx.reverse)
        if h0 is not None:
            grad_h0 = grad_h0.view(h0.shape).to(h0.dtype)
        return grad_x.view(ctx.shape), grad_a.view(ctx.shape), grad_h0, None, None


def _module(backend: str) -> Any:
    """What has ``scan(x, a, h0, h, *, reverse)`` and ``scan_backward(grad_h, a, h, h0, grads, *, reverse)``.

    Both write to what they are given: ``h``, or ``grads`` for ``x``, ``a`` and ``h0``. Shapes are ``(B, T, F)`` and
    ``(B, F)``.
    """
    if backend == 'native':
        from trecvit_dense import native

        return native
    if backend == 'chunked':
        from . import chunked_recurrence

        return chunked_recurrence
    if backend == 'triton':
        from . import linear_recurrence_triton

        return linear_recurrence_triton
    return _Sequential


class _Sequential:
    @staticmethod
    def scan(x: Tensor, a: Tensor, h0: Tensor | None, h: Tensor, *, reverse: bool) -> None:
        frames = _frames(x.shape[1], reverse)
        for part in _blocks(x):
            xs, decays, states = ([tensor[part][:, t] for t in frames] for tensor in (x, a, h))
            previous = None if h0 is None else h0[part[0], part[2]]
            for frame, decay, state in zip(xs, decays, states, strict=True):
                if previous is None:
                    state.copy_(frame)
                else:
                    torch.addcmul(frame, decay, previous, out=state)
                previous = state

    @staticmethod
    def scan_backward(
        grad_h: Tensor,
        a: Tensor,
        h: Tensor,
        h0: Tensor | None,
        grads: tuple[Tensor, Tensor, Tensor | None],
        *,
        reverse: bool,
    ) -> None:
        frames = _frames(a.shape[1], reverse)
        for part in _blocks(a):
            given, decays, states, grad_x, grad_a = (tensor[part].unbind(1) for tensor in (grad_h, a, h, *grads[:2]))
            before = None if h0 is None else h0[part[0], part[2]]
            later = None
            # dL/dx_t = dL/dh_t + a_{t+1} * dL/dx_{t+1}: the same recurrence, backwards
            for index in range(len(frames) - 1, -1, -1):
                t = frames[index]
                if later is None:
                    grad_x[t].copy_(given[t])
                else:
                    torch.addcmul(given[t], decays[later], grad_x[later], out=grad_x[t])
                past = states[frames[index - 1]] if index else before
                if past is None:
                    grad_a[t].zero_()
                else:
                    torch.mul(grad_x[t], past, out=grad_a[t])
                later = t
            if grads[2] is not None:
                torch.mul(decays[frames[0]], grad_x[frames[0]], out=grads[2][part[0], part[2]])


def _frames(num_frames: int, reverse: bool) -> list[int]:
    return list(range(num_frames))[:: -1 if reverse else 1]


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Parts of ``(B, T, F)`` whose frames are small; on a GPU, and where nothing is computed, the whole."""
    batch, _, features = x.shape
    goal = _SLAB * torch.get_num_threads() if x.device.type == 'cpu' else x.numel() + 1
    rows = max(goal // features, 1)
    for first in range(0, batch, rows):
        for start in range(0, features, goal):
            yield slice(first, first + rows), slice(None), slice(start, start + goal)


def _traceable_scan(x: Tensor, a: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """The same without writing in place: what torch.export and torch.compile can follow."""
    frames: list[Tensor] = []
    previous = h0
    for t in _frames(x.shape[1], reverse):
        previous = x[:, t] if previous is None else torch.addcmul(x[:, t], a[:, t], previous)
        frames.append(previous)
    return torch.stack(frames[::-1] if reverse else frames, dim=1)
