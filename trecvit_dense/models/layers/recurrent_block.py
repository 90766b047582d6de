"""The temporal block: Griffin's residual block (arXiv 2402.19427, section 2) over time, applied to every token row."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .causal_conv import CausalConv
from .drop_path import DropPath
from .gated_states import gate_states
from .rg_lru import RGLRU


class RMSNorm(nn.Module):
    """``x / rms(x) * (1 + scale)`` in float32; the scale starts at 0."""

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.scale.shape, 1.0 + self.scale.float(), self.eps).to(x.dtype)


class GatedMLP(nn.Module):
    """``down(gelu(gate(x)) * value(x))``; ``up`` holds gate and value, in this order."""

    def __init__(self, embed_dim: int, hidden_dim: int, *, depth: int = 1) -> None:
        super().__init__()
        self.up = nn.Linear(embed_dim, 2 * hidden_dim)
        self.down = nn.Linear(hidden_dim, embed_dim)
        nn.init.normal_(self.up.weight, std=(2 * embed_dim) ** -0.5)
        nn.init.normal_(self.down.weight, std=math.sqrt(2.0 / depth / hidden_dim))
        nn.init.zeros_(self.up.bias)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.gelu(gate, approximate='tanh') * value)


class RecurrentBlock(nn.Module):
    """``x + out(RG-LRU(conv(linear_x(n))) * gelu(linear_y(n)))`` with ``n = RMSNorm(x)``, then an optional gated MLP.

    TRecViT uses it without the MLP (arXiv 2412.14294, section 3.2), TAPNext with it (arXiv 2504.05579).

    Args:
        embed_dim: Token width ``C``.
        lru_width: Recurrent width ``L``.
        num_heads: Blocks of the RG-LRU's gates.
        depth: Blocks in the whole model; scales the initial output weights.
        conv_width: Taps of the temporal convolution.
        min_rad: Lower end of the decays at initialisation.
        mlp_dim: Hidden width of the gated MLP; None leaves it out.
        drop_path: Probability of leaving a residual branch out of one sample, in training.
    """

    def __init__(
        self,
        embed_dim: int,
        lru_width: int,
        *,
        num_heads: int,
        depth: int = 1,
        conv_width: int = 4,
        min_rad: float = 0.5,
        mlp_dim: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(embed_dim)
        self.linear_x = nn.Linear(embed_dim, lru_width)
        self.linear_y = nn.Linear(embed_dim, lru_width)
        self.conv = CausalConv(lru_width, conv_width)
        self.rg_lru = RGLRU(lru_width, num_heads, min_rad=min_rad)
        self.linear_out = nn.Linear(lru_width, embed_dim)
        self.mlp_norm = RMSNorm(embed_dim) if mlp_dim else None
        self.mlp = GatedMLP(embed_dim, mlp_dim, depth=depth) if mlp_dim else None
        self.drop_path = DropPath(drop_path)
        for linear in (self.linear_x, self.linear_y):
            nn.init.normal_(linear.weight, std=embed_dim**-0.5)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.linear_out.weight, std=math.sqrt(2.0 / depth / lru_width))
        nn.init.zeros_(self.linear_out.bias)

    def forward(
        self,
        x: Tensor,
        state: dict[str, Tensor] | None = None,
        *,
        reset: Tensor | None = None,
        active: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run T frames.

        Args:
            x: ``(B, T, N, C)``; any number of row dimensions will do.
            state: ``rg_lru (B, N, L)`` float32 and ``conv (B, conv_width - 1, N, L)``; None starts afresh.
            reset: ``(B, T, N)`` bool, rows that start afresh at a frame.
            active: ``(B, T, N)`` bool; the state of other rows is cleared and their output is zero.
            hidden: ``(B, T, N)`` bool; these rows wait: the RG-LRU keeps its state, the convolution reads a zero, and
                the output is zero. Not together with ``active``. Without a state, ``reset`` must say where rows start.

        Returns:
            Tokens like ``x`` and the state after the last frame.
        """
        if active is not None:
            reset = ~active if reset is None else reset | ~active
        if hidden is not None:
            active = ~hidden  # from here on: whose input counts
        state = state or {}
        normed = self.norm(x)
        u, conv_state = self.conv(_mask(self.linear_x(normed), active), state.get('conv'), reset=reset)
        h, lru_state = self.rg_lru(_mask(u, active), state.get('rg_lru'), reset=reset, hold=hidden)
        # h stays float32 for the state; the product goes on in the activations' precision
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            gated = gate_states(self.linear_y(normed), h)
        else:
            gate = self.gate(normed)
            gated = h.to(gate.dtype) * gate
        x = x + self.drop_path(self.linear_out(gated))
        if self.mlp is not None:
            x = x + self.drop_path(self.mlp(self.mlp_norm(x)))
        return _mask(x, active), {'rg_lru': lru_state, 'conv': conv_state}

    def gate(self, normed: Tensor) -> Tensor:
        """``gelu(linear_y(n))``; apart, because some libraries compute both at once."""
        return F.gelu(self.linear_y(normed), approximate='tanh')


def _mask(x: Tensor, active: Tensor | None) -> Tensor:
    return x if active is None else x.masked_fill(~active[..., None], 0.0)
