"""The slot table of a point tracker: which points are followed, since when, in tensors of fixed size.

Entries of a head's state (Q slots, allocated once):

==============  ==================  ==================================================================================
``frame``       ``(B,)`` int64      absolute index of the next frame
``query_txy``   ``(B, Q, 3)``       frame, x, y of the query; pixels of the model input
``start``       ``(B, Q)`` int64    first frame on which the slot's row takes part
``active``      ``(B, Q)`` bool     False: an empty slot
==============  ==================  ==================================================================================

Points known at the start take part from frame 0, whatever their query frame (the authors' scheme: unknown tokens until
then). A point added live starts on the frame it is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trecvit_dense.structures import RecurrentState


class CapacityError(ValueError):
    """More points were asked for than there are slots."""


def begin_slots(query_txy: Tensor, valid: Tensor | None = None, capacity: int | None = None) -> RecurrentState:
    """Slots for queries known at the start.

    Args:
        query_txy: ``(B, Q, 3)``; the frame is rounded half to even, as the official metric does.
        valid: ``(B, Q)`` bool, False for padding.
        capacity: Slots to allocate; default Q.

    Raises:
        CapacityError: Q exceeds ``capacity``.
    """
    batch, count, _ = query_txy.shape
    capacity = count if capacity is None else capacity
    if count > capacity:
        raise CapacityError(f'{count} points asked for, but there are {capacity} slots; raise max_points')
    device = query_txy.device
    queries = torch.zeros(batch, capacity, 3, device=device)
    queries[:, :count] = query_txy.float()
    queries[..., 0] = queries[..., 0].round()
    active = torch.zeros(batch, capacity, dtype=torch.bool, device=device)
    active[:, :count] = True if valid is None else valid
    return RecurrentState(
        frame=torch.zeros(batch, dtype=torch.int64, device=device),
        query_txy=queries,
        start=torch.zeros(batch, capacity, dtype=torch.int64, device=device),
        active=active,
    )


def add_points(state: RecurrentState, xy_px: Tensor, batch_index: int = 0) -> Tensor:
    """Put points into empty slots; they are read on the next frame. Changes ``state`` in place.

    Args:
        state: The head's state (tensors are replaced, not written into, so clones share nothing).
        xy_px: ``(N, 2)`` pixels of the model input.

    Returns:
        ``(N,)`` slot indices.

    Raises:
        CapacityError: not enough empty slots.
    """
    free = (~state['active'][batch_index]).nonzero().flatten()
    if len(xy_px) > len(free):
        raise CapacityError(
            f'{len(xy_px)} points to add, but {len(free)} slots are free; retire some or raise max_points'
        )
    slots = free[: len(xy_px)]
    frame = state['frame'][batch_index]
    for key in ('query_txy', 'start', 'active'):
        state[key] = state[key].clone()
    state['query_txy'][batch_index, slots, 0] = frame.float()
    state['query_txy'][batch_index, slots, 1:] = xy_px.to(state['query_txy'])
    state['start'][batch_index, slots] = frame
    state['active'][batch_index, slots] = True
    return slots


def retire_points(state: RecurrentState, slots: Tensor, batch_index: int = 0) -> None:
    """Empty the given slots, in place of ``state``; from the next frame on they take no part in anything."""
    state['active'] = state['active'].clone()
    state['active'][batch_index, slots] = False


@dataclass
class SlotFrames:
    """The slot table spread over the next T frames.

    Args:
        index: ``(B, T)`` absolute frame indices.
        active: ``(B, T, Q)`` the row takes part.
        reset: ``(B, T, Q)`` the row starts afresh on this frame.
        is_query: ``(B, T, Q)`` this is the frame of the query.
        tracked: ``(B, T, Q)`` the query frame has come, so there is an answer.
    """

    index: Tensor
    active: Tensor
    reset: Tensor
    is_query: Tensor
    tracked: Tensor


def spread_slots(state: RecurrentState, num_frames: int) -> SlotFrames:
    """Which slots do what on each of the next ``num_frames`` frames."""
    steps = torch.arange(num_frames, device=state['frame'].device)
    index = state['frame'][:, None] + steps  # (B, T)
    now = index[:, :, None]
    start, query = state['start'][:, None], state['query_txy'][:, None, :, 0].long()  # (B, 1, Q)
    active = state['active'][:, None] & (now >= start)
    return SlotFrames(index, active, active & (now == start), active & (now == query), active & (now >= query))
