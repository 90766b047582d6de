"""CostVolumePointHead: point tracking without prompt tokens, from a cost volume over backbone features.

Each point keeps two templates, from its query and a slowly refreshed one. On every frame both are compared with the
whole feature pyramid (the cost volume). Two hypotheses, the last position and the best match of the frame, are scored;
around the better one the volume is looked up, a small patch is matched on finer features, and a gated recurrent unit
refines the position a few times.

The ingredients are those of RAFT (arXiv 2003.12039: look-ups, recurrent refinement), TAP-Net (2211.03726: the volume
itself is supervised) and TAPIR (2306.08637: match, then refine), in a causal order: a frame needs itself and the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.models.heads.base import Head, PointOutput
from trecvit_dense.models.heads.point_refinement import Refiner, patch_index, pick, stack_targets, window_offsets
from trecvit_dense.models.heads.point_slots import begin_slots, spread_slots
from trecvit_dense.models.layers.dense_fusion import resize
from trecvit_dense.models.layers.feature_pyramid import FeaturePyramid, sample_maps
from trecvit_dense.models.losses.track_loss import cost_volume_loss, hypothesis_loss, sequence_loss, visibility_loss
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, RecurrentState

NOT_YET = -10.0  # visibility logit before the query frame


@MODELS.register_module()
class CostVolumePointHead(Head):
    """Prompt-free point tracker; works on every backbone that gives dense features.

    Args:
        backbone_channels: Channels of each feature level (given by the perceiver).
        backbone_strides: Stride in pixels of each feature level (given by the perceiver).
        channels: Width of the matching features.
        stride: Pixels per cell of the finest volume.
        num_levels: Pyramid levels of the volume; a look-up reaches ``radius * stride * 2**(num_levels - 1)`` pixels.
        radius: Look-up radius in cells of each level.
        fine_channels: Width of the fine features, in which a patch around the point is matched.
        fine_stride: Pixels per cell of the fine features.
        patch_radius: Radius in fine cells of that patch.
        hidden_dim: Width of the recurrent unit.
        iterations: Refinements per frame.
        switch_margin: How much better (in logits) the best match of the frame must be than the last position to be
            followed; keeps points on bare texture from wandering.
        max_points: Slots of a live session.
        loss_weights: ``position``, ``visible``, ``certain``, ``match``, ``fine``, ``hypothesis``.
        occluded_weight: Weight of the position loss on occluded points.
    """

    def __init__(
        self,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...],
        *,
        channels: int = 64,
        stride: int = 4,
        num_levels: int = 3,
        radius: int = 3,
        fine_channels: int = 16,
        fine_stride: int = 2,
        patch_radius: int = 1,
        hidden_dim: int = 128,
        iterations: int = 3,
        switch_margin: float = 0.0,
        max_points: int = 256,
        loss_weights: dict[str, float] | None = None,
        occluded_weight: float = 0.2,
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        self.pyramid = FeaturePyramid(self.backbone_channels, self.backbone_strides, channels, stride, num_levels)
        self.fine = FeaturePyramid(self.backbone_channels, self.backbone_strides, fine_channels, fine_stride, 1)
        self.channels, self.stride, self.num_levels, self.radius = channels, stride, num_levels, radius
        self.fine_stride, self.switch_margin = fine_stride, switch_margin
        self.hidden_dim, self.iterations, self.max_points = hidden_dim, iterations, max_points
        windows = num_levels + 1  # the fine one first
        lookup_dim = windows * 2 * (2 * radius + 1) ** 2
        self.start_hidden = nn.Linear(num_levels * channels, hidden_dim)
        self.score = nn.Sequential(nn.Linear(2 * hidden_dim, hidden_dim // 2), nn.GELU(), nn.Linear(hidden_dim // 2, 1))
        self.refiner = Refiner(lookup_dim, hidden_dim, windows * 2)
        self.window_temperature = nn.Parameter(torch.full((windows, 1, 1), 3.0))  # log
        self.refresh = nn.Linear(hidden_dim, 1)
        self.temperature = nn.Parameter(torch.tensor(2.5))  # log; cosines are multiplied by its exponential
        self.loss_weights = dict(position=2.0, visible=1.0, certain=0.5, match=1.0, fine=0.5, hypothesis=0.5) | (
            loss_weights or {}
        )
        self.occluded_weight = occluded_weight
        scale = torch.tensor([fine_stride / stride, *(2.0**level for level in range(num_levels))])
        self.register_buffer('window_scale', scale.view(-1, 1, 1), persistent=False)  # finest cells per window cell
        self.register_buffer('offsets', window_offsets(radius), persistent=False)  # ((2r+1)**2, 2) x, y
        self.register_buffer('patch', window_offsets(patch_radius) * fine_stride, persistent=False)
        self.register_buffer('patch_window', window_offsets(radius + patch_radius) * fine_stride, persistent=False)
        self.register_buffer('patch_index', patch_index(radius, patch_radius), persistent=False)

    # ------------------------------------------------------------------------------------------------- state

    def begin(
        self,
        batch_size: int,
        device: torch.device | str,
        query_txy: Tensor | None = None,
        valid: Tensor | None = None,
        capacity: int | None = None,
    ) -> RecurrentState:
        if query_txy is None:
            query_txy, capacity = torch.zeros(batch_size, 0, 3, device=device), capacity or self.max_points
        state = begin_slots(query_txy, valid, capacity)
        batch, slots = state['active'].shape
        state['xy'] = torch.zeros(batch, slots, 2, device=device)
        state['velocity'] = torch.zeros(batch, slots, 2, device=device)
        state['hidden'] = torch.zeros(batch, slots, self.hidden_dim, device=device)
        state['template'] = torch.zeros(batch, slots, self.num_levels, 2, self.channels, device=device)
        state['patch'] = torch.zeros(batch, slots, len(self.patch), 2, self.fine.channels, device=device)
        return state

    def forget(self, state: RecurrentState) -> RecurrentState:
        """Keep queries and their first template; position, motion and hidden state return to those of the query."""
        first = state['template'][..., :1, :]
        state = RecurrentState(state)
        state['template'] = torch.cat([first, first], -2)
        state['patch'] = state['patch'][..., :1, :].expand_as(state['patch']).clone()
        state['xy'] = state['query_txy'][..., 1:].clone()
        state['velocity'] = torch.zeros_like(state['velocity'])
        state['hidden'] = self._first_hidden(first)
        return state

    def _first_hidden(self, first_template: Tensor) -> Tensor:
        return torch.tanh(self.start_hidden(first_template.flatten(2))).float()

    # ----------------------------------------------------------------------------------------------- forward

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[PointOutput, RecurrentState]:
        pyramid = [*self.fine(features), *self.pyramid(features)]
        num_frames = pyramid[0].shape[1]
        slots = spread_slots(state, num_frames)
        memory = RecurrentState(state)
        frames = []
        # unbind, not indexing: the backward pass of an index fills a whole clip with zeros for every frame.
        for index, maps in enumerate(zip(*(level.unbind(1) for level in pyramid), strict=True)):  # (B, C, h, w) each
            if slots.is_query[:, index].any():
                self._read_query(maps, memory, slots.is_query[:, index])
            frames.append(
                self._track_frame(maps, memory, slots.is_query[:, index], slots.tracked[:, index], input_size)
            )
        memory['frame'] = state['frame'] + num_frames
        stacked = {key: torch.stack([frame[key] for frame in frames], 1) for key in frames[0]}
        output = PointOutput(
            stacked.pop('xy'), stacked.pop('visible'), slots.tracked, stacked['certain'].sigmoid(),
            dict(stacked, is_query=slots.is_query, temperature=self.temperature.exp(), limits=input_size[::-1]),
        )  # fmt: skip
        return output, memory

    def _read_query(self, maps: Sequence[Tensor], memory: RecurrentState, is_query: Tensor) -> None:
        """On a point's query frame: take its templates and start its motion there."""
        xy = memory['query_txy'][..., 1:]
        found = self._describe(maps, xy)
        for key, value in found.items():
            memory[key] = torch.where(is_query[..., None, None, None], value[..., None, :], memory[key])
        chosen = is_query[..., None]
        memory['xy'] = torch.where(chosen, xy, memory['xy'])
        memory['velocity'] = memory['velocity'].masked_fill(chosen, 0)
        first_hidden = self._first_hidden(found['template'][..., None, :])
        memory['hidden'] = torch.where(chosen, first_hidden, memory['hidden'])

    def _describe(self, maps: Sequence[Tensor], xy_px: Tensor) -> dict[str, Tensor]:
        """Unit features at ``xy_px (B, Q, 2)``: every level ``(B, Q, L, C)`` and the fine patch ``(B, Q, P, C')``."""
        levels = [sample_maps(cells, xy_px, self.stride * 2**level) for level, cells in enumerate(maps[1:])]
        around = (xy_px[:, :, None] + self.patch).flatten(1, 2)  # (B, Q*P, 2)
        patch = sample_maps(maps[0], around, self.fine_stride).unflatten(1, (xy_px.shape[1], len(self.patch)))
        return dict(
            template=F.normalize(torch.stack(levels, 2), dim=-1, eps=1e-4), patch=F.normalize(patch, dim=-1, eps=1e-4)
        )

    def _volume(self, maps: Sequence[Tensor], template: Tensor) -> list[Tensor]:
        """Cosine of both templates with every cell: per level ``(B, Q, 2, h, w)``."""
        volume = []
        for level, cells in enumerate(maps):
            batch, slots = template.shape[:2]
            flat = template[:, :, level].flatten(1, 2) @ cells.flatten(2)  # (B, Q*2, h*w)
            volume.append(flat.view(batch, slots, 2, *cells.shape[-2:]))
        return volume

    def _look_up(self, fine: Tensor, patch: Tensor, volume: list[Tensor], xy_px: Tensor) -> Tensor:
        """Windows around ``xy_px (B, Q, K, 2)``, the fine one and one per level: ``(B, Q, K, L + 1, 2, (2r+1)**2)``."""
        found = [self._match_patch(fine, patch, xy_px)]
        side = 2 * self.radius + 1
        for level, costs in enumerate(volume):
            height, width = costs.shape[-2:]
            points = xy_px[..., None, :] / (self.stride * 2**level) + self.offsets  # (B, Q, K, S*S, 2) in cells
            grid = points / points.new_tensor([width, height]) * 2 - 1
            grid = grid.flatten(0, 1).flatten(1, 2).unflatten(1, (-1, side))  # (B*Q, K*S, S, 2)
            part = F.grid_sample(costs.flatten(0, 1).float(), grid, align_corners=False)  # (B*Q, 2, K*S, S)
            part = part.view(*xy_px.shape[:2], 2, xy_px.shape[2], side * side)
            found.append(part.transpose(2, 3))
        return torch.stack(found, 3)

    def _match_patch(self, fine: Tensor, patch: Tensor, xy_px: Tensor) -> Tensor:
        """Mean cosine of the shifted patch, for every shift of the window: ``(B, Q, K, 2, (2r+1)**2)``."""
        batch, slots, count, _ = xy_px.shape
        points = xy_px[..., None, :] + self.patch_window  # (B, Q, K, W, 2)
        cells = sample_maps(fine, points.flatten(1, 3), self.fine_stride).view(
            batch, slots, count, len(self.patch_window), fine.shape[1]
        )
        pairs = patch.transpose(2, 3).flatten(2, 3)[:, :, None] @ cells.transpose(-1, -2)  # (B, Q, K, 2*P, W)
        pairs = pairs.view(batch, slots, count, 2, len(self.patch) * len(self.patch_window))  # pair (p, w) at p * W + w
        return pairs[..., self.patch_index].unflatten(-1, (-1, len(self.patch))).mean(-1)

    def _propose(self, lookup: Tensor) -> Tensor:
        """Mean displacement under a softmax of each window ``(B, Q, L+1, 2, S*S)``: ``(B, Q, 2 * (L+1), 2)`` cells."""
        mean = (lookup * self.window_temperature.exp()).softmax(-1) @ self.offsets  # (B, Q, L + 1, 2, 2)
        return (mean * self.window_scale).flatten(2, 3)

    @torch.no_grad()
    def _best_match(self, maps: Sequence[Tensor], volume: list[Tensor], template: Tensor) -> Tensor:
        """Position of the best cell of the frame for the query's template, all levels added: ``(B, Q, 2)`` pixels.

        Costs are linear in the maps, so the maps are enlarged, once for all points, and not the costs of each.
        """
        width = maps[0].shape[-1]
        total = volume[0][:, :, 0].flatten(2)  # (B, Q, h*w)
        if len(maps) > 1:
            coarse = [resize(cells, maps[0]) for cells in maps[1:3]]
            first = template[:, :, 1:3, 0].flatten(2)  # (B, Q, levels * C)
            total = torch.baddbmm(total, first, torch.cat(coarse, 1).flatten(2))
        best = total.argmax(-1)
        return torch.stack([best % width + 0.5, best.div(width, rounding_mode='floor') + 0.5], -1) * self.stride

    def _track_frame(
        self,
        maps: Sequence[Tensor],
        memory: RecurrentState,
        is_query: Tensor,
        tracked: Tensor,
        input_size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Advance every tracked point by one frame; writes the new motion into ``memory``."""
        fine, volume = maps[0], self._volume(maps[1:], memory['template'])
        hidden, last = memory['hidden'], memory['xy']
        hypotheses = torch.stack([last, self._best_match(maps[1:], volume, memory['template'])], 2)  # (B, Q, 2, 2)
        lookups = self._look_up(fine, memory['patch'], volume, hypotheses)
        codes = self.refiner.encode(lookups.flatten(3))
        scores = self.score(torch.cat([codes, hidden[:, :, None].expand_as(codes).to(codes.dtype)], -1))[..., 0]
        choice = (scores[..., 1] > scores[..., 0] + self.switch_margin).long()  # (B, Q)
        xy, lookup, code = (pick(part, choice) for part in (hypotheses, lookups, codes))
        start, estimates, windows = xy, [], []
        for iteration in range(self.iterations):
            if iteration:
                lookup = self._look_up(fine, memory['patch'], volume, xy[:, :, None])[:, :, 0]
                code = self.refiner.encode(lookup.flatten(2))
            windows.append((xy, lookup[:, :, 0, 0]))
            motion = torch.cat([xy - start, memory['velocity']], -1) / (4 * self.stride)
            parts = (code, self._propose(lookup), motion.clamp(-8, 8), hidden)
            step, flat = self.refiner(*(part.flatten(0, 1) for part in parts))
            hidden = flat.view(*hidden.shape).float()
            estimate = xy + step.view_as(xy) * self.stride
            estimates.append(estimate)
            xy = estimate.detach()  # each refinement is taught on its own, as in RAFT
        flags = self.refiner.flags(self.refiner.norm(hidden)).float()
        refreshed = self._refresh(maps, memory, xy, hidden, flags)
        moving = (tracked & ~is_query)[..., None]
        limits = xy.new_tensor([input_size[1], input_size[0]])
        new_xy = torch.where(moving, torch.minimum(xy.clamp(min=0), limits), last)
        memory['velocity'] = torch.where(moving, (new_xy - last).clamp(-64, 64), memory['velocity'])
        memory['xy'] = new_xy
        memory['hidden'] = torch.where(moving, hidden, memory['hidden'])
        for key, value in refreshed.items():
            memory[key] = torch.where(moving[..., None, None], value, memory[key])
        query_xy = memory['query_txy'][..., 1:]
        answer = torch.where(moving, estimates[-1], query_xy)
        visible = torch.where(tracked, torch.where(is_query, -NOT_YET, flags[..., 0]), NOT_YET)
        result = dict(xy=answer, visible=visible, certain=flags[..., 1], scores=scores.float(), hypotheses=hypotheses)
        if self.training:
            result['estimates'] = torch.stack(estimates, 2)  # (B, Q, K, 2)
            result['centres'], result['windows'] = (torch.stack(parts, 2) for parts in zip(*windows, strict=True))
            result.update({f'match{level}': volume[level][:, :, 0] for level in range(2)})
        return result

    def _refresh(
        self, maps: Sequence[Tensor], memory: RecurrentState, xy: Tensor, hidden: Tensor, flags: Tensor
    ) -> dict[str, Tensor]:
        """Blend the second templates with what is found on this frame, as far as the point is seen and certain."""
        rate = torch.sigmoid(self.refresh(self.refiner.norm(hidden)).float() - 1)
        rate = (rate * flags.sigmoid().prod(-1, keepdim=True))[..., None]  # (B, Q, 1, 1)
        refreshed = {}
        for key, found in self._describe(maps, xy).items():
            first, second = memory[key].unbind(-2)
            second = F.normalize(torch.lerp(second, found, rate), dim=-1, eps=1e-4)
            refreshed[key] = torch.stack([first, second], -2)
        return refreshed

    # -------------------------------------------------------------------------------------------------- loss

    def loss(self, output: PointOutput, samples: list, scale: tuple[float, float]) -> dict[str, Tensor]:
        """Position (every refinement), visibility, certainty, cost volume and hypothesis losses."""
        target, visible, known = stack_targets(samples, scale, output.xy_px)
        extras = output.extras
        moving = output.active & ~extras['is_query'] & known
        seen, weight = moving & visible, self.loss_weights
        # Where a point goes outside the frame cannot be seen; only hidden points inside it are worth a guess.
        inside = ((target > 0) & (target < target.new_tensor(extras['limits']))).all(-1)
        importance = seen.float() + self.occluded_weight * (moving & ~visible & inside).float()
        matches = [(extras[f'match{level}'], self.stride * 2**level) for level in range(2)]
        return dict(
            loss_position=weight['position'] * sequence_loss(extras['estimates'], target, importance),
            loss_visible=weight['visible'] * visibility_loss(output.visible_logits, visible, moving),
            loss_certain=weight['certain']
            * hypothesis_loss(extras['certain'], output.xy_px, target, seen, radius=self.stride),
            loss_match=weight['match'] * cost_volume_loss(matches, extras['temperature'], target, seen),
            loss_fine=weight['fine'] * self._window_loss(extras, target, seen),
            loss_hypothesis=weight['hypothesis']
            * hypothesis_loss(
                extras['scores'], extras['hypotheses'], target[..., None, :], seen[..., None], radius=3 * self.stride
            ),
        )

    def _window_loss(self, extras: dict, target: Tensor, seen: Tensor) -> Tensor:
        """Cross-entropy of the fine windows in which the truth lies, over all refinements."""
        side = 2 * self.radius + 1
        windows = extras['windows'].unflatten(-1, (side, side))  # (B, T, Q, K, S, S)
        inside = target[..., None, :] - extras['centres'] + side / 2 * self.fine_stride  # pixels of the window
        margin = 0.5 * self.fine_stride
        caught = ((inside > margin) & (inside < side * self.fine_stride - margin)).all(-1) & seen[..., None]
        return cost_volume_loss([(windows, self.fine_stride)], self.window_temperature[0].exp(), inside, caught)
