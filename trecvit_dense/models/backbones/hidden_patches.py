"""Patches that are hidden from a recurrent backbone: what the rule is, and how hidden rows are left out of the work.

A hidden patch does not exist on that frame: its pixels are blank before any convolution sees them, nobody attends to
it, and its feature is zero. Its recurrent row waits: the RG-LRU keeps its state (decay 1, no input), the temporal
convolution reads a zero in its place (so its taps keep their distance in time), and a row starts afresh on the first
frame on which it is seen. A row that is hidden on every frame (tube masking) is therefore a row that is not there, and
is dropped: 90 % hidden costs a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trecvit_dense.structures import RecurrentState

_SEEN = 'patch.seen'


def find_hidden(
    patch_mask: Tensor | None, state: RecurrentState | None, shape: tuple[int, int, int], *, class_token: bool
) -> HiddenPatches | None:
    """What this call hides, or None where all is seen, now and before.

    Args:
        patch_mask: ``(B, T, N)`` bool, True where a patch is hidden, as :func:`blank` has checked it; None: nothing.
        state: Of the backbone.
        shape: ``(B, T, N)`` of the call's patches.
        class_token: A row of its own goes first, which is always seen.

    Raises:
        ValueError: a frame without anything to see, or a state of other rows.
    """
    if patch_mask is None and not (state and _SEEN in state):
        return None
    hides = patch_mask is not None
    if not hides:
        patch_mask = torch.zeros(shape, dtype=torch.bool, device=state[_SEEN].device)
    if class_token:
        patch_mask = torch.cat([torch.zeros_like(patch_mask[:, :, :1]), patch_mask], dim=2)
    if patch_mask.all(dim=2).any():
        raise ValueError('patch_mask hides every patch of a frame; leave at least one')
    return _plan(patch_mask, state, hides=hides)


@dataclass
class HiddenPatches:
    """The rows that a call works on.

    Args:
        rows: ``(B, K)`` int64, rows that are seen on some frame of the call (padded with rows that are not).
        total: Rows in all, class token included.
        num_frames: ``T``.
        hidden: ``(B, T, K)`` bool over the chosen rows, or None where they are seen on all frames.
        reset: ``(B, T, K)`` bool, rows that are seen for the first time; None where no row needs to be told.
        seen: ``(B, total)`` bool, rows seen so far, this call included; None where that is all of them for certain.
    """

    rows: Tensor
    total: int
    num_frames: int
    hidden: Tensor | None
    reset: Tensor | None
    seen: Tensor | None

    def take(self, x: Tensor) -> Tensor:
        """The chosen rows of ``x (B, ..., N, C)``, rows in the dimension before the last."""
        return x.gather(-2, self._index(x))

    def put(self, x: Tensor, base: Tensor | None = None) -> Tensor:
        """Chosen rows back in their places ``(B, ..., N, C)``; others as in ``base``, or zero."""
        if base is None:
            base = x.new_zeros(*x.shape[:-2], self.total, x.shape[-1])
        return base.to(x.dtype).scatter(-2, self._index(x), x)

    def take_state(self, state: RecurrentState | None) -> RecurrentState | None:
        """The chosen rows of a state."""
        if not state:
            return None
        return RecurrentState({key: self.take(value) for key, value in state.items() if key != _SEEN})

    def put_state(self, state: RecurrentState, before: RecurrentState | None) -> RecurrentState:
        """A state of all rows: the chosen ones anew; the others wait, while zeros enter their convolutions."""
        whole = RecurrentState()
        for key, value in state.items():
            old = (before or {}).get(key)
            if old is not None and key.endswith('.conv'):  # (B, past, N, L)
                old = torch.cat([old, torch.zeros_like(old)], dim=1)
                old = old.narrow(1, min(self.num_frames, value.shape[1]), value.shape[1])
            whole[key] = self.put(value, old)
        if self.seen is not None:
            whole[_SEEN] = self.seen
        return whole

    def _index(self, x: Tensor) -> Tensor:
        rows = self.rows.view(self.rows.shape[0], *(1,) * (x.ndim - 3), self.rows.shape[1], 1)
        return rows.expand(*x.shape[:-2], self.rows.shape[1], x.shape[-1])


def blank(video: Tensor, patch_mask: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """``video (B, T, 3, H, W)``, whole patches only, with hidden ones zero: a stem that overlaps must not see them.

    Raises:
        ValueError: a mask of another shape or type.
    """
    wanted = (*video.shape[:2], grid[0] * grid[1])
    if tuple(patch_mask.shape) != wanted or patch_mask.dtype != torch.bool:
        raise ValueError(f'patch_mask is {patch_mask.dtype} {tuple(patch_mask.shape)}; wanted bool {wanted}')
    shape = (*video.shape[:3], grid[0], patch[0], grid[1], patch[1])
    cover = patch_mask.view(*patch_mask.shape[:2], 1, grid[0], 1, grid[1], 1)
    return video.reshape(shape).masked_fill(cover, 0.0).reshape(video.shape)


def _plan(patch_mask: Tensor, state: RecurrentState | None, *, hides: bool) -> HiddenPatches:
    visible = ~patch_mask  # (B, T, N)
    wanted = visible.any(dim=1)  # (B, N)
    count = int(wanted.sum(dim=1).max())
    rows = wanted.int().argsort(dim=1, descending=True, stable=True)[:, :count]  # (B, K), in the order of the rows
    visible = visible.gather(2, rows[:, None].expand(-1, visible.shape[1], -1))
    if not state:
        before = torch.zeros_like(wanted)
    else:
        before = state.get(_SEEN, torch.ones_like(wanted))
        if before.shape != wanted.shape:
            raise ValueError(f'state holds {before.shape[1]} rows, this call {wanted.shape[1]}; keep the frame size')
    partly = not bool(visible.all())
    first = visible & (visible.int().cumsum(dim=1) == 1) & ~before.gather(1, rows)[:, None]
    # Without a state the first frame is a fresh start by itself, and no row starts later unless it was hidden.
    tell = bool(first.any()) if state else partly
    seen = (before | wanted) if hides else None
    _, num_frames, total = patch_mask.shape
    return HiddenPatches(rows, total, num_frames, ~visible if partly else None, first if tell else None, seen)
