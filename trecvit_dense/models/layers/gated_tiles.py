"""What happens inside a tile of the RG-LRU (:mod:`.gated_recurrence`), with operators of torch.

A tile has a few heads and tokens that follow one another, ``(batch, frames, rows)``. Tensors are
``(heads, tokens, S)``, views of ``(B, T, ..., L)`` where possible. The memory needed inside is that of a dozen tiles.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_SQRT_GRADIENT = 1000.0
FLOOR = 1.0 / (4.0 * MAX_SQRT_GRADIENT**2)  # below it the derivative of the square root is cut off
Shape = tuple[int, int, int]  # batch, frames, rows

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def forward_tile(
    shape: Shape,
    x: Tensor,
    gate: Tensor,
    decay_gate: Tensor,
    log_decay: Tensor,
    *,
    before: Tensor | None,
    mask: Tensor | None,
    fresh: bool,
    h: Tensor,
) -> None:
    """Write the states of a tile to ``h``; ``gate`` and ``decay_gate``, before their sigmoids, are used up.

    Args:
        shape: Of the tokens.
        x, gate, decay_gate, h: ``(heads, tokens, S)``.
        log_decay: ``(heads, 1, S)``.
        before: ``(batch, rows, heads, S)``, the state before the first frame; None is zero.
        mask: ``(tokens,)`` int8, 1 where a row starts and 2 where it waits.
        fresh: Without a mask: every row starts on the first frame.
    """
    gate.sigmoid_()
    decay_gate.sigmoid_().mul_(log_decay)
    a, square = _decay(decay_gate)
    multiplier = square.sqrt_()
    _apply_masks(shape, a, multiplier, mask, fresh=fresh)
    state = None if before is None else before.permute(2, 0, 1, 3)
    decays = _frames(shape, a)
    for t, now in enumerate(_frames(shape, gate.mul_(x).mul_(multiplier))):
        state = now if state is None else now.addcmul_(decays[t], state)
    h.copy_(gate)


def backward_tile(
    shape: Shape,
    grad_h: Tensor,
    x: Tensor,
    gate: Tensor,
    decay_gate: Tensor,
    log_decay: Tensor,
    *,
    h: Tensor,
    before: Tensor | None,
    mask: Tensor | None,
    fresh: bool,
    grad_x: Tensor,
    carried: Tensor,
    sums: Tensor,
) -> None:
    """Gradients of a tile; ``gate`` and ``decay_gate`` come before their sigmoids and become gradients there.

    Args:
        grad_x: ``(heads, tokens, S)``, written: the part that does not pass through the gates.
        carried: ``(heads, batch, rows, S)``, ``a_{t+1} * dL/dx_{t+1}`` of the frame behind the tile (x: the scan's
            input), replaced by that of the tile's first frame.
        sums: ``(3, heads, S)``, added to: gradients of both biases and of ``log_decay``.

    The others are as in :func:`forward_tile`.
    """
    gate.sigmoid_()
    decay_gate.sigmoid_()
    a, square = _decay(decay_gate * log_decay)
    slope = square.clamp(min=FLOOR).rsqrt_()  # twice the derivative of the square root
    multiplier = square.sqrt_()
    _apply_masks(shape, a, multiplier, mask, fresh=fresh)

    # dL/dx_t of the scan = dL/dh_t + a_{t+1} * dL/dx_{t+1}: the same recurrence, backwards
    grad = torch.empty_like(gate).copy_(grad_h)
    frames, decays = _frames(shape, grad), _frames(shape, a)
    later = frames[-1].add_(carried)
    for t in range(len(frames) - 2, -1, -1):
        later = frames[t].addcmul_(decays[t + 1], later)
    torch.mul(decays[0], later, out=carried)

    # dL/d(log a) = a * dL/da - a^2 / sqrt(1 - a^2) * dL/d(multiplier)
    grad_log = _past(shape, h, before)
    slope.mul_(a).mul_(gate).mul_(x)
    grad_log.sub_(slope).mul_(a).mul_(grad)
    if mask is not None:
        grad_log.masked_fill_(mask[:, None] != 0, 0.0)
    elif fresh:
        _frames(shape, grad_log)[0].zero_()
    sums[2] += torch.mul(grad_log, decay_gate, out=slope).sum(1)
    grad_input = multiplier.mul_(grad)  # of gate * x
    grad_x.copy_(torch.mul(grad_input, gate, out=slope))
    sums[0] += _sigmoid_backward(grad_input.mul_(x), gate, grad_input=gate).sum(1)
    sums[1] += _sigmoid_backward(grad_log.mul_(log_decay), decay_gate, grad_input=decay_gate).sum(1)


def _decay(log_a: Tensor) -> tuple[Tensor, Tensor]:
    """``a`` and ``1 - a^2``; ``log_a`` may be overwritten.

    Where a decay comes near 1 few digits are left of ``1 - exp(2 log a)``. It is what the authors' layer computes,
    trained weights have seen its rounding, and every back end rounds alike.
    """
    square = torch.mul(log_a, 2.0).exp_()
    return log_a.exp_(), torch.sub(square.new_ones(()), square, out=square)


def _frames(shape: Shape, x: Tensor) -> tuple[Tensor, ...]:
    """``(heads, tokens, S)`` as frames ``(heads, batch, rows, S)``, views of it."""
    return x.unflatten(1, shape).unbind(2)


def _apply_masks(shape: Shape, a: Tensor, multiplier: Tensor, mask: Tensor | None, *, fresh: bool) -> None:
    """Rows that start: decay 0 and multiplier 1. Rows that wait: decay 1 and multiplier 0."""
    if mask is not None:
        mask = mask[:, None]
        for tensor, start, wait in ((a, 0.0, 1.0), (multiplier, 1.0, 0.0)):
            tensor.masked_fill_(mask == 1, start).masked_fill_(mask == 2, wait)
    elif fresh:
        _frames(shape, a)[0].zero_()
        _frames(shape, multiplier)[0].fill_(1.0)


def _past(shape: Shape, h: Tensor, before: Tensor | None) -> Tensor:
    """``h_{t-1}``, ``(heads, tokens, S)``."""
    states = h.unflatten(1, shape)  # (heads, batch, frames, rows, S)
    past = torch.empty(states.shape, dtype=h.dtype, device=h.device)
    past[:, :, 0] = 0.0 if before is None else before.permute(2, 0, 1, 3)
    past[:, :, 1:] = states[:, :, :-1]
    return past.flatten(1, 3)
