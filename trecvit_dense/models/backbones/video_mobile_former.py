"""Video Mobile-Former: 3D mobile blocks and six global tokens for a whole clip (Wang et al., arXiv 2208.12257).

No code of this model is public, and its tables could not be had. What its abstract fixes is built: 3D convolutions for
what is near, a Transformer over very few global tokens (6) for a whole clip, cross-attention between the two, a model
below 1 GFLOP. Everything else here is inferred from the image parent: :class:`.MobileFormer`, inflated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trecvit_dense.models.backbones.mobile_former import MobileFormerTrunk
from trecvit_dense.models.backbones.mobile_former_sizes import SIZES, Row, resolve_size
from trecvit_dense.models.backbones.sliding_window import SlidingWindow
from trecvit_dense.registry import MODELS, nearest
from trecvit_dense.structures import Features, PromptGroup, RecurrentState

NUM_TOKENS = 6  # of every size; the abstract's "e.g., 6"

# name: (size of the parent, frames, pixels). The names are ours: multiply-adds of a clip of that shape, in billions,
# within the range of the abstract ("from 500M to 6G total FLOPs").
VARIANTS: dict[str, tuple[str, int, int]] = {
    'vmf_0.5g': ('52M', 8, 224),
    'vmf_1g': ('96M', 8, 224),
    'vmf_3g': ('508M', 8, 192),
    'vmf_6g': ('508M', 16, 192),
}


@MODELS.register_module()
class VideoMobileFormer(MobileFormerTrunk):
    """Mobile-Former on clips.

    From the abstract: 6 global tokens for the clip, 3D convolutions, two-way bridges. [Inferred]: which convolutions
    are 3D (the depthwise ones; all others are 1x1x1, the stem is 1x3x3), their kernel (3 frames), no temporal stride,
    no position in time, both bridges over all T x H x W positions, and all sizes. With ``temporal_kernel=1`` and one
    frame this is :class:`.MobileFormer`.

    ``causal=False``: a call is one whole clip; with ``window`` every frame's features are those of the last frame of
    the clip that ends with it, see :class:`.SlidingWindow`.

    ``causal=True`` is ours, not the paper's. Convolutions are padded with past frames only. Every frame has its own 6
    tokens, which start from the learned ones and gather, at every bridge, from the frames up to it: a frame counts
    with the scores that its own tokens gave it, and for ``token_decay < 1`` less with every later frame. What a bridge
    has gathered is carried as one weighted mean, so the state is small and constant, a clip and its frames one by
    one are the same, and all frames of a clip still run at once. (Tokens carried from the last block of one frame to
    the first of the next would stream as well, but run frame by frame in training and turn a still video into an ever
    deeper net. Here a still video gives the image model's answer on every frame.)

    Levels are the maps at strides 4, 8, 16 and 32; the class token is the first global token, of the clip or the frame.
    With a temporal stride in the stem, features are interpolated to all frames; causal ones are held until the next.

    State with ``causal=True``, for T' = ``temporal_kernel - 1``:

    - ``blocks.{i}.depthwise*`` ``(B, C, T', H, W)``, and ``stem`` where its temporal kernel is above 1: last frames,
    - ``blocks.{i}.to_former.mean`` ``(B, 2, 6, C / 2)``, ``.weight`` ``(B, 2, 6)``; ``to_former.*``: the bridges' means
      and the logarithms of their weights,
    - with a temporal stride: ``seen`` ``(B,)`` int64, frames so far, and ``held.*``, the last features.

    Args:
        size: ``'vmf_0.5g' 'vmf_1g' 'vmf_3g' 'vmf_6g'`` (names of ours, for multiply-adds) or a size of the parent:
            ``'508M' '294M' '214M' '151M' '96M' '52M' '26M'``. The fields below override it, and are all needed without.
        stem_channels, token_dim, rows, groups: See :class:`.MobileFormer`.
        num_tokens: Global tokens.
        temporal_kernel: Frames of the depthwise convolutions: 1, 3 or 5, or one such number for the blocks that end at
            each of the strides 2, 4, 8, 16, 32.
        stem_temporal_kernel, stem_temporal_stride: Of the stem.
        causal: See above.
        token_decay: Causal only: factor of a frame's weight with every later frame, above 0; 1 never forgets.
        window: Not causal only: frames of the clip that is run for every frame. None: whole clips.
        class_token, out_strides, drop_path_rate: See :class:`.MobileFormerTrunk`.

    Attributes:
        clip_shape: ``(frames, pixels)`` that the name of the size stands for; None for a size of the parent.
        delay_frames: Later frames that an answer waits for: 0.

    Raises:
        ValueError: an unknown size, or options that do not fit each other.
    """

    causal = False
    any_size = False
    delay_frames = 0

    def __init__(
        self,
        size: str | None = None,
        *,
        stem_channels: int | None = None,
        num_tokens: int = NUM_TOKENS,
        token_dim: int | None = None,
        rows: Sequence[Row] | None = None,
        groups: int | None = None,
        temporal_kernel: int | Sequence[int] = 3,
        stem_temporal_kernel: int = 1,
        stem_temporal_stride: int = 1,
        causal: bool = False,
        token_decay: float = 1.0,
        window: int | None = None,
        class_token: bool = True,
        out_strides: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        _check_time(stem_temporal_kernel, stem_temporal_stride, causal, token_decay, window)
        fields = dict(stem_channels=stem_channels, num_tokens=num_tokens, token_dim=token_dim, rows=rows, groups=groups)
        super().__init__(
            resolve_size(_parent(size), **fields),
            class_token=class_token,
            out_strides=out_strides,
            drop_path_rate=drop_path_rate,
            temporal_kernel=temporal_kernel,
            stem_time=(stem_temporal_kernel, stem_temporal_stride),
            recurrent=causal,
            token_decay=token_decay,
        )
        self.causal, self.every = causal, stem_temporal_stride
        self.window = SlidingWindow(window)
        self.clip_shape = VARIANTS[size][1:] if size in VARIANTS else None

    def forward(
        self,
        video: Tensor,
        prompts: list[PromptGroup] | None = None,
        state: RecurrentState | None = None,
        **_: object,
    ) -> tuple[Features, RecurrentState]:
        """Features of every frame of ``video (B, T, 3, H, W)``, and what the next frames need.

        Raises:
            ValueError: sides that are no multiple of the last stride; a state where whole clips are wanted.
        """
        self.check(video, prompts)
        if not self.causal:
            return self.window(self._clip, video, state)
        if self.every == 1:
            maps, tokens, new_state = self.encode(video, state)
            return self.features(maps, tokens[:, :, 0]), new_state
        return self._hold(video, state)

    @torch.no_grad()
    def fit_weights(
        self, state: Mapping[str, Tensor], *, slices: str = 'centre'
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Weights of the image model in the shapes of this one; those that fit stay as they are.

        A spatial kernel goes into the slice of the current frame (``'centre'``: the middle one; the last one if causal)
        so that a still video gives the image model's answer; or in equal parts into all slices (``'mean'``). Global
        tokens that the image model has not stay as they are in this model.

        Returns:
            The weights, and what was changed in them, a line each for tokens and kernels.

        Raises:
            ValueError: another word for ``slices``.
        """
        if slices not in ('centre', 'mean'):
            raise ValueError(f"slices is '{slices}'; wanted 'centre' or 'mean'")
        fitted, notes, own, spans = dict(state), [], self.state_dict(), []
        if self.to_former is None:
            fitted = {name: value for name, value in state.items() if not name.startswith('to_former.')}
            notes += ['to_former: left out (class_token=False)'] if len(fitted) < len(state) else []
        for name in sorted(state.keys() & own.keys()):
            value, wanted = state[name], own[name]
            if value.shape == wanted.shape:
                continue
            if name == 'tokens' and value.ndim == 2 and value.shape[1] == wanted.shape[1]:
                kept = min(len(value), len(wanted))
                fitted[name] = torch.cat([value[:kept], wanted[kept:].to(value)])
                notes.append(f'{name}: {len(value)} -> {len(wanted)}, {len(wanted) - kept} of them start afresh')
            elif _spans_frames(value, wanted):
                fitted[name] = inflate(value, wanted.shape[2], slices=slices, causal=self.causal)
                spans.append(wanted.shape[2])
        notes += [f'{spans.count(span)} kernels: 1 -> {span} frames, {slices}' for span in sorted(set(spans))]
        return fitted, notes

    def _clip(self, video: Tensor) -> Features:
        """A whole clip."""
        frames = video.shape[1]
        maps, tokens, _ = self.encode(video)
        if self.every > 1:
            maps = [to_frames(x, frames, self.every) for x in maps]
        return self.features(maps, tokens[:, :, 0].expand(-1, frames, -1))

    def _hold(self, video: Tensor, state: RecurrentState | None) -> tuple[Features, RecurrentState]:
        """A part of a stream of which every n-th frame is looked at: its features stand until the next such frame."""
        batch, frames = video.shape[:2]
        seen = state['seen'] if state else torch.zeros(batch, dtype=torch.int64, device=video.device)
        first = -int(seen[0]) % self.every  # the next frame to look at
        held = state.scope('held') if state else RecurrentState()
        new_state = RecurrentState(state or {})
        if first < frames:
            maps, tokens, new_state = self.encode(video, state, first=first)
            found = {str(index): x.transpose(1, 2) for index, x in enumerate(maps)} | dict(token=tokens[:, :, 0])
            held = {key: torch.cat([held[key], x], 1) if held else x for key, x in found.items()}
        elif 'stem' in new_state:
            new_state['stem'] = self.stem.conv.skip(video.transpose(1, 2), new_state['stem'])
        place = (torch.arange(frames, device=video.device) - first).div(self.every, rounding_mode='floor')
        place = place + (1 if state else 0)  # what the state held comes first
        *maps, token = (x[:, place] for x in held.values())
        new_state.put('held', {key: x[:, -1:].clone() for key, x in held.items()})
        new_state['seen'] = seen + frames
        return self.features([x.transpose(1, 2) for x in maps], token), new_state


def to_frames(x: Tensor, frames: int, every: int) -> Tensor:
    """Linear interpolation of ``x (B, C, T', h, w)``, whose frames stand at 0, ``every``, ..., to all ``frames``."""
    place = torch.arange(frames, device=x.device) / every
    before = place.long()
    after = (before + 1).clamp(max=x.shape[2] - 1)
    share = (place - before).to(x.dtype)[:, None, None]
    return torch.lerp(x[:, :, before], x[:, :, after], share)


def inflate(kernel: Tensor, frames: int, *, slices: str = 'centre', causal: bool = False) -> Tensor:
    """``(O, I, 1, h, w)`` to ``(O, I, frames, h, w)``."""
    if slices == 'mean':
        return kernel.repeat(1, 1, frames, 1, 1) / frames
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[3:])
    inflated[:, :, frames - 1 if causal else frames // 2] = kernel[:, :, 0]
    return inflated


def _spans_frames(value: Tensor, wanted: Tensor) -> bool:
    """The one is a kernel of a single frame, and the other the same for several."""
    both = value.ndim == wanted.ndim == 5
    return both and value.shape[2] == 1 and value[:, :, 0].shape == wanted[:, :, 0].shape


def _parent(size: str | None) -> str | None:
    """The size of the parent behind one of our names."""
    known = [*VARIANTS, *SIZES]
    if size is not None and size not in known:
        raise ValueError(f"'{size}' is no size of Video Mobile-Former; known: {', '.join(known)}{nearest(size, known)}")
    return VARIANTS[size][0] if size in VARIANTS else size


def _check_time(kernel: int, stride: int, causal: bool, decay: float, window: int | None) -> None:
    if kernel not in (1, 3, 5) or stride < 1:
        raise ValueError(f'the stem has temporal kernel {kernel} and stride {stride}; wanted 1, 3 or 5, and at least 1')
    if not 0 < decay <= 1 or (decay < 1 and not causal):
        raise ValueError(f'token_decay is {decay}; wanted a number above 0 and up to 1, below 1 with causal=True only')
    if causal and window is not None:
        raise ValueError(f'causal=True streams by itself; leave window={window} out, or causal')
