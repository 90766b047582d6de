"""The recurrence of an S4 layer: one token in O(N), and many tokens in blocks of dense matrices.

The state of a channel is a vector of N complex numbers in conjugate pairs, of which N / 2 are kept: N real numbers.
With ``A = diag(w) - p q^*`` and the bilinear rule, ``s_t = dA s_{t-1} + dB u_t`` and ``y_t = Re(dC^* s_t)``, where
``dA = (I - dt/2 A)^-1 (I + dt/2 A)`` is a diagonal plus rank one, twice (S4, arXiv 2111.00396, appendix C.2). Nothing is
diagonalised: the eigenvectors of HiPPO's matrix are exponentially ill-conditioned, which is why S4 has its low rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64  # tokens that one dense matrix takes; a power of two


def paired_dot(a: Tensor, b: Tensor) -> Tensor:
    """``sum conj(a_n) b_n`` over all N modes, from the half of them that is kept: real, the last axis kept."""
    return 2 * (a.real * b.real + a.imag * b.imag).sum(-1, keepdim=True)


@dataclass
class Transition:
    """``dA`` and ``dB`` of H channels, as vectors ``(H, N / 2)`` complex; ``half_dt`` and ``gain`` are ``(H, 1)``."""

    half_dt: Tensor
    diagonal: Tensor
    low_rank: Tensor
    q: Tensor
    gain: Tensor
    drive: Tensor

    @classmethod
    def discretise(cls, log_dt: Tensor, w: Tensor, b: Tensor, p: Tensor, q: Tensor) -> Transition:
        """Bilinear rule in the precision of the arguments; ``w`` is ``(N / 2,)``, the others ``(H, N / 2)``."""
        dt = log_dt.exp()[:, None]
        half_dt = dt / 2
        inverse = 1 / (1 - half_dt * w)
        low_rank = inverse * p
        gain = half_dt / (1 + half_dt * paired_dot(q, low_rank))  # Woodbury: (I - dt/2 A)^-1 is diagonal plus rank one
        drive = inverse * dt * b
        drive = drive - gain * low_rank * paired_dot(q, drive)
        return cls(half_dt, inverse * (1 + half_dt * w), low_rank, q, gain, drive)

    def advance(self, state: Tensor) -> Tensor:
        """``dA s`` of ``(..., H, N / 2)`` complex, in O(N)."""
        half = self.diagonal * state - self.low_rank * (self.half_dt * paired_dot(self.q, state))
        return half - self.low_rank * (self.gain * paired_dot(self.q, half))

    def dense(self) -> Tensor:
        """``dA`` as ``(H, N, N)`` real, on states whose real and imaginary parts take turns."""
        size = 2 * self.q.shape[-1]
        basis = torch.eye(size, dtype=self.half_dt.dtype, device=self.half_dt.device)
        columns = self.advance(torch.view_as_complex(basis.view(size, 1, -1, 2)))  # (N, H, N / 2)
        return torch.view_as_real(columns).flatten(-2).permute(1, 2, 0)

    def to(self, dtype: torch.dtype) -> Transition:
        """The same, its complex parts in the complex type of ``dtype``."""
        wanted = {True: dtype.to_complex(), False: dtype}
        return Transition(*(value.to(wanted[value.is_complex()]) for value in vars(self).values()))


@dataclass
class Recurrence:
    """Everything that goes on from a state; states are ``(B, H, N)`` real, as :meth:`Transition.dense` has them.

    Args:
        transition: One token.
        readout: ``(H, N)``, ``y_t = readout . s_t``.
        power: ``(H, N, N)``, ``dA`` to the power of :data:`BLOCK`.
        write: ``(H, N, BLOCK)``, what the tokens of a block leave in the state behind it.
        read: ``(H, BLOCK, N)``, what the state before a block adds to its outputs.
        within: ``(H, BLOCK, BLOCK)``, what tokens of a block add to its outputs.
    """

    transition: Transition
    readout: Tensor
    power: Tensor
    write: Tensor
    read: Tensor
    within: Tensor

    @classmethod
    def build(cls, transition: Transition, readout: Tensor, dense: Tensor, dtype: torch.dtype) -> Recurrence:
        """Blocks by doubling, in the precision of the arguments (float64), stored in ``dtype``."""
        power = dense
        write = torch.view_as_real(transition.drive).flatten(-2)[..., None]  # (H, N, 1)
        read = readout[:, None] @ dense  # (H, 1, N)
        while write.shape[-1] < BLOCK:
            write = torch.cat([power @ write, write], dim=-1)
            read = torch.cat([read, read @ power], dim=-2)
            power = power @ power
        taps = (readout[:, None] @ write)[:, 0].flip(-1)  # (H, BLOCK): the kernel's first taps
        lag = torch.arange(BLOCK, device=taps.device)
        lag = lag[:, None] - lag
        within = taps[:, lag.clamp(min=0)] * (lag >= 0)
        stored = (x.to(dtype).contiguous() for x in (readout, power, write, read, within))
        return cls(transition.to(dtype), *stored)

    def absorb(self, u: Tensor) -> Tensor:
        """State ``(B, H, N)`` behind the tokens ``u (B, L, H)`` that come after nothing."""
        batch, length, channels = u.shape
        # Zeros in front change nothing while the state is zero, and make whole blocks.
        padded = torch.nn.functional.pad(u, (0, 0, -length % BLOCK, 0))
        return self._scan(self._drives(padded), u.new_zeros(batch, channels, self.readout.shape[-1]))[-1]

    def resume(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``(B, L, H)`` of tokens ``u (B, L, H)`` that come after ``state (B, H, N)``, and the state then."""
        batch, length, channels = u.shape
        outputs, whole = [], length // BLOCK * BLOCK
        if whole:
            states = self._scan(self._drives(u[:, :whole]), state)
            before = torch.stack(states[:-1], dim=1)  # (B, blocks, H, N)
            y = _per_channel(before, self.read) + _per_channel(_blocks(u[:, :whole]), self.within)
            outputs.append(y.transpose(2, 3).reshape(batch, whole, channels))
            state = states[-1]
        for t in range(whole, length):
            y, state = self.step(u[:, t], state)
            outputs.append(y[:, None])
        return torch.cat(outputs, dim=1), state

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token ``u (B, H)``: output ``(B, H)`` and the next state, in O(N) per channel."""
        paired = torch.view_as_complex(state.contiguous().unflatten(-1, (-1, 2)))  # (B, H, N / 2)
        paired = self.transition.advance(paired) + self.transition.drive * u[..., None]
        state = torch.view_as_real(paired).flatten(-2)
        return (self.readout * state).sum(-1), state

    def _drives(self, u: Tensor) -> Tensor:
        return _per_channel(_blocks(u), self.write)  # (B, blocks, H, N)

    def _scan(self, drives: Tensor, state: Tensor) -> list[Tensor]:
        """The states before the first block and behind every block."""
        states = [state]
        for drive in drives.unbind(1):
            states.append((self.power @ states[-1].permute(1, 2, 0)).permute(2, 0, 1) + drive)
        return states


def _blocks(u: Tensor) -> Tensor:
    """``(B, L, H)`` to ``(B, L / BLOCK, H, BLOCK)``."""
    return u.unflatten(1, (-1, BLOCK)).transpose(2, 3)


def _per_channel(x: Tensor, matrix: Tensor) -> Tensor:
    """``(B, blocks, H, in)`` times ``(H, out, in)`` to ``(B, blocks, H, out)``."""
    batch, blocks = x.shape[:2]
    rows = x.permute(2, 0, 1, 3).flatten(1, 2)  # (H, B * blocks, in)
    return (rows @ matrix.mT).unflatten(1, (batch, blocks)).permute(1, 2, 0, 3)
