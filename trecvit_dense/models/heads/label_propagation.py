"""LabelPropagationHead: masks handed from frame to frame by the similarity of features; nothing is learned.

Every cell of a frame takes over the labels of the cells most like it in the frame on which the object was given and in
the last few frames. It is the protocol by which frozen features are judged on DAVIS (DINO, arXiv 2104.14294, section
4.2.3; Contrastive Random Walk, arXiv 2006.14613, section 4.1), with what it lacks for use: objects given on any frame,
corrected and retired, each of them exactly as if it were alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trecvit_dense.models.heads.mask_slots import MaskHead, cells_of
from trecvit_dense.models.heads.point_slots import CapacityError
from trecvit_dense.models.layers.local_matching import best_matches
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import FeatureLevel, Features, RecurrentState


@MODELS.register_module()
class LabelPropagationHead(MaskHead):
    """Training-free segmentation by feature affinity: a baseline on every backbone, and a probe of its features.

    State beside the slot table (K slots, M given frames, ``num_context`` frames; cells ``(h, w)``; features of unit
    length):

    =======================  ====================  ====================================================================
    ``age``                  ``(B, K)`` int64      frames since the object was given; 0: never
    ``source``               ``(B, K)`` int64      the given frame it belongs to
    ``mask``                 ``(B, h, w, K)``      the given masks
    ``given_frames.{m}``     ``(B, h, w, C)``      features of a frame on which objects were given
    ``recent.{i}.features``  ``(B, h, w, C)``      features ``i + 1`` frames ago
    ``recent.{i}.labels``    ``(B, h, w, K)``      labels found there
    =======================  ====================  ====================================================================

    Features decide. On the real clip of 60 frames that the weights in the box were tried on (J of copying the first
    mask: 0.517) their final level at stride 16 had J 0.11, ``levels=(1, 2), stride=4`` 0.74. Low levels are local
    enough, and a fine grid carries a mask better than a coarse one. On one core a frame of 216 x 384 pixels takes about
    0.01 s at stride 16, 0.05 to 0.08 s at 8, 0.2 s at 4, for 20 objects as for one.

    An object reads its own given frame and the recent frames after it, so what is given to others, and when, changes
    nothing for it. Objects given on one frame share it and its affinities. A correction makes the frame on which it is
    made the object's given frame.

    Args:
        levels: Backbone levels whose features are compared; several are each brought to unit length and concatenated.
            None: the first at stride 4 and the first at 8, or the final one where there are none.
        stride: Model-input pixels per cell; None: that of the finest chosen level. Finer levels are averaged, coarser
            ones interpolated.
        num_context: Recent frames that are looked at (DINO 7, CRW 20).
        top_k: Cells that vote (DINO 5, CRW 10).
        radius: How far they may lie, in cells along each axis (12 in both, at stride 8); None: anywhere.
        given_radius: The same in the given frame; -1: as ``radius``, which is DINO's way.
        temperature: Votes weigh ``exp(cosine / temperature)`` (DINO 0.1, CRW 0.05, first 0.07).
        centre: Subtract the mean feature of each frame before cosines are taken.
        nearness: See :func:`best_matches`; the default only decides between equal cells.
        stretch_from: DINO stretches each label's map to [0, 1] before the largest label wins; here this is done where
            the map spans at least this much. 0 is DINO's way, and gives an object that has left a ghost; above 1 turns
            it off.
        max_references: Given frames that can be kept, M; None: as many as slots, which always suffices.

    Raises:
        IndexError: a level that the backbone does not have.
        CapacityError: (on the frame) live objects were given on more than ``max_references`` different frames.
    """

    def __init__(
        self,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...],
        *,
        levels: Sequence[int] | None = None,
        stride: int | None = None,
        num_context: int = 7,
        top_k: int = 5,
        radius: int | None = 12,
        given_radius: int | None = -1,
        temperature: float = 0.1,
        centre: bool = False,
        nearness: float = 1e-6,
        stretch_from: float = 0.0,
        max_objects: int = 20,
        max_references: int | None = None,
    ) -> None:
        count = len(backbone_strides)
        if levels is None:
            strides = list(backbone_strides)
            levels = sorted({strides.index(step) for step in strides if max(step) in (4, 8)}) or [-1]
        if not levels or not all(-count <= level < count for level in levels):
            raise IndexError(f'levels are {list(levels)}; the backbone has {count}, so wanted -{count} to {count - 1}')
        if stride is None:
            stride = round(min(min(backbone_strides[level]) for level in levels))
        super().__init__(backbone_channels, backbone_strides, stride=stride, max_objects=max_objects)
        self.levels, self.num_context, self.top_k, self.temperature = tuple(levels), num_context, top_k, temperature
        self.radius, self.given_radius = radius, radius if given_radius == -1 else given_radius
        self.centre, self.nearness, self.stretch_from = centre, nearness, stretch_from
        self.max_references = max_references

    def loss(self, output, samples: list, scale: tuple[float, float]) -> dict[str, Tensor]:
        """Nothing to learn; beside other heads this one is a probe."""
        return {}

    def forget(self, state: RecurrentState) -> RecurrentState:
        """Given frames stay; recent ones are out of every object's reach."""
        return RecurrentState(state, age=state['age'].clamp(max=1)) if 'age' in state else state

    # ------------------------------------------------------------------------------------------------- features

    @torch.no_grad()
    def prepare(self, features: Features, input_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        cells = cells_of(input_size, self.stride)
        parts = []
        for index in self.levels:
            maps = _at_stride(features.levels[index], cells, self.stride)  # (B, T, h, w, C)
            if self.centre:
                maps = maps - maps.mean((2, 3), keepdim=True)
            parts.append(F.normalize(maps, dim=-1, eps=1e-6))
        maps = F.normalize(torch.cat(parts, -1), dim=-1) if len(parts) > 1 else parts[0]
        return [dict(features=part.contiguous()) for part in maps.unbind(1)]

    # ---------------------------------------------------------------------------------------------------- frames

    @torch.no_grad()
    def decode(
        self, frame: dict[str, Tensor], memory: RecurrentState, tracked: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        frame['labels'] = self.labels(frame['features'], memory, tracked)
        return self._distribution(frame['labels']), {}

    def allocate(self, frame: dict[str, Tensor], memory: RecurrentState) -> None:
        if 'age' not in memory:
            memory.update(self.empty(frame['features'], memory['active'].shape[1]))

    def slot_dims(self, memory: RecurrentState) -> dict[str, int]:
        recent = [key for key in memory if key.startswith('recent.') and key.endswith('.labels')]
        return dict(age=1, source=1, mask=3) | dict.fromkeys(recent, 3) if 'age' in memory else {}

    @torch.no_grad()
    def labels(self, features: Tensor, memory: RecurrentState, tracked: Tensor) -> Tensor:
        """What the cells of a frame, ``features (B, h, w, C)``, take over from the past: ``(B, K, h, w)``."""
        found = [self._propagate(index, part, memory, tracked[index]) for index, part in enumerate(features)]
        return torch.stack(found).permute(0, 3, 1, 2)

    def empty(self, features: Tensor, slots: int) -> dict[str, Tensor]:
        """The entries of a new state, for frames like ``features (B, h, w, C)``."""
        batch, height, width, _ = features.shape
        count = torch.zeros(batch, slots, dtype=torch.int64, device=features.device)
        labels = features.new_zeros(batch, height, width, slots)
        entries = dict(age=count, source=count.clone(), mask=labels)
        for index in range(self.max_references or slots):
            entries[f'given_frames.{index}'] = torch.zeros_like(features)
        for index in range(self.num_context):
            entries[f'recent.{index}.features'] = torch.zeros_like(features)
            entries[f'recent.{index}.labels'] = labels.clone()
        return entries

    def _propagate(self, batch: int, features: Tensor, memory: RecurrentState, tracked: Tensor) -> Tensor:
        """Labels ``(h, w, K)`` of one video's frame ``(h, w, C)``."""
        height, width, _ = features.shape
        labels = features.new_zeros(height * width, len(tracked))
        groups = _group(memory['source'][batch].tolist(), tracked.tolist())
        if not groups:
            return labels.view(height, width, -1)
        ages = [int(memory['age'][batch, slots[0]]) for slots in groups.values()]
        recent = min(max(ages) - 1, self.num_context)  # after the frame on which the oldest object was given
        given = [memory[f'given_frames.{source}'][batch] for source in groups]
        past = [memory[f'recent.{index}.features'][batch] for index in range(recent)]
        matches = self._match(features, given, past, [min(age - 1, recent) for age in ages])
        stored = [memory[f'recent.{index}.labels'][batch].flatten(0, 1) for index in range(recent)]
        for slots, (similar, places) in zip(groups.values(), matches, strict=True):
            table = torch.cat([memory['mask'][batch].flatten(0, 1), *stored])[:, slots]  # (references * h * w, k)
            votes = (similar / self.temperature).softmax(-1)
            labels[:, slots] = F.embedding_bag(places, table, mode='sum', per_sample_weights=votes)
        return labels.view(height, width, -1)

    def _match(
        self, features: Tensor, given: list[Tensor], past: list[Tensor], reach: list[int]
    ) -> list[tuple[Tensor, Tensor]]:
        """Best matches of each group of objects, places counted with its given frame first, then the recent ones."""
        options = dict(k=self.top_k, nearness=self.nearness)
        count, cells = len(given), features.shape[0] * features.shape[1]
        if self.given_radius == self.radius:
            sets = [[group, *range(count, count + frames)] for group, frames in enumerate(reach)]
            found = best_matches(features, [*given, *past], sets, radius=self.radius, **options)
            return [(similar, _renumber(places, group, count, cells)) for group, (similar, places) in enumerate(found)]
        first = best_matches(features, given, [[group] for group in range(count)], radius=self.given_radius, **options)
        first = [(similar, places - group * cells) for group, (similar, places) in enumerate(first)]
        if not past:
            return first
        later = best_matches(features, past, [range(max(frames, 1)) for frames in reach], radius=self.radius, **options)
        merged = []
        for one, other, frames in zip(first, later, reach, strict=True):
            similar, places = torch.cat([one[0], other[0]], 1), torch.cat([one[1], other[1] + cells], 1)
            best = (similar if frames else one[0]).topk(self.top_k)
            merged.append((best.values, places.gather(1, best.indices)))
        return merged

    def _distribution(self, labels: Tensor) -> Tensor:
        """Labels ``(B, K, h, w)`` to a distribution over background and objects, ``(B, K + 1, h, w)``."""
        maps = torch.cat([(1 - labels.sum(1, keepdim=True)).clamp(min=0), labels], 1)
        low = maps.amin((2, 3), keepdim=True)
        span = maps.amax((2, 3), keepdim=True) - low
        stretched = (maps - low) / span.clamp(min=1e-6)
        maps = torch.where(span >= max(self.stretch_from, 1e-6), stretched, maps)
        nobody = (maps.sum(1, keepdim=True) < 1e-6).to(maps)  # a cell that every map has its least value at
        maps = torch.cat([maps[:, :1] + nobody, maps[:, 1:]], 1)
        return maps / maps.sum(1, keepdim=True)

    # ---------------------------------------------------------------------------------------------------- memory

    @torch.no_grad()
    def remember(
        self, frame: dict[str, Tensor], memory: RecurrentState, probabilities: Tensor, pending: Tensor
    ) -> None:
        labels = torch.where(pending[..., None, None], probabilities[:, 1:], frame['labels'])
        self.keep(frame['features'], labels, memory, pending)

    @torch.no_grad()
    def keep(self, features: Tensor, labels: Tensor, memory: RecurrentState, pending: Tensor) -> None:
        """Make a frame, ``features (B, h, w, C)``, with its ``labels (B, K, h, w)`` the most recent one."""
        labels = labels.permute(0, 2, 3, 1)  # (B, h, w, K)
        memory['age'] = memory['age'] + (memory['age'] > 0)
        if pending.any():
            memory['mask'] = torch.where(pending[:, None, None], labels, memory['mask'])
            memory['age'] = memory['age'].masked_fill(pending, 1)
            self._keep_frame(features, memory, pending)
        for index in range(self.num_context - 1, 0, -1):  # names move on, tensors stay where they are
            for part in ('features', 'labels'):
                memory[f'recent.{index}.{part}'] = memory[f'recent.{index - 1}.{part}']
        if self.num_context:
            memory['recent.0.features'], memory['recent.0.labels'] = features, labels

    def _keep_frame(self, features: Tensor, memory: RecurrentState, pending: Tensor) -> None:
        """Keep this frame's features for the objects that are given on it, where no live object needs the place."""
        places = self.max_references or pending.shape[1]
        memory['source'] = memory['source'].clone()
        for batch in pending.any(1).nonzero().flatten().tolist():
            others = memory['active'][batch] & ~pending[batch]
            used = set(memory['source'][batch][others].tolist())
            free = next((index for index in range(places) if index not in used), None)
            if free is None:
                raise CapacityError(
                    f'the objects were given on {places + 1} different frames and max_references is {places}; '
                    f'raise it, or retire objects first'
                )
            memory['source'][batch][pending[batch]] = free
            entry = memory[f'given_frames.{free}'].clone()
            entry[batch] = features[batch]
            memory[f'given_frames.{free}'] = entry


def _group(sources: list[int], tracked: list[bool]) -> dict[int, list[int]]:
    """Given frame to the slots of the objects that were given on it."""
    groups: dict[int, list[int]] = {}
    for slot, (source, follows) in enumerate(zip(sources, tracked, strict=True)):
        if follows:
            groups.setdefault(source, []).append(slot)
    return groups


def _renumber(places: Tensor, group: int, count: int, cells: int) -> Tensor:
    """Places among ``count`` given frames and the recent ones, to places among the group's own and the recent ones."""
    return torch.where(places >= count * cells, places - (count - 1) * cells, places - group * cells)


def _at_stride(level: FeatureLevel, cells: tuple[int, int], stride: int) -> Tensor:
    """A level as maps of the given cells, ``(B, T, h, w, C)`` float32: averaged or interpolated."""
    maps = level.maps()
    if tuple(level.stride) == (stride, stride) and level.grid == cells:
        return maps.float()
    batch = maps.shape[0]
    flat = maps.flatten(0, 1).permute(0, 3, 1, 2).float()  # (B*T, C, h0, w0)
    factor = [round(stride / step) for step in level.stride]
    if all(step * times == stride for step, times in zip(level.stride, factor, strict=True)):
        flat = F.avg_pool2d(flat, factor, ceil_mode=True, count_include_pad=False)
        missing = [max(wanted - have, 0) for wanted, have in zip(cells, flat.shape[-2:], strict=True)]
        flat = F.pad(flat, (0, missing[1], 0, missing[0]), mode='replicate')[..., : cells[0], : cells[1]]
    else:
        steps = [
            (torch.arange(count, device=flat.device) + 0.5) * stride / (step * have) * 2 - 1
            for count, step, have in zip(cells, level.stride, flat.shape[-2:], strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*steps, indexing='ij')[::-1], -1).expand(len(flat), -1, -1, -1)
        flat = F.grid_sample(flat, grid, padding_mode='border', align_corners=False)
    return flat.permute(0, 2, 3, 1).unflatten(0, (batch, -1))  # (B, T, h, w, C)
