"""The temporal block's convolution over a few frames, causal and per channel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .linear_recurrence import choose_backend


class CausalConv(nn.Module):
    """Depthwise convolution over time (dimension 1) that sees the current and the ``width - 1`` frames before.

    Written as ``width`` shifted multiply-adds on ``(B, T, ..., L)``: a ``Conv1d`` would need the time last.
    Only its input is kept for the backward pass.

    Args:
        channels: ``L``.
        width: Taps; the last one is the current frame.
    """

    def __init__(self, channels: int, width: int = 4) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f'conv_width is {width}; wanted at least 1')
        self.weight = nn.Parameter(torch.empty(width, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.weight, std=math.sqrt(0.01 / width))

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, reset: Tensor | None = None, raw_state: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run T frames.

        Args:
            x: ``(B, T, ..., L)``.
            state: ``(B, width - 1, ..., L)``, the inputs before the first frame; None is an empty history.
            reset: ``(B, T, ...)`` bool; taps never reach behind a reset.
            raw_state: Return the last inputs as they were, also those behind a reset. The official JAX layer does so
                and looks at document positions to ignore them; a stream that has only the state must not see them.

        Returns:
            ``y`` like ``x`` and the state after the last frame.
        """
        past = self.weight.shape[0] - 1
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        state = None if state is None else state.to(x.dtype)
        if torch.compiler.is_compiling():
            y = _traceable(x, weight, bias, state, reset)
        else:
            y = _Convolution.apply(x, weight, bias, state, None if reset is None else _reach(reset, past))
        tail = _tail(x, state, past)
        if reset is None or raw_state or not past:
            return y, tail
        return y, tail * _since_last_reset(reset, past)[..., None]


def _tail(x: Tensor, state: Tensor | None, past: int) -> Tensor:
    """The last ``past`` inputs, a copy."""
    if x.shape[1] >= past:
        return x[:, x.shape[1] - past :].clone()
    if state is None:
        state = x.new_zeros(x.shape[0], past, *x.shape[2:])
    return torch.cat([state[:, x.shape[1] :], x], dim=1)


def _reach(reset: Tensor, past: int) -> Tensor:
    """``(B, T, ...)`` int8: how many frames back the taps see at most."""
    frame = torch.arange(reset.shape[1], device=reset.device).view(-1, *(1,) * (reset.ndim - 2))
    last = torch.where(reset, frame, -past - 1).cummax(1).values
    return (frame - last).clamp(max=past).to(torch.int8)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, state: Tensor | None, reach: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, state, reach)
        if _compiled(x, weight):
            return _native().convolve(*_contiguous(x, state), weight, bias, reach)
        past = len(weight) - 1
        y = torch.addcmul(bias, weight[past], x)
        for distance in range(1, past + 1):
            for taken, source in _taps(x, state, past, distance):
                y[:, taken].addcmul_(_open(source, reach, taken, distance), weight[past - distance])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y: Tensor) -> tuple[Any, ...]:
        x, weight, state, reach = ctx.saved_tensors
        if _compiled(x, weight):
            grads = _native().convolve_backward(grad_y.contiguous(), *_contiguous(x, state), weight, reach)
            return grads[0].view(x.shape), grads[2], grads[3], grads[1], None
        past, rows = len(weight) - 1, tuple(range(x.ndim - 1))
        grad_x, grad_state = grad_y * weight[past], None if state is None else torch.zeros_like(state)
        grad_weight = torch.empty_like(weight)
        grad_weight[past] = (grad_y * x).sum(rows)
        for distance in range(1, past + 1):
            total = torch.zeros_like(grad_weight[0])
            given = zip(_taps(x, state, past, distance), _taps(grad_x, grad_state, past, distance), strict=True)
            for (taken, source), (_, target) in given:
                grad = _open(grad_y[:, taken], reach, taken, distance)
                total += (grad * source).sum(rows)
                target.addcmul_(grad, weight[past - distance])
            grad_weight[past - distance] = total
        return grad_x, grad_weight, grad_y.sum(rows), grad_state, None


def _taps(x: Tensor, state: Tensor | None, past: int, distance: int) -> Iterator[tuple[slice, Tensor]]:
    """Frames that see something ``distance`` frames back, and what they see: of the state, then of ``x``."""
    time = x.shape[1]
    if state is not None:
        early = min(distance, time)
        yield slice(0, early), state[:, past - distance : past - distance + early]
    if time > distance:
        yield slice(distance, time), x[:, : time - distance]


def _open(x: Tensor, reach: Tensor | None, taken: slice, distance: int) -> Tensor:
    """``x`` of some frames with zeros where the taps do not reach so far."""
    return x if reach is None else x * (reach[:, taken] >= distance)[..., None]


def _contiguous(x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """As ``(B, T, N, L)`` and ``(B, past, N, L)``."""
    shape = math.prod(x.shape[2:-1]), x.shape[-1]
    return x.reshape(*x.shape[:2], *shape).contiguous(), (
        None if state is None else state.reshape(*state.shape[:2], *shape).contiguous()
    )


def _compiled(x: Tensor, weight: Tensor) -> bool:
    """Whether compiled code does it."""
    return weight.dtype == torch.float32 and choose_backend(x) == 'native' and x.numel() > 0


def _native() -> Any:
    from trecvit_dense import native

    return native


def _traceable(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor | None, reset: Tensor | None) -> Tensor:
    """The same as one expression after another."""
    past = len(weight) - 1
    if state is None:
        state = x.new_zeros(x.shape[0], past, *x.shape[2:])
    padded = torch.cat([state, x], dim=1) if past else x  # (B, past + T, ..., L)
    y = torch.addcmul(bias, weight[past], x)
    open_taps = None  # (B, T, ...): no reset between the tap and the current frame
    for distance in range(1, past + 1):
        tap = padded[:, past - distance : past - distance + x.shape[1]]
        if reset is not None:
            open_taps = _shift_in(open_taps, ~reset, distance)
            tap = tap * open_taps[..., None]
        y = torch.addcmul(y, weight[past - distance], tap)
    return y


def _shift_in(open_taps: Tensor | None, keep: Tensor, distance: int) -> Tensor:
    """Taps at ``distance`` are open if those at ``distance - 1`` are and the frame in between was no reset."""
    if open_taps is None:
        return keep
    shift = distance - 1
    lead = torch.ones_like(keep[:, :shift])
    return open_taps & torch.cat([lead, keep[:, : max(keep.shape[1] - shift, 0)]], dim=1)[:, : keep.shape[1]]


def _since_last_reset(reset: Tensor, past: int) -> Tensor:
    """``(B, past, ...)`` bool over the last ``past`` inputs: True where no reset came after them."""
    later = reset.flip(1).cumsum(1).flip(1) - reset.long()  # resets strictly after each frame
    clear = later == 0
    if clear.shape[1] >= past:
        return clear[:, clear.shape[1] - past :]
    before = (~reset.any(dim=1, keepdim=True)).expand(-1, past - clear.shape[1], *reset.shape[2:])
    return torch.cat([before, clear], dim=1)
