"""What ``trecvit benchmark peers`` runs beside TRecViT: plainer models of the same width and depth, and other people's.

The plain recurrence is TRecViT itself, same weights, with the temporal block written as its equations say, frame by
frame under autograd. The causal attention is the same model with attention over time in place of the recurrence: every
token attends to its own past, whose keys and values are kept. ViViT and VideoMAE are those of the ``transformers``
package with random weights; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.inference.fast_linear import speed_up
from trecvit_dense.models.backbones.vit_family import resolve_sizes
from trecvit_dense.models.layers.attention import SpatialBlock
from trecvit_dense.models.layers.embedding import LearnedPosition, PatchEmbed
from trecvit_dense.registry import MODELS, use_scope

PACKAGE = 'transformers'


@dataclass(frozen=True)
class Sizes:
    """Of a model and its clip; ``frames`` of ``side x side`` px."""

    embed_dim: int
    depth: int
    mlp_dim: int
    num_heads: int
    patch: int
    frames: int
    side: int

    @classmethod
    def of(cls, variant: str, frames: int, side: int) -> Sizes:
        """Of a name such as ``'B/16'``.

        Raises:
            ValueError: the name is unknown, or frames do not divide into patches.
        """
        width, depth, heads, mlp_dim, patch = resolve_sizes('TRecViT', variant, None, None, None, None, None)
        if side % patch[0]:
            raise ValueError(f'frames of {side} px do not divide into patches of {patch[0]}; wanted a multiple')
        return cls(width, depth, mlp_dim, heads, patch[0], frames, side)


@dataclass
class Peer:
    """One model.

    Attributes:
        name: In the table.
        model: In eval mode.
        clip: Runs all frames of ``(1, T, 3, H, W)`` and returns tokens.
        start: State after a number of frames whose content does not matter; None: the model does not stream.
        step: Runs one frame with that state and returns the next.
    """

    name: str
    model: nn.Module
    clip: Callable[[Tensor], Tensor]
    start: Callable[[int], Any] | None = None
    step: Callable[[Tensor, Any], Any] | None = None


def build_peers(sizes: Sizes, tubelets: tuple[int, ...]) -> tuple[list[Peer], list[str]]:
    """Ours first, then the others; and a line about each package that is missing."""
    torch.manual_seed(0)
    peers = [ours(sizes), ours(sizes, fast=True), plain_recurrence(sizes), causal_attention(sizes)]
    if importlib.util.find_spec(PACKAGE) is None:
        return peers, [f'ViViT and VideoMAE are left out: pip install {PACKAGE}']
    for tubelet in tubelets:
        peers += [vivit(sizes, tubelet), videomae(sizes, tubelet)]
    return peers, []


# ------------------------------------------------------------------------------------------- TRecViT and its plain twin


def ours(sizes: Sizes, *, fast: bool = False) -> Peer:
    model = build_trecvit(sizes)
    if fast:
        speed_up(model)
    return Peer('TRecViT, fast layers' if fast else 'TRecViT', model, *_calls(model, sizes))


def build_trecvit(sizes: Sizes) -> nn.Module:
    use_scope()
    widths = dict(embed_dim=sizes.embed_dim, depth=sizes.depth, mlp_dim=sizes.mlp_dim, num_heads=sizes.num_heads)
    config = dict(type='TRecViT', patch_size=sizes.patch, image_size=sizes.side, **widths)
    return MODELS.build(config).eval()


def _calls(model: nn.Module, sizes: Sizes) -> tuple[Callable, Callable, Callable]:
    def start(frames: int) -> Any:  # how many does not matter to a state of constant size
        return model(torch.rand(1, 1, 3, sizes.side, sizes.side))[1]

    return lambda video: model(video)[0].levels[-1].tokens, start, lambda frame, state: model(frame, state=state)[1]


def plain_recurrence(sizes: Sizes) -> Peer:
    model = build_trecvit(sizes)
    for block in model.blocks:
        block.temporal = PlainTemporalBlock(block.temporal)
    return Peer('plain recurrence', model, *_calls(model, sizes))


class PlainTemporalBlock(nn.Module):
    """A :class:`.RecurrentBlock` by its equations (Griffin, arXiv 2402.19427, section 2), with the block's weights."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, state: dict[str, Tensor] | None = None, **masks: Any) -> tuple[Tensor, dict]:
        """As the block's; all rows take part in every frame."""
        if any(mask is not None for mask in masks.values()):
            raise ValueError(f'the plain recurrence takes no masks, but was given {", ".join(masks)}')
        block, lru = self.block, self.block.rg_lru
        normed = x / (x.square().mean(-1, keepdim=True) + block.norm.eps).sqrt() * (1 + block.norm.scale)
        gate = F.gelu(block.linear_y(normed), approximate='tanh')
        u = block.linear_x(normed)
        past = block.conv.weight.shape[0] - 1
        lead = u.new_zeros(u.shape[0], past, *u.shape[2:]) if state is None else state['conv']
        padded = torch.cat([lead, u], 1)
        time = x.shape[1]
        u = block.conv.bias + sum(block.conv.weight[tap] * padded[:, tap : tap + time] for tap in range(past + 1))
        input_gate, a_gate = (torch.sigmoid(_blockwise(u, part)) for part in (lru.input_gate, lru.a_gate))
        a = torch.exp(-8 * F.softplus(lru.a_param) * a_gate)
        h, frames = (None if state is None else state['rg_lru']), []
        for t in range(time):
            entering = input_gate[:, t] * u[:, t]
            h = entering if h is None else a[:, t] * h + torch.sqrt(1 - a[:, t] ** 2) * entering
            frames.append(h)
        x = x + block.linear_out(torch.stack(frames, 1) * gate)
        if block.mlp is not None:
            x = x + block.mlp(block.mlp_norm(x))
        return x, dict(rg_lru=h, conv=padded[:, time:])


