"""The convolution kernel of S4 (Gu et al., arXiv 2111.00396, algorithm 1), without a compiled extension.

The transform of the kernel at the roots of unity ``omega_k = exp(-2 pi i k / L)`` is, with
``S_ab = dt sum_n [B_b,n conj(C_a,n) / (2 (1 - omega) - dt w_n (1 + omega)) + its twin with conjugate B, C and w]``,

    ``K^ = 2 (S_00 - (1 + omega) S_01 S_10 / (1 + (1 + omega) S_11))``,

which is the Woodbury form of the paper multiplied out, so that nothing is divided by zero at ``omega = -1``. Taking the
phase of half the angle out, ``1 - omega = i sine / phase`` and ``1 + omega = 2 cosine / phase``, and adding the twins,
leaves one reciprocal per mode and node, and real factors everywhere else: see :func:`_response`.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .hippo import legs_nplr
from .s4_recurrence import Recurrence, Transition

_CHUNK = 1 << 20  # modes times nodes that are in memory at once, about 30 MB


class S4Kernel(nn.Module):
    """H state space models of N modes, as taps of a causal convolution and as a recurrence.

    The parameters are those of the authors' standalone layer (Dec 2021, as ViS4mer uses it), in its shapes: ``log_dt``
    ``(H,)``; ``w (N / 2, 2)``, shared by all channels; ``B (H, 2, N / 2, 2)``, the rows b and p; ``C``, the rows c and
    q. ``c`` stands for ``(I - dA^L)^* C``: what the kernel of L taps is read with. So L belongs to the parameters: it
    is saved with them, as ``l_max``, and weights that are loaded bring theirs.

    A sequence longer than L is read with ``(I + dA^L)^* c`` in place of c, once per doubling: the exact kernel of the
    same model. It is worked out for that call; parameters and L stay as they are, in training, under DDP and in files.

    Args:
        channels: H.
        length: L, tokens; longer inputs are exact too, but their kernel costs dense powers of ``dA``.
        d_state: N.
        dt_min, dt_max: Step sizes of the channels are drawn log-uniformly between these.
        length_correction: Start with ``c`` such that ``C`` itself is normal; the authors' ViS4mer starts without.
        official_odd_length: For an odd L, the authors' kernel: sampled for L taps, transformed back to L - 1, which is
            off by 2 % and ends with a zero. It has no recurrence.
        official_nodes: The authors' nodes, float32 powers whose modulus drifts from 1 (0.3 % of the kernel at
            L = 11820): for weights that were trained with them.
        cache: Keep taps and recurrence between calls in eval mode without gradients, until a parameter changes.

    Raises:
        ValueError: a size below 1, or an odd ``d_state``.
    """

    # What the authors train with a learning rate of its own (1e-3) and without weight decay; see docs/vis4mer.md.
    undecayed = ('log_dt', 'w', 'B')

    def __init__(
        self,
        channels: int,
        length: int,
        *,
        d_state: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        length_correction: bool = False,
        official_odd_length: bool = False,
        official_nodes: bool = False,
        cache: bool = True,
    ) -> None:
        super().__init__()
        if channels < 1 or length < 1:
            raise ValueError(f'S4 with {channels} channels and {length} tokens; wanted at least 1 of each')
        self.channels, self.length, self.d_state = channels, length, d_state
        self.official_odd_length, self.official_nodes, self.cache = official_odd_length, official_nodes, cache
        c = torch.randn(channels, d_state // 2, dtype=torch.complex64)
        w, p, b = (x.to(c) for x in legs_nplr(d_state))
        span = math.log(dt_max) - math.log(dt_min)
        self.log_dt = nn.Parameter(torch.rand(channels) * span + math.log(dt_min))
        self.w = nn.Parameter(torch.view_as_real(w).clone())
        self.B = nn.Parameter(torch.view_as_real(torch.stack([b, p]).expand(channels, -1, -1)).clone())
        self.C = nn.Parameter(torch.view_as_real(torch.stack([c, p.expand_as(c)], dim=1)).clone())
        self.register_buffer('l_max', torch.tensor(length))
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._stamp: Any = None
        if length_correction:
            with torch.no_grad():
                self.C[:, 0] = _pairs(self._lengthened(self._dense(), length, -1.0)).to(self.C.dtype)

    def extra_repr(self) -> str:
        return f'channels={self.channels}, length={self.length}, d_state={self.d_state}'

    @property
    def exact(self) -> bool:
        """Whether the taps are those of the recurrence."""
        return not (self.official_odd_length and self.length % 2)

    # ------------------------------------------------------------------------------------------ convolution

    def forward(self, length: int | None = None) -> Tensor:
        """The first ``length`` taps (default L), ``(H, length)``."""
        length = self.length if length is None else length
        total = self.length
        while total < length:
            total *= 2
        return self._keep('taps', (total, self.exact), lambda: self._taps(total))[:, :length]

    def spectrum(self, length: int, points: int) -> Tensor:
        """``rfft`` of the first ``length`` taps, zero-padded to ``points``: ``(H, points / 2 + 1)`` complex."""
        return self._keep('spectrum', (length, points, self.exact), lambda: torch.fft.rfft(self(length), points))

    def _taps(self, total: int) -> Tensor:
        with full_precision(self.log_dt.device):
            c = self.C[:, 0]
            if total > self.length:
                c = _pairs(self._lengthened(self._dense(), total)).to(c.dtype)
            c = torch.stack([c, self.C[:, 1]], dim=1)
            nodes = _official_nodes if self.official_nodes else _nodes
            angles = nodes(total, self.log_dt)
            samples = total - total % 2 if self.official_odd_length else total
            size = max(1, _CHUNK // (self.w.shape[0] * angles[0].numel()))
            parts = zip(self.log_dt.split(size), self.B.split(size), c.split(size), strict=True)
            # The reciprocals of all modes at all nodes are the largest thing here by far: they are made again on the
            # way back, a few channels at a time.
            taps = [
                checkpoint(_response, *part, self.w, *angles, samples, use_reentrant=False, preserve_rng_state=False)
                if torch.is_grad_enabled()
                else _response(*part, self.w, *angles, samples)
                for part in parts
            ]
            return F.pad(torch.cat(taps), (0, total - samples))

    # ------------------------------------------------------------------------------------------- recurrence

    def recurrence(self) -> Recurrence:
        """The same model token by token and in blocks."""
        return self._keep('recurrence', None, self._recurrence)

    def _transition(self) -> Transition:
        """In float64: powers of ``dA`` are taken of it."""
        w, b, p, q = (_complex(x.double()) for x in (self.w, self.B[:, 0], self.B[:, 1], self.C[:, 1]))
        return Transition.discretise(self.log_dt.double(), w, b, p, q)

    def _dense(self) -> Tensor:
        return self._transition().dense()

    def _recurrence(self) -> Recurrence:
        with full_precision(self.log_dt.device):
            transition = self._transition()
            dense = transition.dense()
            whole = torch.linalg.matrix_power(dense, self.length)
            identity = torch.eye(self.d_state, dtype=whole.dtype, device=whole.device)
            readout = torch.linalg.solve((identity - whole).mT, self._functional())  # c -> C
            return Recurrence.build(transition, readout, dense, self.log_dt.dtype)

    def _functional(self) -> Tensor:
        """``c`` as the row that reads ``Re(c^* s)`` off a real state, ``(H, N)`` float64."""
        return 2 * self.C[:, 0].double().flatten(-2)

    def _lengthened(self, dense: Tensor, total: int, sign: float = 1.0) -> Tensor:
        """``(I + dA^L)^* c`` for every doubling up to ``total``, or once ``(I - dA^L)^* c``; ``(H, N)``."""
        row, power, length = self._functional(), torch.linalg.matrix_power(dense, self.length), self.length
        while True:
            row = row + sign * (row[:, None] @ power)[:, 0]
            length *= 2
            if length >= total or sign < 0:
                return row
            power = power @ power

    # ------------------------------------------------------------------------------------------------ cache

    def _keep(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        """The last result of ``make`` for ``name``, when neither ``key`` nor a parameter has changed since."""
        if self.training or torch.is_grad_enabled() or not self.cache:
            return make()
        stamp = [(parameter.data_ptr(), parameter._version, parameter.dtype) for parameter in self.parameters()]
        if stamp != self._stamp:
            self._kept, self._stamp = {}, stamp
        if name not in self._kept or self._kept[name][0] != key:
            self._kept[name] = (key, make())
        return self._kept[name][1]

    def forget(self) -> None:
        """Drop what is kept; parameters that were written through ``.data`` are not noticed otherwise."""
        self._kept, self._stamp = {}, None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.forget()
        if prefix + 'l_max' in state_dict:
            self.length = int(state_dict[prefix + 'l_max'])

    def train(self, mode: bool = True) -> S4Kernel:
        self.forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> S4Kernel:
        self.forget()
        return super()._apply(*args, **kwargs)


def full_precision(device: torch.device) -> AbstractContextManager:
    """No autocast inside: transforms and powers are float32 at least."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.contiguous())


