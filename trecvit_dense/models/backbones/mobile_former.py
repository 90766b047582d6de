"""Mobile-Former: a mobile net and a few global tokens side by side (Chen et al., CVPR 2022, arXiv 2108.05895).

The image model is that of the authors' code, in all seven sizes: every output and parameter agrees. Its trunk also
takes clips, for :class:`.VideoMobileFormer`; with temporal kernels of 1 and one frame the two are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trecvit_dense.models.backbones.mobile_former_sizes import Row, Size, resolve_size
from trecvit_dense.models.layers.global_tokens import MobileToFormer
from trecvit_dense.models.layers.mobile_former import FirstBlock, InvertedBlock, LiteBlock
from trecvit_dense.models.layers.space_time_conv import ConvNorm
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import FeatureLevel, Features, PromptGroup, RecurrentState

_FINEST_LEVEL = 4  # pixels


class MobileFormerTrunk(nn.Module):
    """Stem, blocks and the last bridge, on clips.

    Args:
        size: What to build.
        class_token: Give the first token after the last bridge. False leaves that bridge out, for heads that read
            levels alone.
        out_strides: Strides, in pixels, whose last maps become levels, ascending, the coarsest included; None: all
            from 4 on.
        drop_path_rate: Stochastic depth of the last block, growing linearly.
        temporal_kernel: Frames of the depthwise convolutions; one number, or one per stride 2, 4, 8 ...
        stem_time: Temporal kernel and stride of the stem.
        recurrent: Frames and tokens see the past only, and every frame has its own tokens.
        token_decay: See :class:`.MobileToFormer`.

    Attributes:
        embed_dim: Channels of the last level.
        class_token_dim: Width of the class token, which is the first global token; None: there is none.
        out_channels, strides: Of every level.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    supports_prompts = False
    any_size = True  # sides that do not divide by the last stride are rounded up on the way, as the authors' are

    def __init__(
        self,
        size: Size,
        *,
        class_token: bool = True,
        out_strides: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        temporal_kernel: int | Sequence[int] = 1,
        stem_time: tuple[int, int] = (1, 1),
        recurrent: bool = False,
        token_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.size, self.recurrent, width = size, recurrent, size.stem_channels
        self.block_strides = _block_strides(size.rows)
        kernels = _kernels(temporal_kernel, self.block_strides[-1])
        self.tokens = nn.Parameter(torch.randn(size.num_tokens, size.token_dim))
        self.stem = ConvNorm(
            3, width, stride=2, temporal_kernel=stem_time[0], temporal_stride=stem_time[1], causal=recurrent
        )
        self.stem_relu = nn.ReLU6()
        self.blocks = nn.ModuleList()
        for index, (row, stride) in enumerate(zip(size.rows, self.block_strides, strict=True)):
            time = dict(temporal_kernel=kernels[stride], causal=recurrent)
            memory = dict(decay=token_decay, drop_path=drop_path_rate * (index + 1) / len(size.rows))
            self.blocks.append(_block(row, width, size, time, memory))
            width = row[2]
        last = dict(causal=recurrent, decay=token_decay, drop_path=drop_path_rate)
        self.to_former = MobileToFormer(width, size.token_dim, **last) if class_token else None
        self.level_blocks = self._level_blocks(out_strides)
        self.embed_dim, self.class_token_dim = width, size.token_dim if class_token else None
        self.out_channels = tuple(size.rows[index][2] for index in self.level_blocks)
        self.strides = tuple((self.block_strides[index],) * 2 for index in self.level_blocks)

    def _level_blocks(self, out_strides: Sequence[int] | None) -> list[int]:
        """The last block at each wanted stride."""
        last = {stride: index for index, stride in enumerate(self.block_strides)}
        if out_strides is None:
            out_strides = [stride for stride in last if stride >= _FINEST_LEVEL] or [max(last)]
        wanted = list(out_strides)
        if not wanted or wanted != sorted({*wanted} & {*last}) or wanted[-1] != max(last):
            raise ValueError(f'out_strides are {wanted}; wanted some of {list(last)}, ascending, with {max(last)} last')
        return [last[stride] for stride in wanted]

    def encode(
        self, video: Tensor, state: RecurrentState | None = None, *, first: int = 0
    ) -> tuple[list[Tensor], Tensor, RecurrentState]:
        """Maps and tokens of one clip, or of a part of a stream.

        Args:
            video: ``(B, T, 3, H, W)``.
            state: Causal only: what the frames before left.
            first: See :class:`.SpaceTimeConv`.

        Returns:
            A map ``(B, C, T', h, w)`` per level; the tokens ``(B, G, M, d)``, one set (G = 1) or, causal, T' of them;
            and what to carry on.
        """
        x, past = self.stem(video.transpose(1, 2), state.get('stem') if state else None, first=first)
        new_state = RecurrentState() if past is None else RecurrentState(stem=past)
        x = self.stem_relu(x)
        tokens = self.tokens.repeat(len(x), x.shape[2] if self.recurrent else 1, 1, 1)  # (B, G, M, d)
        maps = []
        for index, block in enumerate(self.blocks):
            name = f'blocks.{index}'
            x, tokens, carried = block(x, tokens, state.scope(name) if state else None)
            new_state.put(name, carried)
            if index in self.level_blocks:
                maps.append(x)
        if self.to_former is not None:
            tokens, carried = self.to_former(x, tokens, state.scope('to_former') if state else None)
            new_state.put('to_former', carried)
        return maps, tokens, new_state

    def check(self, video: Tensor, prompts: list[PromptGroup] | None) -> None:
        """Refuse what the trunk cannot take."""
        if video.ndim != 5 or video.shape[2] != 3 or not video.shape[1]:
            raise ValueError(f'video has shape {tuple(video.shape)}; wanted (B, T, 3, H, W) with at least one frame')
        if prompts:
            raise ValueError(f"{type(self).__name__} takes no prompt tokens; group '{prompts[0].name}' has no place")
        (height, width), step = video.shape[-2:], self.block_strides[-1]
        if not self.any_size and (height % step or width % step):
            raise ValueError(
                f'frames of {height}x{width} px do not divide by {step}, the stride of the last level; resize them, or '
                f'set pad_multiple={step} in the data_preprocessor'
            )

    def features(self, maps: list[Tensor], tokens: Tensor) -> Features:
        """Maps ``(B, C, T, h, w)`` and first tokens ``(B, T, d)`` as :class:`Features`."""
        levels = []
        for x, stride in zip(maps, self.strides, strict=True):
            dense = x.permute(0, 2, 3, 4, 1).flatten(2, 3)  # (B, T, h * w, C)
            levels.append(FeatureLevel(dense, tuple(x.shape[-2:]), stride))
        return Features(tuple(levels), tokens if self.class_token_dim else None)


@MODELS.register_module()
class MobileFormer(MobileFormerTrunk):
    """Mobile-Former on every frame by itself: nothing is carried from one frame to the next.

    Levels are the maps at the ends of the stages, strides 4, 8, 16 and 32. They come out of batch norm and have no
    further norm, the last one included. The class token ``(B, T, d)`` is the first global token, which the authors'
    classifier reads beside the last map (:class:`.MobileFormerClassifier`).

    Args:
        size: ``'508M' '294M' '214M' '151M' '96M' '52M' '26M'``, the authors' names. The fields below override it, and
            are all needed without a name.
        stem_channels: Channels of the stem.
        num_tokens, token_dim: Global tokens and their width, a multiple of 4.
        rows: Blocks ``(kind, expansion, channels, stride, second expansion)``; kinds are ``'first'`` (no tokens),
            ``'lite'`` and ``'dna'``. Only ``'lite'`` has a second expansion; it is 0 for the others.
        groups: Of the pointwise convolutions.
        class_token, out_strides, drop_path_rate: See :class:`MobileFormerTrunk`.

    Raises:
        ValueError: an unknown size, or sizes that do not fit each other.
    """

    causal = True

    def __init__(
        self,
        size: str | None = None,
        *,
        stem_channels: int | None = None,
        num_tokens: int | None = None,
        token_dim: int | None = None,
        rows: Sequence[Row] | None = None,
        groups: int | None = None,
        class_token: bool = True,
        out_strides: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        fields = dict(stem_channels=stem_channels, num_tokens=num_tokens, token_dim=token_dim, rows=rows, groups=groups)
        options = dict(class_token=class_token, out_strides=out_strides, drop_path_rate=drop_path_rate)
        super().__init__(resolve_size(size, **fields), **options)

    def forward(
        self,
        video: Tensor,
        prompts: list[PromptGroup] | None = None,
        state: RecurrentState | None = None,
        **_: object,
    ) -> tuple[Features, RecurrentState]:
        """Features of every frame of ``video (B, T, 3, H, W)``; the state is always empty."""
        self.check(video, prompts)
        batch, time = video.shape[:2]
        maps, tokens, _ = self.encode(video.flatten(0, 1)[:, None])  # every frame is a clip of one
        maps = [x[:, :, 0].unflatten(0, (batch, time)).transpose(1, 2) for x in maps]  # (B, C, T, h, w)
        return self.features(maps, tokens[:, 0, 0].unflatten(0, (batch, time))), RecurrentState()


# ------------------------------------------------------------------------------------------------------ building


def _block_strides(rows: Sequence[Row]) -> list[int]:
    """Pixels per cell behind each block; the stem's are 2."""
    strides, stride = [], 2
    for row in rows:
        stride *= row[3]
        strides.append(stride)
    return strides


def _kernels(kernel: int | Sequence[int], last_stride: int) -> dict[int, int]:
    """Temporal kernel of the blocks that end at each stride."""
    strides = [2**power for power in range(1, last_stride.bit_length())]
    kernels = [kernel] * len(strides) if isinstance(kernel, int) else list(kernel)
    if len(kernels) != len(strides) or any(size not in (1, 3, 5) for size in kernels):
        raise ValueError(f'temporal_kernel is {kernel}; wanted 1, 3 or 5, or a list of those, one per stride {strides}')
    return dict(zip(strides, kernels, strict=True))


def _block(row: Row, width: int, size: Size, time: dict[str, int], memory: dict[str, float]) -> nn.Module:
    """One block; ``time`` goes to every kind, ``memory`` to those with tokens."""
    kind, expand, channels, stride, expand2 = row
    common = dict(expand=expand, stride=stride, groups=size.groups, **time)
    if kind == 'first':
        return FirstBlock(width, channels, **common)
    if kind == 'lite':
        return LiteBlock(width, channels, expand2=expand2, token_dim=size.token_dim, **common, **memory)
    return InvertedBlock(width, channels, token_dim=size.token_dim, **common, **memory)
