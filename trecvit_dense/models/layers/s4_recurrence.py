"""The recurrence of an S4 layer: one token in O(N), and many tokens in blocks of dense matrices.

The state of a channel is a vector of N complex numbers in conjugate pairs, of which N / 2 are kept: N real numbers.
With ``A = diag(w) - p q^*`` and the bilinear rule, ``s_t = dA s_{t-1} + dB u_t`` and ``y_t = Re(dC^* s_t)``, where
``dA = (I - dt/2 A)^-1 (I + dt/2 A)`` is a diagonal plus rank one, twice (S4, arXiv 2111.00396, appendix C.2). Nothing
is diagonalised: the eigenvectors of HiPPO's matrix are exponentially ill-conditioned, hence the low rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCKS = (64, 8)  # tokens that one dense matrix takes, powers of two; what is left over goes one by one


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

    The matrices are made for the larger block; a smaller one is a corner of each, but for its power of ``dA``.

    Args:
        transition: One token.
        readout: ``(H, N)``, ``y_t = readout . s_t``.
        powers: Block size to ``(H, N, N)``, ``dA`` to that power.
        write: ``(H, N, block)``, what the tokens of a block leave in the state behind it.
        read: ``(H, block, N)``, what the state before a block adds to its outputs.
        within: ``(H, block, block)``, what the tokens of a block add to its outputs.
    """

    transition: Transition
    readout: Tensor
    powers: dict[int, Tensor]
    write: Tensor
    read: Tensor
    within: Tensor

    @classmethod
    def build(cls, transition: Transition, readout: Tensor, dense: Tensor, dtype: torch.dtype) -> Recurrence:
        """Blocks by doubling, in the precision of the arguments (float64), stored in ``dtype``."""
        power, powers = dense, {}
        write = torch.view_as_real(transition.drive).flatten(-2)[..., None]  # (H, N, 1)
        read = readout[:, None] @ dense  # (H, 1, N)
        while write.shape[-1] < max(BLOCKS):
            write = torch.cat([power @ write, write], dim=-1)
            read = torch.cat([read, read @ power], dim=-2)
            power = power @ power
            powers[write.shape[-1]] = power.to(dtype)
        taps = (readout[:, None] @ write)[:, 0].flip(-1)  # (H, block): the first taps of the convolution
        order = torch.arange(max(BLOCKS), device=taps.device)
        lag = order[:, None] - order
        within = taps[:, lag.clamp(min=0)] * (lag >= 0)
        readout, write, read, within = (x.to(dtype).contiguous() for x in (readout, write, read, within))
        return cls(transition.to(dtype), readout, {size: powers[size] for size in BLOCKS}, write, read, within)

    def absorb(self, u: Tensor) -> Tensor:
        """State ``(B, H, N)`` behind the tokens ``u (B, L, H)`` that come after nothing."""
        batch, length, channels = u.shape
        size = max(BLOCKS)
        # Zeros in front change nothing while the state is zero, and make whole blocks.
        blocks = _blocks(F.pad(u, (0, 0, -length % size, 0)), size)
        state = u.new_zeros(batch, channels, self.readout.shape[-1])
        return self._scan(_per_channel(blocks, self.write), state, size)[-1]

    def resume(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``(B, L, H)`` of tokens ``u (B, L, H)`` that come after ``state (B, H, N)``, and the state then."""
        outputs = [u[:, :0]]
        for size in BLOCKS:
            whole = u.shape[1] // size * size
            if whole:
                y, state = self._resume_blocks(u[:, :whole], state, size)
                outputs.append(y)
            u = u[:, whole:]
        for token in u.unbind(1):
            y, state = self.step(token, state)
            outputs.append(y[:, None])
        return torch.cat(outputs, dim=1), state

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token ``u (B, H)``: output ``(B, H)`` and the next state, in O(N) per channel."""
        paired = torch.view_as_complex(state.contiguous().unflatten(-1, (-1, 2)))  # (B, H, N / 2)
        paired = self.transition.advance(paired) + self.transition.drive * u[..., None]
        state = torch.view_as_real(paired).flatten(-2)
        return (self.readout * state).sum(-1), state

    def _resume_blocks(self, u: Tensor, state: Tensor, size: int) -> tuple[Tensor, Tensor]:
        blocks = _blocks(u, size)
        states = self._scan(_per_channel(blocks, self.write[..., -size:]), state, size)
        before = torch.stack(states[:-1], dim=1)  # (B, blocks, H, N)
        y = _per_channel(before, self.read[:, :size]) + _per_channel(blocks, self.within[:, :size, :size])
        return y.transpose(2, 3).flatten(1, 2), states[-1]

    def _scan(self, drives: Tensor, state: Tensor, size: int) -> list[Tensor]:
        """The states before the first block and behind every block."""
        states = [state]
        for drive in drives.unbind(1):
            states.append((self.powers[size] @ states[-1].permute(1, 2, 0)).permute(2, 0, 1) + drive)
        return states


def _blocks(u: Tensor, size: int) -> Tensor:
    """``(B, L, H)`` to ``(B, L / size, H, size)``."""
    return u.unflatten(1, (-1, size)).transpose(2, 3)


def _per_channel(x: Tensor, matrix: Tensor) -> Tensor:
    """``(B, blocks, H, in)`` times ``(H, out, in)`` to ``(B, blocks, H, out)``."""
    batch, blocks = x.shape[:2]
    rows = x.permute(2, 0, 1, 3).flatten(1, 2)  # (H, B * blocks, in)
    return (rows @ matrix.mT).unflatten(1, (batch, blocks)).permute(1, 2, 0, 3)
