"""Real-gated linear recurrent unit (Griffin, arXiv 2402.19427, section 2.4 and appendix A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .gated_recurrence import gated_recurrence
from .gated_tiles import FLOOR
from .linear_recurrence import choose_backend, linear_recurrence

_DECAY = 8.0  # the constant c of Griffin, eq. 4


class _BoundedSqrt(torch.autograd.Function):
    """``sqrt(x)`` whose derivative stays below 1000: at a decay of 1 the true one is infinite."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sqrt(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * _sqrt_slope(x)


def _sqrt_slope(x: Tensor) -> Tensor:
    return 0.5 * torch.rsqrt(x.clamp(min=FLOOR))


def bounded_sqrt(x: Tensor) -> Tensor:
    """Exact square root with a derivative clipped at 1000."""
    if torch.compiler.is_compiling():
        # the same value and slope without a custom Function, for torch.export and torch.compile
        line = x * _sqrt_slope(x.detach())
        return line + (torch.sqrt(x.detach()) - line.detach())
    return _BoundedSqrt.apply(x)


class BlockDiagonalLinear(nn.Module):
    """A linear layer whose matrix is block diagonal: ``num_blocks`` independent maps of contiguous channel groups.

    Args:
        width: Channels in and out.
        num_blocks: Number of blocks; must divide ``width``.
    """

    def __init__(self, width: int, num_blocks: int) -> None:
        super().__init__()
        if width % num_blocks:
            raise ValueError(f'width {width} does not divide into {num_blocks} blocks; choose a multiple of num_heads')
        size = width // num_blocks
        self.weight = nn.Parameter(torch.empty(num_blocks, size, size))  # (block, in, out)
        self.bias = nn.Parameter(torch.zeros(num_blocks, size))
        # The official initialiser counts all blocks into the fan-in, hence width and not size.
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to the same shape."""
        blocks, size, _ = self.weight.shape
        rows = x.reshape(-1, blocks, size).transpose(0, 1)  # (G, rows, L/G), a view: bmm takes the strides
        y = torch.baddbmm(self.bias[:, None], rows, self.weight)
        return y.transpose(0, 1).reshape(x.shape)


class RGLRU(nn.Module):
    """RG-LRU over dimension 1, every trailing row a sequence of its own.

    ``h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * x_t)`` with ``log a_t = -8 * r_t * softplus(a_param)``, both gates
    block-diagonal in ``x_t``. On a frame where a row is reset the past is dropped and the input enters with multiplier
    1, which is not the same as continuing from a zero state. Everything behind the gate matrices is float32, autocast
    or not.

    The back ends are those of :mod:`.linear_recurrence`, of which all but ``'chunked'`` do the whole layer at once
    (:mod:`.gated_recurrence`) and keep ``x`` and ``h`` for the backward pass.

    Args:
        width: Recurrent width ``L``.
        num_blocks: Blocks of the gates (the model's number of heads).
        min_rad: Lower end of the decays at initialisation; the upper end is 0.999.
    """

    def __init__(self, width: int, num_blocks: int, *, min_rad: float = 0.5) -> None:
        super().__init__()
        self.a_param = nn.Parameter(_draw_a_param(width, min_rad))
        self.input_gate = BlockDiagonalLinear(width, num_blocks)
        self.a_gate = BlockDiagonalLinear(width, num_blocks)

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        reset: Tensor | None = None,
        hold: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run T frames.

        Args:
            x: ``(B, T, ..., L)``.
            state: ``(B, ..., L)`` float32 from the frames before; None starts afresh (the first frame is a reset).
            reset: ``(B, T, ...)`` bool, rows that start afresh at a frame.
            hold: ``(B, T, ...)`` bool, rows that keep their state as it is over a frame, whatever ``x`` says there.

        Returns:
            ``h (B, T, ..., L)`` float32 and the state after the last frame.
        """
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        log_decay = -_DECAY * F.softplus(self.a_param.to(dtype))
        # A traced graph has no back ends, and chunks of time need x and a as tensors.
        backend = 'chunked' if torch.compiler.is_compiling() else choose_backend(x, dtype=dtype)
        if backend == 'chunked':
            return self._unfused(x.to(dtype), *self._gates(x, dtype), log_decay, state, reset, hold)
        gates = [(gate.weight, gate.bias) for gate in (self.input_gate, self.a_gate)]
        h = gated_recurrence(x, *gates, log_decay, h0=state, reset=reset, hold=hold, backend=backend)
        return h, h[:, -1].clone()

    def _gates(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(self.input_gate(x).to(dtype)), torch.sigmoid(self.a_gate(x).to(dtype))

    def _unfused(
        self,
        x: Tensor,
        input_gate: Tensor,
        recurrent_gate: Tensor,
        log_decay: Tensor,
        state: Tensor | None,
        reset: Tensor | None,
        hold: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The same, one operation of whole tensors after another."""
        log_a = recurrent_gate * log_decay
        a = torch.exp(log_a)
        multiplier = bounded_sqrt(1.0 - torch.exp(2.0 * log_a))
        if reset is not None:
            a = a.masked_fill(reset[..., None], 0.0)
        fresh = _fresh_frames(x, state, reset)
        if fresh is not None:
            multiplier = multiplier.masked_fill(fresh[..., None], 1.0)
        if hold is not None:
            a, multiplier = a.masked_fill(hold[..., None], 1.0), multiplier.masked_fill(hold[..., None], 0.0)
        return linear_recurrence(multiplier * (input_gate * x), a, state)


def _fresh_frames(x: Tensor, state: Tensor | None, reset: Tensor | None) -> Tensor | None:
    """Where the input multiplier is 1: the resets, and the first frame when there is no state."""
    if state is not None:
        return reset
    first = torch.arange(x.shape[1], device=x.device) == 0
    first = first.view(1, -1, *(1,) * (x.ndim - 3))  # (1, T, 1...)
    return first if reset is None else reset | first


def _draw_a_param(width: int, min_rad: float) -> Tensor:
    """Squared decays uniform in ``[min_rad^2, 0.999^2]``, as the inverse softplus of their negated logarithm."""
    squared = torch.empty(width).uniform_(min_rad**2, 0.999**2)
    return torch.log(torch.expm1(-0.5 * torch.log(squared)))
