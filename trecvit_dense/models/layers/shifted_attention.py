"""Attention among the tokens of one frame, whose keys and values partly come from the frames beside it (XViT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ShiftedAttention(nn.Module):
    """Spatial self-attention with space-time mixing of keys and values (XViT, arXiv 2106.05968, section 3).

    Every query looks at the tokens of its own frame only. Before it does, the first ``fold`` channels of their keys
    and values are replaced by those of frame ``t + 1`` and the next ``fold`` by those of frame ``t - 1``, at the same
    place in the frame. So attention over a window of three frames costs what attention over one does. The channels are
    counted over the concatenated heads, as the authors' code does; the paper's equation 9 counts them in each head.

    Where there is no such frame the channels are zero: a zero part of a key drops out of the score, a zero part of a
    value adds nothing.

    Args:
        embed_dim: Token width ``C``.
        num_heads: Must divide ``embed_dim``.
        fold: Channels taken from each side; 0: none, plain attention.
        group: Consecutive frames that exchange channels with each other; None: all frames.
        future: False leaves the channels of frame ``t + 1`` those of frame ``t``: then no frame waits for a later one.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, *, fold: int = 0, group: int | None = None, future: bool = True
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f'embed_dim {embed_dim} does not divide into {num_heads} heads; choose a multiple')
        if not 0 <= 2 * fold <= embed_dim:
            raise ValueError(f'a fold of {fold} channels from each side does not fit into embed_dim {embed_dim}')
        if group is not None and group < 1:
            raise ValueError(f'a group has {group} frames; wanted at least 1, or None for all frames')
        self.num_heads, self.fold, self.group, self.future = num_heads, fold, group, future
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self, x: Tensor, *, past: Tensor | None = None, seen: Tensor | None = None, summary: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend within every frame.

        Args:
            x: ``(B, T, N, C)``.
            past: What the call before returned, for a video that goes on.
            seen: ``(B,)`` int64 frames before those of ``x``; None: none.
            summary: ``(B, T, C)`` one token per frame whose keys and values every frame reads as well, not shifted.

        Returns:
            Tokens like ``x``, and what the next call wants as ``past``: the channels ``(B, N, 2, fold)`` of the last
            frame, or None without a fold.
        """
        query, keys_values = self.split(self.qkv(x))
        keys_values, last = self.exchange(keys_values, past, seen)
        query, key, value = map(self.by_head, (query, *keys_values.unbind(3)))
        if summary is not None:
            key, value = (torch.cat(pair, 2) for pair in zip((key, value), self._of_summary(summary), strict=True))
        y = F.scaled_dot_product_attention(query, key, value)
        return self.proj(y.transpose(1, 2).reshape(x.shape)), last

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, N, 3 C)`` to queries ``(B, T, N, C)`` and keys with values ``(B, T, N, 2, C)``."""
        query, keys_values = qkv.split([qkv.shape[-1] // 3, 2 * qkv.shape[-1] // 3], dim=-1)
        return query, keys_values.unflatten(-1, (2, -1))

    def by_head(self, x: Tensor) -> Tensor:
        """``(B, T, N, C)`` to ``(B * T, heads, N, C / heads)``."""
        return x.reshape(-1, x.shape[2], self.num_heads, x.shape[3] // self.num_heads).transpose(1, 2)

    def exchange(
        self, keys_values: Tensor, past: Tensor | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Keys and values ``(B, T, N, 2, C)`` after the exchange, and those of the last frame for the next call."""
        if not self.fold:
            return keys_values, None
        ahead, behind, rest = keys_values.split([self.fold, self.fold, keys_values.shape[-1] - 2 * self.fold], dim=-1)
        index = torch.arange(keys_values.shape[1], device=keys_values.device)[None]  # (1, T)
        index = index if seen is None else index + seen[:, None]  # (B, T)
        group = self.group or 2**62  # no video is that long
        first = torch.zeros_like(behind[:, :1]) if past is None else past[:, None].to(behind.dtype)
        before = _cleared(torch.cat([first, behind[:, :-1]], dim=1), index % group == 0)
        if self.future:
            after = torch.cat([ahead[:, 1:], torch.zeros_like(ahead[:, :1])], dim=1)
            ahead = _cleared(after, (index + 1) % group == 0)
        return torch.cat([ahead, before, rest], dim=-1), behind[:, -1].clone()

    def _of_summary(self, summary: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``(B * T, heads, T, C / heads)`` of the summary tokens of all frames, for every frame."""
        batch, time, width = summary.shape
        found = F.linear(summary, self.qkv.weight[width:], self.qkv.bias[width:])  # (B, T, 2 C)
        found = found[:, None].expand(-1, time, -1, -1)  # (B, T, T, 2 C)
        key, value = found.chunk(2, dim=-1)
        return self.by_head(key), self.by_head(value)


def _cleared(channels: Tensor, where: Tensor) -> Tensor:
    """``channels (B, T, N, 2, fold)`` with zeros in the frames ``where (B or 1, T)`` says."""
    return channels.masked_fill(where[:, :, None, None, None], 0.0)
