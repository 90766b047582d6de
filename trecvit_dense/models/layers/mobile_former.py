"""Blocks of Mobile-Former (arXiv 2108.05895), images and video alike: convolutions and global tokens side by side.

A block with tokens runs in this order: the tokens gather from the block's input, then attend to one another; the
convolutions run on the same input, their dynamic ReLUs driven by the new tokens; the features read the new tokens.
Details are those of the authors' code. In time the depthwise convolutions are the only ones that reach beyond a frame,
and with a temporal kernel of 1 nothing but the tokens does.

Shapes: features ``(B, C, T, H, W)``, tokens ``(B, G, M, d)`` with G sets of M tokens, one per clip or one per frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trecvit_dense.models.layers.drop_path import DropPath
from trecvit_dense.models.layers.global_tokens import Former, FormerToMobile, MobileToFormer, linear
from trecvit_dense.models.layers.space_time_conv import ConvNorm, Pointwise
from trecvit_dense.structures import RecurrentState

_SQUEEZE = 4  # of the network that makes the slopes


class DynamicReLU(nn.Module):
    """``max(a x, b x)`` per channel, the slopes made from the first token: ``a`` in [0, 2], ``b`` in [-1, 1]."""

    def __init__(self, channels: int, token_dim: int) -> None:
        super().__init__()
        squeezed = token_dim // _SQUEEZE
        self.hyper = nn.Sequential(
            linear(token_dim, squeezed), nn.ReLU(), linear(squeezed, 2 * channels), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        slopes = 2 * self.hyper(tokens[:, :, 0]).transpose(1, 2)[..., None, None]  # (B, 2 C, G, 1, 1)
        steep, shallow = slopes.chunk(2, dim=1)
        return torch.maximum(x * steep, x * (shallow - 1))


class FirstBlock(nn.Module):
    """Depthwise, ReLU6, pointwise; no tokens, which pass by as they are."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        expand: int,
        stride: int = 1,
        groups: int = 1,
        temporal_kernel: int = 1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.identity = stride == 1 and channels == out_channels
        self.depthwise = expanding(channels, expand, stride, temporal_kernel, causal)
        self.relu = nn.ReLU6()
        self.shuffle = shuffle(channels, groups)
        self.project = Pointwise(channels * expand, out_channels, groups=groups)

    def forward(
        self, x: Tensor, tokens: Tensor, state: RecurrentState | None = None
    ) -> tuple[Tensor, Tensor, RecurrentState]:
        y, past = self.depthwise(x, _get(state, 'depthwise'))
        y = self.project(self.shuffle(self.relu(y)))
        return y + x if self.identity else y, tokens, _kept(depthwise=past)


