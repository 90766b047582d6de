"""TRecViT: gated linear recurrence over time, self-attention over space, MLP over channels (arXiv 2412.14294).

Every block first mixes each token with its own past (a recurrence per spatial position, parameters shared over space),
then mixes the tokens of a frame. Time therefore enters only through a state of constant size, and a clip is the same as
its frames fed one by one. With ``temporal_mlp=True`` and ``lru_width=embed_dim`` this is the trunk of TAPNext
(arXiv 2504.05579).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trecvit_dense.models.backbones.block_checkpoint import check_mode, run_block
from trecvit_dense.models.backbones.hidden_patches import HiddenPatches, blank, find_hidden
from trecvit_dense.models.backbones.token_streams import (
    TokenStream,
    clear,
    make_streams,
    prompt_tokens,
    read_state,
    write_state,
)
from trecvit_dense.models.backbones.vit_family import build_position, check_out_indices, pair, resolve_sizes
from trecvit_dense.models.layers.attention import SpatialBlock
from trecvit_dense.models.layers.embedding import ConvStem, PatchEmbed
from trecvit_dense.models.layers.recurrent_block import RecurrentBlock
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import FeatureLevel, Features, PromptGroup, RecurrentState


class TRecViTBlock(nn.Module):
    """Temporal block, then spatial block, over all streams of tokens."""

    def __init__(self, temporal: RecurrentBlock, spatial: SpatialBlock) -> None:
        super().__init__()
        self.temporal = temporal
        self.spatial = spatial

    def forward(
        self, tokens: list[Tensor], states: list[dict[str, Tensor] | None], streams: list[TokenStream], num_patches: int
    ) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """``tokens`` and ``states`` of all streams after this block; streams after the first read its patches."""
        new_tokens, new_states, memory = [], [], None
        for x, state, stream in zip(tokens, states, streams, strict=True):
            x, state = self.temporal(x, state, reset=stream.reset, active=stream.active, hidden=stream.hidden)
            x, keys_values = self.spatial(x, memory, item_size=stream.item_size, active=stream.present)
            if memory is None:
                memory = tuple(part[:, :, :num_patches] for part in keys_values)
            new_tokens.append(x)
            new_states.append(state)
        return new_tokens, new_states


@MODELS.register_module()
class TRecViT(nn.Module):
    """The TRecViT backbone.

    Sizes come from a variant name (``'mu' 'Ti' 'S' 'M' 'B' 'L' 'So400m' 'H' 'g' 'g-opt' 'G' 'G-opt' 'e'``, with a
    patch size if wanted: ``'B/8'``) or from ``embed_dim``, ``depth``, ``num_heads`` and ``mlp_dim``, which also
    override single fields of a variant. The defaults are those of the released Kinetics-400 model, less its class
    token.

    State (``RecurrentState``, batch first, rows ``N`` in token order, class token first):

    - ``blocks.{l}.patch.rg_lru`` ``(B, N, L)`` float32 and ``blocks.{l}.patch.conv`` ``(B, conv_width - 1, N, L)``,
    - ``blocks.{l}.prompt.{name}.rg_lru`` and ``.conv``: the same for a prompt group,
    - ``patch.seen`` ``(B, N)`` bool: rows that were seen on some frame; in streams with hidden patches only.

    A group that the state does not know starts afresh on the first frame of the call. Groups of an earlier call that
    are not passed again are forgotten.

    Args:
        variant: Name in the table above, optionally ``'/patch'``.
        embed_dim: Token width ``C``.
        depth: Number of blocks.
        num_heads: Attention heads, and blocks of the recurrent gates.
        mlp_dim: Hidden width of the MLPs; None is ``4 * embed_dim``.
        patch_size: Pixels per token, an int or ``(h, w)``; None is that of the variant's name, else 16.
        image_size: Input size, an int or ``(h, w)``, whose grid the learned position table has. Other sizes are
            welcome: the table is interpolated.
        state_multiplier: Recurrent width ``L`` in units of ``embed_dim``.
        lru_width: ``L`` itself; overrides ``state_multiplier``.
        temporal_mlp: Add Griffin's gated MLP of ``mlp_dim`` to every temporal block (TAPNext).
        conv_width: Taps of the temporal convolution.
        min_rad: Smallest decay at initialisation: 0.5 in the released code, 0.6 in the paper, 0.9 in TAPNext.
        position: ``'learned'`` or ``'sincos2d'``.
        class_token: Prepend a learned token, without position, which is recurrent as any other.
        stem: ``'patch'``: one convolution of the patch's size. ``'conv'``: a stack of stride-2 convolutions
            (arXiv 2106.14881); its maps are extra levels.
        stem_channels: Widths of the convolutional stem at strides 2, 4, ... ``patch_size``; None doubles up to
            ``embed_dim``.
        stem_levels: Strides at which maps of the convolutional stem become levels, ascending.
        out_indices: Blocks whose patch tokens become levels, ascending, negative from the end; the last must be the
            final block. None: the final block only. The final level is normalised, earlier ones are not.
        layer_norm_eps: Epsilon inside the spatial blocks.
        encoder_norm_eps: Epsilon of the final norm: 1e-6 in JAX, 1e-5 in the torch TAPNext.
        gelu: GELU of the spatial MLPs, ``'tanh'`` (JAX) or ``'erf'`` (torch TAPNext).
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0.
        checkpointing: What blocks keep for the backward pass (see :mod:`.block_checkpoint`); the numbers for a token
            and block of widths ``C``, ``L`` and ``M`` (MLP) and ``G`` heads are those of a model without temporal MLP.
            False: everything, ``11 C + 5 L + 2 M + G``.
            ``'selective'``: results of matrix products, attention and recurrence, ``8 C + 3 L + M + G``; makes
            elementwise functions and norms again.
            True or ``'block'``: the input alone, ``C``; makes all again.

    Attributes:
        embed_dim: ``C``.
        out_channels, strides: Width and ``(y, x)`` pixels per token of every level, stem levels first.
        class_token_dim: Width of the class token in the features; None: they have none.

    Raises:
        ValueError: sizes that do not fit each other; the message says which.
    """

    causal = True
    supports_prompts = True
    supports_patch_mask = True

    def __init__(
        self,
        variant: str | None = None,
        *,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_dim: int | None = None,
        patch_size: int | Sequence[int] | None = None,
        image_size: int | Sequence[int] = 224,
        state_multiplier: int = 2,
        lru_width: int | None = None,
        temporal_mlp: bool = False,
        conv_width: int = 4,
        min_rad: float = 0.5,
        position: str = 'learned',
        class_token: bool = False,
        stem: str = 'patch',
        stem_channels: Sequence[int] | None = None,
        stem_levels: Sequence[int] = (4,),
        out_indices: Sequence[int] | None = None,
        layer_norm_eps: float = 1e-6,
        encoder_norm_eps: float = 1e-6,
        gelu: str = 'tanh',
        drop_path_rate: float = 0.0,
        checkpointing: bool | str = False,
    ) -> None:
        super().__init__()
        embed_dim, depth, num_heads, mlp_dim, patch = resolve_sizes(
            'TRecViT', variant, embed_dim, depth, num_heads, mlp_dim, patch_size
        )
        self.embed_dim, self.depth, self.num_heads, self.mlp_dim = embed_dim, depth, num_heads, mlp_dim
        self.patch_size = patch
        self.lru_width = lru_width or embed_dim * state_multiplier
        self.conv_width = conv_width
        self.checkpointing = check_mode(checkpointing)
        self.out_indices = check_out_indices(out_indices, depth)

        self.patch_embed = _build_stem(stem, embed_dim, patch, stem_channels, stem_levels)
        self.position = build_position(position, embed_dim, patch, pair(image_size))
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.class_token_dim = embed_dim if class_token else None
        self.blocks = nn.ModuleList()
        for index in range(depth):
            drop_path = drop_path_rate * index / max(depth - 1, 1)
            temporal = RecurrentBlock(
                embed_dim,
                self.lru_width,
                num_heads=num_heads,
                depth=depth,
                conv_width=conv_width,
                min_rad=min_rad,
                mlp_dim=mlp_dim if temporal_mlp else None,
                drop_path=drop_path,
            )
            spatial = SpatialBlock(
                embed_dim, num_heads, mlp_dim=mlp_dim, layer_norm_eps=layer_norm_eps, gelu=gelu, drop_path=drop_path
            )
            self.blocks.append(TRecViTBlock(temporal, spatial))
        self.norm = nn.LayerNorm(embed_dim, eps=encoder_norm_eps)

        stem_channels = getattr(self.patch_embed, 'level_channels', ())
        stem_strides = tuple((level, level) for level in getattr(self.patch_embed, 'levels', ()))
        self.out_channels = (*stem_channels, *(embed_dim,) * len(self.out_indices))
        self.strides = (*stem_strides, *(patch,) * len(self.out_indices))

    def forward(
        self,
        video: Tensor,
        prompts: list[PromptGroup] | None = None,
        state: RecurrentState | None = None,
        *,
        prompt_layers: bool = False,
        patch_mask: Tensor | None = None,
    ) -> tuple[Features, RecurrentState]:
        """Advance by T frames.

        Args:
            video: ``(B, T, 3, H, W)`` float, normalised as the weights want it. Pixels beyond the last whole patch are
                dropped; the preprocessor pads.
            prompts: Extra tokens, see :class:`PromptGroup`. Rows of a cleared (inactive) token that becomes active
                again start afresh only where ``reset`` says so.
            state: From the frames before; None starts afresh. It is left as it was.
            prompt_layers: Also return the un-normalised prompt tokens after every block.
            patch_mask: ``(B, T, h * w)`` bool, True where a patch is hidden, by the rule of
                :mod:`trecvit_dense.models.backbones.hidden_patches`; its features are zero. Not together with prompts.

        Raises:
            ValueError: a frame smaller than one patch, or prompts, mask or state that do not fit the video.
        """
        x, levels, grid = self._tokens(video, patch_mask)
        shape = (*x.shape[:2], grid[0] * grid[1])
        hidden, before = find_hidden(patch_mask, state, shape, class_token=self.class_token is not None), state
        if hidden is not None:
            _check_no_prompts(prompts)
            x, state = hidden.take(x), hidden.take_state(state)
        num_patches = x.shape[2]
        streams = make_streams(x, prompts or [], state)
        if hidden is not None:
            streams[0].hide(hidden.hidden, hidden.reset)
        tokens = [stream.tokens for stream in streams]
        new_state = RecurrentState()
        layers: dict[str, list[Tensor]] = {group.name: [] for group in prompts or []} if prompt_layers else {}
        for index, block in enumerate(self.blocks):
            states = [
                read_state(state, index, stream, width=self.lru_width, past=self.conv_width - 1) for stream in streams
            ]
            mode = self.checkpointing if self.training else False
            tokens, states = run_block(block, mode, tokens, states, streams, num_patches)
            write_state(new_state, index, streams, states)
            if index in self.out_indices and index != self.depth - 1:
                levels.append(self._level(tokens[0][:, :, :num_patches], grid, hidden))
            if prompt_layers:
                for name, group_tokens in prompt_tokens(streams, tokens).items():
                    layers[name].append(group_tokens)
        tokens = [clear(self.norm(x), stream.present) for x, stream in zip(tokens, streams, strict=True)]
        patches = tokens[0][:, :, :num_patches]
        levels.append(self._level(patches, grid, hidden))
        if hidden is not None:
            new_state = hidden.put_state(new_state, before)
        class_token = patches[:, :, 0] if self.class_token is not None else None
        return Features(tuple(levels), class_token, prompt_tokens(streams, tokens), layers), new_state

    def _tokens(
        self, video: Tensor, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, list[FeatureLevel], tuple[int, int]]:
        """Patch tokens ``(B, T, N, C)`` (class token first), the stem's levels, and the patch grid."""
        if video.ndim != 5 or video.shape[2] != 3:
            raise ValueError(f'video has shape {tuple(video.shape)}; wanted (B, T, 3, H, W)')
        batch, time, _, height, width = video.shape
        if not time:
            raise ValueError('video has no frames')
        grid = (height // self.patch_size[0], width // self.patch_size[1])
        if 0 in grid:
            size = 'x'.join(map(str, self.patch_size))
            raise ValueError(f'a frame of {height}x{width} px is smaller than one patch of {size}; enlarge or pad it')
        video = video[..., : grid[0] * self.patch_size[0], : grid[1] * self.patch_size[1]]
        if patch_mask is not None:
            video = blank(video, patch_mask, grid, self.patch_size)
        frames = video.flatten(0, 1)
        x, maps = self.patch_embed(frames)  # (B * T, h, w, C)
        x = x.reshape(batch, time, grid[0] * grid[1], self.embed_dim) + self.position(grid)
        if self.class_token is not None:
            x = torch.cat([self.class_token.to(x.dtype).expand(batch, time, -1, -1), x], dim=2)
        levels = []
        for level, stem_map in zip(getattr(self.patch_embed, 'levels', ()), maps, strict=True):
            tokens = stem_map.reshape(batch, time, -1, stem_map.shape[-1])
            levels.append(FeatureLevel(tokens, tuple(stem_map.shape[1:3]), (level, level)))
        return x, levels, grid

    def _level(self, tokens: Tensor, grid: tuple[int, int], hidden: HiddenPatches | None) -> FeatureLevel:
        tokens = tokens if hidden is None else hidden.put(tokens)
        first = tokens.shape[2] - grid[0] * grid[1]  # behind the class token
        return FeatureLevel(tokens[:, :, first:], grid, self.patch_size)


def _check_no_prompts(prompts: list[PromptGroup] | None) -> None:
    if prompts:
        raise ValueError(f"prompts '{prompts[0].name}' and hidden patches in one call; wanted one or the other")


# ------------------------------------------------------------------------------------------------------ building


def _build_stem(
    stem: str, embed_dim: int, patch: tuple[int, int], channels: Sequence[int] | None, levels: Sequence[int]
) -> nn.Module:
    if stem == 'patch':
        return PatchEmbed(embed_dim, patch)
    if stem == 'conv':
        return ConvStem(embed_dim, patch, channels=tuple(channels) if channels else None, levels=tuple(levels))
    raise ValueError(f"stem is '{stem}'; wanted 'patch' or 'conv'")
