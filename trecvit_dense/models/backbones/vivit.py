"""ViViT: a transformer over tubelets of a whole clip (arXiv 2103.15691), the baseline that TRecViT is compared with.

Model 1 of the paper (``encoder='joint'``) lets every tubelet attend to every other, so its cost is quadratic in the
length of the clip. Model 2 (``'factorised'``) first mixes the tokens of one moment, then lets one token per moment
attend over time. Both need the clip as a whole; see :class:`.SlidingWindow` for how they stream.

The paper classifies clips. Dense features for every frame are this project's: see :class:`ViViT`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trecvit_dense.models.backbones.sliding_window import SlidingWindow
from trecvit_dense.models.backbones.vit_family import check_out_indices, find_variant, pair
from trecvit_dense.models.layers.attention import SpatialBlock
from trecvit_dense.models.layers.embedding import lecun_normal_
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import FeatureLevel, Features, PromptGroup, RecurrentState

Grid = tuple[int, int, int]  # tubelets along time, rows, columns
ENCODERS = ('joint', 'factorised')


class TubeletEmbed(nn.Module):
    """Non-overlapping boxes of ``(t, h, w)`` pixels through one convolution (section 3.2, tubelet embedding)."""

    def __init__(self, embed_dim: int, tubelet_size: Grid) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, embed_dim, tubelet_size, stride=tubelet_size)
        lecun_normal_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, video: Tensor) -> Tensor:
        """``(B, T, 3, H, W)`` to ``(B, n_t, n_h * n_w, C)``; sizes are multiples of the tubelet's."""
        return self.proj(video.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)


class TubeletPosition(nn.Module):
    """Learned table over tubelets, behind one entry for the class token; interpolated to other grids."""

    def __init__(self, grid: Grid, dim: int, *, class_token: bool) -> None:
        super().__init__()
        self.grid, self.extra = grid, int(class_token)
        self.table = nn.Parameter(torch.empty(1, self.extra + grid[0] * grid[1] * grid[2], dim))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, grid: Grid) -> Tensor:
        """``(1, [1 +] n_t * n_h * n_w, C)``: bicubic in space, linear in time, both with half-pixel centres."""
        if grid == self.grid:
            return self.table
        first, table = self.table[:, : self.extra], self.table[0, self.extra :].float()
        maps = table.view(*self.grid, -1).permute(0, 3, 1, 2)  # (n_t, C, n_h, n_w)
        if grid[1:] != self.grid[1:]:
            maps = F.interpolate(maps, grid[1:], mode='bicubic', align_corners=False)
        series = maps.permute(1, 2, 3, 0).flatten(0, 2)[None]  # (1, C * n_h * n_w, n_t)
        if grid[0] != self.grid[0]:
            series = F.interpolate(series, grid[0], mode='linear', align_corners=False)
        places = series[0].view(-1, *grid[1:], grid[0]).permute(3, 1, 2, 0).reshape(1, -1, table.shape[-1])
        return torch.cat([first, places.to(first.dtype)], dim=1)


