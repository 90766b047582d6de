"""ObjectTokenHead: video object segmentation with object tokens, matching and a small target model; state for memory.

Every object is a few read-only tokens beside the patches, made from features that its mask covers, and a dense memory
that only the head reads, all of constant size:

- the frame on which its mask was given and a few recent ones, from which masks are carried over to the most similar
  cells nearby (:class:`LabelPropagationHead` on its own; here it hands on what the decoder made of the masks);
- the same frame compared everywhere, and the last one nearby, with learned features;
- a linear classifier, fitted in closed form to sums over all past frames (:class:`TargetModel`).

Comparing with the first frame everywhere and with the last one nearby is the scheme of FEELVOS (arXiv 1902.09513). The
decoder starts from the masks that were carried over and learns to correct them. Affinities are computed once a frame
and shared by all objects. Objects compete at the end: soft aggregation over objects and background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.models.heads.base import MaskOutput
from trecvit_dense.models.heads.label_propagation import LabelPropagationHead
from trecvit_dense.models.heads.mask_decoder import MaskDecoder
from trecvit_dense.models.heads.mask_slots import MaskHead, share_cells, soft_aggregate
from trecvit_dense.models.heads.target_model import TargetModel
from trecvit_dense.models.layers.feature_pyramid import FeaturePyramid
from trecvit_dense.models.layers.mask_matching import merge_cells, nearby, read_masks, split_cells
from trecvit_dense.models.losses.mask_loss import MaskLoss
from trecvit_dense.models.queries import object_targets
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, PromptGroup, RecurrentState

GROUP = 'objects'
FINE = 2  # stride of the output and of the features that sharpen it
COARSE = 4  # stride of the pixel decoder


@MODELS.register_module()
class ObjectTokenHead(MaskHead):
    """Semi-supervised video object segmentation, all objects in one pass.

    Args:
        backbone_channels, backbone_strides: Of each feature level (given by the perceiver).
        channels: Width of the matching features.
        fine_channels: Width of the features at stride 2.
        hidden_dim: Width of the decoder at stride 4.
        target_dim: Width of the target model's features.
        num_tokens: Tokens of one object.
        attention: ``'read_only'``: objects do not disturb each other or other heads. ``'full'``: patches see them.
        use_prompts: Objects pass the backbone as tokens. False: the head works on backbones that take none.
        window: How far the last frame is compared with learned features, in cells of 8 pixels.
        carry: Arguments of the :class:`LabelPropagationHead` inside; its stride is 4. Default: 3 recent frames, 10
            votes within 8 cells.
        max_objects: Slots of a live session.
        loss: Arguments of :class:`MaskLoss`.
        loss_weights: Of the auxiliary losses, ``match`` and ``target``.
    """

    def __init__(
        self,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...],
        *,
        channels: int = 48,
        fine_channels: int = 16,
        hidden_dim: int = 32,
        target_dim: int = 48,
        num_tokens: int = 2,
        attention: str = 'read_only',
        use_prompts: bool = True,
        window: int = 6,
        carry: dict | None = None,
        max_objects: int = 20,
        loss: dict | None = None,
        loss_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(backbone_channels, backbone_strides, stride=FINE, max_objects=max_objects)
        self.requires_prompts = use_prompts
        self.attention, self.num_tokens, self.window = attention, num_tokens, window
        options = dict(num_context=3, top_k=10, radius=8) | (carry or {})
        self.carry = LabelPropagationHead(self.backbone_channels, self.backbone_strides, stride=COARSE, **options)
        self.pyramid = FeaturePyramid(self.backbone_channels, self.backbone_strides, channels, COARSE, 2)
        self.fine = FeaturePyramid(self.backbone_channels, self.backbone_strides, fine_channels, FINE, 1)
        width = self.backbone_channels[-1]
        self.identity = nn.Parameter(torch.randn(num_tokens, width) * 0.02)
        self.make_tokens = nn.Linear(2 * width, num_tokens * width)
        self.read_tokens = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))
        self.target = TargetModel(target_dim)
        self.target_features = nn.Conv2d(channels + fine_channels, target_dim - 1, 1)
        self.temperature = nn.Parameter(torch.tensor([2.7, 2.7]))  # log; of the given and of the last frame
        self.decoder = MaskDecoder(channels, fine_channels, cues=15 + num_tokens, hidden_dim=hidden_dim)
        self.mask_loss = MaskLoss(**(loss or {}))
        self.loss_weights = dict(match=0.3, target=0.3) | (loss_weights or {})

    # ---------------------------------------------------------------------------------------------------- prompts

    def needs_first_frame(self, state: RecurrentState) -> bool:
        return self.requires_prompts and bool(state['pending'].any())

    def prompts(self, state: RecurrentState, num_frames: int, input_size: tuple[int, int]) -> list[PromptGroup]:
        batch, capacity = state['active'].shape
        if not self.requires_prompts or not state['active'].any():
            return []
        width = self.backbone_channels[-1]
        tokens = state.get('tokens')
        if tokens is None:
            tokens = torch.zeros(batch, capacity, self.num_tokens, width, device=state['active'].device)
        active = (state['active'] & ~state['pending']).repeat_interleave(self.num_tokens, 1)  # (B, K * M)
        active = active[:, None].expand(-1, num_frames, -1)
        reset = torch.zeros_like(active)
        if 'fresh' in state:
            reset = reset.clone()
            reset[:, 0] = state['fresh'].repeat_interleave(self.num_tokens, 1)
        tokens = tokens.flatten(1, 2)[:, None].expand(-1, num_frames, -1, -1)
        return [PromptGroup(GROUP, tokens, self.attention, self.num_tokens, active, reset & active)]

    def after_first_frame(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> RecurrentState:
        state = self.advance(state, 1)
        level, pending = features.levels[-1], state['pending']
        given = share_cells(state['given'], pending)
        state['tokens'] = self._tokens(level.maps()[:, 0], given, pending, state.get('tokens'))
        state.update(fresh=pending, pending=torch.zeros_like(pending))
        return state

    def _tokens(self, maps: Tensor, masks: Tensor, rows: Tensor, old: Tensor | None) -> Tensor:
        """Tokens ``(B, K, M, C)`` from what the ``masks (B, K, h, w)`` cover of ``maps (B, h', w', C)``."""
        share = F.adaptive_avg_pool2d(masks, maps.shape[1:3]).flatten(2)  # (B, K, N)
        pooled = [
            (part / part.sum(-1, keepdim=True).clamp(min=1e-3)) @ maps.flatten(1, 2) for part in (share, 1 - share)
        ]
        tokens = self.make_tokens(torch.cat(pooled, -1)).unflatten(-1, (self.num_tokens, -1)) + self.identity
        return tokens.float() if old is None else torch.where(rows[..., None, None], tokens.float(), old)

    # ---------------------------------------------------------------------------------------------------- a frame

    def prepare(self, features: Features, input_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        coarse, match = self.pyramid(features)
        fine = self.fine(features)[0]
        pixels = torch.cat([coarse, F.avg_pool2d(fine.flatten(0, 1), 2).unflatten(0, fine.shape[:2])], 2).flatten(0, 1)
        target = F.normalize(F.relu(self.target_features(pixels)).float(), dim=1, eps=1e-4)
        target = torch.cat([target, torch.full_like(target[:, :1], 0.5)], 1).flatten(2).transpose(1, 2)  # (B*T, N, D)
        shared = dict(self.decoder.shared(pixels, fine.flatten(0, 1)), target=target, pixels=pixels)
        parts = {key: part.unflatten(0, fine.shape[:2]).unbind(1) for key, part in shared.items()}
        parts.update(match=match.unbind(1), patches=features.levels[-1].maps().unbind(1))
        if GROUP in features.prompts:
            parts['tokens'] = features.prompts[GROUP].unbind(1)
        parts['carry'] = self.carry.prepare(features, tuple(COARSE * n for n in coarse.shape[-2:]))
        return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]

    def decode(
        self, frame: dict[str, Tensor], memory: RecurrentState, tracked: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        carried = self.carry.labels(frame['carry']['features'], self._carry_scope(memory), tracked)
        given, given_mass = self._match_given(frame, memory)
        last, last_mass, drift = self._match_last(frame, memory)
        score = self.target(frame['target'], self.target.fit(memory['given_sums'], memory['sums']))
        size = memory['last'].shape[-2:]
        score = score.unflatten(-1, size).clamp(-4, 4)
        maps = torch.stack([carried, given, last, memory['last'], score, *self._read_tokens(frame, memory)], 2)
        matches = torch.cat([given_mass, last_mass, drift], 2)  # (B, K, 6, h8, w8)
        logits = self.decoder(frame, maps, matches, tracked)
        probabilities = soft_aggregate(logits.float().sigmoid(), tracked)
        extras = dict(given=given, last=last, score=score, tracked=tracked) if self.training else {}
        return probabilities, extras

    def allocate(self, frame: dict[str, Tensor], memory: RecurrentState) -> None:
        if 'last' in memory:
            return
        batch, capacity = memory['active'].shape
        _, width, height8, width8 = frame['match'].shape
        height4, width4 = frame['pixels'].shape[-2:]
        dim, device = self.target.channels, frame['match'].device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, device=device)

        memory.update(
            last=zeros(capacity, height4, width4),
            last_keys=zeros(width, height8, width8),
            given_keys=zeros(capacity, width, height8, width8),
            given_masks=zeros(capacity, height4, width4),
            given_on=torch.zeros(batch, capacity, dtype=torch.int64, device=device),
            given_sums=zeros(capacity, dim, dim + 1),
            sums=zeros(capacity, dim, dim + 1),
            fresh=torch.zeros(batch, capacity, dtype=torch.bool, device=device),
        )
        memory.put('carry', self.carry.empty(frame['carry']['features'], capacity))
        memory.setdefault('tokens', zeros(capacity, self.num_tokens, self.backbone_channels[-1]))

    def slot_dims(self, memory: RecurrentState) -> dict[str, int]:
        own = ('last', 'given_masks', 'given_on', 'given_sums', 'sums', 'fresh', 'tokens')
        carried = {f'carry.{key}': dim for key, dim in self.carry.slot_dims(memory.scope('carry')).items()}
        return {key: 1 for key in own if key in memory} | carried

    def _carry_scope(self, memory: RecurrentState) -> RecurrentState:
        scope = memory.scope('carry')
        scope['active'] = memory['active']
        return scope

    def _match_given(self, frame: dict[str, Tensor], memory: RecurrentState) -> tuple[Tensor, Tensor]:
        """Masks read from the frames on which they were given; objects given together share one comparison."""
        scale = self.temperature[0].exp()
        values = split_cells(memory['given_masks'])  # (B, K, N, 4)
        entries = memory['given_keys'].shape[1]
        rows = F.one_hot(memory['given_on'], entries).bool() & memory['active'][..., None]  # (B, K, R)
        masks = torch.zeros_like(memory['given_masks'])
        mass = masks.new_zeros(*values.shape[:2], 2, *frame['match'].shape[-2:])
        for slot in rows.any(1).any(0).nonzero().flatten().tolist():
            found, weight, _ = read_masks(frame['match'], memory['given_keys'][:, slot], values, scale)
            chosen = rows[:, :, slot, None, None]
            masks = torch.where(chosen, merge_cells(found, frame['match'].shape[-2:]), masks)
            mass = torch.where(chosen[..., None], weight, mass)
        return masks, mass

    def _match_last(self, frame: dict[str, Tensor], memory: RecurrentState) -> tuple[Tensor, Tensor, Tensor]:
        """Masks read from the last frame, agreement, and how every cell moved beside the object as a whole."""
        size = frame['match'].shape[-2:]
        around = nearby(size, self.window, frame['match'].device)
        values, scale = split_cells(memory['last']), self.temperature[1].exp()
        found, mass, motion = read_masks(frame['match'], memory['last_keys'], values, scale, allowed=around)
        share = found.mean(-1).unflatten(-1, size)[:, :, None]  # (B, K, 1, h8, w8)
        common = (motion[:, None] * share).sum((-1, -2), keepdim=True) / share.sum((-1, -2), keepdim=True).clamp(
            min=1e-3
        )
        return merge_cells(found, size), mass, ((motion[:, None] - common) / 2).tanh()

    def _read_tokens(self, frame: dict[str, Tensor], memory: RecurrentState) -> tuple[Tensor, ...]:
        """Agreement of every pixel with each token of each object: M maps ``(B, K, h, w)``."""
        batch, count = memory['active'].shape
        if 'tokens' in frame:  # as the backbone gave them back, for all slots
            tokens = frame['tokens'].unflatten(1, (-1, self.num_tokens))
            tokens = tokens[:, memory['slots']] if 'slots' in memory else tokens
        else:
            tokens = memory['tokens']
        tokens = self.read_tokens(tokens.reshape(batch, count * self.num_tokens, -1))  # (B, K*M, C)
        embedding = frame['embedding']  # (B, C, h, w)
        scores = (tokens @ embedding.flatten(2)) / embedding.shape[1] ** 0.5
        return scores.view(batch, count, self.num_tokens, *embedding.shape[-2:]).unbind(2)

    # ----------------------------------------------------------------------------------------------------- memory

    def remember(
        self, frame: dict[str, Tensor], memory: RecurrentState, probabilities: Tensor, pending: Tensor
    ) -> None:
        height4, width4 = frame['pixels'].shape[-2:]
        masks = probabilities[:, 1:, : 2 * height4, : 2 * width4].detach()
        masks = F.avg_pool2d(masks, 2)  # (B, K, h4, w4)
        scope = self._carry_scope(memory)
        self.carry.keep(frame['carry']['features'], masks, scope, pending)
        del scope['active']
        memory.put('carry', scope)
        sums = self.target.sums(frame['target'], masks.flatten(2))
        memory.update(last=masks, last_keys=frame['match'], sums=self.target.gather(memory['sums'], sums))
        memory['fresh'] = pending
        if not pending.any():
            return
        rows = pending[..., None, None]
        for key in ('sums', 'given_sums'):
            memory[key] = torch.where(rows, sums, memory[key])
        memory['given_masks'] = torch.where(rows, masks, memory['given_masks'])
        self._keep_keys(frame['match'], memory, pending)
        memory['tokens'] = self._tokens(frame['patches'], probabilities[:, 1:].detach(), pending, memory['tokens'])

    def _keep_keys(self, keys: Tensor, memory: RecurrentState, pending: Tensor) -> None:
        """Store ``keys (B, C, h, w)`` in the first entry that no other object refers to."""
        entries = memory['given_keys'].shape[1]
        others = memory['active'] & ~pending
        used = (F.one_hot(memory['given_on'], entries).bool() & others[..., None]).any(1)  # (B, R)
        entry = (~used).float().argmax(1)  # (B,)
        memory['given_on'] = torch.where(pending, entry[:, None], memory['given_on'])
        write = F.one_hot(entry, entries).bool() & pending.any(1, keepdim=True)
        memory['given_keys'] = torch.where(write[..., None, None, None], keys[:, None], memory['given_keys'])

    def forget(self, state: RecurrentState) -> RecurrentState:
        """Keep the given frame of each object; what later frames added is gone."""
        if 'last' not in state:
            return state
        state = RecurrentState(state)
        state['last'] = state['given_masks'].clone()
        newest = state['given_on'].amax(1)
        state['last_keys'] = state['given_keys'][torch.arange(len(newest)), newest]
        state['sums'] = state['given_sums'].clone()
        state.put('carry', self.carry.forget(state.scope('carry')))
        return state

    # ------------------------------------------------------------------------------------------------------- loss

    def loss(self, output: MaskOutput, samples: list, scale: tuple[float, float]) -> dict[str, Tensor]:
        """Final masks (cross-entropy, Dice) and, at stride 4, what was matched and the target model's score."""
        cells, extras, weight = output.probabilities, output.extras, self.loss_weights
        input_size = tuple(n * FINE for n in cells.shape[-2:])
        shares, known = (part.to(cells.device) for part in object_targets(samples, scale, input_size, FINE))
        losses = self.mask_loss(cells, output.active, output.given, shares, known)
        height, width = extras['given'].shape[-2:]
        shares = shares[..., : 2 * height, : 2 * width]
        coarse = F.avg_pool2d(shares.flatten(0, 2)[:, None], 2)[:, 0].view_as(extras['given'])
        known = F.avg_pool2d(known[..., : 2 * height, : 2 * width].float(), 2)[:, :, None] == 1
        inner = extras['tracked'][..., None, None] & known

        def binary(p: Tensor) -> Tensor:
            return F.binary_cross_entropy(p.clamp(1e-4, 1 - 1e-4), coarse, reduction='none')

        match = binary(extras['given']) + binary(extras['last'])
        score = F.binary_cross_entropy_with_logits(3 * extras['score'], coarse, reduction='none')
        count = inner.sum().clamp(min=1)
        losses['loss_match'] = weight['match'] * (match * inner).sum() / count
        losses['loss_target'] = weight['target'] * (score * inner).sum() / count
        return losses
