"""Predictor: points and objects in a whole video, frame by frame or at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trecvit_dense.io import FrameSource, VideoError
from trecvit_dense.models.heads.point_slots import add_points
from trecvit_dense.structures import ObjectMasks, PointTracks, RecurrentState

from . import mask_stream
from .queries import check_queries, grid_queries
from .runtime import FrameResult, check_frame_size, load_for_use, require_task, running, to_model, to_pixels

CHUNK_FRAMES = 8
DEFAULT_GRID = 16


class Predictor:
    """Follows points and objects through videos of any size; one model, many videos.

    Args:
        checkpoint: A file of ours, ``'boxed'`` (the weights that come with the package), or a model.
        device: ``'auto'``, ``'cpu'``, ``'cuda'``, ...

    Example:
        >>> tracks = Predictor().points('video.mp4', grid=16)    # doctest: +SKIP
        >>> tracks.xy_px.shape                                   # (N, T, 2), pixels of the video
        >>> masks = Predictor().masks('video.mp4', boxes=[(100, 80, 160, 150)])    # doctest: +SKIP
        >>> masks.labels.shape                                   # (T, H, W), size of the video
    """

    def __init__(self, checkpoint: str | Path | nn.Module = 'boxed', *, device: str | torch.device = 'auto') -> None:
        self.model = load_for_use(checkpoint, device)
        self._name = 'the model' if isinstance(checkpoint, nn.Module) else str(checkpoint)
        self.device = next(self.model.parameters()).device

    def points(
        self,
        video: str | Path | np.ndarray | FrameSource,
        queries_txy: np.ndarray | None = None,
        *,
        grid: int | None = None,
        frame: int = 0,
        live: bool = False,
        chunk: int | None = None,
        max_frames: int | None = None,
    ) -> PointTracks:
        """Tracks of all points; only they are held, not the video.

        Arguments and errors as in :meth:`stream_points`. Before its query frame a point is NaN and not visible.
        """
        source = FrameSource.open(video)
        if source.live and max_frames is None:
            raise ValueError(f'{source.name} has no end; give max_frames, or use stream_points')
        query = self.make_queries(source, queries_txy, grid=grid, frame=frame, max_frames=max_frames)
        results = self.stream_points(source, query, live=live, chunk=chunk, max_frames=max_frames)
        xy, visible = zip(*((result.xy_px, result.visible) for result in results), strict=True)
        return PointTracks(np.stack(xy, axis=1), np.stack(visible, axis=1), query)

    def stream_points(
        self,
        source: str | Path | int | np.ndarray | FrameSource,
        queries_txy: np.ndarray | None = None,
        *,
        grid: int | None = None,
        frame: int = 0,
        live: bool = False,
        chunk: int | None = None,
        max_frames: int | None = None,
    ) -> Iterator[FrameResult]:
        """Yield one :class:`FrameResult` per frame, in order. Memory does not grow with the length of the video.

        Args:
            source: Anything that :meth:`FrameSource.open` takes.
            queries_txy: ``(N, 3)`` frame, x, y in pixels of the video. Default: ``grid``.
            grid: Points per side of a regular grid on frame ``frame`` (16 when nothing is given).
            live: A query enters the model on its own frame, as if nobody had known before. Otherwise all are known
                from the start, as in the TAP-Vid benchmark.
            chunk: Frames per step of the model, 8 by default (1 for a camera): speed and delay, not results.
            max_frames: Stop after so many.

        Raises:
            ValueError: a query outside the frame, after the end or not a number; a frame smaller than one patch; a
                model that does not track points. At the end of the stream: a query whose frame never came.
        """
        require_task(self.model, 'points', self._name)
        source = FrameSource.open(source)
        check_frame_size(source.size, self.model)
        query = self.make_queries(source, queries_txy, grid=grid, frame=frame, max_frames=max_frames)
        chunk = chunk or (1 if source.live else CHUNK_FRAMES)
        return self._stream(source, query, live, max(1, chunk), max_frames)

    def masks(
        self,
        video: str | Path | np.ndarray | FrameSource,
        masks: np.ndarray | str | Path | Mapping[int, np.ndarray | str | Path] | None = None,
        *,
        boxes: Sequence[Sequence[float]] | None = None,
        points: Sequence[Sequence[float]] | None = None,
        frame: int = 0,
        chunk: int | None = None,
        max_frames: int | None = None,
    ) -> ObjectMasks:
        """Masks of all objects, one byte a pixel and frame; for long videos see :meth:`stream_masks`.

        Arguments and errors as there. Before its first frame an object is nowhere.
        """
        source = FrameSource.open(video)
        if source.live and max_frames is None:
            raise ValueError(f'{source.name} has no end; give max_frames, or use stream_masks')
        schedule = self.make_schedule(source, masks, boxes=boxes, points=points, frame=frame, max_frames=max_frames)
        results = self.stream_schedule(source, schedule, chunk=chunk, max_frames=max_frames)
        labels, first = np.stack([result.masks for result in results]), mask_stream.first_frames(schedule)
        return ObjectMasks(labels, list(first), list(first.values()))

    def stream_masks(
        self,
        source: str | Path | int | np.ndarray | FrameSource,
        masks: np.ndarray | str | Path | Mapping[int, np.ndarray | str | Path] | None = None,
        *,
        boxes: Sequence[Sequence[float]] | None = None,
        points: Sequence[Sequence[float]] | None = None,
        frame: int = 0,
        chunk: int | None = None,
        max_frames: int | None = None,
    ) -> Iterator[FrameResult]:
        """Yield one :class:`FrameResult` with ``masks`` per frame. Memory does not grow with the length of the video.

        Args:
            source: Anything that :meth:`FrameSource.open` takes.
            masks: Objects on frame ``frame``: an index map ``(H, W)`` (0 background, 255 void), a bool mask (object 1)
                or the name of a PNG. ``{frame: one of these}``: objects that come on several frames; an object that is
                given again is corrected there.
            boxes: ``(N, 4)`` left, top, right, bottom on frame ``frame``, numbered behind the masks.
            points: ``(N, 2)`` x, y, one object each, numbered behind the boxes.
            frame: Of boxes and points, and of masks that name none.
            chunk: Frames per step of the model, 8 by default (1 for a camera): speed and delay, not results.
            max_frames: Stop after so many.

        Raises:
            ValueError: no object, one that does not fit the frame, a frame after the end, a frame smaller than one
                patch, a model that segments nothing. At the end of the stream: an object whose frame never came.
        """
        source = FrameSource.open(source)
        schedule = self.make_schedule(source, masks, boxes=boxes, points=points, frame=frame, max_frames=max_frames)
        return self.stream_schedule(source, schedule, chunk=chunk, max_frames=max_frames)

    def make_schedule(
        self, source: FrameSource, masks: object = None, *, max_frames: int | None = None, **more: object
    ) -> mask_stream.Schedule:
        """What is given on which frame, checked, as :meth:`stream_masks` makes it from the same arguments."""
        require_task(self.model, 'masks', self._name)
        check_frame_size(source.size, self.model)
        return mask_stream.make_schedule(source.size, _known_frames(source, max_frames), masks, **more)

    def stream_schedule(
        self,
        source: FrameSource,
        schedule: mask_stream.Schedule,
        *,
        chunk: int | None = None,
        max_frames: int | None = None,
    ) -> Iterator[FrameResult]:
        """:meth:`stream_masks` for what :meth:`make_schedule` has made."""
        chunk = chunk or (1 if source.live else CHUNK_FRAMES)
        return mask_stream.stream(self.model, source, schedule, chunk=max(1, chunk), max_frames=max_frames)

    @staticmethod
    def make_queries(
        source: FrameSource,
        queries_txy: np.ndarray | None = None,
        *,
        grid: int | None = None,
        frame: int = 0,
        max_frames: int | None = None,
    ) -> np.ndarray:
        """``(N, 3)`` checked queries, as :meth:`stream_points` makes them from the same arguments."""
        if queries_txy is not None and grid is not None:
            raise ValueError('both queries_txy and grid are given; wanted one of them')
        known = _known_frames(source, max_frames)
        if queries_txy is None:
            queries_txy = grid_queries(DEFAULT_GRID if grid is None else grid, source.size, frame)
        return check_queries(queries_txy, source.size, known)

    def _stream(
        self, source: FrameSource, query: np.ndarray, live: bool, chunk: int, max_frames: int | None
    ) -> Iterator[FrameResult]:
        slots = np.full(len(query), -1) if live else np.arange(len(query))
        state, count = None, 0
        frames = islice(source, max_frames)
        while images := list(islice(frames, self._until_next(query, slots, count, chunk))):
            state, (xy, visible, certainty) = self._step(images, state, query, slots, count, live)
            for index in range(len(xy)):
                sure = None if certainty is None else certainty[index]
                # The frame is given away: it is not held while the next ones are read.
                yield self._result(count + index, query, slots, images.pop(0), xy[index], visible[index], sure)
            count += len(xy)
        self._check_all_came(source, query, count)

    @torch.no_grad()
    def _step(
        self,
        images: list[np.ndarray],
        state: RecurrentState | None,
        query: np.ndarray,
        slots: np.ndarray,
        count: int,
        live: bool,
    ) -> tuple[RecurrentState, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Run the model over ``images``, frames ``count`` and on; live queries enter and get their slots."""
        video, scale = to_model(self.model, images)
        with running(self.model, ['points']):
            if state is None:
                state = self._start(query, scale, live)
            if live:
                self._enter(state, query, slots, count, scale)
            outputs, state = self.model.step(video, state)
        return state, to_pixels(outputs['points'], scale)

    @staticmethod
    def _until_next(query: np.ndarray, slots: np.ndarray, count: int, chunk: int) -> int:
        """Frames of the next step: a live query must find the model at the start of a step."""
        later = query[(slots < 0) & (query[:, 0] > count), 0]
        return min(chunk, int(later.min()) - count) if len(later) else chunk

    def _start(self, query: np.ndarray, scale: np.ndarray, live: bool) -> RecurrentState:
        if live:
            nothing = torch.zeros(1, 0, 3, device=self.device)
            return self.model.start(1, self.device, points=dict(query_txy=nothing, capacity=len(query)))
        scaled = torch.from_numpy(query * np.array([1, *scale], dtype=np.float32))
        return self.model.start(1, self.device, points=dict(query_txy=scaled[None].to(self.device)))

    @staticmethod
    def _enter(state: RecurrentState, query: np.ndarray, slots: np.ndarray, count: int, scale: np.ndarray) -> None:
        """Give slots to the queries of frame ``count``, which the next step starts with."""
        now = np.flatnonzero(query[:, 0] == count)
        if len(now):
            points = state.scope('heads.points')
            slots[now] = add_points(points, torch.from_numpy(query[now, 1:] * scale)).cpu().numpy()
            state.put('heads.points', points)

    @staticmethod
    def _result(
        frame: int,
        query: np.ndarray,
        slots: np.ndarray,
        image: np.ndarray,
        xy: np.ndarray,
        visible: np.ndarray,
        certainty: np.ndarray | None,
    ) -> FrameResult:
        """Model slots to points; a point whose query frame has not come is NaN and not visible."""
        there = query[:, 0] <= frame
        points = np.full((len(query), 2), np.nan, np.float32)
        points[there] = xy[slots[there]]
        shown, sure = np.zeros(len(query), bool), None
        shown[there] = visible[slots[there]]
        if certainty is not None:
            sure = np.zeros(len(query), np.float32)
            sure[there] = certainty[slots[there]]
        return FrameResult(frame, np.arange(len(query)), points, shown, sure, image)

    @staticmethod
    def _check_all_came(source: FrameSource, query: np.ndarray, count: int) -> None:
        if not count:
            raise VideoError(f'{source.name}: the video is empty')
        if (query[:, 0] >= count).any():
            index = int(query[:, 0].argmax())
            late = f'query {index} asks for frame {query[index, 0]:.0f}'
            raise ValueError(f'{late}; the video ended after {count} frames')


def _known_frames(source: FrameSource, max_frames: int | None) -> int | None:
    """Frames that will come, None when that is not known."""
    if max_frames is not None and max_frames < 1:
        raise ValueError(f'max_frames is {max_frames}; wanted 1 or more')
    return min((count for count in (source.num_frames, max_frames) if count is not None), default=None)