def _pairs(row: Tensor) -> Tensor:
    """A functional ``(H, N)`` as the complex vector it came from, ``(H, N / 2, 2)``."""
    return row.unflatten(-1, (-1, 2)) / 2


def _nodes(length: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``phase, sine, cosine`` of half the angle at ``L // 2 + 1`` roots of unity, worked out in float64.

    ``phase`` is ``exp(i theta / 2)``, ``sine`` is ``2 sin(theta / 2)``, ``cosine`` is ``cos(theta / 2)``.
    """
    half = torch.arange(length // 2 + 1, dtype=torch.float64, device=like.device) * (math.pi / length)
    phase = torch.polar(torch.ones_like(half), half)
    return phase.to(like.dtype.to_complex()), (2 * half.sin()).to(like.dtype), half.cos().to(like.dtype)


def official_roots(length: int) -> tuple[Tensor, Tensor]:
    """Roots of unity and bilinear nodes of the authors' files, ``(L // 2 + 1,)`` complex64 each, rounding included."""
    omega = torch.tensor(cmath.exp(-2j * math.pi / length), dtype=torch.complex64) ** torch.arange(length // 2 + 1)
    return omega, 2 * (1 - omega) / (1 + omega)


def _official_nodes(length: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of the authors' roots: these are off the unit circle, so that sine and cosine are complex."""
    phase = official_roots(length)[0].to(like.device, torch.complex128) ** -0.5
    sine, cosine = (phase - 1 / phase) / 1j, (phase + 1 / phase) / 2
    kind = like.dtype.to_complex()
    return phase.to(kind), sine.to(kind), cosine.to(kind)


def _response(
    log_dt: Tensor, b: Tensor, c: Tensor, w: Tensor, phase: Tensor, sine: Tensor, cosine: Tensor, samples: int
) -> Tensor:
    """Taps of a few channels, ``(h, samples)``.

    With ``d = dt w`` and ``v = B_b conj(C_a)``, both twins over their common denominator are
    ``phase (i sine Re v - cosine Re(v conj(d))) / ((cosine |d|)^2 - sine^2 - 2 i sine cosine Re d)``.
    """
    dt = log_dt.exp()
    d = dt[:, None] * _complex(w)  # (h, N / 2)
    v = (_complex(c).conj()[:, :, None] * _complex(b)[:, None]).flatten(1, 2)  # (h, 4, N / 2): C row, then B row
    weights = torch.cat([v.real, (v * d[:, None].conj()).real], dim=1) * dt[:, None, None]  # (h, 8, N / 2)
    size = d.abs()[..., None] * cosine
    real, imaginary = (size - sine) * (size + sine), 2 * d.real[..., None] * (sine * cosine)  # (h, N / 2, nodes)
    even, odd = _divided(weights, real, imaginary).chunk(2, dim=1)
    direct, rank_p, rank_q, rank_pq = (1j * sine * even - cosine * odd).unbind(1)
    spectrum = 2 * phase * (direct - 2 * cosine * rank_p * rank_q / (1 + 2 * cosine * rank_pq))
    return torch.fft.irfft(spectrum, samples)


def _divided(weights: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    """``weights @ 1 / (real - i imaginary)``, in real arithmetic where the parts are real: a third of the time."""
    if real.is_complex():
        return weights.to(real.dtype) @ (1 / (real - 1j * imaginary))
    scale = 1 / torch.addcmul(real * real, imaginary, imaginary)
    return torch.complex(weights @ (real * scale), weights @ (imaginary * scale))
