"""Attentive probing: a frozen backbone's tokens, read by learned queries in one cross-attention, and classified."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trecvit_dense.models.heads.classification import ClassificationHead, ClassificationOutput
from trecvit_dense.models.layers.attention import MLP
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, RecurrentState

_EMPTY = torch.finfo(torch.float32).min  # the largest score of no token at all


@MODELS.register_module()
class AttentiveProbe(ClassificationHead):
    """Class scores from learned queries that attend to the patch tokens of all frames (V-JEPA, arXiv 2404.08471, 5.1).

    ``y = q + proj(attention(q, LN(tokens)))``, then ``y + mlp(LN(y))``, the mean over queries, a norm, a linear
    classifier. The queries know nothing of the video, so the softmax over all tokens is a running sum: the head streams
    exactly, with a state whose size does not depend on the frames. Losses and answers are those of
    :class:`ClassificationHead`, of which ``rep_size=None, pool='gap'`` on a frozen backbone is linear probing: the
    features are normalised tokens, so neither probe needs batch statistics.

    State: ``top`` and ``weight`` ``(B, heads, Q)``, ``sum`` ``(B, heads, Q, C / heads)``, float32: largest score,
    denominator and numerator of the softmax, both over ``exp(top)``; ``frames`` ``(B,)`` int64.

    Args:
        num_classes: Classes.
        num_queries: Learned queries, 1 in the paper.
        num_heads: Attention heads; must divide the backbone's width.
        mlp_dim: Hidden width of the MLP; None: four times the backbone's width.
        backbone_channels: Passed by the perceiver.
        **options: ``label_smoothing``, ``dropout`` and ``classes`` of :class:`ClassificationHead`.

    Raises:
        ValueError: numbers that do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_queries: int = 1,
        num_heads: int = 12,
        mlp_dim: int | None = None,
        backbone_channels: tuple[int, ...] = (),
        **options: Any,
    ) -> None:
        for key in ('rep_size', 'pool'):
            if key in options:
                raise ValueError(f'AttentiveProbe pools by attention and has no {key}; leave it out')
        super().__init__(num_classes, rep_size=None, pool='gap', backbone_channels=backbone_channels, **options)
        width = self.backbone_channels[-1]
        if width % num_heads or num_queries < 1:
            raise ValueError(
                f'{num_queries} queries with {num_heads} heads on tokens of width {width}; wanted at least one query, '
                f'and a number of heads that divides the width'
            )
        self.num_heads = num_heads
        self.queries = nn.Parameter(torch.empty(num_queries, width))
        nn.init.normal_(self.queries, std=0.02)
        self.norm_tokens, self.norm_pooled, self.norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.query, self.value, self.proj = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias would add the same to the scores of all tokens
        for linear in (self.query, self.key, self.value, self.proj):
            nn.init.xavier_uniform_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        self.mlp = MLP(width, mlp_dim or 4 * width)

    def begin(self, batch_size: int, device: torch.device | str, **queries: object) -> RecurrentState:
        count, width = self.queries.shape
        shape = (batch_size, self.num_heads, count)
        return RecurrentState(
            top=torch.full(shape, _EMPTY, device=device),
            weight=torch.zeros(shape, device=device),
            sum=torch.zeros(*shape, width // self.num_heads, device=device),
            frames=torch.zeros(batch_size, dtype=torch.int64, device=device),
        )

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[ClassificationOutput, RecurrentState]:
        """Class scores of all frames since :meth:`begin`, after the last one here."""
        tokens = self.norm_tokens(features.levels[-1].tokens)  # (B, T, N, C)
        new_state = self._read(tokens, state)
        new_state['frames'] = state['frames'] + tokens.shape[1]
        read = new_state['sum'] / new_state['weight'][..., None]  # (B, heads, Q, C / heads)
        pooled = self.queries + self.proj(read.transpose(1, 2).flatten(2).to(tokens.dtype))  # (B, Q, C)
        pooled = pooled + self.mlp(self.norm_pooled(pooled))
        pooled = self.norm(pooled.mean(dim=1)).float()
        logits = self.classifier(self.dropout(pooled)).float()
        return ClassificationOutput(logits, logits.softmax(dim=-1), pooled[:, None]), new_state

    def _read(self, tokens: Tensor, state: RecurrentState) -> RecurrentState:
        """The softmax sums with the tokens of this call, in float32."""
        heads = (self.num_heads, -1)
        tokens = tokens.flatten(1, 2)  # (B, T * N, C)
        key, value = self.key(tokens).unflatten(-1, heads), self.value(tokens).unflatten(-1, heads)
        query = self.query(self.queries).unflatten(-1, heads)  # (Q, heads, c)
        scores = torch.einsum('qhc,bmhc->bhqm', query, key).float() * query.shape[-1] ** -0.5
        top = torch.maximum(state['top'], scores.amax(dim=-1))
        weights, kept = torch.exp(scores - top[..., None]), torch.exp(state['top'] - top)
        return RecurrentState(
            top=top,
            weight=state['weight'] * kept + weights.sum(dim=-1),
            sum=state['sum'] * kept[..., None] + torch.einsum('bhqm,bmhc->bhqc', weights, value.float()),
        )
