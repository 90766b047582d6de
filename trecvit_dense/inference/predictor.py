"""Predictor: points, objects, depth and classes of a whole video, frame by frame or at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trecvit_dense.io import FrameSource
from trecvit_dense.io.intrinsics import check_intrinsics
from trecvit_dense.structures import DepthPrediction, ObjectMasks, PointTracks

from .classify import ClassPrediction, clip_length, stream_classes
from .mask_stream import MaskReader, Schedule, first_frames, make_schedule
from .queries import check_queries, grid_queries
from .runtime import FrameResult, check_frame_size, load_for_use, require_task
from .stream import DepthReader, PointReader, Reader, stream

CHUNK_FRAMES = 8
DEFAULT_GRID = 16


class Predictor:
    """Points, objects and depth of videos of any size; one model, many videos.

    Args:
        checkpoint: A file of ours, ``'boxed'`` (the weights that come with the package), or a model.
        device: ``'auto'``, ``'cpu'``, ``'cuda'``, ...
        precision: ``'auto'`` (float32 by whatever computes it fastest here), ``'fp32'``, ``'bf16'`` or ``'int8'``; see
            :func:`.speed_up`. A model that is given as a module is left as it is with ``'auto'``.

    Example:
        >>> tracks = Predictor().points('video.mp4', grid=16)    # doctest: +SKIP
        >>> tracks.xy_px.shape                                   # (N, T, 2), pixels of the video
        >>> masks = Predictor().masks('video.mp4', boxes=[(100, 80, 160, 150)])    # doctest: +SKIP
        >>> masks.labels.shape                                   # (T, H, W), size of the video
        >>> depth = Predictor('depth.safetensors').depth('video.mp4')              # doctest: +SKIP
        >>> depth.values.shape, depth.kind                       # (T, H, W), 'disparity' or 'depth'
    """

    def __init__(
        self,
        checkpoint: str | Path | nn.Module = 'boxed',
        *,
        device: str | torch.device = 'auto',
        precision: str = 'auto',
    ) -> None:
        self.model = load_for_use(checkpoint, device, precision)
        self._name = 'the model' if isinstance(checkpoint, nn.Module) else str(checkpoint)
        self.device = next(self.model.parameters()).device

    def check(self, *tasks: str) -> None:
        """Raises ValueError for the first of ``tasks`` (``points``, ``masks``, ``depth``, ``classification``) that the
        model lacks."""
        for task in tasks:
            require_task(self.model, task, self._name)

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
        source = _with_end(video, max_frames, 'stream_points')
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
        source = self._open(source, 'points')
        query = self.make_queries(source, queries_txy, grid=grid, frame=frame, max_frames=max_frames)
        return self._stream(source, [PointReader(query, live=live)], chunk, max_frames)

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
        source = self._open(_with_end(video, max_frames, 'stream_masks'), 'masks')
        schedule = _schedule(source, max_frames, masks, boxes=boxes, points=points, frame=frame)
        results = self._stream(source, [MaskReader(schedule)], chunk, max_frames)
        labels, first = np.stack([result.masks for result in results]), first_frames(schedule)
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
        source = self._open(source, 'masks')
        schedule = _schedule(source, max_frames, masks, boxes=boxes, points=points, frame=frame)
        return self._stream(source, [MaskReader(schedule)], chunk, max_frames)

    @property
    def depth_kind(self) -> str:
        """``'disparity'`` or ``'depth'`` (metres); raises ValueError for a model without depth."""
        self.check('depth')
        return self.model.heads['depth'].kind

    def depth(
        self,
        video: str | Path | np.ndarray | FrameSource,
        *,
        intrinsics: np.ndarray | None = None,
        chunk: int | None = None,
        max_frames: int | None = None,
    ) -> DepthPrediction:
        """Depth of all frames, four bytes a pixel and frame; for long videos see :meth:`stream_depth`.

        Arguments and errors as there.
        """
        source = _with_end(video, max_frames, 'stream_depth')
        parts = [
            (result.depth, result.depth_confidence, result.depth_kind)
            for result in self.stream_depth(source, intrinsics=intrinsics, chunk=chunk, max_frames=max_frames)
        ]
        values, confidence, kinds = zip(*parts, strict=True)
        return DepthPrediction(np.stack(values), kinds[0], None if confidence[0] is None else np.stack(confidence))

    def stream_depth(
        self,
        source: str | Path | int | np.ndarray | FrameSource,
        *,
        intrinsics: np.ndarray | None = None,
        chunk: int | None = None,
        max_frames: int | None = None,
    ) -> Iterator[FrameResult]:
        """Yield one :class:`FrameResult` with ``depth`` per frame. Memory does not grow with the length of the video.

        Args:
            source: Anything that :meth:`FrameSource.open` takes.
            intrinsics: ``(3, 3)`` in pixels of the video. A head for metres that was trained for one focal length
                gives true metres with them alone; other heads do not need them.
            chunk: Frames per step of the model, 8 by default (1 for a camera): speed and delay, not results.
            max_frames: Stop after so many.

        Raises:
            ValueError: a frame smaller than one patch, a model without depth, intrinsics of another video.
        """
        source = self._open(source, 'depth')
        return self._stream(source, [_depth_reader(source, intrinsics)], chunk, max_frames)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes; None where the weights have none. Raises ValueError for a model without classes."""
        self.check('classification')
        return getattr(self.model.heads['classification'], 'classes', None)

    def classify(
        self,
        video: str | Path | np.ndarray | FrameSource,
        *,
        clip: int | None = None,
        every: int = 1,
        max_frames: int | None = None,
    ) -> ClassPrediction:
        """What a video shows; of several clips the mean of their probabilities, each weighed by its frames.

        Arguments and errors as in :meth:`stream_classes`.
        """
        source = _with_end(video, max_frames, 'stream_classes')
        total, count, answer = 0.0, 0, np.zeros(0)
        for result in self.stream_classes(source, clip=clip, every=every, max_frames=max_frames):
            answer, count = result.class_probs, count + 1
            total = total + answer.astype(np.float64)
        running = self.answers_for_all_so_far(clip, every)
        return ClassPrediction(answer if running else (total / count).astype(np.float32), self.classes)

    def answers_for_all_so_far(self, clip: int | None = None, every: int = 1) -> bool:
        """Whether the last answer of :meth:`stream_classes` is that for the whole video; otherwise it is per clip."""
        return clip_length(self.model, clip, every) is None

    def stream_classes(
        self,
        source: str | Path | int | np.ndarray | FrameSource,
        *,
        clip: int | None = None,
        every: int = 1,
        max_frames: int | None = None,
    ) -> Iterator[FrameResult]:
        """Yield one :class:`FrameResult` with ``class_probs`` per frame.

        Args:
            source: Anything that :meth:`FrameSource.open` takes.
            clip: Frames that the model reads for one answer, from the start each time; that answer stands on all frames
                of its clip. None: a causal model answers on every frame for all frames so far; one that looks both ways
                reads clips of the length for which it was built.
            every: The model reads every so many frames: the stride of its training.
            max_frames: Stop after so many.

        Raises:
            ValueError: a number below 1, a frame smaller than one patch, a model that does not classify videos.
        """
        source = self._open(source, 'classification')
        _known_frames(source, max_frames)
        length = clip_length(self.model, clip, every)
        return stream_classes(self.model, source, clip=length, every=every, max_frames=max_frames)

    def stream_all(
        self,
        source: str | Path | int | np.ndarray | FrameSource,
        queries_txy: np.ndarray | None = None,
        masks: np.ndarray | str | Path | Mapping[int, np.ndarray | str | Path] | None = None,
        *,
        grid: int | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        points: Sequence[Sequence[float]] | None = None,
        frame: int = 0,
        depth: bool = True,
        intrinsics: np.ndarray | None = None,
        live: bool = False,
        chunk: int | None = None,
        max_frames: int | None = None,
    ) -> Iterator[FrameResult]:
        """Points, objects and depth of every frame from one pass of the backbone and one state.

        What is not asked for does not run: points when neither ``queries_txy`` nor ``grid`` is given, objects when
        none of ``masks``, ``boxes`` and ``points`` is. Arguments and errors as in :meth:`stream_points`,
        :meth:`stream_masks` and :meth:`stream_depth`.
        """
        wanted = dict(
            points=queries_txy is not None or grid is not None,
            masks=any(given is not None for given in (masks, boxes, points)),
            depth=depth,
        )
        source = self._open(source, *(task for task, there in wanted.items() if there))
        readers: list[Reader] = []
        if wanted['points']:
            query = self.make_queries(source, queries_txy, grid=grid, frame=frame, max_frames=max_frames)
            readers.append(PointReader(query, live=live))
        if wanted['masks']:
            readers.append(MaskReader(_schedule(source, max_frames, masks, boxes=boxes, points=points, frame=frame)))
        if depth:
            readers.append(_depth_reader(source, intrinsics))
        if not readers:
            raise ValueError('nothing is asked for; wanted queries, a grid, objects or depth')
        return self._stream(source, readers, chunk, max_frames)

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

    def _open(self, source: object, *tasks: str) -> FrameSource:
        """The video, when the model can do ``tasks`` on it."""
        self.check(*tasks)
        source = FrameSource.open(source)
        check_frame_size(source.size, self.model)
        return source

    def _stream(
        self, source: FrameSource, readers: Sequence[Reader], chunk: int | None, max_frames: int | None
    ) -> Iterator[FrameResult]:
        _known_frames(source, max_frames)
        chunk = chunk or (1 if source.live else CHUNK_FRAMES)
        return stream(self.model, source, readers, chunk=max(1, chunk), max_frames=max_frames)


def _schedule(source: FrameSource, max_frames: int | None, masks: object, **more: object) -> Schedule:
    """What is given on which frame of ``source``, checked."""
    return make_schedule(source.size, _known_frames(source, max_frames), masks, **more)


def _depth_reader(source: FrameSource, intrinsics: np.ndarray | None) -> DepthReader:
    return DepthReader(None if intrinsics is None else check_intrinsics(intrinsics, source.size))


def _with_end(video: object, max_frames: int | None, instead: str) -> FrameSource:
    """The video, of which all frames can be held."""
    source = FrameSource.open(video)
    if source.live and max_frames is None:
        raise ValueError(f'{source.name} has no end; give max_frames, or use {instead}')
    return source


def _known_frames(source: FrameSource, max_frames: int | None) -> int | None:
    """Frames that will come, None when that is not known."""
    if max_frames is not None and max_frames < 1:
        raise ValueError(f'max_frames is {max_frames}; wanted 1 or more')
    return min((count for count in (source.num_frames, max_frames) if count is not None), default=None)
