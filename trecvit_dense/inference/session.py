"""Session: live video. Points and objects come and go, depth is there; the memory has one size for ever."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trecvit_dense.io.intrinsics import check_intrinsics
from trecvit_dense.models.heads.point_slots import CapacityError, add_points, retire_points
from trecvit_dense.models.perceiver import only_tasks
from trecvit_dense.structures import RecurrentState

from .mask_prompts import check_labels
from .objects import MAX_ID, ObjectTable, Prompt, fit_to_model, retire_slots, soft_masks
from .queries import check_inside
from .runtime import (
    FrameResult,
    SoftDepth,
    camera_factor,
    check_frame_size,
    load_for_use,
    require_task,
    to_model,
    to_pixels,
)
from .static_step import StaticStep

SCOPE = 'heads.points'


class Session:
    """One live stream.

    What is asked for between two frames (points and objects added, corrected, retired) happens on the frame of the next
    :meth:`step`: a new point lies where it was put on that frame, a mask belongs to it, what was retired is gone. The
    others keep their state. Ids of points and of objects are counted apart.

    Args:
        checkpoint: A file of ours, ``'boxed'`` (the weights that come with the package), or a model with any of the
            heads.
        max_points: Slots for points, all allocated now; 0: the head for points does not run.
        max_objects: Slots for objects, at most 254; 0: the head for objects does not run.
        depth: Whether the head for depth runs.
        intrinsics: ``(3, 3)`` in pixels of the frames; see :meth:`Predictor.stream_depth`.
        device: ``'auto'``, ``'cpu'``, ``'cuda'``, ...
        precision: ``'auto'`` (float32 by whatever computes it fastest here), ``'fp32'``, ``'bf16'`` or ``'int8'``; see
            :func:`.speed_up`. A model that is given as a module is left as it is with ``'auto'``.
        compile: Record the step when the stream has its shape: as a CUDA graph on a GPU, compiled on a CPU, which takes
            the first frames half a minute and more. See :class:`.StaticStep`.

    Example:
        >>> session = Session('boxed', max_points=64)            # doctest: +SKIP
        >>> ids = session.add_points([[320.0, 240.0]])           # x, y in pixels of the coming frame
        >>> ball = session.add_object(box=(100, 80, 160, 150))   # or mask=, or point=
        >>> result = session.step(frame)                         # (H, W, 3) uint8 RGB
        >>> result.xy_px, result.visible                         # (N, 2), (N,)
        >>> result.masks == ball                                 # (H, W)
        >>> result.depth                                         # (H, W), of Session('boxed', depth=True)

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: not a usable one, one without depth where that is asked for, none of its heads is asked for, or
            slots that cannot be.
    """

    def __init__(
        self,
        checkpoint: str | Path | nn.Module = 'boxed',
        *,
        max_points: int = 256,
        max_objects: int = 20,
        depth: bool = False,
        intrinsics: np.ndarray | None = None,
        device: str | torch.device = 'auto',
        precision: str = 'auto',
        compile: bool = False,
    ) -> None:
        if max_points < 0:
            raise ValueError(f'max_points is {max_points}; wanted 0 or more')
        if not 0 <= max_objects <= MAX_ID:
            raise ValueError(f'max_objects is {max_objects}; wanted 0 to {MAX_ID}')
        self.model = load_for_use(checkpoint, device, precision)
        self.device = next(self.model.parameters()).device
        self._name = 'the model' if isinstance(checkpoint, nn.Module) else str(checkpoint)
        if depth:
            require_task(self.model, 'depth', self._name)
        self.max_points, self.max_objects, self.intrinsics = max_points, max_objects, intrinsics
        wanted = dict(points=max_points, masks=max_objects, depth=depth)
        self._tasks = [task for task in self.model.heads if wanted.get(task, True)]
        if not self._tasks:
            raise ValueError(f'nothing runs: {self._name} has {", ".join(self.model.heads)}; ask for it (depth=True)')
        self._next_id = 0
        self._static = StaticStep(self.model) if compile else None
        self.reset()

    def reset(self) -> None:
        """Forget the stream, all points and objects; the next frame may have another size.

        Ids of points are not used again; those of objects start from 1.
        """
        nothing = torch.zeros(1, 0, 3, device=self.device)
        with only_tasks(self.model, self._tasks):
            self._state = self.model.start(
                1,
                self.device,
                points=dict(query_txy=nothing, capacity=self.max_points),
                masks=dict(capacity=self.max_objects),
            )
        self._slots: dict[int, int] = {}  # id to slot, in the order of adding
        self._pending: dict[int, np.ndarray] = {}  # id to (2,) xy in pixels
        self._objects = ObjectTable(self.max_objects)
        self._size: tuple[int, int] | None = None
        self.frame = 0

    @property
    def state(self) -> RecurrentState:
        """Everything the session remembers of the video, a dict of tensors; its size does not depend on its length."""
        return self._state if self._static is None else self._state.clone()  # a recorded step writes into its own

    @property
    def ids(self) -> list[int]:
        """Points that the next step will follow."""
        return [*self._slots, *self._pending]

    @property
    def object_ids(self) -> list[int]:
        """Objects that the next step will follow."""
        return self._objects.ids

    # ---------------------------------------------------------------------------------------------------- points

    def add_points(self, xy_px: np.ndarray | Iterable[Iterable[float]]) -> list[int]:
        """Follow points from the next frame on.

        Args:
            xy_px: ``(N, 2)`` x, y in pixels of the coming frame.

        Returns:
            Their ids, new numbers in ascending order.

        Raises:
            CapacityError: more than ``max_points``; nothing was added.
            ValueError: a point that is not a number or outside the frame, or a model that follows none; nothing was
                added.
        """
        require_task(self.model, 'points', self._name)
        points = np.asarray(xy_px, dtype=np.float32)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f'points have shape {points.shape}; wanted (N, 2): x, y')
        free = self.max_points - len(self.ids)
        if len(points) > free:
            raise CapacityError(
                f'{len(points)} points to add, but {free} of {self.max_points} slots are free; '
                f'retire some or raise max_points'
            )
        if self._size is not None:
            check_inside(points, self._size)
        elif not np.isfinite(points).all():
            raise ValueError(f'point {int(np.flatnonzero(~np.isfinite(points).all(1))[0])} is not a number')
        ids = list(range(self._next_id, self._next_id + len(points)))
        self._next_id += len(points)
        self._pending.update(zip(ids, points, strict=True))
        return ids

    def retire(self, ids: Iterable[int] | int) -> None:
        """Stop following points; their slots are free at once.

        Raises:
            ValueError: an id that is not followed; nothing was retired.
        """
        ids = _as_ids(ids)
        unknown = [i for i in ids if i not in self._slots and i not in self._pending]
        if unknown:
            raise ValueError(f'point {unknown[0]} is not followed; known ids: {self.ids[:10]}')
        slots = [self._slots.pop(i) for i in ids if i in self._slots]
        for i in ids:
            self._pending.pop(i, None)
        if slots:
            points = self._state.scope(SCOPE)
            retire_points(points, torch.tensor(slots, device=self.device))
            self._state = RecurrentState(self._state).put(SCOPE, points)

    # --------------------------------------------------------------------------------------------------- objects

    def add_object(
        self,
        mask: np.ndarray | None = None,
        *,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
        id: int | None = None,
    ) -> int:
        """Follow an object from the next frame on, which its mask, box or point belongs to.

        Args:
            mask: ``(H, W)`` bool, or numbers of which all but 0 are the object (float: those above one half).
            box: Left, top, right, bottom in pixels; a mask is cut out by colour when the frame comes.
            point: x, y in pixels; the same.
            id: A free number from 1 to 254. None: the next one.

        Returns:
            Its id, the value that it has in ``result.masks``.

        Raises:
            CapacityError: more than ``max_objects``; nothing was added.
            ValueError: a mask of another size than the frames, an RGB picture, an empty mask, a box or point outside
                the frame, an id that is taken, or a model that segments nothing; nothing was added.
        """
        require_task(self.model, 'masks', self._name)
        return self._objects.add([(id, Prompt.of(mask, box, point, size=self._size))])[0]

    def add_objects(self, labels: np.ndarray) -> list[int]:
        """Follow every object of an index map ``(H, W)`` (0 background, 255 void) under its own id.

        Raises as :meth:`add_object`; nothing was added then.
        """
        require_task(self.model, 'masks', self._name)
        masks = check_labels(labels, self._size)
        return self._objects.add([(identity, Prompt('mask', mask)) for identity, mask in masks.items()])

    def correct(
        self,
        id: int,
        mask: np.ndarray | None = None,
        *,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
    ) -> None:
        """Give an object another mask on the next frame; arguments and errors as in :meth:`add_object`."""
        require_task(self.model, 'masks', self._name)
        self._objects.correct(id, Prompt.of(mask, box, point, size=self._size))

    def retire_objects(self, ids: Iterable[int] | int) -> None:
        """Stop following objects; their slots and ids are free at once.

        Raises:
            ValueError: an id that is not followed; nothing was retired.
        """
        slots = self._objects.retire(_as_ids(ids))
        if slots:
            self._state = retire_slots(self._state, slots)

    def remove_object(self, id: int) -> None:
        """:meth:`retire_objects` for one."""
        self.retire_objects(id)

    # ---------------------------------------------------------------------------------------------------- frames

    @torch.no_grad()
    def step(self, rgb: np.ndarray) -> FrameResult:
        """Advance by one frame.

        Args:
            rgb: ``(H, W, 3)`` uint8; every frame of a session has the size of the first.

        Returns:
            Positions of all followed points on this frame, in the order of :attr:`ids`, masks of all objects, depth.

        Raises:
            ValueError: a frame of another kind or size; a point or mask from before the first frame that does not fit
                it (it is dropped). The stream is where it was: the same frame can be given again.
        """
        self._check_frame(rgb)
        self._check_pending(rgb.shape[:2])
        given = self._objects.take_masks(rgb)
        video, scale = to_model(self.model, [rgb], self._tasks)
        state = RecurrentState(self._state)  # a state that was handed out before stays as it was
        slots = self._enter_points(state, scale)
        masks = fit_to_model(self.model, given, scale, tuple(video.shape[-2:]))
        held = self._objects.enter(state, masks, self.model.heads['masks'].stride) if masks else self._objects.slots
        with only_tasks(self.model, self._tasks):
            outputs, self._state = (self._static or self.model.step)(video, state)
        self._slots, self._pending, self._size = slots, {}, tuple(rgb.shape[:2])
        self._objects.commit(held)
        result = self._read(outputs, scale)
        self.frame += 1
        return result

    def _enter_points(self, state: RecurrentState, scale: np.ndarray) -> dict[int, int]:
        """Give slots in ``state`` to the points that wait; returns all slots."""
        if not self._pending:
            return self._slots
        points = state.scope(SCOPE)
        xy = torch.from_numpy(np.stack(list(self._pending.values())) * scale)
        taken = add_points(points, xy.to(self.device)).tolist()
        state.put(SCOPE, points)
        return {**self._slots, **dict(zip(self._pending, taken, strict=True))}

    def _check_frame(self, rgb: np.ndarray) -> None:
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            kind = f'{rgb.dtype} {rgb.shape}' if hasattr(rgb, 'dtype') else type(rgb).__name__
            raise ValueError(f'the frame is {kind}; wanted a uint8 array (H, W, 3), RGB')
        if self._size is None:
            check_frame_size(rgb.shape[:2], self.model)
            if self.intrinsics is not None:
                check_intrinsics(self.intrinsics, rgb.shape[:2])
        elif rgb.shape[:2] != self._size:
            seen, wanted = (f'{width}x{height}' for height, width in (rgb.shape[:2], self._size))
            raise ValueError(f'frame {self.frame} has {seen} px, the stream {wanted}; call reset() to start another')

    def _check_pending(self, size: tuple[int, int]) -> None:
        if self._size is None and self._pending:
            try:
                for identity, xy in self._pending.items():
                    check_inside(xy[None], size, first=identity)
            except ValueError:
                self._pending = {}
                raise

    def _read(self, outputs: dict[str, Any], scale: np.ndarray) -> FrameResult:
        fields = {}
        if 'points' in outputs:
            slots = list(self._slots.values())
            parts = (None if part is None else part[0, slots] for part in to_pixels(outputs['points'], scale))
            fields = dict(zip(('xy_px', 'visible', 'certainty'), parts, strict=True))
            fields['ids'] = np.array(list(self._slots), dtype=np.int64)
        if 'masks' in outputs:
            fields |= soft_masks(outputs['masks'], 0, self._objects.slots, self._size, scale).fields()
        if 'depth' in outputs:
            factor = camera_factor(self.model, self.intrinsics, scale)
            fields['soft_depth'] = SoftDepth.of(outputs['depth'], 0, self._size, scale, factor)
        return FrameResult(self.frame, **fields)


def _as_ids(ids: Iterable[int] | int) -> list[int]:
    return [int(i) for i in np.atleast_1d(np.asarray(ids if isinstance(ids, int) else list(ids), dtype=np.int64))]
