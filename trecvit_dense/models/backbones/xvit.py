"""XViT: space-time mixing attention, local in time and linear in frames (arXiv 2106.05968).

A vision transformer that looks at one frame at a time. In every block each frame borrows a share of the channels of its
keys and values from the frames before and behind it, which costs nothing, and after 12 blocks a frame has seen 12
frames each way. What the frames say is joined by the temporal aggregation head
(:class:`~trecvit_dense.models.heads.temporal_aggregation.TemporalAggregationHead`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trecvit_dense.models.backbones.sliding_window import SlidingWindow
from trecvit_dense.models.backbones.vit_family import build_position, check_out_indices, pair, resolve_sizes
from trecvit_dense.models.layers.attention import MLP
from trecvit_dense.models.layers.drop_path import DropPath
from trecvit_dense.models.layers.embedding import PatchEmbed
from trecvit_dense.models.layers.shifted_attention import ShiftedAttention
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import FeatureLevel, Features, PromptGroup, RecurrentState


class XViTBlock(nn.Module):
    """Pre-norm ViT block (arXiv 2010.11929) around :class:`ShiftedAttention`.

    Args:
        embed_dim: Token width ``C``.
        num_heads: Attention heads.
        mlp_dim: Hidden width of the MLP.
        summary: Every frame also reads one summary token of each frame: the mean of its patch tokens before this block.
        drop_path: Probability of leaving a residual branch out of one frame, in training.
        **attention: ``fold``, ``group`` and ``future`` of :class:`ShiftedAttention`.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, *, mlp_dim: int, summary: bool, drop_path: float, **attention: object
    ) -> None:
        super().__init__()
        self.summary = summary
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = ShiftedAttention(embed_dim, num_heads, **attention)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, mlp_dim, gelu='erf')
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, past: Tensor | None, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``x (B, T, 1 + S, C)`` after this block, and ``past`` for the frames that follow."""
        summary = self.norm1(x[:, :, 1:].mean(dim=2)) if self.summary else None  # (B, T, C)
        y, past = self.attn(self.norm1(x), past=past, seen=seen, summary=summary)
        x = x + self._drop(y)
        return x + self._drop(self.mlp(self.norm2(x))), past

    def _drop(self, y: Tensor) -> Tensor:
        return self.drop_path(y.flatten(0, 1)).view_as(y)  # each frame by itself, as the authors' batch is B * T


@MODELS.register_module()
class XViT(nn.Module):
    """The XViT backbone.

    Sizes come from a variant name (``'B/16'``, ``'B/32'``, ``'L/16'``, ... as for TRecViT) or from ``embed_dim``,
    ``depth``, ``num_heads`` and ``mlp_dim``, which also override single fields of a variant. The other defaults are
    those of the released model for Something-Something v2.

    A frame reads frames behind it, so ``causal`` is False. Then a call is one whole clip; with ``window`` every frame's
    features are those of the last frame of the clip that ends with it, see :class:`SlidingWindow`. With
    ``future=False`` the model is causal and streams by itself: a clip, its frames one by one and any chunks give the
    same features. The paper has no such model; it is to be trained as it is to be used.

    State, with ``future=False`` (else see :class:`SlidingWindow`):

    - ``seen`` ``(B,)`` int64: frames so far. A row where it is 0 starts afresh.
    - ``blocks.{l}.keys_values`` ``(B, 1 + S, 2, C // shift_div)``, for each block that mixes: channels of the keys and
      values of the last frame.

    Args:
        variant: Name in the table of TRecViT, optionally ``'/patch'``.
        embed_dim: Token width ``C``.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_dim: Hidden width of the MLPs; None is ``4 * embed_dim``.
        patch_size: Pixels per token, an int or ``(h, w)``; None is that of the variant's name, else 16.
        image_size: Input size, an int or ``(h, w)``, whose grid the learned position table has. For other sizes the
            table is resized bicubically.
        frame_positions: ``F``, entries of the temporal position table. Frame ``t`` of a clip uses entry ``t % F``:
            the released model for 16 frames has 8.
        num_segments: Consecutive frames that exchange channels with each other, counted from the first of a clip; None
            is the whole clip. Kinetics models are trained with 8 and clips of 16: two groups that only meet in the
            head.
        shift_div: ``C // shift_div`` channels of keys and values come from each of the two frames beside:
            4 for Something-Something, 8 for Kinetics.
        shift_layers: Blocks that mix; None: all.
        summary: The variant with summary tokens (section 3, "summary token"): in every block the mean patch token of
            each frame of the clip is one more key and value for all frames. The authors' code has none. Inferred here:
            the mean leaves the class token out and is taken before the block's first norm, and what it gives is not
            shifted. It adds no parameter.
        future: False leaves the channels from frame ``t + 1`` out, which stay those of frame ``t``.
        window: Frames of the clip that is run for every frame; the clips of the training. None: whole clips.
        out_indices: Blocks whose patch tokens become levels, ascending, negative from the end; the last must be the
            final block. None: the final block only. The final level is normalised, earlier ones are not.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0.
        checkpointing: Recompute blocks in the backward pass instead of keeping their activations.

    Attributes:
        embed_dim: ``C``.
        out_channels, strides: Width and ``(y, x)`` pixels per token of every level.
        class_token_dim: Width of the class token in the features.
        causal: ``not future``.
        delay_frames: Later frames that an answer waits for: 0.

    Raises:
        ValueError: sizes or options that do not fit each other; the message says which.
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
        patch_size: int | Sequence[int] | None = None,
        image_size: int | Sequence[int] = 224,
        frame_positions: int = 8,
        num_segments: int | None = None,
        shift_div: int = 4,
        shift_layers: Sequence[int] | None = None,
        summary: bool = False,
        future: bool = True,
        window: int | None = None,
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        width, depth, num_heads, mlp_dim, patch = resolve_sizes(
            'XViT', variant, embed_dim, depth, num_heads, mlp_dim, patch_size
        )
        _check_time(future, summary, window, frame_positions, shift_div)
        self.embed_dim, self.depth, self.num_heads, self.mlp_dim = width, depth, num_heads, mlp_dim
        self.class_token_dim = width
        self.patch_size = patch
        self.checkpointing = checkpointing
        self.causal = not future
        self.sliding = SlidingWindow(window)
        self.out_indices = check_out_indices(out_indices, depth)

        self.patch_embed = PatchEmbed(width, patch)
        self.position = build_position('learned', width, patch, pair(image_size))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.class_position = nn.Parameter(torch.zeros(1, 1, width))
        self.frame_position = nn.Parameter(torch.zeros(1, frame_positions, 1, width))
        mixing = _layers(shift_layers, depth)
        self.blocks = nn.ModuleList(
            XViTBlock(
                width,
                num_heads,
                mlp_dim=mlp_dim,
                summary=summary,
                drop_path=drop_path_rate * index / max(depth - 1, 1),
                fold=width // shift_div if index in mixing else 0,
                group=num_segments,
                future=future,
            )
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self._initialise()
        self.out_channels = (width,) * len(self.out_indices)
        self.strides = (patch,) * len(self.out_indices)

    def _initialise(self) -> None:
        """As the authors do; the temporal table starts at zero, so that weights of an image model are not disturbed."""
        for block in self.blocks:
            for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
                nn.init.trunc_normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)
        for table in (self.position.table, self.class_token, self.class_position):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(
        self,
        video: Tensor,
        prompts: list[PromptGroup] | None = None,
        state: RecurrentState | None = None,
        **_: object,
    ) -> tuple[Features, RecurrentState]:
        """Features of T frames.

        Args:
            video: ``(B, T, 3, H, W)`` float, normalised as the weights want it (the released ones: [-1, 1]); H and W
                are multiples of the patch size.
            prompts: None; this backbone has no place for them.
            state: From the frames before; None starts afresh. It is left as it was.

        Raises:
            ValueError: prompts; frames of another size; a state where whole clips are wanted, or that does not fit.
        """
        if prompts:
            raise ValueError('XViT takes no prompt tokens; use heads that read features alone')
        if not self.causal:
            return self.sliding(lambda clip: self._encode(clip)[0], video, state)
        return self._encode(video, state)

    def _encode(self, video: Tensor, state: RecurrentState | None = None) -> tuple[Features, RecurrentState]:
        """Features of the T frames that follow ``state``, and the state behind them."""
        seen = _entry(state, 'seen', (len(video),)) if state else video.new_zeros(len(video), dtype=torch.int64)
        x, grid = self._tokens(video, seen)
        levels, new_state = [], RecurrentState(seen=seen + video.shape[1])
        for index, block in enumerate(self.blocks):
            past = self._past(state, index, x) if state else None
            if self.checkpointing and self.training and torch.is_grad_enabled():
                x, past = checkpoint(block, x, past, seen, use_reentrant=False)
            else:
                x, past = block(x, past, seen)
            if past is not None:
                new_state[f'blocks.{index}.keys_values'] = past
            if index in self.out_indices and index != self.depth - 1:
                levels.append(FeatureLevel(x[:, :, 1:], grid, self.patch_size))
        x = self.norm(x)
        levels.append(FeatureLevel(x[:, :, 1:], grid, self.patch_size))
        return Features(tuple(levels), x[:, :, 0]), new_state

    def _tokens(self, video: Tensor, seen: Tensor | None = None) -> tuple[Tensor, tuple[int, int]]:
        """``(B, T, 1 + S, C)``, the class token first, positions added, and the patch grid."""
        if video.ndim != 5 or video.shape[2] != 3 or not video.shape[1]:
            raise ValueError(f'video has shape {tuple(video.shape)}; wanted (B, T, 3, H, W) with at least one frame')
        batch, time, _, height, width = video.shape
        if height % self.patch_size[0] or width % self.patch_size[1] or not height * width:
            size = 'x'.join(map(str, self.patch_size))
            raise ValueError(
                f'a frame of {height}x{width} px does not divide into patches of {size}; resize or pad it to multiples'
            )
        x, _ = self.patch_embed(video.flatten(0, 1))  # (B * T, h, w, C)
        grid = tuple(x.shape[1:3])
        x = x.reshape(batch, time, -1, self.embed_dim) + self.position(grid)
        first = (self.class_token + self.class_position).to(x.dtype).expand(batch, time, -1, -1)
        frame = torch.arange(time, device=video.device)[None]
        frame = frame if seen is None else frame + seen[:, None]  # (B, T)
        return torch.cat([first, x], dim=2) + self.frame_position[0, frame % self.frame_position.shape[1]], grid

    def _past(self, state: RecurrentState, index: int, x: Tensor) -> Tensor | None:
        fold = self.blocks[index].attn.fold
        return _entry(state, f'blocks.{index}.keys_values', (len(x), x.shape[2], 2, fold)) if fold else None


def _entry(state: RecurrentState, key: str, wanted: tuple[int, ...]) -> Tensor:
    """``state[key]``, of the shape that this call needs."""
    found = state.get(key)
    if found is None or tuple(found.shape) != wanted:
        shape = None if found is None else tuple(found.shape)
        raise ValueError(
            f"state '{key}' has shape {shape}, this call needs {wanted}; batch, frame size and model must stay as they "
            f'were when the state was made'
        )
    return found


# ------------------------------------------------------------------------------------------------------ building


def _check_time(future: bool, summary: bool, window: int | None, frame_positions: int, shift_div: int) -> None:
    if frame_positions < 1:
        raise ValueError(f'frame_positions is {frame_positions}; wanted at least 1 (the released models: 8)')
    if shift_div < 2:
        raise ValueError(f'shift_div is {shift_div}; wanted at least 2 (half of the channels from each side)')
    if not future and summary:
        raise ValueError(
            'summary=True reads all frames of a clip, so future=False cannot make it causal; set window=W to stream'
        )
    if not future and window is not None:
        raise ValueError(f'future=False streams by itself; leave window={window} out')


def _layers(shift_layers: Sequence[int] | None, depth: int) -> set[int]:
    """Blocks that mix. The authors' list may name more blocks than there are: theirs is 0 to 14 for 12 blocks."""
    if shift_layers is None:
        return set(range(depth))
    if any(index < 0 for index in shift_layers):
        raise ValueError(f'shift_layers is {list(shift_layers)}; wanted block numbers from 0 up')
    return {index for index in shift_layers if index < depth}
