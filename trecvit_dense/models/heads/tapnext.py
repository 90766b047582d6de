"""TAPNextHead: points are tokens beside the patches, coordinates are read from bins (TAPNext, arXiv 2504.05579).

A query is one token per frame: *unknown* before its frame, *point query + position* on it, *mask* after it. The answer
is decoded from the same token after the backbone. Nothing but the backbone's recurrent rows remembers a point.

Coordinates inside are ``(y, x)`` in *model space*: ``num_bins * bin_size`` units along each image axis (256 in the
released weights), whatever the size of the input. The head takes and gives ``xy`` in pixels of the model input.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from trecvit_dense.models.backbones.token_streams import can_look
from trecvit_dense.models.heads.base import Head, PointOutput
from trecvit_dense.models.heads.point_slots import begin_slots, spread_slots
from trecvit_dense.models.layers.kept import Kept
from trecvit_dense.models.losses.point_loss import TAPNextLoss
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, PromptGroup, RecurrentState, VideoSample

GROUP = 'points'
# What differs between the released JAX and torch programs; weights want the flavour they were trained in.
NUMERICS = {'jax': dict(gelu='tanh', eps=1e-6), 'torch': dict(gelu='none', eps=1e-5)}


def sincos_axis(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """``(length, dim)`` sines, then cosines, of integer positions at frequencies 10000^(-i / (dim/2 - 1))."""
    half = dim // 2
    omega = 10000.0 ** (-torch.arange(half, device=device, dtype=torch.float64) / max(half - 1, 1))
    angle = torch.arange(length, device=device, dtype=torch.float64)[:, None] * omega
    return torch.cat([angle.sin(), angle.cos()], -1).float()


def sample_axis(table: Tensor, position: Tensor, *, border: str) -> tuple[Tensor, Tensor]:
    """Linear interpolation of a ``(length, dim)`` table.

    Args:
        position: ``(...)`` in table rows; -0.5 is half a row before the first.
        border: ``'clamp'``: the edge row goes on outside. ``'zero'``: rows outside are zero.

    Returns:
        ``(..., dim)`` value and ``(...)`` the weight that fell inside (1 for ``'clamp'``).
    """
    last = len(table) - 1
    if border == 'clamp':
        position = position.clamp(0, last)
    low = position.floor()
    fraction = position - low
    value, inside = 0.0, torch.zeros_like(position)
    for row, weight in ((low, 1 - fraction), (low + 1, fraction)):
        if border == 'zero':
            weight = weight * ((row >= 0) & (row <= last))
        value = value + weight[..., None] * table[row.clamp(0, last).long()]
        inside = inside + weight
    return value, inside


def position_encoding(yx: Tensor, image_size: tuple[int, int], dim: int, *, border: str = 'clamp') -> Tensor:
    """Two-dimensional sin-cos encoding of pixel positions, ``(..., dim)``: x in the first half of the channels, then y.

    Bilinear sampling of the table over all pixels (centres at +0.5). The table is separable, so one table per axis
    replaces the official buffer of ``H * W * dim`` numbers.

    Args:
        yx: ``(..., 2)`` pixels of an image of ``image_size`` ``(H, W)``.
        border: Outside the outermost pixel centres: ``'clamp'`` as the JAX program, or ``'zero'`` as the torch program,
            which fades the encoding out within half a pixel of the border.
    """
    return encode_position(yx, axis_tables(image_size, dim, yx.device), border=border)


def axis_tables(image_size: tuple[int, int], dim: int, device: torch.device | None = None) -> list[Tensor]:
    """Tables ``(H, dim / 2)`` and ``(W, dim / 2)`` of an image."""
    return [sincos_axis(length, dim // 2, device) for length in image_size]


def encode_position(yx: Tensor, tables: list[Tensor], *, border: str = 'clamp') -> Tensor:
    """:func:`position_encoding` with the tables at hand."""
    y, y_inside = sample_axis(tables[0], yx[..., 0] - 0.5, border=border)
    x, x_inside = sample_axis(tables[1], yx[..., 1] - 0.5, border=border)
    return torch.cat([x * y_inside[..., None], y * x_inside[..., None]], -1)


def truncated_soft_argmax(logits: Tensor, *, threshold: int = 20, temperature: float = 0.5) -> Tensor:
    """Expected bin around the best one; the centre of bin k is k + 0.5.

    Args:
        logits: ``(..., num_bins)``.
        threshold: Bins farther than this from the best one are left out.
        temperature: Multiplies the logits (as in the official code), so below 1 it flattens them.
    """
    logits = logits.float()
    bins = torch.arange(logits.shape[-1], device=logits.device)
    near = (bins - logits.argmax(-1, keepdim=True)).abs() <= threshold
    weight = (temperature * logits).softmax(-1) * near
    return (weight * bins).sum(-1) / weight.sum(-1) + 0.5


def certainty_in_disc(logits: Tensor, yx_bins: Tensor, *, radius: int = 8, official_transposed: bool = False) -> Tensor:
    """Probability that the point lies within ``radius`` bins of the estimate, ``(...)`` in [0, 1].

    Args:
        logits: ``(..., 2, num_bins)``; the axes are taken as independent.
        yx_bins: ``(..., 2)`` estimate, in bins.
        official_transposed: The released torch program lays the disc over the mass with its axes swapped.
    """
    num_bins, width = logits.shape[-1], min(2 * radius + 1, logits.shape[-1])
    first = (yx_bins - radius - 0.5).floor().clamp(0, num_bins - width).long()
    index = first[..., None] + torch.arange(width, device=logits.device)  # (..., 2, width)
    mass = logits.float().softmax(-1).gather(-1, index)
    squared = (index + 0.5 - yx_bins[..., None]).square()
    if official_transposed:
        squared = squared.flip(-2)
    inside = squared[..., 0, :, None] + squared[..., 1, None, :] <= radius**2 + 1e-8  # (..., y, x)
    return (mass[..., 0, :, None] * mass[..., 1, None, :] * inside).sum((-2, -1))


def token_mlp(dim: int, hidden_dim: int, out_dim: int, numerics: str) -> nn.Sequential:
    """Linear, norm, GELU, twice, and a last linear: the shape of both official heads."""
    flavour = NUMERICS[numerics]
    norm, gelu = partial(nn.LayerNorm, hidden_dim, eps=flavour['eps']), partial(nn.GELU, approximate=flavour['gelu'])
    return nn.Sequential(
        nn.Linear(dim, hidden_dim), norm(), gelu(), nn.Linear(hidden_dim, hidden_dim), norm(), gelu(),
        nn.Linear(hidden_dim, out_dim),
    )  # fmt: skip


@MODELS.register_module()
class TAPNextHead(Head):
    """Point queries as prompt tokens, coordinates from bins.

    Args:
        backbone_channels, backbone_strides: Passed by the perceiver.
        image_size: ``(H, W)`` of the position table of the queries; inputs of another size are scaled to it.
        num_bins: Coordinate bins per axis.
        bin_size: Model-space units per bin; ``num_bins * bin_size`` spans the image. Losses are in these units.
        soft_argmax_threshold: Bins.
        softmax_temperature: See :func:`truncated_soft_argmax`.
        numerics: ``'jax'`` (TAPNext and BootsTAPNext were trained in JAX) or ``'torch'`` (TAPNext++ was in torch).
        border: ``'clamp'``, or ``'zero'`` as the official torch program; see :func:`position_encoding`.
        attention: ``'full'`` (the released weights need it) or ``'read_only'`` (points do not disturb one another).
        certainty_radius: Bins.
        use_certainty: A point is visible only if visibility times certainty exceeds one half.
        official_certainty: The transposed disc of the official torch program.
        loss: Config of the loss; it reads all layers when the backbone gives them. With a ``certainty_weight`` a third
            MLP learns certainty; without (the released weights) it is read off the bins.

    Raises:
        ValueError: a named option has another value.
    """

    requires_prompts = True

    def __init__(
        self,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...] = (),
        *,
        image_size: tuple[int, int] = (256, 256),
        num_bins: int = 256,
        bin_size: float = 1.0,
        hidden_dim: int = 256,
        soft_argmax_threshold: int = 20,
        softmax_temperature: float = 0.5,
        numerics: str = 'jax',
        border: str = 'clamp',
        attention: str = 'full',
        certainty_radius: int = 8,
        use_certainty: bool = False,
        official_certainty: bool = False,
        loss: dict | None = None,
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        _one_of('numerics', numerics, tuple(NUMERICS))
        _one_of('border', border, ('clamp', 'zero'))
        _one_of('attention', attention, ('full', 'read_only'))
        dim = backbone_channels[-1]
        if dim % 4:
            raise ValueError(f'TAPNextHead needs a backbone width that is a multiple of 4, got {dim}')
        self.dim, self.image_size = dim, tuple(image_size)
        self.num_bins, self.bin_size = num_bins, bin_size
        self.border, self.attention = border, attention
        self.use_certainty = use_certainty
        self.locate = partial(truncated_soft_argmax, threshold=soft_argmax_threshold, temperature=softmax_temperature)
        self.certainty = partial(certainty_in_disc, radius=certainty_radius, official_transposed=official_certainty)
        self.mask_token = nn.Parameter(torch.empty(dim))
        self.unknown_token = nn.Parameter(torch.empty(dim))
        self.point_query_token = nn.Parameter(torch.empty(dim))
        self.coordinate_head = token_mlp(dim, hidden_dim, 2 * num_bins, numerics)
        self.visible_head = token_mlp(dim, hidden_dim, 1, numerics)
        self.loss_terms = MODELS.build(loss or dict(type=TAPNextLoss))
        learnt = self.loss_terms.weights['certainty'] > 0
        self.certainty_head = token_mlp(dim, hidden_dim, 1, numerics) if learnt else None
        self.kept = Kept()  # the tables of positions
        for token in (self.mask_token, self.unknown_token, self.point_query_token):
            nn.init.normal_(token, std=dim**-0.5)

    @property
    def extent(self) -> float:
        """Length of model space along each axis."""
        return self.num_bins * self.bin_size

    # ------------------------------------------------------------------------------------------------- tokens

    def begin(
        self,
        batch_size: int,
        device: torch.device | str,
        query_txy: Tensor | None = None,
        valid: Tensor | None = None,
        capacity: int | None = None,
    ) -> RecurrentState:
        """Slot table for queries known at the start: ``(B, Q, 3)`` frame, x, y in pixels of the model input."""
        if query_txy is None:
            query_txy = torch.zeros(batch_size, 0, 3, device=device)
        return begin_slots(query_txy.to(device), valid, capacity)

    def query_tokens(self, query_xy: Tensor, input_size: tuple[int, int]) -> Tensor:
        """Point query tokens ``(B, Q, C)`` for ``(B, Q, 2)`` pixels of the model input."""
        ratio = [own / size for own, size in zip(self.image_size, input_size, strict=True)]
        yx = query_xy.flip(-1) * query_xy.new_tensor(ratio)
        make = partial(axis_tables, self.image_size, self.dim, yx.device)
        tables = self.kept.get(yx.device, [self.point_query_token], make)
        return self.point_query_token + encode_position(yx, tables, border=self.border)

    def prompts(self, state: RecurrentState, num_frames: int, input_size: tuple[int, int]) -> list[PromptGroup]:
        """One token per slot and frame; empty slots are inactive, and their content is never read."""
        query = state['query_txy']
        if not query.shape[1]:
            return []
        slots = spread_slots(state, num_frames)
        index, asked = slots.index[..., None, None], query[:, None, :, :1].long()  # (B, T, 1, 1), (B, 1, Q, 1)
        tokens = torch.where(index < asked, self.unknown_token, self.mask_token)  # (B, T, Q, C)
        if self.training or not can_look(tokens) or bool((index == asked).any()):
            tokens = torch.where(index == asked, self.query_tokens(query[..., 1:], input_size)[:, None], tokens)
        # Attention without a mask is faster; training pays for the look, streaming stays free of such a branch.
        active = None if self.training and bool(slots.active.all()) else slots.active
        return [PromptGroup(GROUP, tokens, attention=self.attention, active=active, reset=slots.reset)]

    # ------------------------------------------------------------------------------------------------- reading

    def decode(self, tokens: Tensor) -> dict[str, Tensor]:
        """Estimate from tokens ``(B, T, Q, C)``.

        Returns:
            ``yx`` ``(B, T, Q, 2)`` in model space, ``logits`` ``(B, T, Q, 2, num_bins)``, ``visible_logits``
            ``(B, T, Q)``, and ``certainty_logits`` where certainty is learnt.
        """
        logits = self.coordinate_head(tokens).unflatten(-1, (2, self.num_bins)).float()  # (B, T, Q, 2, K)
        visible_logits = self.visible_head(tokens)[..., 0].float()
        estimate = dict(yx=self.locate(logits) * self.bin_size, logits=logits, visible_logits=visible_logits)
        if self.certainty_head is not None:
            estimate['certainty_logits'] = self.certainty_head(tokens)[..., 0].float()
        return estimate

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[PointOutput, RecurrentState]:
        """Tracks of all slots on the frames of ``features``."""
        num_frames = features.levels[-1].tokens.shape[1]
        slots = spread_slots(state, num_frames)
        tokens = features.prompts.get(GROUP)
        if tokens is None:
            tokens = features.levels[-1].tokens.new_zeros(*slots.active.shape, self.dim)  # no slots: Q = 0
        estimates = [self.decode(layer) for layer in features.prompt_layers.get(GROUP, [])] + [self.decode(tokens)]
        final = estimates[-1]
        visible_logits, certainty = final['visible_logits'], None
        if not self.training:
            certainty = self._certainty(final)
            if self.use_certainty:
                visible_logits = (visible_logits.sigmoid() * certainty).clamp(1e-6, 1 - 1e-6).logit()
        size_yx = final['yx'].new_tensor(input_size)
        output = PointOutput(
            xy_px=(final['yx'] * size_yx / self.extent).flip(-1),
            visible_logits=visible_logits,
            active=slots.tracked,
            certainty=certainty,
            extras=dict(estimates=estimates, input_size=tuple(input_size)),
        )
        return output, RecurrentState({**state, 'frame': state['frame'] + num_frames})

    def _certainty(self, estimate: dict[str, Tensor]) -> Tensor:
        if 'certainty_logits' in estimate:
            return estimate['certainty_logits'].sigmoid()
        return self.certainty(estimate['logits'], estimate['yx'] / self.bin_size)

    def loss(self, output: PointOutput, samples: list[VideoSample], scale: tuple[float, float]) -> dict[str, Tensor]:
        """Losses of every layer on the frames from each query on; targets are the samples' tracks."""
        target_yx, visible, known = self._targets(output, samples, scale)
        return self.loss_terms(
            output.extras['estimates'], target_yx, visible, known & output.active, bin_size=self.bin_size
        )

    def _targets(
        self, output: PointOutput, samples: list[VideoSample], scale: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, T, Q, 2)`` yx in model space, ``(B, T, Q)`` visible and known (not padding), on the output's device."""
        batch, frames, count = output.visible_logits.shape
        target = output.xy_px.new_zeros(batch, frames, count, 2)
        visible = torch.zeros(batch, frames, count, dtype=torch.bool, device=target.device)
        known = torch.zeros_like(visible)
        height, width = output.extras['input_size']
        factor = target.new_tensor([scale[1] * self.extent / height, scale[0] * self.extent / width])
        for row, sample in enumerate(samples):
            points = sample.points
            xy = torch.as_tensor(points.xy_px, dtype=target.dtype).to(target.device)  # (N, T, 2)
            target[row, :, : len(points)] = xy.transpose(0, 1).flip(-1) * factor
            visible[row, :, : len(points)] = torch.as_tensor(points.visible).to(target.device).transpose(0, 1)
            known[row, :, : len(points)] = True
        known &= target.isfinite().all(-1)
        return target.nan_to_num(0.0, 0.0, 0.0), visible, known


def _one_of(name: str, value: str, wanted: tuple[str, ...]) -> None:
    if value not in wanted:
        raise ValueError(f"TAPNextHead: {name} is '{value}'; wanted one of {', '.join(wanted)}")
