"""The RG-LRU (:mod:`.gated_recurrence`) on a GPU: the gates' products by torch, everything behind them in one kernel.

As in :mod:`.linear_recurrence_triton` a program walks through time with the state of its channels in registers. The
forward pass reads ``x`` and both gates and writes ``h``; the backward pass makes the gates again, and turns them into
their gradients where they lie.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gated_tiles import FLOOR
from .linear_recurrence_triton import _on

_BLOCK = 256


@triton.jit
def _decay(log_a, double: tl.constexpr):
    """``a`` and ``1 - exp(2 log a)``, the latter rounded as by the other back ends: ``exp`` to the nearest number.

    A GPU's own ``exp`` is not exact enough for that where ``a`` is near 1, the series is.
    """
    a = tl.exp(log_a)
    y = -2.0 * log_a
    series = 1.0 - y / 5.0 * (1.0 - y / 6.0 * (1.0 - y / 7.0))
    series = y * (1.0 - y / 2.0 * (1.0 - y / 3.0 * (1.0 - y / 4.0 * series)))
    near: tl.constexpr = 0.05 if double else 0.35
    return a, 1.0 - (1.0 - tl.where(y < near, series, 1.0 - a * a))


@triton.jit
def _forward_kernel(
    x,
    input_gate,
    decay_gate,
    log_decay,
    h0,
    masks,
    h,
    tokens,
    time,
    rows,
    width,
    size,
    has_h0: tl.constexpr,
    has_masks: tl.constexpr,
    double: tl.constexpr,
    block: tl.constexpr,
):
    batch = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * block + tl.arange(0, block)  # of (rows, width)
    valid = feature < rows * width
    row, channel = feature // width, feature % width
    gate_base = (channel // size).to(tl.int64) * tokens * size + channel % size
    scale = tl.load(log_decay + channel, mask=valid, other=0.0)
    state = tl.zeros([block], dtype=h.dtype.element_ty)
    if has_h0:
        state = tl.load(h0 + batch * rows * width + feature, mask=valid, other=0.0)
    for t in range(time):
        token = (batch * time + t) * rows + row
        at = token * width + channel
        r = tl.sigmoid(tl.load(decay_gate + gate_base + token * size, mask=valid, other=0.0))
        i = tl.sigmoid(tl.load(input_gate + gate_base + token * size, mask=valid, other=0.0))
        a, square = _decay(r * scale, double)
        multiplier = tl.sqrt(square)
        if has_masks:
            mask = tl.load(masks + token, mask=valid, other=0)
            a = tl.where(mask == 1, 0.0, tl.where(mask == 2, 1.0, a))
            multiplier = tl.where(mask == 1, 1.0, tl.where(mask == 2, 0.0, multiplier))
        elif not has_h0:
            multiplier = tl.where(row * 0 + t == 0, 1.0, multiplier)
        state = a * state + multiplier * i * tl.load(x + at, mask=valid, other=0.0).to(state.dtype)
        tl.store(h + at, state, mask=valid)


@triton.jit
def _backward_kernel(
    grad_h,
    x,
    input_gate,
    decay_gate,
    log_decay,
    h0,
    masks,
    h,
    grad_x,
    grad_h0,
    grad_decay,
    tokens,
    time,
    rows,
    width,
    size,
    floor,
    has_h0: tl.constexpr,
    has_masks: tl.constexpr,
    double: tl.constexpr,
    block: tl.constexpr,
):
    batch = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * block + tl.arange(0, block)
    valid = feature < rows * width
    row, channel = feature // width, feature % width
    gate_base = (channel // size).to(tl.int64) * tokens * size + channel % size
    scale = tl.load(log_decay + channel, mask=valid, other=0.0)
    carried = tl.zeros([block], dtype=h.dtype.element_ty)  # a_{t+1} * dL/dx_{t+1} of the scan
    total = tl.zeros([block], dtype=h.dtype.element_ty)
    for back in range(time):
        t = time - 1 - back
        first = row * 0 + t == 0
        token = (batch * time + t) * rows + row
        at = token * width + channel
        gate_at = gate_base + token * size
        r = tl.sigmoid(tl.load(decay_gate + gate_at, mask=valid, other=0.0))
        i = tl.sigmoid(tl.load(input_gate + gate_at, mask=valid, other=0.0))
        part = tl.load(x + at, mask=valid, other=0.0).to(carried.dtype)
        past = tl.load(h + at - rows * width, mask=valid & (first == 0), other=0.0)
        if has_h0:
            past += tl.load(h0 + batch * rows * width + feature, mask=valid & first, other=0.0)
        a, square = _decay(r * scale, double)
        slope = a / tl.sqrt(tl.maximum(square, floor))
        multiplier, open_gate = tl.sqrt(square), 1.0
        if has_masks:
            mask = tl.load(masks + token, mask=valid, other=0)
            a = tl.where(mask == 1, 0.0, tl.where(mask == 2, 1.0, a))
            multiplier = tl.where(mask == 1, 1.0, tl.where(mask == 2, 0.0, multiplier))
            open_gate = tl.where(mask == 0, 1.0, 0.0)
        elif not has_h0:
            multiplier = tl.where(first, 1.0, multiplier)
            open_gate = tl.where(first, 0.0, 1.0)
        grad = tl.load(grad_h + at, mask=valid, other=0.0) + carried
        carried = a * grad
        direct = grad * multiplier * i
        # dL/d(log a) = a * dL/da - a^2 / sqrt(1 - a^2) * dL/d(multiplier)
        grad_log = carried * (past - slope * i * part) * open_gate
        total += grad_log * r
        tl.store(grad_x + at, direct, mask=valid)
        tl.store(input_gate + gate_at, direct * part * (1.0 - i), mask=valid)
        tl.store(decay_gate + gate_at, grad_log * scale * r * (1.0 - r), mask=valid)
    tl.store(grad_decay + batch * rows * width + feature, total, mask=valid)
    if has_h0:
        tl.store(grad_h0 + batch * rows * width + feature, carried, mask=valid)


def _gates(x: Tensor, weights: list[Tensor], biases: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """``x`` as ``(G, tokens, S)`` and both gates before their sigmoid, in the state's dtype."""
    heads, size, _ = weights[0].shape
    split = x.view(-1, heads, size).transpose(0, 1)
    lower = split.to(weights[0].dtype)
    gates = zip(weights, biases, strict=True)
    return lower, [torch.baddbmm(bias[:, None], lower, weight).to(dtype) for weight, bias in gates]


