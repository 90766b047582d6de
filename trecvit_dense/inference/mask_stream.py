"""Objects through a whole video: what was asked for, checked before the first frame, and the loop over the frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trecvit_dense.io import FrameSource, VideoError
from trecvit_dense.io.mask_file import read_mask

from .mask_prompts import check_labels
from .objects import MAX_ID, ObjectTable, Prompt, fit_to_model, soft_masks
from .runtime import FrameResult, running, to_model

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


def stream(
    model: nn.Module, source: FrameSource, schedule: Schedule, *, chunk: int, max_frames: int | None
) -> Iterator[FrameResult]:
    """One result per frame; an object enters on its own frame, one that is given again is corrected there."""
    table, state, count = ObjectTable(len(first_frames(schedule))), None, 0
    frames = islice(source, max_frames)
    while images := list(islice(frames, _until_next(schedule, count, chunk))):
        state, output, scale = _step(model, table, images, state, schedule.get(count, {}))
        for index in range(len(images)):
            # The frame is given away: it is not held while the next ones are read.
            image = images.pop(0)
            soft = soft_masks(output, index, table.slots, image.shape[:2], scale)
            yield FrameResult.without_points(count + index, image).with_masks(soft)
        count += index + 1
    if not count:
        raise VideoError(f'{source.name}: the video is empty')
    late = [(when, identity) for when, objects in schedule.items() if when >= count for identity in objects]
    if late:
        raise ValueError(f'object {late[0][1]} is given on frame {late[0][0]}; the video ended after {count} frames')


@torch.no_grad()
def _step(model: nn.Module, table: ObjectTable, images: list, state, objects: dict[int, Prompt]) -> tuple:
    """Run the model over ``images``; ``objects`` are given on the first of them."""
    video, scale = to_model(model, images)
    device = video.device
    with running(model, ['masks']):
        if state is None:
            state = model.start(1, device, masks=dict(capacity=table.capacity))
        table.pending = dict(objects)
        masks = fit_to_model(model, table.take_masks(images[0]), scale, tuple(video.shape[-2:]))
        table.commit(table.enter(state, masks, model.heads['masks'].stride))
        outputs, state = model.step(video, state)
    return state, outputs['masks'], scale


def _until_next(schedule: Schedule, count: int, chunk: int) -> int:
    """Frames of the next step: an object must find the model at the start of a step."""
    later = [when for when in schedule if when > count]
    return min(chunk, later[0] - count) if later else chunk


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
