"""The slot table of a segmentation head: which objects are followed, in tensors of fixed size.

Entries of a head's state (K slots, allocated once; cells are those of the head's output, ``stride`` pixels wide):

===========  ====================  ===================================================================================
``frame``    ``(B,)`` int64        absolute index of the next frame
``active``   ``(B, K)`` bool       False: an empty slot
``pending``  ``(B, K)`` bool       the object's mask belongs to the next frame and is taken there
``given``    ``(B, K, h, w)``      share of each cell that the pending mask covers; zero where nothing is pending
===========  ====================  ===================================================================================

A mask that is given to an object again corrects it: what the head gathered from the first one is replaced.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trecvit_dense.models.heads.base import Head, MaskOutput
from trecvit_dense.models.heads.point_slots import CapacityError
from trecvit_dense.models.layers.mask_matching import cover
from trecvit_dense.structures import Features, RecurrentState


def cells_of(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """``(h, w)`` cells that cover a model input of ``(H, W)`` pixels."""
    return -(-size[0] // stride), -(-size[1] // stride)


def begin_objects(batch_size: int, capacity: int, device: torch.device | str) -> RecurrentState:
    """An empty table of ``capacity`` slots."""
    empty = torch.zeros(batch_size, capacity, dtype=torch.bool, device=device)
    return RecurrentState(
        frame=torch.zeros(batch_size, dtype=torch.int64, device=device), active=empty, pending=empty.clone()
    )


def give_masks(state: RecurrentState, masks: Tensor, rows: Tensor, *, stride: int) -> None:
    """Give objects their masks, for the next frame. Changes ``state``; its tensors are replaced, not written into.

    Args:
        masks: ``(B, K, H, W)`` in [0, 1], model input pixels.
        rows: ``(B, K)`` bool, whose masks they are; the others are ignored.
        stride: The head's.
    """
    rows = rows.to(state['active'].device)
    given = cover(masks.to(rows.device), stride) * rows[..., None, None]
    if 'given' in state:
        given = torch.where(rows[..., None, None], given, state['given'])
    state['given'] = given
    state['active'] = state['active'] | rows
    state['pending'] = state['pending'] | rows


def add_objects(state: RecurrentState, masks: Tensor, *, stride: int, batch_index: int = 0) -> Tensor:
    """Put objects into empty slots: ``masks (N, H, W)`` belong to the next frame. Changes ``state`` as above.

    Returns:
        ``(N,)`` slot indices.

    Raises:
        CapacityError: not enough empty slots.
    """
    free = (~state['active'][batch_index]).nonzero().flatten()
    if len(masks) > len(free):
        raise CapacityError(
            f'{len(masks)} objects to add, but {len(free)} slots are free; retire some or raise max_objects'
        )
    slots = free[: len(masks)]
    set_masks(state, slots, masks, stride=stride, batch_index=batch_index)
    return slots


def set_masks(state: RecurrentState, slots: Tensor, masks: Tensor, *, stride: int, batch_index: int = 0) -> None:
    """Give ``masks (N, H, W)`` to the objects in ``slots``, on the next frame: new ones, or a correction."""
    batch, capacity = state['active'].shape
    everything = torch.zeros(batch, capacity, *masks.shape[-2:], device=masks.device)
    everything[batch_index, slots] = masks.float()
    rows = torch.zeros_like(state['active'])
    rows[batch_index, slots] = True
    give_masks(state, everything, rows, stride=stride)


def retire_objects(state: RecurrentState, slots: Tensor, batch_index: int = 0) -> None:
    """Empty the given slots; from the next frame on they take no part in anything."""
    for key in ('active', 'pending'):
        state[key] = state[key].clone()
        state[key][batch_index, slots] = False


def soft_aggregate(probabilities: Tensor, active: Tensor) -> Tensor:
    """Objects judged one by one ``(B, K, h, w)`` to a distribution over background and objects ``(B, K + 1, h, w)``.

    Odds are added up, as in STM (arXiv 1904.00607, section 3.4): background is the chance that no object is there.
    """
    p = (probabilities * active[..., None, None]).clamp(1e-5, 1 - 1e-5)
    p = torch.cat([(1 - p).prod(1, keepdim=True).clamp(1e-5, 1 - 1e-5), p], 1)
    odds = p / (1 - p)
    odds = torch.cat([odds[:, :1], odds[:, 1:] * active[..., None, None]], 1)
    return odds / odds.sum(1, keepdim=True)


def share_cells(given: Tensor, pending: Tensor) -> Tensor:
    """Given masks ``(B, K, h, w)`` of the pending objects; where they overlap, they share the cell."""
    given = given * pending[..., None, None]
    return given / given.sum(1, keepdim=True).clamp(min=1)


def place_given(probabilities: Tensor, given: Tensor, pending: Tensor) -> Tensor:
    """``probabilities (B, K + 1, h, w)`` with the given masks in their place; the others share what is left."""
    given = share_cells(given, pending)
    others = torch.cat([torch.ones_like(pending[:, :1]), ~pending], 1)[..., None, None]  # background and the others
    rest = probabilities * others
    share = (1 - given.sum(1, keepdim=True)) / rest.sum(1, keepdim=True).clamp(min=1e-6)
    return rest * share + torch.cat([torch.zeros_like(given[:, :1]), given], 1)


def fill_cells(maps: Tensor, cells: tuple[int, int]) -> Tensor:
    """``maps (B, C, h, w)`` with the last row and column repeated: a frame may end inside a patch."""
    missing = cells[1] - maps.shape[-1], cells[0] - maps.shape[-2]
    return F.pad(maps, (0, missing[0], 0, missing[1]), mode='replicate') if any(missing) else maps


class MaskHead(Head):
    """What segmentation heads have in common: the slot table, the frame loop, given masks.

    A subclass implements :meth:`prepare` (once per call), :meth:`decode` (a frame) and :meth:`remember` (what to keep
    of it), and may add tokens to the backbone.

    Args:
        stride: Model-input pixels per cell of the probabilities.
        max_objects: Slots of a live session.

    """

    def __init__(
        self,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...],
        *,
        stride: int = 4,
        max_objects: int = 20,
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        self.stride, self.max_objects = stride, max_objects

    def begin(
        self,
        batch_size: int,
        device: torch.device | str,
        masks: Tensor | None = None,
        rows: Tensor | None = None,
        capacity: int | None = None,
    ) -> RecurrentState:
        """Empty slots, or objects that are given on the first frame.

        Args:
            masks: ``(B, K, H, W)`` in [0, 1], model input pixels.
            rows: ``(B, K)`` bool, which of them are given now. None: all.
            capacity: Slots; default K, or ``max_objects`` without masks.
        """
        if capacity is None:
            capacity = self.max_objects if masks is None else masks.shape[1]
        state = begin_objects(batch_size, capacity, device)
        if masks is not None:
            rows = torch.ones(masks.shape[:2], dtype=torch.bool) if rows is None else rows
            if masks.shape[1] > capacity:
                raise CapacityError(f'{masks.shape[1]} objects given, but there are {capacity} slots')
            give_masks(state, masks, rows, stride=self.stride)
        return state

    def give(self, state: RecurrentState, masks: Tensor, rows: Tensor) -> None:
        """Objects get their masks ``(B, K, H, W)`` on the next frame, where ``rows (B, K)``; changes ``state``."""
        give_masks(state, masks, rows, stride=self.stride)

    # ---------------------------------------------------------------------------------- what a subclass implements

    def prepare(self, features: Features, input_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """What one frame needs of the features, for each of the T frames."""
        raise TypeError(f'{type(self).__name__} must define prepare(features, input_size)')

    def slot_dims(self, memory: RecurrentState) -> dict[str, int]:
        """Entries of ``memory`` that have the slots in some dimension, and in which.

        ``decode`` and ``remember`` then see them without the empty slots: a frame costs what the objects cost that are
        there, not the capacity.
        """
        return {}

    def allocate(self, frame: dict[str, Tensor], memory: RecurrentState) -> None:
        """Add the entries that the head needs to ``memory`` when it is new: their sizes depend on the frame's."""

    def decode(
        self, frame: dict[str, Tensor], memory: RecurrentState, tracked: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``(B, K + 1, h, w)`` distribution over background and objects, and what the loss needs.

        ``tracked (B, K)``: objects with a mask from an earlier frame. ``memory['slots']``, where it is there, are the
        slots that K counts, out of all.
        """
        raise TypeError(f'{type(self).__name__} must define decode(frame, memory, tracked)')

    def remember(
        self, frame: dict[str, Tensor], memory: RecurrentState, probabilities: Tensor, pending: Tensor
    ) -> None:
        """Write into ``memory`` what later frames need; ``pending`` objects were given on this frame."""
        raise TypeError(f'{type(self).__name__} must define remember(frame, memory, probabilities, pending)')

    # ------------------------------------------------------------------------------------------------- frame loop

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[MaskOutput, RecurrentState]:
        memory = RecurrentState(state)
        rows, active = memory.pop('pending'), memory['active']
        cells = cells_of(input_size, self.stride)
        empty = torch.zeros(*active.shape, *cells, device=active.device)
        given = memory.pop('given', empty)
        if given.shape[-2:] != cells:
            seen, wanted = given.shape[-2:], cells
            raise ValueError(f'the given masks cover {tuple(seen)} cells, the frame {wanted}; masks must fit the frame')
        prepared = self.prepare(features, input_size)
        self.allocate(prepared[0], memory)
        slots = self._occupied(active, memory)
        part = self._narrow(memory, slots)
        probabilities, extras = self._frames(prepared, part, rows[:, slots], given[:, slots])
        memory = self._widen(part, memory, slots)
        memory.update(pending=torch.zeros_like(rows), given=empty, frame=state['frame'] + len(prepared))
        first = torch.zeros(rows.shape[0], len(prepared), rows.shape[1], dtype=torch.bool, device=rows.device)
        first[:, 0] = rows
        if len(slots) < rows.shape[1]:
            full = probabilities.new_zeros(*probabilities.shape[:2], 1 + rows.shape[1], *cells)
            full[:, :, torch.cat([slots.new_zeros(1), slots + 1])] = probabilities
            probabilities = full
        active = active[:, None].expand(-1, len(prepared), -1)
        return MaskOutput(probabilities, active, first, self.stride, extras), memory

    def _occupied(self, active: Tensor, memory: RecurrentState) -> Tensor:
        """Slots that hold an object in some video of the batch; all in training, where outputs feed a loss."""
        used = active.any(0)
        everything = self.training or (not self.slot_dims(memory) and bool(used.any()))
        return torch.arange(len(used), device=used.device) if everything else used.nonzero().flatten()

    def _narrow(self, memory: RecurrentState, slots: Tensor) -> RecurrentState:
        part = RecurrentState(memory)
        if len(slots) < memory['active'].shape[1]:
            dims = dict(active=1) | self.slot_dims(memory)
            part.update({key: memory[key].index_select(dim, slots) for key, dim in dims.items()})
            part['slots'] = slots
        return part

    def _widen(self, part: RecurrentState, memory: RecurrentState, slots: Tensor) -> RecurrentState:
        if part.pop('slots', None) is None:
            return part
        for key, dim in (dict(active=1) | self.slot_dims(memory)).items():
            part[key] = memory[key].index_copy(dim, slots, part[key])
        return part

    def _frames(
        self, prepared: list[dict[str, Tensor]], memory: RecurrentState, rows: Tensor, given: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Probabilities ``(B, T, K + 1, h, w)`` and extras of all frames; ``rows`` are given on the first."""
        if not rows.shape[1]:  # nobody to follow: all is background
            return given.new_ones(len(rows), len(prepared), 1, *given.shape[-2:]), {}
        active, none, frames = memory['active'], torch.zeros_like(rows), []
        for index, frame in enumerate(prepared):
            pending = none if index else rows
            frames.append(self._frame(frame, memory, active & ~pending, pending, given))
        probabilities, extras = zip(*frames, strict=True)
        return torch.stack(probabilities, 1), {key: torch.stack([part[key] for part in extras], 1) for key in extras[0]}

    def _frame(
        self, frame: dict[str, Tensor], memory: RecurrentState, tracked: Tensor, pending: Tensor, given: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        probabilities, extras = self.decode(frame, memory, tracked)
        probabilities = fill_cells(probabilities, given.shape[-2:])
        if pending.any():
            probabilities = place_given(probabilities, given, pending)
        self.remember(frame, memory, probabilities, pending)
        return probabilities, extras
