"""The S4 layer of ViS4mer: a long causal convolution over tokens, or the recurrence that it equals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .s4_kernel import S4Kernel, full_precision

Entries = dict[str, Tensor]  # of a layer: 's4' (B, H, N / 2, 2), or 's4_inputs' (B, L, H) from which it follows

_CHUNK = 1 << 23  # numbers of a padded signal that are transformed at once, 32 MB


class ChannelDropout(nn.Module):
    """Zero whole channels of ``(B, L, C)`` for all tokens in training; with ``whole=False`` single values."""

    def __init__(self, rate: float = 0.0, *, whole: bool = True) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'dropout is {rate}; wanted at least 0 and below 1')
        self.rate, self.whole = rate, whole

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = x.new_empty(x.shape[0], 1 if self.whole else x.shape[1], x.shape[2]).bernoulli_(1.0 - self.rate)
        return x * (keep / (1.0 - self.rate))

    def extra_repr(self) -> str:
        return f'rate={self.rate}, whole={self.whole}'


class S4Layer(nn.Module):
    """``output_linear(dropout(gelu(K * u + D u)))`` over dimension 1, as ViS4mer's code has it (no gate, causal).

    Args:
        channels: H.
        length: L, see :class:`.S4Kernel`.
        dropout: Of channels, behind the GELU.
        channel_dropout: Drop whole channels, as the authors do; else single values.
        **kernel: More options of :class:`.S4Kernel`.
    """

    def __init__(
        self, channels: int, length: int, *, dropout: float = 0.0, channel_dropout: bool = True, **kernel: Any
    ) -> None:
        super().__init__()
        self.kernel = S4Kernel(channels, length, **kernel)
        self.D = nn.Parameter(torch.randn(channels))
        self.dropout = ChannelDropout(dropout, whole=channel_dropout)
        self.output_linear = nn.Linear(channels, channels)

    def forward(self, u: Tensor, state: Entries | None = None) -> tuple[Tensor, Entries]:
        """Go on by L tokens, ``(B, L, H)``; those behind ``state`` when one is given.

        Tokens that come after nothing go through the convolution, others through the recurrence; the numbers are the
        same. In training the state behind a first call is not worked out, since hardly anything asks for it then: its
        entry is ``s4_inputs``, from which a second call makes it.

        Raises:
            ValueError: going on from a state with the authors' kernel of odd length, which has no recurrence.
        """
        x = u.float() if u.dtype in (torch.bfloat16, torch.float16) else u
        with full_precision(u.device):
            y, entries = self._filter(x, state) if state else self._filter_fresh(x)
            y = y + self.D * x
        return self.output_linear(self.dropout(F.gelu(y))), entries

    def _filter_fresh(self, u: Tensor) -> tuple[Tensor, Entries]:
        y = causal_convolution(u.transpose(1, 2), self.kernel).transpose(1, 2)
        return y, dict(s4_inputs=u) if self.training else dict(s4=self._absorb(u))

    def _filter(self, u: Tensor, state: Entries) -> tuple[Tensor, Entries]:
        if not self.kernel.exact:
            raise ValueError(
                f"official_odd_length: the authors' kernel of {self.kernel.length} taps has no recurrence, so a video "
                f'cannot go on from a state; set it to False to stream'
            )
        before = self._absorb(state['s4_inputs']) if 's4_inputs' in state else state['s4']
        y, after = self.kernel.recurrence().resume(u, before.flatten(-2))
        return y, dict(s4=after.unflatten(-1, (-1, 2)))

    def _absorb(self, u: Tensor) -> Tensor:
        return self.kernel.recurrence().absorb(u).unflatten(-1, (-1, 2))


# --------------------------------------------------------------------------------------------------- convolution


def fft_length(least: int) -> int:
    """The smallest even length from ``least`` up with no prime factor above 5: 24000 where 23640 = 2^3 3 5 197."""
    length = least + least % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


def causal_convolution(u: Tensor, kernel: S4Kernel) -> Tensor:
    """``y_t = sum_j K_j u_{t-j}`` of ``u (B, H, L)`` with the kernel's taps, ``(B, H, L)``."""
    length = u.shape[-1]
    points = fft_length(2 * length - 1)
    if torch.is_grad_enabled():
        return _Convolution.apply(u, kernel(length), points)
    return _filtered(u, kernel.spectrum(length, points), points)


def _filtered(u: Tensor, spectrum: Tensor, points: int, into: Tensor | None = None) -> Tensor:
    """``u (B, H, L)`` filtered by ``spectrum``, its first L samples; a few channels at a time, to bound memory."""
    length = u.shape[-1]
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device) if into is None else into
    for part in _parts(u, points):
        y[:, part] = torch.fft.irfft(torch.fft.rfft(u[:, part], points) * spectrum[part], points)[..., :length]
    return y


def _parts(u: Tensor, points: int) -> list[slice]:
    batch, channels, _ = u.shape
    size = max(1, _CHUNK // (batch * points))
    return [slice(first, first + size) for first in range(0, channels, size)]


class _Convolution(torch.autograd.Function):
    """Keeps signal and taps alone: autograd would keep the padded transforms of both, five times as much."""

    @staticmethod
    def forward(ctx, u: Tensor, taps: Tensor, points: int) -> Tensor:
        ctx.save_for_backward(u, taps)
        ctx.points = points
        return _filtered(u, torch.fft.rfft(taps, points), points)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        u, taps = ctx.saved_tensors
        points, length = ctx.points, u.shape[-1]
        grad_u, grad_taps = torch.empty_like(grad), torch.empty_like(taps)
        for part in _parts(u, points):
            ahead = torch.fft.rfft(grad[:, part], points)
            back = ahead * torch.fft.rfft(taps[part], points).conj()
            grad_u[:, part] = torch.fft.irfft(back, points)[..., :length]
            both = (ahead * torch.fft.rfft(u[:, part], points).conj()).sum(0)
            grad_taps[part] = torch.fft.irfft(both, points)[..., :length]
        return grad_u, grad_taps, None
