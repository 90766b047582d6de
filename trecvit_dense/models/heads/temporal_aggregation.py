"""The temporal aggregation head of XViT (arXiv 2106.05968, section 3.2): one token reads the tokens of all frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trecvit_dense.models.heads.classification import ClassificationHead, ClassificationOutput
from trecvit_dense.models.layers.attention import Attention, SpatialBlock
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, RecurrentState

_EMPTY = torch.finfo(torch.float32).min  # the largest score of no frame at all


class TemporalAttention(Attention):
    """Attention among one token per frame and the class token before them; its projection to q, k, v has no bias."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__(embed_dim, num_heads)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.proj.reset_parameters()


def temporal_block(embed_dim: int, num_heads: int) -> SpatialBlock:
    """A transformer block with the details of the authors' head: no bias in qkv, epsilon 1e-5, exact GELU."""
    block = SpatialBlock(embed_dim, num_heads, mlp_dim=4 * embed_dim, layer_norm_eps=1e-5, gelu='erf')
    block.attn = TemporalAttention(embed_dim, num_heads)
    for linear in (block.mlp.fc1, block.mlp.fc2):
        linear.reset_parameters()
    return block


@MODELS.register_module()
class TemporalAggregationHead(ClassificationHead):
    """Video classification from one token per frame.

    ``consensus='attention'`` prepends a learned class token to the tokens of the frames, without any position in time,
    and runs ``depth`` transformer blocks over them; then
    ``classifier(gelu(pre_logits(norm(class token))))``. ``'average'`` is the mean over frames of ``classifier(token)``.
    Losses and answers are those of :class:`ClassificationHead`.

    It streams. The average and a single block go on for any number of frames with running sums: the class token of one
    block reads of a frame no more than its score, and a softmax can be summed up. With more blocks the frames also read
    each other, so a call is one whole clip, unless ``window`` keeps the tokens of the last frames.

    State:

    - ``frames`` ``(B,)`` int64: frames since :meth:`begin`,
    - average: ``sum`` ``(B, C)``,
    - one block: ``top`` ``(B, heads)`` the largest score, ``weight`` ``(B, heads)`` and ``sum``
      ``(B, heads, C / heads)`` the softmax's denominator and numerator, divided by ``exp(top)``; float32,
    - with ``window``: ``tokens`` ``(B, window, C)``, those of the last frames, newest last.

    Args:
        num_classes: Classes.
        consensus: ``'attention'`` or ``'average'``.
        depth: Transformer blocks of the attention.
        num_heads: Their attention heads.
        rep_size: Width of ``pre_logits`` with attention; None is that of the tokens. An average has no such layer.
        window: Frames that the attention reads; None: all since :meth:`begin`.
        dropout: On the tokens of the frames and before the classifier, in training.
        pool: What a frame gives: ``'tok'``, the backbone's class token, or ``'gap'``, its mean patch token.
        token_dim: Width of the class token, where it is not that of the last level.
        backbone_channels: Passed by the perceiver.
        **options: Others of :class:`ClassificationHead`.

    Raises:
        ValueError: an unknown ``consensus`` or ``pool``, or numbers that do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        consensus: str = 'attention',
        depth: int = 1,
        num_heads: int = 12,
        rep_size: int | None = None,
        window: int | None = None,
        dropout: float = 0.5,
        pool: str = 'tok',
        token_dim: int | None = None,
        backbone_channels: tuple[int, ...] = (),
        **options: Any,
    ) -> None:
        _check(consensus, depth, window, pool)
        width = backbone_channels[-1] if pool == 'gap' or token_dim is None else token_dim
        rep_size = None if consensus == 'average' else rep_size or width
        super().__init__(
            num_classes,
            rep_size=rep_size,
            dropout=dropout,
            pool=pool,
            token_dim=token_dim,
            backbone_channels=backbone_channels,
            **options,
        )
        self.width, self.consensus, self.window = width, consensus, window
        self.classifier.reset_parameters()
        if consensus == 'average':
            return
        self.pre_logits.reset_parameters()
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(temporal_block(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @property
    def mode(self) -> str:
        """How frames are gathered: ``'average'``, ``'window'``, ``'running'`` (sums) or ``'clip'`` (nothing is)."""
        if self.consensus == 'average':
            return 'average'
        if self.window is not None:
            return 'window'
        return 'running' if len(self.blocks) == 1 else 'clip'

    def begin(self, batch_size: int, device: torch.device | str, **queries: object) -> RecurrentState:
        width = self.width
        state = RecurrentState(frames=torch.zeros(batch_size, dtype=torch.int64, device=device))
        if self.mode == 'average':
            state['sum'] = torch.zeros(batch_size, width, device=device)
        elif self.mode == 'window':
            state['tokens'] = torch.zeros(batch_size, self.window, width, device=device)
        elif self.mode == 'running':
            heads = self.blocks[0].attn.num_heads
            state['top'] = torch.full((batch_size, heads), _EMPTY, device=device)
            state['weight'] = torch.zeros(batch_size, heads, device=device)
            state['sum'] = torch.zeros(batch_size, heads, width // heads, device=device)
        return state

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[ClassificationOutput, RecurrentState]:
        """Class scores of the frames since :meth:`begin`, or of the last ``window`` of them, after the last one here.

        Raises:
            ValueError: frames that go on from others, where only whole clips can be read.
        """
        tokens = self.dropout(self._pool(features))  # (B, T, C)
        new_state = RecurrentState(frames=state['frames'] + tokens.shape[1])
        read, kept = getattr(self, f'_read_{self.mode}')(tokens, state)
        representation = self.represent(read)  # (B, rep_size)
        logits = self.classifier(self.dropout(representation) if self.consensus == 'attention' else read).float()
        new_state.update(kept)
        return ClassificationOutput(logits, logits.softmax(dim=-1), representation[:, None]), new_state

    def represent(self, token: Tensor) -> Tensor:
        """What the classifier reads of a class token behind the blocks ``(B, C)``; of an average, itself."""
        return token if self.consensus == 'average' else F.gelu(self.pre_logits(self.norm(token)))

    def encode(self, tokens: Tensor, active: Tensor | None = None) -> Tensor:
        """The class token and the tokens of the frames ``(B, 1 + T, C)`` behind all blocks.

        Args:
            active: ``(B, 1 + T)`` bool: False where there is no frame.
        """
        x, active = tokens[:, None], None if active is None else active[:, None]  # one group of tokens, as of a frame
        for block in self.blocks:
            x, _ = block(x, active=active)
        return x[:, 0]

    # ------------------------------------------------------------------------------------------------ four ways

    def _read_average(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, dict[str, Tensor]]:
        total = state['sum'] + tokens.float().sum(dim=1)
        return total / (state['frames'] + tokens.shape[1])[:, None], dict(sum=total)

    def _read_clip(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, dict[str, Tensor]]:
        if state['frames'].any():
            raise ValueError(
                f'a temporal aggregation head of {len(self.blocks)} blocks reads one whole clip in one call; to go on '
                f'from earlier frames set window=W in its config, or depth=1'
            )
        first = self.class_token.to(tokens.dtype).expand(len(tokens), -1, -1)
        return self.encode(torch.cat([first, tokens], dim=1))[:, 0], {}

    def _read_window(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, dict[str, Tensor]]:
        last = torch.cat([state['tokens'].to(tokens.dtype), tokens], dim=1)[:, -self.window :]  # (B, window, C)
        age = torch.arange(self.window, 0, -1, device=tokens.device)  # 1 is the newest
        known = age <= (state['frames'] + tokens.shape[1])[:, None]  # (B, window)
        first = self.class_token.to(tokens.dtype).expand(len(tokens), -1, -1)
        active = torch.cat([known.new_ones(len(known), 1), known], dim=1)
        return self.encode(torch.cat([first, last], dim=1), active)[:, 0], dict(tokens=last)

    def _read_running(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, dict[str, Tensor]]:
        """One block, of which only the class token is read: its softmax over the frames is summed up as they come."""
        block = self.blocks[0]
        first = self.class_token.to(tokens.dtype)
        query, own_key, own_value = _by_head(block.attn, block.norm1(first)).unbind(0)  # (1, heads, 1, C / heads)
        _, key, value = _by_head(block.attn, block.norm1(tokens)).unbind(0)  # (B, heads, T, C / heads)
        kept = _add_up(query, key, value, state)
        full = _add_up(query, own_key.expand(len(tokens), -1, -1, -1), own_value.expand_as(own_key), kept)
        y = (full['sum'] / full['weight'][..., None]).flatten(1)  # (B, C)
        x = first[:, 0] + block.attn.proj(y.to(tokens.dtype))
        return x + block.mlp(block.norm2(x)), kept


def _by_head(attention: Attention, x: Tensor) -> Tensor:
    """Queries, keys and values ``(3, B, heads, N, C / heads)`` of tokens ``(B, N, C)``, in float32."""
    return attention.qkv(x).float().unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)


def _add_up(query: Tensor, key: Tensor, value: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The running softmax of one query after more keys and values ``(B, heads, N, C / heads)``."""
    scores = (query * key).sum(dim=-1) * key.shape[-1] ** -0.5  # (B, heads, N)
    # Any shift gives the same quotient, so the largest score needs no gradient.
    top = torch.maximum(state['top'], scores.detach().amax(dim=-1))
    fade, parts = (state['top'] - top).exp(), (scores - top[..., None]).exp()
    return dict(
        top=top,
        weight=state['weight'] * fade + parts.sum(dim=-1),
        sum=state['sum'] * fade[..., None] + (parts[..., None] * value).sum(dim=-2),
    )


def _check(consensus: str, depth: int, window: int | None, pool: str) -> None:
    if pool not in ('tok', 'gap'):
        raise ValueError(f"pool is '{pool}'; wanted 'tok' (class token) or 'gap' (mean of the patches) of each frame")
    if consensus not in ('attention', 'average'):
        raise ValueError(f"consensus is '{consensus}'; wanted 'attention' or 'average'")
    if depth < 1:
        raise ValueError(f"depth is {depth}; wanted at least 1 block (or consensus='average', which has none)")
    if window is not None and (window < 1 or consensus == 'average'):
        raise ValueError(f"window is {window}; wanted at least 1 frame, and only with consensus='attention'")
