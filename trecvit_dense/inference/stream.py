"""One pass over a video for all that is asked of it: points, objects and depth come from the same steps and state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from trecvit_dense.io import FrameSource, VideoError
from trecvit_dense.models.heads.base import DepthOutput, PointOutput
from trecvit_dense.models.heads.point_slots import add_points
from trecvit_dense.models.perceiver import only_tasks
from trecvit_dense.structures import RecurrentState

from .runtime import FrameResult, SoftDepth, camera_factor, to_model, to_pixels


class Fit(NamedTuple):
    """How the frames of a video lie in the model's input.

    Args:
        size: ``(H, W)`` pixels of the frames.
        scale: ``(2,)`` model pixels per pixel, x and y.
        input_size: ``(h, w)`` pixels of the model input, padding included.
    """

    size: tuple[int, int]
    scale: np.ndarray
    input_size: tuple[int, int]


class Reader:
    """What one stream asks of one head, and what it reads from it; the default asks nothing.

    Attributes:
        task: The head, by its name in the model.
    """

    task = ''

    def begin(self, fit: Fit, device: torch.device) -> dict[str, Any]:
        """Queries of the head before the first frame."""
        return {}

    def until_next(self, count: int, chunk: int) -> int:
        """Frames of the step that begins with frame ``count``, at most ``chunk``: what comes must find its start."""
        return chunk

    def enter(self, model: nn.Module, state: RecurrentState, image: np.ndarray, count: int, fit: Fit) -> None:
        """Put into ``state`` what comes with frame ``count``, whose pixels are ``image`` ``(H, W, 3)``."""

    def read(self, output: Any, count: int, fit: Fit) -> Iterator[dict[str, Any]]:
        """Fields of :class:`FrameResult` for every frame of a step; they are made when their frame's turn comes."""
        raise NotImplementedError

    def check_all_came(self, count: int) -> None:
        """Raises ValueError when something was asked for on a frame after the end, after ``count`` frames."""


class PointReader(Reader):
    """Points to follow.

    Args:
        query_txy: ``(N, 3)`` frame, x, y in pixels of the video, checked.
        live: A query enters the model on its own frame; otherwise all are known from the start.
    """

    task = 'points'

    def __init__(self, query_txy: np.ndarray, *, live: bool = False) -> None:
        self.query, self.live = query_txy, live
        self.slots = np.full(len(query_txy), -1) if live else np.arange(len(query_txy))

    def begin(self, fit: Fit, device: torch.device) -> dict[str, Any]:
        if self.live:
            return dict(query_txy=torch.zeros(1, 0, 3, device=device), capacity=len(self.query))
        scaled = torch.from_numpy(self.query * np.array([1, *fit.scale], dtype=np.float32))
        return dict(query_txy=scaled[None].to(device))

    def until_next(self, count: int, chunk: int) -> int:
        later = self.query[(self.slots < 0) & (self.query[:, 0] > count), 0]
        return min(chunk, int(later.min()) - count) if len(later) else chunk

    def enter(self, model: nn.Module, state: RecurrentState, image: np.ndarray, count: int, fit: Fit) -> None:
        now = np.flatnonzero((self.slots < 0) & (self.query[:, 0] == count))
        if len(now):
            points = state.scope('heads.points')
            self.slots[now] = add_points(points, torch.from_numpy(self.query[now, 1:] * fit.scale)).cpu().numpy()
            state.put('heads.points', points)

    def read(self, output: PointOutput, count: int, fit: Fit) -> Iterator[dict[str, Any]]:
        """A point whose query frame has not come is NaN and not visible."""
        xy, visible, certainty = to_pixels(output, fit.scale)
        for index in range(len(xy)):
            there = self.query[:, 0] <= count + index
            slots = self.slots[there]
            points = np.full((len(self.query), 2), np.nan, np.float32)
            shown, sure = np.zeros(len(self.query), bool), None
            points[there], shown[there] = xy[index, slots], visible[index, slots]
            if certainty is not None:
                sure = np.zeros(len(self.query), np.float32)
                sure[there] = certainty[index, slots]
            yield dict(ids=np.arange(len(self.query)), xy_px=points, visible=shown, certainty=sure)

    def check_all_came(self, count: int) -> None:
        if (self.query[:, 0] >= count).any():
            index = int(self.query[:, 0].argmax())
            late = f'query {index} asks for frame {self.query[index, 0]:.0f}'
            raise ValueError(f'{late}; the video ended after {count} frames')


class DepthReader(Reader):
    """Depth of every frame; there is nothing to ask.

    Args:
        intrinsics: ``(3, 3)`` in pixels of the frames, checked; a head for metres may want them.
    """

    task = 'depth'

    def __init__(self, intrinsics: np.ndarray | None = None) -> None:
        self.intrinsics, self.factor = intrinsics, 1.0

    def enter(self, model: nn.Module, state: RecurrentState, image: np.ndarray, count: int, fit: Fit) -> None:
        self.factor = camera_factor(model, self.intrinsics, fit.scale)

    def read(self, output: DepthOutput, count: int, fit: Fit) -> Iterator[dict[str, Any]]:
        for index in range(output.log_values.shape[1]):
            yield dict(soft_depth=SoftDepth.of(output, index, fit.size, fit.scale, self.factor))


def stream(
    model: nn.Module, source: FrameSource, readers: Sequence[Reader], *, chunk: int, max_frames: int | None
) -> Iterator[FrameResult]:
    """One result per frame with what every reader reads; only the heads that are read run, on one backbone pass.

    Raises:
        VideoError: the video is empty.
        ValueError: at the end, something was asked for on a frame that never came.
    """
    state, count, frames = None, 0, islice(source, max_frames)
    while images := list(islice(frames, min(reader.until_next(count, chunk) for reader in readers))):
        state, outputs, fit = _step(model, readers, images, state, count)
        readings = [reader.read(outputs[reader.task], count, fit) for reader in readers]
        for parts in zip(*readings, strict=True):
            # The frame is given away: it is not held while the next ones are read.
            yield FrameResult(count, image=images.pop(0), **{key: part[key] for part in parts for key in part})
            count += 1
    if not count:
        raise VideoError(f'{source.name}: the video is empty')
    for reader in readers:
        reader.check_all_came(count)


@torch.no_grad()
def _step(
    model: nn.Module, readers: Sequence[Reader], images: list[np.ndarray], state: RecurrentState | None, count: int
) -> tuple[RecurrentState, dict[str, Any], Fit]:
    """Run the model over ``images``, frames ``count`` and on."""
    tasks = [reader.task for reader in readers]
    video, scale = to_model(model, images, tasks)
    fit = Fit(images[0].shape[:2], scale, tuple(video.shape[-2:]))
    with only_tasks(model, tasks):
        if state is None:
            queries = {reader.task: reader.begin(fit, video.device) for reader in readers}
            state = model.start(1, video.device, **queries)
        for reader in readers:
            reader.enter(model, state, images[0], count, fit)
        outputs, state = model.step(video, state)
    return state, outputs, fit