def _blockwise(x: Tensor, gate: nn.Module) -> Tensor:
    parts = x.unflatten(-1, gate.bias.shape)  # (B, T, N, G, L / G)
    return (torch.einsum('btngi,gio->btngo', parts, gate.weight) + gate.bias).flatten(-2)


# --------------------------------------------------------------------------------------------- attention with a cache


class CachedAttention(nn.Module):
    """Causal attention of every token to its own past; ``(B, T, N, C)`` and a cache that holds all frames so far."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, cache: Tensor | None = None, seen: int = 0) -> Tensor:
        """``cache`` ``(2, B * N, heads, room, C / heads)`` has ``seen`` frames and is written to."""
        batch, time, tokens, channels = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, time, tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (B * N, heads, T, C / heads) each
        if cache is not None:
            cache[0, :, :, seen : seen + time], cache[1, :, :, seen : seen + time] = key, value
            key, value = cache[:, :, :, : seen + time]
        y = F.scaled_dot_product_attention(query, key, value, is_causal=time > 1)
        y = y.view(batch, tokens, self.num_heads, time, -1).permute(0, 3, 1, 2, 4)  # (B, T, N, heads, C / heads)
        return x + self.proj(y.reshape(x.shape))


class CausalTransformer(nn.Module):
    """TRecViT with :class:`CachedAttention` in place of its recurrence."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        side = sizes.side // sizes.patch
        self.grid = (side, side)
        self.patch_embed = PatchEmbed(sizes.embed_dim, (sizes.patch, sizes.patch))
        self.position = LearnedPosition(self.grid, sizes.embed_dim)
        self.temporal = nn.ModuleList(CachedAttention(sizes.embed_dim, sizes.num_heads) for _ in range(sizes.depth))
        self.spatial = nn.ModuleList(
            SpatialBlock(sizes.embed_dim, sizes.num_heads, mlp_dim=sizes.mlp_dim) for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.embed_dim, eps=1e-6)

    def start(self, frames: int, room: int) -> tuple[list[Tensor], int]:
        """Caches with ``room`` for frames, as if ``frames`` had passed."""
        layer = self.temporal[0]
        shape = (2, self.grid[0] * self.grid[1], layer.num_heads, room, layer.proj.in_features // layer.num_heads)
        return [torch.full(shape, 0.5) for _ in self.temporal], frames

    def forward(self, video: Tensor, state: tuple[list[Tensor], int] | None = None) -> tuple[Tensor, Any]:
        """Tokens ``(B, T, N, C)`` and the state after them; without one the clip is all there is."""
        caches, seen = state or ([None] * len(self.temporal), 0)
        x = self.patch_embed(video.flatten(0, 1))[0].flatten(1, 2).unflatten(0, video.shape[:2])  # (B, T, N, C)
        x = x + self.position(self.grid)
        for temporal, spatial, cache in zip(self.temporal, self.spatial, caches, strict=True):
            x = spatial(temporal(x, cache, seen))[0]
        return self.norm(x), (caches, seen + video.shape[1])


def causal_attention(sizes: Sizes) -> Peer:
    model = CausalTransformer(sizes).eval()
    # one frame of room, written again and again: time does not depend on what is in a cache
    return Peer(
        'causal attention, cache',
        model,
        lambda video: model(video)[0],
        lambda frames: model.start(frames, frames + 1),
        lambda frame, state: (model(frame, state)[1][0], state[1]),
    )


# -------------------------------------------------------------------------------------------------------- transformers


def _transformers_widths(sizes: Sizes) -> dict[str, int]:
    return dict(
        image_size=sizes.side,
        num_frames=sizes.frames,
        hidden_size=sizes.embed_dim,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.num_heads,
        intermediate_size=sizes.mlp_dim,
    )


def vivit(sizes: Sizes, tubelet: int) -> Peer:
    """Full attention over all tokens of the clip (arXiv 2103.15691, model 1)."""
    from transformers import VivitConfig, VivitModel

    widths = _transformers_widths(sizes)
    config = VivitConfig(tubelet_size=[tubelet, sizes.patch, sizes.patch], **widths)
    model = VivitModel(config, add_pooling_layer=False).eval()
    return Peer(f'ViViT, {_frames(tubelet)}', model, lambda video: model(pixel_values=video).last_hidden_state)


def videomae(sizes: Sizes, tubelet: int) -> Peer:
    """The encoder on all tokens, as it is used after pre-training (arXiv 2203.12602)."""
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(tubelet_size=tubelet, patch_size=sizes.patch, **_transformers_widths(sizes))
    model = VideoMAEModel(config).eval()
    return Peer(f'VideoMAE, {_frames(tubelet)}', model, lambda video: model(pixel_values=video).last_hidden_state)


def _frames(tubelet: int) -> str:
    return '1 frame a token' if tubelet == 1 else f'{tubelet} frames a token'
