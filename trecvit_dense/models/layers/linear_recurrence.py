"""The linear recurrence ``h_t = a_t * h_{t-1} + x_t`` with an exact backward pass.

Time is dimension 1 and everything behind it is a row, so tokens ``(B, T, N, C)`` are scanned as they lie, without a
transpose. Autograd would keep every product of the loop; the gradient of a linear recurrence is itself a linear
recurrence that runs backwards in time (Martin and Cundy 2018, arXiv 1709.04057, section 2), so only ``a`` and ``h``
are kept. No decay product is ever divided by, which is where parallel scans lose their gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_recurrence(
    x: Tensor, a: Tensor, h0: Tensor | None = None, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """All states of ``h_t = a_t * h_{t-1} + x_t`` and the last one.

    Args:
        x: ``(B, T, ...)`` float32 (or float64), inputs.
        a: Decays, shape and dtype of ``x``.
        h0: ``(B, ...)``, the state before the first frame; None is zero.
        reverse: Run from the last frame to the first, ``h_t = a_t * h_{t+1} + x_t``.

    Returns:
        ``h (B, T, ...)`` and the state after the last frame visited, ``(B, ...)``: a copy, which does not keep ``h``
        alive.

    Raises:
        ValueError: ``x`` and ``a`` differ in shape, or ``h0`` does not fit them.
    """
    if x.shape != a.shape:
        raise ValueError(f'x has shape {tuple(x.shape)} and a has shape {tuple(a.shape)}; both must be (B, T, ...)')
    if h0 is not None and h0.shape != x[:, 0].shape:
        raise ValueError(f'h0 has shape {tuple(h0.shape)}; wanted {tuple(x[:, 0].shape)}, one frame of x')
    if torch.compiler.is_compiling():
        h = _traceable_scan(x, a, h0, reverse)
    else:
        h = _LinearRecurrence.apply(x, a, h0, reverse)
    return h, h[:, 0 if reverse else -1].clone()


def _frames(num_frames: int, reverse: bool) -> range:
    return range(num_frames - 1, -1, -1) if reverse else range(num_frames)


def _scan(x: Tensor, a: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """The recurrence, written frame by frame into one buffer."""
    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    previous = h0
    for t in _frames(x.shape[1], reverse):
        if previous is None:
            h[:, t].copy_(x[:, t])
        else:
            torch.addcmul(x[:, t], a[:, t], previous, out=h[:, t])
        previous = h[:, t]
    return h


def _traceable_scan(x: Tensor, a: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """The same without writing in place: what torch.export and torch.compile can follow."""
    frames: list[Tensor] = []
    previous = h0
    for t in _frames(x.shape[1], reverse):
        previous = x[:, t] if previous is None else torch.addcmul(x[:, t], a[:, t], previous)
        frames.append(previous)
    return torch.stack(frames[::-1] if reverse else frames, dim=1)


class _LinearRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, a: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
        h = _scan(x, a, h0, reverse)
        ctx.save_for_backward(a, h, h0)
        ctx.reverse = reverse
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        a, h, h0 = ctx.saved_tensors
        frames = list(_frames(a.shape[1], ctx.reverse))
        # dL/dx_t = dL/dh_t + a_{t+1} * dL/dx_{t+1}: the same recurrence, backwards
        grad_x = torch.empty_like(h)
        grad_a = torch.empty_like(h)
        for index in reversed(range(len(frames))):
            t = frames[index]
            if index + 1 == len(frames):
                grad_x[:, t].copy_(grad_h[:, t])
            else:
                later = frames[index + 1]
                torch.addcmul(grad_h[:, t], a[:, later], grad_x[:, later], out=grad_x[:, t])
            before = h[:, frames[index - 1]] if index else h0
            if before is None:
                grad_a[:, t].zero_()
            else:
                torch.mul(grad_x[:, t], before, out=grad_a[:, t])
        first = frames[0]
        grad_h0 = a[:, first] * grad_x[:, first] if h0 is not None else None
        return grad_x, grad_a, grad_h0, None
