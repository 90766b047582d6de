"""The spatial block: a pre-norm ViT block over the tokens of one frame, with prompts that may only read."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .drop_path import DropPath
from .kept import Kept

KeyValue = tuple[Tensor, Tensor]
_READ_SLICE = 256  # prompts of one masked attention call: the mask is quadratic in them


def attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, fused: bool = True) -> Tensor:
    """``softmax(query key^T / sqrt(d)) value`` over ``(..., N, d)``; ``mask`` is True where a query may look.

    ``fused`` never holds all weights ``(..., N, N)`` at once, which is what saves the memory. False computes and, in
    training, keeps them, as models were run before such kernels: for comparisons with published figures.
    """
    if fused:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float('-inf'))
    return scores.softmax(-1) @ value


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of a frame.

    Args:
        embed_dim: Token width ``C``.
        num_heads: Must divide ``embed_dim``.
        fused: See :func:`attend`; concerns :meth:`forward` alone.

    Attributes:
        attend: How :meth:`forward` attends; whoever knows a faster way for the shapes at hand may put it here.
    """

    attend = staticmethod(attend)

    def __init__(self, embed_dim: int, num_heads: int, *, fused: bool = True) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f'embed_dim {embed_dim} does not divide into {num_heads} heads; choose a multiple')
        self.num_heads, self.fused = num_heads, fused
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.kept = Kept()  # masks of prompts
        for weight in (*self.qkv.weight.chunk(3), self.proj.weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, *, active: Tensor | None = None) -> tuple[Tensor, KeyValue]:
        """Every token attends to every active token of its frame.

        Args:
            x: ``(B, T, N, C)``.
            active: ``(B, T, N)`` bool; others are no keys. None: all. A frame needs at least one.

        Returns:
            Tokens like ``x``, and keys and values ``(B * T, heads, N, C / heads)`` for prompts that read them.
        """
        query, key, value = self._project(x)
        mask = None if active is None else active.flatten(0, 1)[:, None, None]  # (B * T, 1, 1, N)
        y = self.attend(query, key, value, mask=mask, fused=self.fused)
        return self._merge(y, x), (key, value)

    def read(self, x: Tensor, memory: KeyValue, *, item_size: int = 1, active: Tensor | None = None) -> Tensor:
        """Prompts attend to ``memory`` and to the tokens of their own item, never to another item.

        Args:
            x: Prompts ``(B, T, Q, C)``.
            memory: Keys and values of the patches, as :meth:`forward` returns them.
            item_size: Consecutive tokens of one item.
            active: ``(B, T, Q)`` bool; others are no keys.
        """
        query, key, value = self._project(x)
        step = max(_READ_SLICE // item_size, 1) * item_size
        if not x.shape[2]:
            return self._merge(query, x)
        parts = []
        for start in range(0, x.shape[2], step):
            part = slice(start, start + step)
            mask = self._mask(x.shape[2], item_size, memory[0].shape[2], part, active, x.device)
            keys = torch.cat([memory[0], key[:, :, part]], dim=2)
            values = torch.cat([memory[1], value[:, :, part]], dim=2)
            parts.append(F.scaled_dot_product_attention(query[:, :, part], keys, values, attn_mask=mask))
        return self._merge(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2), x)

    def _mask(
        self,
        num_prompts: int,
        item_size: int,
        num_patches: int,
        part: slice,
        active: Tensor | None,
        device: torch.device,
    ) -> Tensor:
        sizes = (num_prompts, item_size, num_patches, part, active, device)
        if active is not None:
            return _item_mask(*sizes)
        key = (*sizes[:3], part.start, part.stop, device)
        return self.kept.get(key, [], lambda: _item_mask(*sizes))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, time, tokens, channels = x.shape
        heads = self.num_heads
        qkv = self.qkv(x).view(batch * time, tokens, 3, heads, channels // heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)  # three views (B * T, heads, N, C / heads)

    def _merge(self, y: Tensor, x: Tensor) -> Tensor:
        return self.proj(y.transpose(1, 2).reshape(x.shape))  # (B, T, N, C)


def _item_mask(
    num_prompts: int, item_size: int, num_patches: int, part: slice, active: Tensor | None, device: torch.device
) -> Tensor:
    """True where a prompt of ``part`` may look: all patches, then the active prompts of the same item."""
    item = torch.arange(num_prompts, device=device)[part] // item_size
    own = item[:, None] == item[None, :]  # (q, q)
    if active is not None:
        own = own & active.flatten(0, 1)[:, None, None, part]  # (B * T, 1, q, q)
    patches = own.new_ones(*own.shape[:-1], num_patches)
    return torch.cat([patches, own], dim=-1)


class SpatialBlock(nn.Module):
    """``x + attention(LN(x))``, then ``x + mlp(LN(x))`` (ViT, arXiv 2010.11929).

    Args:
        embed_dim: Token width ``C``.
        num_heads: Attention heads.
        mlp_dim: Hidden width of the MLP.
        layer_norm_eps: 1e-6 in the JAX originals; torch's own default is 1e-5.
        gelu: ``'tanh'`` (JAX) or ``'erf'`` (torch).
        drop_path: Probability of leaving a residual branch out of one sample, in training.
        fused: See :func:`attend`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        mlp_dim: int,
        layer_norm_eps: float = 1e-6,
        gelu: str = 'tanh',
        drop_path: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=layer_norm_eps)
        self.attn = Attention(embed_dim, num_heads, fused=fused)
        self.norm2 = nn.LayerNorm(embed_dim, eps=layer_norm_eps)
        self.mlp = MLP(embed_dim, mlp_dim, gelu=gelu)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        memory: KeyValue | None = None,
        *,
        item_size: int = 1,
        active: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue | None]:
        """All tokens among themselves, or with ``memory`` prompts that only read it (see :class:`Attention`).

        Returns:
            Tokens ``(B, T, N, C)``, inactive ones zero, and the keys and values that others may read.
        """
        if memory is None:
            y, memory = self.attn(self.norm1(x), active=active)
        else:
            y = self.attn.read(self.norm1(x), memory, item_size=item_size, active=active)
        x = x + self.drop_path(y)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if active is not None:
            x = x.masked_fill(~active[..., None], 0.0)
        return x, memory


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, embed_dim: int, hidden_dim: int, *, gelu: str = 'tanh') -> None:
        super().__init__()
        if gelu not in ('tanh', 'erf'):
            raise ValueError(f"gelu is '{gelu}'; wanted 'tanh' (weights trained in JAX) or 'erf' (trained in torch)")
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.act = nn.GELU(approximate='tanh' if gelu == 'tanh' else 'none')
        self.fc2 = nn.Linear(hidden_dim, embed_dim)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))