@MODELS.register_module()
class ViViT(nn.Module):
    """The ViViT backbone.

    Dense features: tubelet k stands at the middle of its frames, and the tokens of a frame are interpolated linearly
    between the tubelets before and after it (the first and last go on beyond their middle). The class token of the
    clip is given to each of its frames. In the factorised model the tokens of a moment know nothing of other moments;
    there the output of the temporal encoder for that moment is added to the tokens of the final level.

    A clip whose length is no multiple of the tubelet's goes on with its last frame until it is.

    Args:
        variant: ``'B/16x2'``: a size of the ViT family (see :data:`.vit_family.VARIANTS`), pixels and frames of a
            tubelet; ``'B'`` alone is ``'B/16x2'``. The single fields below override it.
        embed_dim: Token width ``C``.
        depth: Number of (spatial) blocks.
        num_heads: Attention heads.
        mlp_dim: Hidden width of the MLPs; None is ``4 * embed_dim``.
        tubelet_size: ``(frames, height, width)``; None is that of the variant's name.
        num_frames, image_size: Clip length and frame size (an int or ``(h, w)``) whose tubelets the position tables
            have. Other sizes are welcome: the tables are interpolated.
        encoder: ``'joint'`` (model 1) or ``'factorised'`` (model 2).
        temporal_depth: Blocks of the temporal encoder of model 2 (4 in the paper).
        class_token: Learned token of the clip; in model 2 one of each moment and one of the clip. Without, model 2
            takes the mean token of a moment to its temporal encoder.
        window: Frames from which a frame's features come when streaming, a multiple of the tubelet's; None: every
            call is a whole clip and nothing is carried. See :class:`.SlidingWindow`.
        out_indices: Blocks whose tokens become levels, ascending, negative from the end; the last must be the final
            (spatial) block. None: that one only. The final level is normalised, earlier ones are not.
        layer_norm_eps: 1e-6 in the released models.
        gelu: ``'tanh'`` (the released models) or ``'erf'``.
        fused: False: attention that keeps all its weights, as the published figures of memory have it.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0.
        checkpointing: Recompute blocks in the backward pass instead of keeping their activations.

    Attributes:
        embed_dim, out_channels, strides: As every backbone.
        num_frames: Length of the clips for which it was built.
        delay_frames: Later frames that an answer waits for when streaming.
        class_token_dim: Width of the class token in the features; None: they have none.

    Raises:
        ValueError: sizes that do not fit each other; the message says which.
    """

    causal = False
    supports_prompts = False
    delay_frames = 0

    def __init__(
        self,
        variant: str | None = None,
        *,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_dim: int | None = None,
        tubelet_size: Sequence[int] | None = None,
        num_frames: int = 32,
        image_size: int | Sequence[int] = 224,
        encoder: str = 'joint',
        temporal_depth: int = 4,
        class_token: bool = True,
        window: int | None = None,
        out_indices: Sequence[int] | None = None,
        layer_norm_eps: float = 1e-6,
        gelu: str = 'tanh',
        fused: bool = True,
        drop_path_rate: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        named, size = _read_variant(variant)
        given = dict(embed_dim=embed_dim, depth=depth, num_heads=num_heads)
        sizes = {name: value or named.get(name) for name, value in given.items()}
        missing = [name for name, value in sizes.items() if not value]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} missing: name a variant, e.g. variant='B/16x2', or give all three"
            )
        mlp_dim = mlp_dim or (named.get('mlp_dim') if embed_dim is None else None) or 4 * sizes['embed_dim']
        if encoder not in ENCODERS:
            raise ValueError(f"encoder is '{encoder}'; wanted {' or '.join(map(repr, ENCODERS))}")
        if temporal_depth < 1:
            raise ValueError(f'temporal_depth is {temporal_depth}; wanted 1 or more')
        self.embed_dim, self.depth, self.num_heads = sizes.values()
        self.tubelet_size = _triple(tubelet_size or size)
        self.factorised, self.checkpointing = encoder == 'factorised', checkpointing
        self.window = SlidingWindow(window)
        self.class_token_dim = self.embed_dim if class_token else None
        if window is not None and window % self.tubelet_size[0]:
            raise ValueError(f'window is {window}; wanted a multiple of the {self.tubelet_size[0]} frames of a tubelet')
        self.out_indices = check_out_indices(out_indices, self.depth)

        def blocks(count: int) -> nn.ModuleList:
            rates = [drop_path_rate * index / max(count - 1, 1) for index in range(count)]
            options = dict(mlp_dim=mlp_dim, layer_norm_eps=layer_norm_eps, gelu=gelu, fused=fused)
            return nn.ModuleList(
                SpatialBlock(self.embed_dim, self.num_heads, drop_path=rate, **options) for rate in rates
            )

        def token() -> nn.Parameter | None:
            return nn.Parameter(torch.zeros(1, 1, self.embed_dim)) if class_token else None

        self.num_frames = num_frames
        grid = _native_grid(num_frames, image_size, self.tubelet_size)
        spatial_grid = (1, *grid[1:]) if self.factorised else grid
        self.tubelet_embed = TubeletEmbed(self.embed_dim, self.tubelet_size)
        self.class_token = token()
        self.positions = TubeletPosition(spatial_grid, self.embed_dim, class_token=class_token)
        self.blocks = blocks(self.depth)
        self.norm = nn.LayerNorm(self.embed_dim, eps=layer_norm_eps)
        if self.factorised:
            self.temporal_class_token = token()
            self.temporal_positions = TubeletPosition((grid[0], 1, 1), self.embed_dim, class_token=class_token)
            self.temporal_blocks = blocks(temporal_depth)
            self.temporal_norm = nn.LayerNorm(self.embed_dim, eps=layer_norm_eps)
        self.out_channels = (self.embed_dim,) * len(self.out_indices)
        self.strides = (self.tubelet_size[1:],) * len(self.out_indices)

    # ------------------------------------------------------------------------------------------------ forward

    def forward(
        self, video: Tensor, prompts: list[PromptGroup] | None = None, state: RecurrentState | None = None, **_: object
    ) -> tuple[Features, RecurrentState]:
        """Features of T frames.

        Args:
            video: ``(B, T, 3, H, W)`` float, normalised as the weights want it (the released ones: [-1, 1]).
            prompts: None: the model takes no prompt tokens.
            state: From the frames before, with ``window``; without, every call is a clip of its own.

        Raises:
            ValueError: prompts; a height or width that is no multiple of the tubelet's; a state that does not fit.
        """
        if prompts:
            raise ValueError('ViViT takes no prompt tokens; use a head that reads features alone')
        height, width = video.shape[-2:]
        if height % self.tubelet_size[1] or width % self.tubelet_size[2] or not height * width:
            size = 'x'.join(map(str, self.tubelet_size[1:]))
            raise ValueError(f'frames have {height}x{width} px; wanted multiples of the patch of {size} px (pad them)')
        return self.window(self._clip, video, state)

    def _clip(self, video: Tensor) -> Features:
        """Features of all frames of one clip ``(B, T, 3, H, W)``."""
        frames = video.shape[1]
        missing = -frames % self.tubelet_size[0]
        if missing:
            video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
        x = self.tubelet_embed(video)  # (B, n_t, n, C)
        grid = (x.shape[1], video.shape[-2] // self.tubelet_size[1], video.shape[-1] // self.tubelet_size[2])
        if self.factorised:
            levels, token = self._factorised(x, grid)
        else:
            levels, token = self._encode(x.flatten(1, 2)[:, None], self.class_token, self.positions(grid), self.blocks)
            levels = [level.reshape(x.shape) for level in levels]  # (B, 1, n_t * n, C) to (B, n_t, n, C)
            levels[-1], token = self.norm(levels[-1]), None if token is None else self.norm(token)[:, 0]
        levels = [self._to_frames(level, frames) for level in levels]
        token = None if token is None else token[:, None].expand(-1, frames, -1)  # (B, T, C)
        return Features(tuple(FeatureLevel(level, grid[1:], self.tubelet_size[1:]) for level in levels), token)

    def _factorised(self, x: Tensor, grid: Grid) -> tuple[list[Tensor], Tensor | None]:
        """Levels ``(B, n_t, n, C)`` and the clip's token ``(B, C)`` of model 2."""
        levels, moments = self._encode(x, self.class_token, self.positions((1, *grid[1:])), self.blocks)
        levels[-1] = self.norm(levels[-1])
        moments = levels[-1].mean(dim=2) if moments is None else self.norm(moments)  # (B, n_t, C)
        places = self.temporal_positions((grid[0], 1, 1))
        found, token = self._encode(moments[:, None], self.temporal_class_token, places, self.temporal_blocks, (-1,))
        levels[-1] = levels[-1] + self.temporal_norm(found[0]).transpose(1, 2)  # (B, 1, n_t, C) to (B, n_t, 1, C)
        return levels, None if token is None else self.temporal_norm(token)[:, 0]

    def _encode(
        self,
        x: Tensor,
        token: Tensor | None,
        places: Tensor,
        blocks: nn.ModuleList,
        out_indices: Sequence[int] | None = None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Tokens ``(B, G, N, C)``, of which those of a group see each other, after the blocks of ``out_indices``.

        Returns:
            Levels like ``x``, and the groups' class tokens ``(B, G, C)`` after the last block.
        """
        wanted = [index % len(blocks) for index in (self.out_indices if out_indices is None else out_indices)]
        if token is not None:
            x = torch.cat([token.to(x.dtype).expand(*x.shape[:2], -1, -1), x], dim=2)
        x, levels, first = x + places, [], 0 if token is None else 1
        for index, block in enumerate(blocks):
            if self.checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(lambda y, block=block: block(y)[0], x, use_reentrant=False)
            else:
                x = block(x)[0]
            if index in wanted:
                levels.append(x[:, :, first:])
        return levels, None if token is None else x[:, :, 0]

    def _to_frames(self, tokens: Tensor, frames: int) -> Tensor:
        """Tokens of tubelets ``(B, n_t, n, C)``, interpolated linearly to frames: ``(B, T, n, C)``."""
        length, count = self.tubelet_size[0], tokens.shape[1]
        if length == 1:
            return tokens
        place = ((torch.arange(frames, device=tokens.device) + 0.5) / length - 0.5).clamp(0, count - 1)
        before = place.floor().long()
        weight = (place - before).to(tokens.dtype)[:, None, None]
        return torch.lerp(tokens[:, before], tokens[:, (before + 1).clamp(max=count - 1)], weight)


# ------------------------------------------------------------------------------------------------------ building


def _read_variant(variant: str | None) -> tuple[dict[str, int], Grid]:
    """Fields of the ViT family and the tubelet of a name such as ``'B/16x2'``."""
    if variant is None:
        return {}, (2, 16, 16)
    name, _, rest = variant.partition('/')
    sizes = find_variant('ViViT', variant)
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', rest or '16x2')
    if match is None:
        raise ValueError(f"variant '{variant}': behind '/' stand pixels and frames of a tubelet, e.g. '{name}/16x2'")
    pixels, frames = int(match[1]), int(match[2])
    fields = dict(zip(('embed_dim', 'depth', 'mlp_dim', 'num_heads'), sizes, strict=True))
    return fields, (frames, pixels, pixels)


def _triple(tubelet_size: Sequence[int]) -> Grid:
    size = tuple(tubelet_size)
    if len(size) != 3 or any(not isinstance(value, int) or value < 1 for value in size):
        raise ValueError(f'tubelet_size is {tubelet_size}; wanted (frames, height, width), each 1 or more')
    return size


def _native_grid(num_frames: int, image_size: int | Sequence[int], tubelet: Grid) -> Grid:
    sides = pair(image_size)
    grid = (-(-num_frames // tubelet[0]), *(side // patch for side, patch in zip(sides, tubelet[1:], strict=True)))
    if 0 in grid:
        raise ValueError(f'{num_frames} frames of {sides} px hold no tubelet of {tubelet}; enlarge them')
    return grid
