"""Global tokens beside a convolutional net, and the bridges to it: Mobile-Former (arXiv 2108.05895, section 3).

As in the authors' code: bridges attend to features as they are (no projection on the side of the convolutions), norms
come last, the tokens' own attention has no projection of keys and values.

Shapes: features ``(B, C, T, H, W)``, tokens ``(B, G, M, d)``. ``G`` is 1 where the whole clip has one set of tokens,
and T where every frame has its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trecvit_dense.models.layers.drop_path import DropPath
from trecvit_dense.structures import RecurrentState

_BRIDGE_HEADS, _TOKEN_HEADS, _MLP_RATIO = 2, 4, 2


def linear(in_features: int, out_features: int) -> nn.Linear:
    """The authors' initial values."""
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


class MobileToFormer(nn.Module):
    """Tokens gather from the features: ``Z <- LN(Z + W(gate(Z) * softmax(q(Z) X) X))``.

    With one set of tokens for a clip the softmax runs over all positions of all frames. With a set per frame
    (``causal``) a frame's tokens gather from the frames up to it, and each of those counts with the scores that *its
    own* tokens gave it. That mean can be carried from frame to frame in constant memory (:func:`mean_so_far`); scoring
    old frames again with new queries could not. The two agree where the tokens of all frames do: in the first block
    of a net, and everywhere on a still video.

    Args:
        channels: ``C``.
        token_dim: ``d``.
        causal: Tokens per frame, see above.
        decay: Causal only: what a frame's weight is multiplied by with every later frame; 1 never forgets.
        drop_path: Stochastic depth.
    """

    def __init__(
        self, channels: int, token_dim: int, *, causal: bool = False, decay: float = 1.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.causal, self.decay = causal, decay
        self.scale = (channels // _BRIDGE_HEADS) ** -0.5
        self.query = linear(token_dim, channels)
        self.gate = nn.Sequential(linear(token_dim, channels), nn.Hardsigmoid())
        self.proj = linear(channels, token_dim)
        self.norm = nn.LayerNorm(token_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, tokens: Tensor, state: RecurrentState | None = None) -> tuple[Tensor, RecurrentState]:
        """New tokens, and what to carry on: ``mean (B, heads, M, C / heads)`` and ``weight (B, heads, M)``."""
        keys = by_head(x, per_frame=self.causal)  # (B, G, heads, C / heads, P)
        query = self.query(tokens).unflatten(-1, (_BRIDGE_HEADS, -1)).transpose(2, 3)  # (B, G, heads, M, C / heads)
        scores = query @ keys * self.scale  # (B, G, heads, M, P)
        mean = scores.softmax(-1) @ keys.transpose(-1, -2)  # (B, G, heads, M, C / heads)
        carried = RecurrentState()
        if self.causal:
            mean, carried = mean_so_far(mean, scores.float().logsumexp(-1), self.decay, state)
        gathered = mean.transpose(2, 3).flatten(3) * (2 * self.gate(tokens))  # (B, G, M, C)
        return self.norm(tokens + self.drop_path(self.proj(gathered))), carried


class FormerToMobile(nn.Module):
    """Features read the tokens: ``X <- X + softmax(X k(Z)) v(Z)``, over the tokens of the clip or of the frame."""

    def __init__(self, channels: int, token_dim: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.scale = (channels // _BRIDGE_HEADS) ** -0.5
        self.key = linear(token_dim, channels)
        self.value = linear(token_dim, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        per_frame = tokens.shape[1] > 1
        query = by_head(x, per_frame=per_frame)  # (B, G, heads, C / heads, P)
        key, value = (
            layer(tokens).unflatten(-1, (_BRIDGE_HEADS, -1)).transpose(2, 3) for layer in (self.key, self.value)
        )  # (B, G, heads, M, C / heads)
        weights = (key @ query * self.scale).softmax(-2)  # (B, G, heads, M, P)
        read = (value.transpose(-1, -2) @ weights).flatten(2, 3)  # (B, G, C, P)
        read = read.transpose(1, 2) if per_frame else read[:, 0]
        return x + self.drop_path(read.reshape(x.shape))


class Former(nn.Module):
    """The tokens among themselves: attention (keys and values are the tokens as they are), then an MLP."""

    def __init__(self, token_dim: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.scale = (token_dim // _TOKEN_HEADS) ** -0.5
        self.query = linear(token_dim, token_dim)
        self.proj = linear(token_dim, token_dim)
        self.norm = nn.LayerNorm(token_dim)
        hidden = _MLP_RATIO * token_dim
        self.mlp = nn.Sequential(linear(token_dim, hidden), nn.GELU(), linear(hidden, token_dim))
        self.mlp_norm = nn.LayerNorm(token_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        query, keys = (x.unflatten(-1, (_TOKEN_HEADS, -1)).transpose(2, 3) for x in (self.query(tokens), tokens))
        weights = (query @ keys.transpose(-1, -2) * self.scale).softmax(-1)  # (B, G, heads, M, M)
        read = (weights @ keys).transpose(2, 3).flatten(3)  # (B, G, M, d)
        tokens = self.norm(tokens + self.drop_path(self.proj(read)))
        return self.mlp_norm(tokens + self.mlp(tokens))


def by_head(x: Tensor, *, per_frame: bool) -> Tensor:
    """``(B, C, T, H, W)`` to ``(B, G, heads, C / heads, P)``: all T x H x W positions, or those of each frame."""
    x = x.unflatten(1, (_BRIDGE_HEADS, -1))  # (B, heads, C / heads, T, H, W)
    return x.permute(0, 3, 1, 2, 4, 5).flatten(4) if per_frame else x.flatten(3)[:, None]


def mean_so_far(
    mean: Tensor, weight: Tensor, decay: float, state: RecurrentState | None
) -> tuple[Tensor, RecurrentState]:
    """Mean over the frames up to each frame, a frame counting ``exp(weight) * decay ** age``.

    Args:
        mean: ``(B, T, heads, M, c)``, of each frame alone.
        weight: ``(B, T, heads, M)``, the logarithm of the sum of its exponentiated scores.
        state: ``mean (B, heads, M, c)`` and ``weight (B, heads, M)`` of all frames before, or None.

    Returns:
        Like ``mean``, and the same two entries after the last frame.
    """
    frames = mean.shape[1]
    values, logs = mean.permute(0, 2, 3, 1, 4).float(), weight.permute(0, 2, 3, 1)  # (B, heads, M, T, c), (..., T)
    if state:
        values = torch.cat([state['mean'][..., None, :], values], dim=-2)
        logs = torch.cat([state['weight'][..., None], logs], dim=-1)
    past = values.shape[-2] - frames  # 1 with a state: all that was before stands as one frame
    place = torch.arange(values.shape[-2], device=mean.device)
    age = place[past:, None] - place  # (T, past + T)
    logs = logs[..., None, :] + age * torch.tensor(decay, device=mean.device).log()
    logs = logs.masked_fill(age < 0, -torch.inf)  # (B, heads, M, T, past + T)
    values = logs.softmax(-1) @ values  # (B, heads, M, T, c)
    carried = RecurrentState(mean=values[..., -1, :], weight=logs[..., -1, :].logsumexp(-1))
    return values.permute(0, 3, 1, 2, 4).to(mean.dtype), carried
