"""What happens inside a tile of the RG-LRU (:mod:`.gated_recurrence`), with operators of torch.

A tile has a few heads and tokens that follow one another, ``(batch, frames, rows)``. Tensors are
``(heads, tokens, S)``, views of ``(B, T, ..., L)`` where possible. Every operator reads and writes the cache, not
memory, but each of them does, so what counts is how few there are, and that none is slow: on AMD processors torch's
``exp`` and ``sqrt`` take MKL's path for other processors, three and two times the time of ``exp2`` and ``rsqrt``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

MAX_SQRT_GRADIENT = 1000.0
FLOOR = 1.0 / (4.0 * MAX_SQRT_GRADIENT**2)  # below it the derivative of the square root is cut off
Shape = tuple[int, int, int]  # batch, frames, rows
_LOG2_E = math.log2(math.e)
Buffer = Callable[[str, tuple[int, ...]], Tensor]  # the same memory for the same name and shape


def forward_tile(
    shape: Shape,
    x: Tensor,
    gates: Tensor,
    log_decay: Tensor,
    *,
    before: Tensor | None,
    mask: Tensor | None,
    fresh: bool,
    h: Tensor,
    buffer: Buffer,
) -> None:
    """Write the states of a tile to ``h``.

    Args:
        shape: Of the tokens.
        x, h: ``(heads, tokens, S)``.
        gates: ``(heads, tokens, 2 S)``, input and decay gate before their sigmoids; used up.
        log_decay: ``(heads, 1, S)``.
        before: ``(batch, rows, heads, S)``, the state before the first frame; None is zero.
        mask: ``(tokens,)`` int8, 1 where a row starts and 2 where it waits.
        fresh: Without a mask: every row starts on the first frame.
        buffer: Memory to work in.
    """
    gate, decay_gate = gates.sigmoid_().chunk(2, dim=-1)
    a, square = buffer('a', x.shape), buffer('square', x.shape)
    _decay(torch.mul(decay_gate, log_decay * _LOG2_E, out=a), square)
    multiplier = square.rsqrt_().reciprocal_()
    _apply_masks(shape, a, multiplier, mask, fresh=fresh)
    inputs, states = _frames(shape, multiplier.mul_(gate).mul_(x)), _frames(shape, h)
    state = None if before is None else before.permute(2, 0, 1, 3)
    for given, decay, now in zip(inputs, _frames(shape, a), states, strict=True):
        if state is None:
            now.copy_(given)
        else:
            torch.addcmul(given, decay, state, out=now)
        state = now


def backward_tile(
    shape: Shape,
    grad_h: Tensor,
    x: Tensor,
    gates: Tensor,
    log_decay: Tensor,
    *,
    h: Tensor,
    before: Tensor | None,
    mask: Tensor | None,
    fresh: bool,
    grad_x: Tensor,
    carried: Tensor,
    sums: Tensor,
    buffer: Buffer,
) -> None:
    """Gradients of a tile; ``gates`` come before their sigmoids and become the gradients there.

    Args:
        grad_x: ``(heads, tokens, S)``, written: the part that does not pass through the gates.
        carried: ``(heads, batch, rows, S)``, ``a_{t+1} * dL/dx_{t+1}`` of the frame behind the tile (x: the scan's
            input), replaced by that of the tile's first frame.
        sums: ``(3, heads, S)``, added to: gradients of both biases and of ``log_decay``.

    The others are as in :func:`forward_tile`.
    """
    names = ('log_a', 'square', 'a', 'slope', 'grad', 'change')
    log_a, square, a, slope, grad, change = (buffer(name, x.shape) for name in names)
    gate, decay_gate = gates.sigmoid_().chunk(2, dim=-1)
    torch.mul(decay_gate, log_decay, out=log_a)
    _decay(torch.mul(log_a, _LOG2_E, out=a), square)
    inverse = square.rsqrt_()
    torch.clamp(inverse, max=FLOOR**-0.5, out=slope).mul_(a)  # a times twice the derivative of the root
    multiplier = inverse.reciprocal_()
    _apply_masks(shape, a, multiplier, mask, fresh=fresh)

    # dL/dx_t of the scan = dL/dh_t + a_{t+1} * dL/dx_{t+1}: the same recurrence, backwards
    given, decays, grads = _frames(shape, grad_h), _frames(shape, a), _frames(shape, grad)
    later = torch.add(given[-1], carried, out=grads[-1])
    for t in range(len(grads) - 2, -1, -1):
        later = torch.addcmul(given[t], decays[t + 1], later, out=grads[t])
    torch.mul(decays[0], later, out=carried)

    # dL/d(log a) = a * (dL/da - a / sqrt(1 - a^2) * dL/d(multiplier)), dL/da = h_{t-1} * dL/dx_t
    a.mul_(grad)
    grad_input = multiplier.mul_(grad)  # of gate * x
    gated = torch.mul(gate, x, out=grad)
    grad_log = _subtract_from_past(shape, h, before, slope, gated, change).mul_(a)
    if mask is not None:
        grad_log.masked_fill_(mask[:, None] != 0, 0.0)
    elif fresh:
        _frames(shape, grad_log)[0].zero_()
    # Through the sigmoids, d(r) = r - r * r; times log_decay, which the sum has to be freed of.
    grad_log.mul_(log_a)
    sums[2] += torch.where(log_decay == 0, 0.0, grad_log.sum(1, keepdim=True) / log_decay)[:, 0]
    torch.mul(grad_input, gate, out=grad_x)
    grad_input.mul_(gated)
    torch.addcmul(grad_input, grad_input, gate, value=-1.0, out=gate)
    torch.addcmul(grad_log, grad_log, decay_gate, value=-1.0, out=decay_gate)
    sums[:2] += gates.sum(1).unflatten(-1, (2, -1)).transpose(0, 1)


def _decay(a: Tensor, square: Tensor) -> None:
    """Replace ``log2 a`` by ``a``, and write ``1 - a^2`` to ``square``.

    Where a decay comes near 1 few digits are left of ``1 - exp(2 log a)``. It is what the authors' layer computes,
    trained weights have seen its rounding, and every back end rounds alike.
    """
    torch.mul(a, 2.0, out=square).exp2_()
    torch.sub(square.new_ones(()), square, out=square)
    a.exp2_()


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


def _subtract_from_past(
    shape: Shape, h: Tensor, before: Tensor | None, slope: Tensor, gated: Tensor, out: Tensor
) -> Tensor:
    """``h_{t-1} - slope * gated``, written to ``out``."""
    states, slopes, inputs, frames = (tensor.unflatten(1, shape) for tensor in (h, slope, gated, out))
    # each (heads, batch, frames, rows, S)
    if before is None:
        torch.mul(slopes[:, :, 0], inputs[:, :, 0], out=frames[:, :, 0]).neg_()
    else:
        past = before.permute(2, 0, 1, 3)
        torch.addcmul(past, slopes[:, :, 0], inputs[:, :, 0], value=-1.0, out=frames[:, :, 0])
    torch.addcmul(states[:, :, :-1], slopes[:, :, 1:], inputs[:, :, 1:], value=-1.0, out=frames[:, :, 1:])
    return out
