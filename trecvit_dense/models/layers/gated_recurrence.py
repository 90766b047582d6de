"""The RG-LRU as one function: gates, decay, input multiplier and scan read ``x`` once and write ``h`` once.

Written with whole tensors the layer streams some fifteen of them through memory and keeps ten for the backward pass.
Here the work goes in tiles, one or a few heads of some hundred tokens, which stay in the cache of a core from the
gates' matrix product to the state. The tiles of a row follow one another in time, so nothing is transposed and no
product of decays is ever formed. Inside a tile work operators of torch (:mod:`.gated_tiles`) or, where that is asked
for, compiled code (:mod:`trecvit_dense.native`).

Kept for the backward pass are ``x`` and ``h`` alone: it makes the gates again, a thirtieth of a block's products, and
runs the recurrence backwards in time (Martin and Cundy 2018, arXiv 1709.04057, section 2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from . import gated_tiles

_TILE = 1 << 18  # numbers of a tile and thread: a MiB of float32 for each of its tensors
_MIN_TOKENS = 128  # of a tile, or the matrix products become thin


def gated_recurrence(
    x: Tensor,
    input_gate: tuple[Tensor, Tensor],
    decay_gate: tuple[Tensor, Tensor],
    log_decay: Tensor,
    *,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    hold: Tensor | None = None,
    backend: str = 'sequential',
) -> Tensor:
    """``h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t x_t`` with ``log a_t = r_t * log_decay`` and gates made from ``x``.

    Under autocast the gates' products are in its precision; everything behind them is float32 (float64 for float64).

    Args:
        x: ``(B, T, ..., L)``.
        input_gate, decay_gate: Of ``i`` and ``r``, before the sigmoid: weight ``(G, L / G, L / G)``, (block, in, out),
            and bias ``(G, L / G)``.
        log_decay: ``(L,)``, at most 0.
        h0: ``(B, ..., L)``, the state before the first frame; None: the first frame is a reset.
        reset: ``(B, T, ...)`` bool: rows that drop their past and take ``i_t x_t`` undiminished.
        hold: ``(B, T, ...)`` bool: rows that keep their state; goes before ``reset``.
        backend: ``'native'``, ``'sequential'`` or ``'triton'``, see :mod:`.linear_recurrence`.

    Returns:
        ``h``, shape of ``x``, float32 (float64 for float64).
    """
    gate_dtype, device = x.dtype, x.device.type
    if device != 'meta' and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        gate_dtype = torch.get_autocast_dtype(device)
    masks = _masks(x, reset, hold, fresh=h0 is None)
    return _GatedRecurrence.apply(x, *input_gate, *decay_gate, log_decay, h0, masks, gate_dtype, backend)


class _GatedRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, wi, bi, wa, ba, log_decay, h0, masks, gate_dtype, backend) -> Tensor:
        h = torch.ops.trecvit_dense.gated_recurrence(x, wi, bi, wa, ba, log_decay, h0, masks, gate_dtype, backend)
        ctx.save_for_backward(x, wi, bi, wa, ba, log_decay, h0, masks, h)
        ctx.options = gate_dtype, backend
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h: Tensor) -> tuple[Any, ...]:
        *inputs, masks, h = ctx.saved_tensors
        backward = torch.ops.trecvit_dense.gated_recurrence_backward
        *grads, grad_h0 = backward(grad_h, *inputs, masks, h, *ctx.options)
        return *grads, None if inputs[-1] is None else grad_h0, None, None, None


def _masks(x: Tensor, reset: Tensor | None, hold: Tensor | None, *, fresh: bool) -> Tensor | None:
    """``(B, T, ...)`` int8: 1 where a row starts, 2 where it waits; None: neither, but for a fresh first frame."""
    if reset is None and hold is None:
        return None
    masks = torch.zeros(x.shape[:-1], dtype=torch.int8, device=x.device)
    if fresh:
        masks[:, 0] = 1
    if reset is not None:
        masks.masked_fill_(reset, 1)
    if hold is not None:
        masks.masked_fill_(hold, 2)
    return masks


# ------------------------------------------------------------------------------------------------------ operators
#
# As operators of torch the two passes are one entry each to whatever watches operators: selective checkpointing keeps
# h without seeing the tiles, and the counters of engine.costs see one operation and its output.


def _state_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@torch.library.custom_op('trecvit_dense::gated_recurrence', mutates_args=())
def _forward_op(
    x: Tensor,
    wi: Tensor,
    bi: Tensor,
    wa: Tensor,
    ba: Tensor,
    log_decay: Tensor,
    h0: Tensor | None,
    masks: Tensor | None,
    gate_dtype: torch.dtype,
    backend: str,
) -> Tensor:
    if backend == 'triton':
        from .gated_recurrence_triton import forward

        return forward(x, wi, bi, wa, ba, log_decay, h0, masks, gate_dtype)
    layer = _Layer(x, (wi, wa), (bi, ba), log_decay, gate_dtype, backend)
    h = layer.empty(x)
    _forward(layer, x, h, h0, masks)
    return h


@_forward_op.register_fake
def _(x, wi, bi, wa, ba, log_decay, h0, masks, gate_dtype, backend) -> Tensor:
    return torch.empty(x.shape, dtype=_state_dtype(x), device=x.device)


@torch.library.custom_op('trecvit_dense::gated_recurrence_backward', mutates_args=())
def _backward_op(
    grad_h: Tensor,
    x: Tensor,
    wi: Tensor,
    bi: Tensor,
    wa: Tensor,
    ba: Tensor,
    log_decay: Tensor,
    h0: Tensor | None,
    masks: Tensor | None,
    h: Tensor,
    gate_dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    if backend == 'triton':
        from .gated_recurrence_triton import backward

        return backward(grad_h, x, wi, bi, wa, ba, log_decay, h0, masks, h, gate_dtype)
    layer = _Layer(x, (wi, wa), (bi, ba), log_decay, gate_dtype, backend)
    grad_x, grad_h0, sums = _backward(layer, grad_h, x, h, h0, masks)
    wi_sum, wa_sum, bi_sum, ba_sum, decay_sum = sums
    found = zip((wi_sum, bi_sum, wa_sum, ba_sum, decay_sum), (wi, bi, wa, ba, log_decay), strict=True)
    # copies: what an operator returns may not share memory
    return grad_x, *(torch.empty_like(like).copy_(total.reshape(like.shape)) for total, like in found), grad_h0


@_backward_op.register_fake
def _(grad_h, x, wi, bi, wa, ba, log_decay, h0, masks, h, gate_dtype, backend) -> tuple[Tensor, ...]:
    like = (x, wi, bi, wa, ba, log_decay, h.new_empty(0) if h0 is None else h0)
    return tuple(torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in like)


@register_flop_formula(torch.ops.trecvit_dense.gated_recurrence)
def _forward_flops(x: torch.Size, weight: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 2 * 2 * math.prod(x[:-1]) * math.prod(weight)


@register_flop_formula(torch.ops.trecvit_dense.gated_recurrence_backward)
def _backward_flops(grad_h: torch.Size, x: torch.Size, weight: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 3 * _forward_flops(x, weight)  # the gates again, and their gradients to x and to the weights


# ---------------------------------------------------------------------------------------------------------- tiles


@dataclass(frozen=True)
class Tile:
    """Heads and tokens that are worked on together; the tokens lie one after another in ``(B, T, N)``.

    That is: all of ``time`` and ``rows`` unless ``batch`` is of length 1, all rows unless ``time`` is.
    """

    batch: slice
    rows: slice
    time: slice
    heads: slice
    tokens: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """Batch, frames and rows."""
        return tuple(part.stop - part.start for part in (self.batch, self.time, self.rows))  # type: ignore[return-value]


def tiles(
    batch: int, time: int, rows: int, heads: int, size: int, *, goal: int, backwards: bool = False
) -> Iterator[list[Tile]]:
    """Lists of tiles of about ``goal`` numbers that have the same rows, in the order of time or against it.

    A tile has as many heads as leave room for two frames: the numbers of a token then lie side by side over more of
    a page of memory, which takes a fifth off the time. Heads of the same tokens are neighbours, for the same reason.
    """
    together = min(heads, max(goal // (2 * rows * size), 1))
    tokens = max(goal // (size * together), _MIN_TOKENS)
    rows_each = min(rows, tokens)
    frames_each = min(time, tokens // rows) if rows_each == rows else 1
    batch_each = min(batch, max(tokens // (time * rows), 1)) if frames_each == time else 1
    heads_each = min(heads, max(goal // (batch_each * frames_each * rows_each * size), 1))
    frames = _cuts(time, frames_each)
    which = list(itertools.product(frames[::-1] if backwards else frames, _cuts(heads, heads_each)))
    for items, part in itertools.product(_cuts(batch, batch_each), _cuts(rows, rows_each)):
        found = []
        for when, head in which:
            first = (items.start * time + when.start) * rows + part.start
            last = ((items.stop - 1) * time + when.stop - 1) * rows + part.stop
            found.append(Tile(items, part, when, head, slice(first, last)))
        yield found


def _cuts(total: int, each: int) -> list[slice]:
    """Slices of nearly the same length, none above ``each``."""
    count = -(-total // each)
    return [slice(total * k // count, total * (k + 1) // count) for k in range(count)]


class _Layer:
    """The weights as tiles want them, and memory that the tiles share."""

    def __init__(
        self,
        x: Tensor,
        weights: tuple[Tensor, Tensor],
        biases: tuple[Tensor, Tensor],
        log_decay: Tensor,
        gate_dtype: torch.dtype,
        backend: str,
    ) -> None:
        self.dtype, self.device = _state_dtype(x), x.device
        self.heads, _, self.size = weights[0].shape
        # Both gates in one product: it has twice the columns, and narrow ones are slow.
        self.weights = torch.cat([weight.to(gate_dtype) for weight in weights], dim=2)  # (G, S, 2 S)
        self.biases = torch.cat([bias.to(gate_dtype) for bias in biases], dim=1)[:, None]  # (G, 1, 2 S)
        self.log_decay = log_decay.to(self.dtype).view(self.heads, 1, self.size)
        self.batch, self.time, self.rows = x.shape[0], x.shape[1], math.prod(x.shape[2:-1])
        self.kernel = _kernel(backend)
        self._buffers: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def tiles(self, *, backwards: bool = False) -> Iterator[list[Tile]]:
        if not self.batch * self.time * self.rows:
            return iter(())
        shape = self.batch, self.time, self.rows, self.heads, self.size
        # On a GPU small tiles would be launches and nothing else.
        goal = _TILE * torch.get_num_threads() if self.device.type == 'cpu' else math.prod(shape)
        return tiles(*shape, goal=goal, backwards=backwards)

    def tokens(self, x: Tensor) -> Tensor:
        """``(B, T, ..., L)`` as ``(G, B * T * N, S)``; a view of a contiguous tensor."""
        return x.contiguous().view(-1, self.heads, self.size).transpose(0, 1)

    def states(self, h: Tensor) -> Tensor:
        """``(B, ..., L)`` as ``(B, N, G, S)``."""
        return h.contiguous().view(self.batch, self.rows, self.heads, self.size)

    def buffer(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Memory for a tile's numbers, the same at each call with this name and shape."""
        found = self._buffers.get((name, shape))
        if found is None:
            found = self._buffers[name, shape] = torch.empty(shape, dtype=self.dtype, device=self.device)
        return found

    def empty(self, x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Contiguous memory for a tensor like ``x``, in the state's dtype if no other is named."""
        if self.device.type == 'cpu' and self.kernel is not gated_tiles:
            return self.kernel.empty(x.shape, dtype or self.dtype)
        return torch.empty(x.shape, dtype=dtype or self.dtype, device=x.device)

    def read(self, x: Tensor, tile: Tile, name: str) -> Tensor:
        """A tile ``(heads, tokens, S)`` of :meth:`tokens` in the dtype of the state: a view if it has that."""
        part = x[tile.heads, tile.tokens]
        return part if part.dtype == self.dtype else self.buffer(name, part.shape).copy_(part)

    def gates(self, x: Tensor, heads: slice) -> Tensor:
        """Input and decay gate before their sigmoid, ``(heads, tokens, 2 S)``."""
        weight, bias = self.weights[heads], self.biases[heads]
        both = self.buffer('gates', (*x.shape[:2], 2 * self.size))
        if weight.dtype == self.dtype:
            torch.baddbmm(bias, x, weight, out=both)
        else:
            both.copy_(torch.baddbmm(bias, x.to(weight.dtype), weight))
        return both

    def before(self, tile: Tile, h: Tensor, h0: Tensor | None) -> Tensor | None:
        """State in front of a tile, ``(batch, rows, heads, S)``; None is zero."""
        if tile.time.start:
            whole = h.view(self.batch, self.time, self.rows, self.heads, self.size)[:, tile.time.start - 1]
        elif h0 is None:
            return None
        else:
            whole = h0
        return whole[tile.batch, tile.rows, tile.heads]


def _kernel(backend: str) -> Any:
    """What works on a tile: a module or object with ``forward_tile`` and ``backward_tile``."""
    if backend == 'native':
        from trecvit_dense import native

        return native
    return gated_tiles


def _forward(layer: _Layer, x: Tensor, h: Tensor, h0: Tensor | None, masks: Tensor | None) -> None:
    xs, hs = layer.tokens(x), layer.tokens(h)
    start = None if h0 is None else layer.states(h0.to(layer.dtype))
    masks = None if masks is None else masks.view(-1)
    for tile in itertools.chain.from_iterable(layer.tiles()):
        part = layer.read(xs, tile, 'x')
        layer.kernel.forward_tile(
            tile.shape,
            part,
            layer.gates(part, tile.heads),
            layer.log_decay[tile.heads],
            before=layer.before(tile, h, start),
            mask=None if masks is None else masks[tile.tokens],
            fresh=h0 is None and tile.time.start == 0,
            h=hs[tile.heads, tile.tokens],
            buffer=layer.buffer,
        )


def _backward(
    layer: _Layer, grad_h: Tensor, x: Tensor, h: Tensor, h0: Tensor | None, masks: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradients of ``x``, of ``h0`` (empty without one) and of weights, biases and ``log_decay``."""
    grad_x = layer.empty(x, dtype=x.dtype)
    grads, xs, hs, out = (layer.tokens(tensor) for tensor in (grad_h, x, h, grad_x))
    start = None if h0 is None else layer.states(h0.to(layer.dtype))
    grad_h0 = h.new_empty(0) if h0 is None else torch.empty(h0.shape, dtype=h0.dtype, device=h0.device)
    masks = None if masks is None else masks.view(-1)
    heads, size = layer.heads, layer.size
    weight_sum = torch.zeros_like(layer.weights, dtype=layer.dtype)  # (G, S, 2 S)
    sums = x.new_zeros(3, heads, size, dtype=torch.float64)  # of both biases and log_decay
    transposed = layer.weights.mT.contiguous()  # a product with this is a third faster
    for row in layer.tiles(backwards=True):
        batch, _, rows = row[0].shape
        carried = h.new_zeros(heads, batch, rows, size)  # a_{t+1} * dL/dx_{t+1} of the scan, from the frame behind
        for tile in row:
            part, direct = layer.read(xs, tile, 'x'), out[tile.heads, tile.tokens]
            target = direct if direct.dtype == layer.dtype else layer.buffer('grad_x', direct.shape)
            gates = layer.gates(part, tile.heads)
            layer.kernel.backward_tile(
                tile.shape,
                grads[tile.heads, tile.tokens],
                part,
                gates,
                layer.log_decay[tile.heads],
                h=hs[tile.heads, tile.tokens],
                before=layer.before(tile, h, start),
                mask=None if masks is None else masks[tile.tokens],
                fresh=h0 is None and tile.time.start == 0,
                grad_x=target,
                carried=carried[tile.heads],
                sums=sums[:, tile.heads],
                buffer=layer.buffer,
            )
            _linear_backward(part, transposed[tile.heads], gates, target, weight_sum[tile.heads])
            if target is not direct:
                direct.copy_(target)
        if h0 is not None:
            layer_rows = grad_h0.view(layer.batch, layer.rows, heads, size)
            layer_rows[row[0].batch, row[0].rows].copy_(carried.permute(1, 2, 0, 3))
    return grad_x, grad_h0, [*weight_sum.chunk(2, dim=2), *sums]


def _linear_backward(x: Tensor, weight: Tensor, grad: Tensor, grad_x: Tensor, grad_w: Tensor) -> None:
    """Add the gradients of ``x @ weight.mT`` to ``grad_x`` and ``grad_w``."""
    if weight.dtype == grad.dtype:
        grad_x.baddbmm_(grad, weight)
        grad_w.baddbmm_(x.mT, grad)
    else:  # products in the gates' precision, sums in float32
        grad = grad.to(weight.dtype)
        grad_x += grad @ weight
        grad_w += x.to(weight.dtype).mT @ grad
