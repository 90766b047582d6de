"""ViS4mer (arXiv 2204.01692): S4 layers at several rates over the tokens of a video, on top of any backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trecvit_dense.models.layers.s4 import ChannelDropout, Entries, S4Layer
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import FeatureLevel, Features, PromptGroup, RecurrentState

from .stored_features import StoredFeatures


class S4Stage(nn.Module):
    """``x + dropout(S4(norm(x)))``; then pairs of tokens are averaged and half the channels remain, without residual.

    Args:
        channels: H of the tokens that come in.
        length: The kernel's L, in tokens of this stage.
        reduces: Whether there is a second part, ``gelu(linear(mean of two tokens))``.
        dropout: Inside S4 and behind it.
        channel_dropout: Drop whole channels.
        **kernel: Options of :class:`.S4Kernel`.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        *,
        reduces: bool = True,
        dropout: float = 0.2,
        channel_dropout: bool = True,
        **kernel: Any,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.s4 = S4Layer(channels, length, dropout=dropout, channel_dropout=channel_dropout, **kernel)
        self.dropout = ChannelDropout(dropout, whole=channel_dropout)
        self.linear = nn.Linear(channels, channels // 2) if reduces else None

    def forward(self, x: Tensor, state: Entries | None = None) -> tuple[Tensor, Entries]:
        """``(B, L, H)`` at the stage's own rate; go on from ``state`` where one is given."""
        y, state = self.s4(self.norm(x), state)
        return x + self.dropout(y), state

    def reduce(self, x: Tensor) -> Tensor:
        """``(B, 2 L, H)`` to ``(B, L, H / 2)``."""
        return F.gelu(self.linear(x.unflatten(1, (-1, 2)).mean(2)))


@MODELS.register_module()
class ViS4mer(nn.Module):
    """An encoder of frames or short clips, and a multi-scale S4 decoder over all its tokens in order of time.

    The tokens of all frames are one sequence, frame by frame, the class token first, then the patches in raster order;
    there is no position embedding. Stage i has ``d_model / 2^i`` channels and half the tokens of the one before: each
    pair of neighbours becomes one, whether they are patches of a row or the last and first of two frames. Everything
    behind the encoder is causal, and a stream keeps a recurrence per stage, at the stage's own rate, and the half pair
    that waits for its other half: 458,752 bytes for the three recurrences of 1024, 512 and 256 channels.

    Heads read:

    - ``levels``: those of the encoder but its last one, and in place of that the tokens of the first stage before
      pooling, normalised without weights, of every frame;
    - ``class_token`` ``(B, T, d_last)``: the readout, the mean of all tokens that the last stage has given so far (zero
      before the first). The official classifier is linear in the last one:
      ``ClassificationHead(pool='last', rep_size=None, token_dim=...)``.

    Args:
        encoder: Config of a registered backbone; None: tokens ``(B, T, n, d_input)`` come in place of video, see
            :class:`.StoredFeatures`.
        l_max: Tokens for which the first stage's kernel is made (official: all of a clip, 60 * 197). Shorter input is
            what the authors' code makes of it, and longer input goes on with the same model.
        d_input: Channels of the encoder's last level; needed without an encoder.
        d_model: Channels of the first stage; None: ``d_input``. Where they differ a linear layer comes first.
        n_layers: Stages.
        dropout, channel_dropout: See :class:`S4Stage`.
        tokens: ``'all'``: the class token too, where the encoder has one per frame; ``'patches'``.
        readout: False: the first stage alone, for heads that read dense features; the others would get no gradient.
        freeze_encoder: The encoder is run without gradients, in eval mode (the paper's way).
        **kernel: Options of :class:`.S4Kernel`: ``d_state``, ``length_correction``, ``official_odd_length``, ``cache``.

    Raises:
        ValueError: sizes that do not fit.
    """

    supports_prompts = False

    def __init__(
        self,
        encoder: dict | None = None,
        *,
        l_max: int,
        d_input: int | None = None,
        d_model: int | None = None,
        n_layers: int = 3,
        dropout: float = 0.2,
        channel_dropout: bool = True,
        tokens: str = 'all',
        readout: bool = True,
        freeze_encoder: bool = True,
        d_state: int = 64,
        length_correction: bool = False,
        official_odd_length: bool = False,
        official_nodes: bool = False,
        cache: bool = True,
    ) -> None:
        super().__init__()
        if encoder is None and d_input is None:
            raise ValueError('ViS4mer has neither encoder nor d_input; name a backbone or the channels of its features')
        self.encoder = StoredFeatures(d_input) if encoder is None else MODELS.build(encoder)
        width = self.encoder.out_channels[-1]
        if d_input not in (None, width):
            raise ValueError(f'd_input is {d_input}, but the encoder gives {width} channels; leave d_input out')
        d_model = d_model or width
        _check(l_max, d_model, n_layers, tokens)
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            self.encoder.requires_grad_(False)
        self.uses_class_token = tokens == 'all' and getattr(self.encoder, 'class_token_dim', None) is not None
        self.input_proj = nn.Linear(width, d_model) if d_model != width else None
        self.stages = nn.ModuleList(
            S4Stage(
                d_model >> index,
                l_max >> index,
                reduces=readout,
                dropout=dropout,
                channel_dropout=channel_dropout,
                d_state=d_state,
                length_correction=length_correction,
                official_odd_length=official_odd_length,
                official_nodes=official_nodes,
                cache=cache,
            )
            for index in range(n_layers if readout else 1)
        )
        self.takes_video = getattr(self.encoder, 'takes_video', True)
        self.readout_dim = d_model >> n_layers if readout else None
        self.embed_dim, self.causal = d_model, getattr(self.encoder, 'causal', True)
        self.delay_frames = getattr(self.encoder, 'delay_frames', 0)
        self.out_channels = (*self.encoder.out_channels[:-1], d_model)
        self.strides = tuple(self.encoder.strides)
        self.class_token_dim = self.readout_dim or (d_model if self.uses_class_token else None)

    def train(self, mode: bool = True) -> ViS4mer:
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def forward(
        self, video: Tensor, prompts: list[PromptGroup] | None = None, state: RecurrentState | None = None, **_: object
    ) -> tuple[Features, RecurrentState]:
        """Advance by T frames.

        Args:
            video: As the encoder wants it: ``(B, T, 3, H, W)``, or stored tokens ``(B, T, n, C)``.
            state: From the frames before; None starts afresh. It is left as it was. In training the state behind a
                first call holds the inputs of the recurrences, see :class:`.S4Layer`.

        Raises:
            ValueError: prompts; a state that does not fit; the authors' odd kernel asked to go on from a state.
        """
        if prompts:
            raise ValueError('ViS4mer takes no prompt tokens; use a head that reads features alone')
        state = RecurrentState() if state is None else state
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            encoded, memory = self.encoder(video, state=state.scope('encoder') or None)
        new_state = RecurrentState().put('encoder', memory)
        tokens = self._tokens(encoded)  # (B, T, n, C)
        x = tokens.flatten(1, 2)
        if self.input_proj is not None:
            x = self.input_proj(x)
        seen = _seen(state, x)
        new_state['tokens'] = torch.full((len(x),), seen + x.shape[1], dtype=torch.int64, device=x.device)
        dense, x = self._stages(x, state, new_state, seen)
        dense = F.layer_norm(dense, dense.shape[-1:]).unflatten(1, tokens.shape[1:3])  # (B, T, n, d_model)
        first = int(self.uses_class_token)
        level = encoded.levels[-1]
        level = FeatureLevel(dense[:, :, first:], level.grid, level.stride)
        class_token = dense[:, :, 0] if first else None
        if self.readout_dim:
            class_token = self._readout(x, state, new_state, seen, tokens.shape[1:3])
        return Features((*encoded.levels[:-1], level), class_token), new_state

    def fit_weights(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Weights of a backbone that is the encoder here, as weights of the whole; the decoder stays as it starts."""
        if any(name.startswith(('encoder.', 'stages.')) for name in state):
            return state, []
        encoder = {f'encoder.{name}': value for name, value in state.items()}
        own = {name: value for name, value in self.state_dict().items() if not name.startswith('encoder.')}
        return {**own, **encoder}, [f'encoder: {len(encoder)} tensors; the decoder starts afresh']

    def _tokens(self, features: Features) -> Tensor:
        patches = features.levels[-1].tokens
        if not self.uses_class_token:
            return patches
        return torch.cat([features.class_token[:, :, None], patches], dim=2)

    def _stages(
        self, x: Tensor, state: RecurrentState, new_state: RecurrentState, seen: int
    ) -> tuple[Tensor, Tensor | None]:
        """All stages over new tokens ``(B, L, d_model)``: those of the first one before pooling, and the last ones."""
        dense = None
        for index, stage in enumerate(self.stages):
            scope = state.scope(f'stages.{index}')
            entries = {name: value for name, value in scope.items() if name != 'pending'}
            if x.shape[1]:
                _check_entries(entries, x, stage)
                x, entries = stage(x, entries)
            elif not entries:  # no pair is complete yet
                entries = dict(s4=x.new_zeros(len(x), x.shape[2], stage.s4.kernel.d_state // 2, 2, dtype=torch.float32))
            new_state.put(f'stages.{index}', entries)
            dense = x if dense is None else dense
            if stage.linear is None:
                return dense, None
            if (seen >> index) % 2:
                x = torch.cat([scope['pending'][:, None].to(x.dtype), x], dim=1)
            pairs = x.shape[1] // 2
            waiting = x[:, -1] if x.shape[1] % 2 else x.new_zeros(len(x), x.shape[2])
            new_state[f'stages.{index}.pending'] = waiting.float()
            x = stage.reduce(x[:, : 2 * pairs])
        return dense, x

    def _readout(
        self, x: Tensor, state: RecurrentState, new_state: RecurrentState, seen: int, shape: torch.Size
    ) -> Tensor:
        """Mean of the last stage's tokens so far, at the end of every frame, ``(B, T, d_last)`` float32."""
        frames, size = shape
        depth = len(self.stages)
        start = state.get('readout', x.new_zeros(len(x), x.shape[2], dtype=torch.float32))
        sums = torch.cat([start[:, None], x.float()], dim=1).cumsum(1)  # (B, 1 + new, d_last)
        counts = torch.tensor([(seen + size * (frame + 1)) >> depth for frame in range(frames)], device=x.device)
        new_state['readout'] = sums[:, -1]
        return sums[:, counts - (seen >> depth)] / counts.clamp(min=1)[:, None]


def _seen(state: RecurrentState, x: Tensor) -> int:
    """Tokens before this call: they say where the pairs are."""
    if 'tokens' not in state:
        return 0
    seen = state['tokens'].tolist()
    if len(seen) != len(x) or len(set(seen)) != 1:
        raise ValueError(
            f"state 'tokens' is {seen}, the batch has {len(x)} videos; wanted one equal number for each: videos of one "
            f'batch go on together'
        )
    return seen[0]


def _check_entries(entries: Entries, x: Tensor, stage: S4Stage) -> None:
    wanted = (len(x), x.shape[2], stage.s4.kernel.d_state // 2, 2)
    if 's4' in entries and entries['s4'].shape != wanted:
        raise ValueError(f"state 's4' has shape {tuple(entries['s4'].shape)}, this call needs {wanted}; another model?")


def _check(l_max: int, d_model: int, n_layers: int, tokens: str) -> None:
    if n_layers < 1 or l_max >> (n_layers - 1) < 1:
        raise ValueError(f'l_max is {l_max} and n_layers {n_layers}; wanted a layer at least, and a token in the last')
    if d_model >> n_layers < 1:
        raise ValueError(
            f'd_model is {d_model}, too small to halve it {n_layers} times; wanted {1 << n_layers} or more'
        )
    if tokens not in ('all', 'patches'):
        raise ValueError(f"tokens is '{tokens}'; wanted 'all' (class token first) or 'patches'")