class TokenBlock(nn.Module):
    """What the two kinds of blocks with tokens share; a kind is in ``_convolve``.

    Args:
        channels, out_channels: Of the features.
        expand: Width of the first hidden layer in units of ``channels``.
        token_dim: ``d``.
        stride: Of height and width.
        groups: Of the pointwise convolutions; above 1 channels are shuffled, as in the smallest of the authors' nets.
        temporal_kernel: Frames of every depthwise convolution.
        causal: Frames and tokens see the past only.
        decay: See :class:`.MobileToFormer`.
        drop_path: Stochastic depth.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        token_dim: int,
        stride: int = 1,
        causal: bool = False,
        decay: float = 1.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.identity = stride == 1 and channels == out_channels
        self.to_former = MobileToFormer(channels, token_dim, causal=causal, decay=decay, drop_path=drop_path)
        self.former = Former(token_dim, drop_path=drop_path)
        self.to_mobile = FormerToMobile(out_channels, token_dim, drop_path=drop_path)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, tokens: Tensor, state: RecurrentState | None = None
    ) -> tuple[Tensor, Tensor, RecurrentState]:
        """Features and tokens after the block, and what it carries on; ``state`` is left as it was."""
        tokens, gathered = self.to_former(x, tokens, state.scope('to_former') if state else None)
        tokens = self.former(tokens)
        y, carried = self._convolve(x, tokens, state)
        return y, tokens, carried.put('to_former', gathered)


class InvertedBlock(TokenBlock):
    """Pointwise, depthwise, pointwise: MobileNetV2's inverted bottleneck. The residual comes before the last bridge."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        expand: int,
        token_dim: int,
        stride: int = 1,
        groups: int = 1,
        temporal_kernel: int = 1,
        causal: bool = False,
        decay: float = 1.0,
        drop_path: float = 0.0,
    ) -> None:
        common = dict(token_dim=token_dim, stride=stride, causal=causal, decay=decay, drop_path=drop_path)
        super().__init__(channels, out_channels, **common)
        hidden = channels * expand
        self.expand = Pointwise(channels, hidden, groups=groups)
        self.shuffle1 = shuffle(groups, groups)
        self.relu1 = DynamicReLU(hidden, token_dim)
        self.depthwise = expanding(hidden, 1, stride, temporal_kernel, causal)
        self.relu2 = DynamicReLU(hidden, token_dim)
        self.project = Pointwise(hidden, out_channels, groups=groups)
        self.shuffle2 = shuffle(groups, groups)

    def _convolve(self, x: Tensor, tokens: Tensor, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        y = self.relu1(self.shuffle1(self.expand(x)), tokens)
        y, past = self.depthwise(y, _get(state, 'depthwise'))
        y = self.shuffle2(self.project(self.relu2(y, tokens)))
        if self.identity:
            y = x + self.drop_path(y)
        return self.to_mobile(y, tokens), _kept(depthwise=past)


class LiteBlock(TokenBlock):
    """Depthwise, pointwise, depthwise, pointwise, both depthwise ones widening; all blocks that halve the size."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        expand: int,
        expand2: int,
        token_dim: int,
        stride: int = 2,
        groups: int = 1,
        temporal_kernel: int = 1,
        causal: bool = False,
        decay: float = 1.0,
        drop_path: float = 0.0,
    ) -> None:
        common = dict(token_dim=token_dim, stride=stride, causal=causal, decay=decay, drop_path=drop_path)
        super().__init__(channels, out_channels, **common)
        self.depthwise1 = expanding(channels, expand, stride, temporal_kernel, causal)
        self.shuffle1 = shuffle(channels, groups)
        self.relu1 = DynamicReLU(channels * expand, token_dim)
        self.project1 = Pointwise(channels * expand, out_channels, groups=groups)
        self.depthwise2 = expanding(out_channels, expand2, 1, temporal_kernel, causal)
        self.shuffle2 = shuffle(out_channels, groups)
        self.relu2 = DynamicReLU(out_channels * expand2, token_dim)
        self.project2 = Pointwise(out_channels * expand2, out_channels, groups=groups)

    def _convolve(self, x: Tensor, tokens: Tensor, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        y, past1 = self.depthwise1(x, _get(state, 'depthwise1'))
        half = self.project1(self.relu1(self.shuffle1(y), tokens))
        y, past2 = self.depthwise2(half, _get(state, 'depthwise2'))
        y = self.project2(self.relu2(self.shuffle2(y), tokens))
        y = self.to_mobile(half + self.drop_path(y), tokens)
        return y + x if self.identity else y, _kept(depthwise1=past1, depthwise2=past2)


def expanding(channels: int, expand: int, stride: int, temporal_kernel: int, causal: bool) -> ConvNorm:
    """3x3 depthwise convolution with ``expand`` filters per channel (those of a channel side by side)."""
    return ConvNorm(
        channels,
        channels * expand,
        stride=stride,
        groups=channels,
        temporal_kernel=temporal_kernel,
        causal=causal,
    )


def shuffle(parts: int, groups: int) -> nn.Module:
    """Channels of ``parts`` groups dealt out evenly, where pointwise convolutions are grouped at all."""
    return nn.ChannelShuffle(parts) if groups > 1 else nn.Identity()


def _get(state: RecurrentState | None, key: str) -> Tensor | None:
    return state.get(key) if state else None


def _kept(**entries: Tensor | None) -> RecurrentState:
    return RecurrentState({key: value for key, value in entries.items() if value is not None})
