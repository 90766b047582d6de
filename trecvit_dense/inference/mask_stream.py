"""Objects through a whole video: what was asked for, checked before the first frame, and its reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trecvit_dense.io.mask_file import read_mask
from trecvit_dense.models.heads.base import MaskOutput
from trecvit_dense.structures import RecurrentState

from .mask_prompts import check_labels
from .objects import MAX_ID, ObjectTable, Prompt, fit_to_model, soft_masks
from .stream import Fit, Reader

Schedule = dict[int, dict[int, Prompt]]
"""Frame to the objects that are given on it: id to prompt."""


def make_schedule(
    size: tuple[int, int],
    num_frames: int | None,
    masks: object = None,
    *,
    boxes: Sequence[Sequence[float]] | None = None,
    points: Sequence[Sequence[float]] | None = None,
    frame: int = 0,
) -> Schedule:
    """Everything that is asked for, by frame.

    Args:
        size: ``(H, W)`` of the video.
        num_frames: None when it is not known.
        masks: ``(H, W)`` index map, mask of one object, name of a PNG, or ``{frame: one of these}``.
        boxes: ``(N, 4)`` left, top, right, bottom; they get the numbers behind those of the masks.
        points: ``(N, 2)`` x, y; the same.
        frame: Of boxes and points, and of masks that name none.

    Raises:
        ValueError: nothing is asked for, a mask, box or point that does not fit the frame, or a frame after the end.
    """
    schedule: Schedule = {}
    given = masks if isinstance(masks, Mapping) else {} if masks is None else {frame: masks}
    for when, labels in given.items():
        schedule.setdefault(_check_frame(when, num_frames), {}).update(_of_labels(labels, size))
    taken = {identity for objects in schedule.values() for identity in objects}
    later = [Prompt.of(box=box, size=size) for box in _rows(boxes, 4)]
    later += [Prompt.of(point=point, size=size) for point in _rows(points, 2)]
    free = [identity for identity in range(1, MAX_ID + 1) if identity not in taken]
    if len(later) > len(free):
        raise ValueError(f'{len(later) + len(taken)} objects; wanted at most {MAX_ID}')
    if later:
        schedule.setdefault(_check_frame(frame, num_frames), {}).update(zip(free, later, strict=False))
    if not schedule:
        raise ValueError('no object is given; wanted masks, boxes or points')
    return dict(sorted(schedule.items()))


def first_frames(schedule: Schedule) -> dict[int, int]:
    """Id to the frame on which the object is given first."""
    first: dict[int, int] = {}
    for when, objects in schedule.items():
        for identity in objects:
            first.setdefault(identity, when)
    return dict(sorted(first.items()))


class MaskReader(Reader):
    """Objects to follow: one enters on its own frame, one that is given again is corrected there."""

    task = 'masks'

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.table = ObjectTable(len(first_frames(schedule)))

    def begin(self, fit: Fit, device: torch.device) -> dict[str, Any]:
        return dict(capacity=self.table.capacity)

    def until_next(self, count: int, chunk: int) -> int:
        later = [when for when in self.schedule if when > count]
        return min(chunk, later[0] - count) if later else chunk

    def enter(self, model: nn.Module, state: RecurrentState, image: np.ndarray, count: int, fit: Fit) -> None:
        self.table.pending = dict(self.schedule.get(count, {}))
        masks = fit_to_model(model, self.table.take_masks(image), fit.scale, fit.input_size)
        self.table.commit(self.table.enter(state, masks, model.heads['masks'].stride))

    def read(self, output: MaskOutput, count: int, fit: Fit) -> Iterator[dict[str, Any]]:
        for index in range(output.probabilities.shape[1]):
            yield soft_masks(output, index, self.table.slots, fit.size, fit.scale).fields()

    def check_all_came(self, count: int) -> None:
        late = [(when, identity) for when, objects in self.schedule.items() if when >= count for identity in objects]
        if late:
            raise ValueError(
                f'object {late[0][1]} is given on frame {late[0][0]}; the video ended after {count} frames'
            )


def _of_labels(labels: object, size: tuple[int, int]) -> dict[int, Prompt]:
    name = f'{labels}: ' if isinstance(labels, (str, Path)) else ''
    values = read_mask(labels) if name else np.asarray(labels)
    try:
        if values.dtype == bool or values.dtype.kind == 'f':
            return {1: Prompt.of(mask=values, size=size)}
        return {identity: Prompt('mask', mask) for identity, mask in check_labels(values, size).items()}
    except ValueError as error:
        raise ValueError(f'{name}{error}') from None


def _check_frame(frame: int, num_frames: int | None) -> int:
    if int(frame) != frame or frame < 0 or (num_frames is not None and frame >= num_frames):
        last = 'the end' if num_frames is None else num_frames - 1
        raise ValueError(f'an object is given on frame {frame}; the video has frames 0 to {last}')
    return int(frame)


def _rows(values: object, count: int) -> list:
    """One row of numbers or several, as a list of rows."""
    if values is None:
        return []
    rows = list(values)
    return [rows] if len(rows) == count and all(np.isscalar(value) for value in rows) else rows
