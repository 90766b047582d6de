"""The objects of one stream: who is followed, under which id, in which slot, and who waits for the next frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from trecvit_dense.models.heads.base import MaskOutput
from trecvit_dense.models.heads.mask_slots import add_objects, retire_objects, set_masks
from trecvit_dense.models.heads.point_slots import CapacityError
from trecvit_dense.models.queries import fit_masks
from trecvit_dense.structures import RecurrentState

from .mask_prompts import check_box, check_mask, check_point, mask_from_box, mask_from_point
from .runtime import SoftMasks

SCOPE = 'heads.masks'
MAX_ID = 254  # 255 is void in every data set


@dataclass
class Prompt:
    """What points out an object on one frame: ``kind`` is ``'mask'``, ``'box'`` or ``'point'``."""

    kind: str
    value: np.ndarray

    @staticmethod
    def of(mask: object = None, box: object = None, point: object = None, *, size: tuple | None = None) -> Prompt:
        """The one that is given, checked as far as it can be before the frame (of ``size``, where known) is seen.

        Raises:
            ValueError: none or several are given, or the one is not usable.
        """
        given = {kind: value for kind, value in (('mask', mask), ('box', box), ('point', point)) if value is not None}
        if len(given) != 1:
            raise ValueError(f'{" and ".join(given) or "nothing"} given for an object; wanted one of mask, box, point')
        check = dict(mask=check_mask, box=check_box, point=check_point)
        ((kind, value),) = given.items()
        return Prompt(kind, check[kind](value, size))

    def mask(self, rgb: np.ndarray) -> np.ndarray:
        """``(H, W)`` bool on the frame that it belongs to; raises ValueError where it does not fit."""
        if self.kind == 'mask':
            return check_mask(self.value, rgb.shape[:2])
        return (mask_from_box if self.kind == 'box' else mask_from_point)(rgb, self.value)


@dataclass
class ObjectTable:
    """Ids and slots of a stream's objects.

    Args:
        capacity: Slots that the head's state has.
        slots: Id to slot, in the order of adding.
        pending: Id to the prompt that the next frame takes: new objects and corrections.
    """

    capacity: int
    slots: dict[int, int] = field(default_factory=dict)
    pending: dict[int, Prompt] = field(default_factory=dict)
    _next_id: int = 1

    @property
    def ids(self) -> list[int]:
        """Objects that the next frame will have."""
        return list({**self.slots, **self.pending})

    def add(self, prompts: list[tuple[int | None, Prompt]]) -> list[int]:
        """New objects on the next frame; all or none. None for an id: the next number that was never used.

        Raises:
            CapacityError: not enough slots.
            ValueError: an id that is taken, or not 1 to 254.
        """
        free = self.capacity - len(self.ids)
        if len(prompts) > free:
            raise CapacityError(
                f'{len(prompts)} objects to add, but {free} of {self.capacity} slots are free; '
                f'retire some or raise max_objects'
            )
        added: dict[int, Prompt] = {}
        for identity, prompt in prompts:
            identity = self._new_id(added) if identity is None else self._check_id(identity)
            added[identity] = prompt
        self.pending.update(added)
        self._next_id = max(self._next_id, *(identity + 1 for identity in added)) if added else self._next_id
        return list(added)

    def correct(self, identity: int, prompt: Prompt) -> None:
        """A new mask for an object that is followed, on the next frame; raises ValueError for an unknown one."""
        self.check_known([identity])
        self.pending[identity] = prompt

    def retire(self, ids: list[int]) -> list[int]:
        """Forget objects; returns the slots to empty. Raises ValueError for an unknown one, and forgets none."""
        self.check_known(ids)
        for identity in ids:
            self.pending.pop(identity, None)
        return [self.slots.pop(identity) for identity in dict.fromkeys(ids) if identity in self.slots]

    def check_known(self, ids: Iterable[int]) -> None:
        for identity in ids:
            if identity not in self.slots and identity not in self.pending:
                raise ValueError(f'object {identity} is not followed; known ids: {self.ids[:10]}')

    def take_masks(self, rgb: np.ndarray) -> dict[int, np.ndarray]:
        """``{id: (H, W) bool}`` of what is pending, on its frame.

        Raises:
            ValueError: one that does not fit the frame; it is dropped, the others wait on.
        """
        masks = {}
        for identity, prompt in self.pending.items():
            try:
                masks[identity] = prompt.mask(rgb)
            except ValueError as error:
                del self.pending[identity]
                raise ValueError(f'object {identity}: {error}') from None
        return masks

    def enter(self, state: RecurrentState, masks: dict[int, Tensor], stride: int) -> dict[int, int]:
        """Give ``masks`` ``(h, w)`` in model pixels to the head: ``state`` gets its new entries; returns the new slots.

        Nothing here changes before :meth:`commit`, so that a step that fails can be made again.
        """
        if not masks:
            return dict(self.slots)
        entries = state.scope(SCOPE)
        known = [identity for identity in masks if identity in self.slots]
        fresh = [identity for identity in masks if identity not in self.slots]
        if known:
            slots = torch.tensor([self.slots[identity] for identity in known])
            set_masks(entries, slots, torch.stack([masks[identity] for identity in known]), stride=stride)
        slots = dict(self.slots)
        if fresh:
            taken = add_objects(entries, torch.stack([masks[identity] for identity in fresh]), stride=stride)
            slots.update(zip(fresh, taken.tolist(), strict=True))
        state.put(SCOPE, entries)
        return slots

    def commit(self, slots: dict[int, int]) -> None:
        """The step was made: what waited has its slot."""
        self.slots, self.pending = slots, {}

    def _check_id(self, identity: int) -> int:
        if isinstance(identity, bool) or int(identity) != identity or not 1 <= identity <= MAX_ID:
            raise ValueError(f'object id {identity}; wanted a whole number from 1 to {MAX_ID} (255 is void)')
        if identity in self.slots or identity in self.pending:
            raise ValueError(f'object {identity} is already followed; correct({identity}, ...) gives it another mask')
        return int(identity)

    def _new_id(self, added: Iterable[int]) -> int:
        taken = {*self.slots, *self.pending, *added}
        later = max([self._next_id, *(identity + 1 for identity in added)])
        return next(identity for identity in (*range(later, MAX_ID + 1), *range(1, later)) if identity not in taken)


def retire_slots(state: RecurrentState, slots: list[int]) -> RecurrentState:
    """A new state in which ``slots`` are empty."""
    entries = state.scope(SCOPE)
    retire_objects(entries, torch.tensor(slots, device=entries['active'].device))
    return RecurrentState(state).put(SCOPE, entries)


def fit_to_model(
    model: nn.Module, masks: dict[int, np.ndarray], scale: np.ndarray, input_size: tuple[int, int]
) -> dict[int, Tensor]:
    """Masks ``(H, W)`` bool of a frame to ``(h, w)`` float in pixels of the model input."""
    device = next(model.parameters()).device
    fitted = {}
    for identity, mask in masks.items():  # one by one: at full size a float mask is large
        full = torch.from_numpy(np.ascontiguousarray(mask)).to(device).float()[None]
        fitted[identity] = fit_masks(full, mask.shape, tuple(scale.tolist()), input_size)[0]
    return fitted


def soft_masks(
    output: MaskOutput, index: int, slots: dict[int, int], size: tuple[int, int], scale: np.ndarray
) -> SoftMasks:
    """Frame ``index`` of an output, with the objects in ``slots`` alone: empty ones cost nothing further."""
    rows = torch.tensor([0, *(slot + 1 for slot in slots.values())], device=output.probabilities.device)
    frame, kept = slice(index, index + 1), rows[1:] - 1
    cells = output.probabilities[:1, frame].index_select(2, rows)
    part = MaskOutput(cells, output.active[:1, frame, kept], output.given[:1, frame, kept], output.stride)
    return SoftMasks(list(slots), part, tuple(size), scale)