def _sizes(x: Tensor, size: int) -> tuple[int, ...]:
    """``tokens, time, rows, width, size``."""
    return math.prod(x.shape[:-1]), x.shape[1], math.prod(x.shape[2:-1]), x.shape[-1], size


def _grid(x: Tensor) -> tuple[int, int]:
    return x.shape[0], triton.cdiv(math.prod(x.shape[2:]), _BLOCK)


def forward(
    x: Tensor,
    wi: Tensor,
    bi: Tensor,
    wa: Tensor,
    ba: Tensor,
    log_decay: Tensor,
    h0: Tensor | None,
    masks: Tensor | None,
    gate_dtype: torch.dtype,
) -> Tensor:
    """All states; arguments as in :mod:`.gated_recurrence`."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    x = x.contiguous()
    h = torch.empty(x.shape, dtype=dtype, device=x.device)
    if not h.numel():
        return h
    _, gates = _gates(x, [wi.to(gate_dtype), wa.to(gate_dtype)], [bi.to(gate_dtype), ba.to(gate_dtype)], dtype)
    with _on(x):
        _forward_kernel[_grid(x)](
            x,
            *gates,
            log_decay.to(dtype).contiguous(),
            h if h0 is None else h0.to(dtype).contiguous(),
            h if masks is None else masks,
            h,
            *_sizes(x, wi.shape[1]),
            has_h0=h0 is not None,
            has_masks=masks is not None,
            double=dtype == torch.float64,
            block=_BLOCK,
        )
    return h


def backward(
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
) -> tuple[Tensor, ...]:
    """Gradients of ``x``, weights and biases, ``log_decay`` and ``h0`` (empty without one)."""
    x = x.contiguous()
    weights = [wi.to(gate_dtype), wa.to(gate_dtype)]
    lower, gates = _gates(x, weights, [bi.to(gate_dtype), ba.to(gate_dtype)], h.dtype)
    grad_x = torch.empty_like(h)
    grad_h0 = h.new_empty(0) if h0 is None else torch.empty(h0.shape, dtype=h.dtype, device=h.device)
    grad_decay = torch.zeros_like(h[:, 0])
    if h.numel():
        with _on(x):
            _backward_kernel[_grid(x)](
                grad_h.contiguous(),
                x,
                *gates,
                log_decay.to(h.dtype).contiguous(),
                h if h0 is None else h0.to(h.dtype).contiguous(),
                h if masks is None else masks,
                h,
                grad_x,
                grad_h0,
                grad_decay,
                *_sizes(x, wi.shape[1]),
                FLOOR,
                has_h0=h0 is not None,
                has_masks=masks is not None,
                double=h.dtype == torch.float64,
                block=_BLOCK,
            )
    found = []
    split = grad_x.view(-1, *wi.shape[:2]).transpose(0, 1)  # (G, tokens, S)
    for weight, gate in zip(weights, gates, strict=True):
        grad = gate.to(gate_dtype)
        split += grad @ weight.mT
        found += [(lower.mT @ grad).to(wi.dtype), gate.sum(1).to(bi.dtype)]
    decay = grad_decay.flatten(0, -2).sum(0).to(log_decay.dtype)
    return grad_x.to(x.dtype), *found, decay, grad_h0 if h0 is None else grad_h0.to(h0.dtype)
