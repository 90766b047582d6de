"""The linear recurrence over chunks of time that run side by side: about ``2 sqrt(T)`` operators in place of ``T``.

Three passes: every chunk by itself from zero gives what it adds and how much it lets through, ``(decay product, final
state)``; these combine along time to the state that enters each chunk; then every chunk runs again from there. The
products are multiplied with and never divided by, so a product that underflows is a past that is forgotten and nothing
worse (a cumulative product over the whole clip, as in parallel scans by division, would lose the gradient there).

The same three passes split a clip over ranks, each with a stretch of time: :func:`summarise_chunk`, gather,
:func:`combine_chunks`, and ``linear_recurrence`` from the state that enters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# --------------------------------------------------------------------------------------------- splitting over ranks


def summarise_chunk(x: Tensor, a: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """What a stretch of time does to the state that enters it: ``h_out = decay * h_in + state``.

    Args:
        x, a: ``(B, T, ...)``, as in ``linear_recurrence``.
        reverse: Time runs from the last frame to the first.

    Returns:
        ``decay`` and ``state``, ``(B, ...)`` each, both with gradients.
    """
    from .linear_recurrence import linear_recurrence

    # The product as a recurrence: the gradient of torch.prod divides by its factors.
    _, decay = linear_recurrence(torch.zeros_like(x), a, torch.ones_like(x[:, 0]), reverse)
    _, state = linear_recurrence(x, a, None, reverse)
    return decay, state


def combine_chunks(
    decays: Tensor, states: Tensor, h0: Tensor | None = None, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """The state that enters each chunk, and the one that leaves the last.

    Args:
        decays, states: ``(K, ...)``, :func:`summarise_chunk` of K chunks in the order of the clip.
        h0: ``(...)``, the state before the first chunk; None is zero.
        reverse: Time runs from the last chunk to the first.

    Returns:
        ``(K, ...)`` in the order of the clip, and ``(...)``.
    """
    state = torch.zeros_like(states[0]) if h0 is None else h0
    entering = []
    order = range(len(states) - 1, -1, -1) if reverse else range(len(states))
    for index in order:
        entering.append(state)
        state = torch.addcmul(states[index], decays[index], state)
    return torch.stack(entering[::-1] if reverse else entering), state


# ----------------------------------------------------------------------------------------------------- the back end


def scan(x: Tensor, a: Tensor, h0: Tensor | None, h: Tensor, *, reverse: bool) -> None:
    """Write all states of ``(B, T, F)`` to ``h``."""
    length = max(math.isqrt(x.shape[1]), 1)
    count = -(-x.shape[1] // length)
    enter = _entering(x, a, h0, length, count, reverse)  # (B, count, F)
    for step in range(length):
        when, which = _step(x.shape[1], length, count, step, reverse)
        torch.addcmul(x[:, when], a[:, when], enter[:, which], out=h[:, when])
        enter[:, which] = h[:, when]


def _entering(x: Tensor, a: Tensor, h0: Tensor | None, length: int, count: int, reverse: bool) -> Tensor:
    """The state that enters each chunk, ``(B, count, F)`` in the order of the clip."""
    batch, time, features = x.shape
    state, decay = x.new_zeros(batch, count, features), x.new_ones(batch, count, features)
    if count > 1:
        for step in range(length):
            when, which = _step(time, length, count, step, reverse)
            state[:, which] = torch.addcmul(x[:, when], a[:, when], state[:, which])
            decay[:, which] *= a[:, when]
    return combine_chunks(decay.transpose(0, 1), state.transpose(0, 1), h0, reverse=reverse)[0].transpose(0, 1)


def _step(time: int, length: int, count: int, step: int, reverse: bool) -> tuple[slice, slice]:
    """The frames that all chunks visit at a step, and the chunks that still have one; the last may be short.

    Chunks are counted from where time begins, so it is the one at the far end that is short.
    """
    reach = count if (count - 1) * length + step < time else count - 1
    if not reverse:
        return slice(step, None, length), slice(0, reach)
    first = time - 1 - step - (reach - 1) * length
    return slice(first, time - step, length), slice(count - reach, count)


def scan_backward(
    grad_h: Tensor,
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor | None],
    *,
    reverse: bool,
) -> None:
    """Write the gradients of ``x``, ``a`` and ``h0``: dL/dx is a recurrence the other way, with decays one frame on."""
    grad_x, grad_a, grad_h0 = grads
    last, first = (0, -1) if reverse else (-1, 0)
    earlier, later = (slice(1, None), slice(None, -1)) if reverse else (slice(None, -1), slice(1, None))
    grad_x[:, last] = grad_h[:, last]
    if grad_h.shape[1] > 1:
        scan(grad_h[:, earlier], a[:, later], grad_h[:, last], grad_x[:, earlier], reverse=not reverse)
    torch.mul(grad_x[:, later], h[:, earlier], out=grad_a[:, later])
    if h0 is None:
        grad_a[:, first] = 0.0
    else:
        torch.mul(grad_x[:, first], h0, out=grad_a[:, first])
    if grad_h0 is not None:
        torch.mul(a[:, first], grad_x[:, first], out=grad_h0)
