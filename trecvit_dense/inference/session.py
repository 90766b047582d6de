"""Session: live tracking. Points come and go between frames; the memory has one size for ever."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trecvit_dense.models.heads.base import PointOutput
from trecvit_dense.models.heads.point_slots import CapacityError, add_points, retire_points
from trecvit_dense.structures import RecurrentState

from .queries import check_inside
from .runtime import FrameResult, check_frame_size, load_tracker, to_model, to_pixels

SCOPE = 'heads.points'


class Session:
    """One live stream.

    What :meth:`add_points` and :meth:`retire` ask for happens on the frame of the next :meth:`step`: a new point lies
    where it was put on that frame, a retired one is gone. The other points keep their state.

    Args:
        checkpoint: A file of ours, ``'boxed'`` (the weights that come with the package), or a model.
        max_points: Slots for points, all allocated now.
        max_objects: Slots for objects, for checkpoints with a head that follows them.
        device: ``'auto'``, ``'cpu'``, ``'cuda'``, ...

    Example:
        >>> session = Session('boxed', max_points=64)            # doctest: +SKIP
        >>> ids = session.add_points([[320.0, 240.0]])           # x, y in pixels of the coming frame
        >>> result = session.step(frame)                         # (H, W, 3) uint8 RGB
        >>> result.xy_px, result.visible                         # (N, 2), (N,)
    """

    def __init__(
        self,
        checkpoint: str | Path | nn.Module = 'boxed',
        *,
        max_points: int = 256,
        max_objects: int = 20,
        device: str | torch.device = 'auto',
    ) -> None:
        if max_points < 1:
            raise ValueError(f'max_points is {max_points}; wanted 1 or more')
        self.model = load_tracker(checkpoint, device)
        self.device = next(self.model.parameters()).device
        self.max_points, self.max_objects = max_points, max_objects
        self._next_id = 0
        self.reset()

    def reset(self) -> None:
        """Forget the stream and all points; the next frame may have another size. Ids are not used again."""
        nothing = torch.zeros(1, 0, 3, device=self.device)
        self._state = self.model.start(1, self.device, points=dict(query_txy=nothing, capacity=self.max_points))
        self._slots: dict[int, int] = {}  # id to slot, in the order of adding
        self._pending: dict[int, np.ndarray] = {}  # id to (2,) xy in pixels
        self._size: tuple[int, int] | None = None
        self.frame = 0

    @property
    def state(self) -> RecurrentState:
        """Everything the session remembers of the video, a dict of tensors; its size does not depend on its length."""
        return self._state

    @property
    def ids(self) -> list[int]:
        """Points that the next step will follow."""
        return [*self._slots, *self._pending]

    def add_points(self, xy_px: np.ndarray | Iterable[Iterable[float]]) -> list[int]:
        """Follow points from the next frame on.

        Args:
            xy_px: ``(N, 2)`` x, y in pixels of the coming frame.

        Returns:
            Their ids, new numbers in ascending order.

        Raises:
            CapacityError: more than ``max_points``; nothing was added.
            ValueError: a point that is not a number or outside the frame; nothing was added.
        """
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
        ids = [int(i) for i in np.atleast_1d(np.asarray(ids if isinstance(ids, int) else list(ids), dtype=np.int64))]
        unknown = [i for i in ids if i not in self._slots and i not in self._pending]
        if unknown:
            raise ValueError(f'point {unknown[0]} is not followed; known ids: {self.ids[:10]}')
        slots = [self._slots.pop(i) for i in ids if i in self._slots]
        for i in ids:
            self._pending.pop(i, None)
        if slots:
            points = self._state.scope(SCOPE)
            retire_points(points, torch.tensor(slots, device=self.device))
            self._replace(points)

    @torch.no_grad()
    def step(self, rgb: np.ndarray) -> FrameResult:
        """Advance by one frame.

        Args:
            rgb: ``(H, W, 3)`` uint8; every frame of a session has the size of the first.

        Returns:
            Positions of all followed points on this frame, in the order of :attr:`ids`.

        Raises:
            ValueError: a frame of another kind or size, or a point added before the first frame that lies outside it
                (such points are dropped).
        """
        self._check_frame(rgb)
        self._check_pending(rgb.shape[:2])
        video, scale = to_model(self.model, [rgb])
        if self._pending:
            points = self._state.scope(SCOPE)
            xy = torch.from_numpy(np.stack(list(self._pending.values())) * scale)
            slots = add_points(points, xy.to(self.device)).tolist()
            self._slots.update(zip(self._pending, slots, strict=True))
            self._pending = {}
            self._replace(points)
        outputs, self._state = self.model.step(video, self._state)
        result = self._read(outputs['points'], scale)
        self.frame += 1
        return result

    def _check_frame(self, rgb: np.ndarray) -> None:
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            kind = f'{rgb.dtype} {rgb.shape}' if hasattr(rgb, 'dtype') else type(rgb).__name__
            raise ValueError(f'the frame is {kind}; wanted a uint8 array (H, W, 3), RGB')
        if self._size is None:
            check_frame_size(rgb.shape[:2], self.model)
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
        self._size = tuple(size)

    def _replace(self, points: RecurrentState) -> None:
        """Put the point head's entries back into a new state: one that was handed out before stays as it was."""
        self._state = RecurrentState(self._state).put(SCOPE, points)

    def _read(self, output: PointOutput, scale: np.ndarray) -> FrameResult:
        ids, slots = np.array(list(self._slots), dtype=np.int64), list(self._slots.values())
        xy, visible, certainty = (None if part is None else part[0, slots] for part in to_pixels(output, scale))
        return FrameResult(self.frame, ids, xy, visible, certainty)
