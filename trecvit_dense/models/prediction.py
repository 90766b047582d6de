"""What a model answers for a sample, in the sample's own pixels: the outputs of all steps put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trecvit_dense.models.heads.base import MaskOutput
from trecvit_dense.models.queries import object_queries
from trecvit_dense.structures import ANNOTATIONS, ObjectMasks, PointTracks, RecurrentState, VideoSample

if TYPE_CHECKING:
    from trecvit_dense.models.perceiver import VideoPerceiver


def tasks_of(model: VideoPerceiver, sample: VideoSample) -> list[str]:
    """The running heads to ask about ``sample``: all but those whose truth it lacks, if it has any; of views, those
    that answer for a whole video.

    Raises:
        ValueError: the sample is cut into views, and no head answers for a whole video.
    """
    running = list(model.running)
    if 'views' not in sample.meta:
        known = sample.annotated or ANNOTATIONS
        return [task for task in running if task in known or task not in ANNOTATIONS]
    tasks = [task for task in running if model.heads[task].reads_views]
    if not tasks:
        raise ValueError(
            f"sample '{sample.name}' is cut into views, from which only whole videos are judged (classification); "
            f'the heads here are: {", ".join(running)}'
        )
    return tasks


@dataclass(frozen=True, eq=False)
class Prediction:
    """A sample before a model whose running heads are asked about it.

    Args:
        video: ``(1, T, 3, H, W)``, normalised.
        scale: ``(x, y)`` pixels of ``video`` to one of the sample.
        forget: What to clear before every frame, see :meth:`VideoPerceiver.forget`.
    """

    model: VideoPerceiver
    video: Tensor
    sample: VideoSample
    scale: tuple[float, float]
    forget: str | None = None

    def answers(self) -> dict[str, Any]:
        """What every running head answers, by task."""
        sample, answers = self.sample, {}
        if 'views' in sample.meta:
            return self._answers_of_views()
        for task, outputs in self._roll(self.video).items():
            if task == 'points' and sample.points is not None:
                answers[task] = self._tracks(outputs)
            elif task == 'masks' and sample.masks is not None:
                answers[task] = ObjectMasks(np.concatenate(outputs), list(sample.masks.ids), sample.masks.first_frame)
            elif task not in ('points', 'masks'):
                answers[task] = self.model.heads[task].predict(outputs, sample, self.scale)
        return answers

    def _answers_of_views(self) -> dict[str, Any]:
        """Answers from views that stand one after the other in the video, ``(1, V * T, 3, H, W)``."""
        model, (clips, crops) = self.model, self.sample.meta['views']
        views = self.video[0].unflatten(0, (clips * crops, -1))  # (V, T, 3, H, W)
        rolled = [self._roll(group) for group in views.split(max(1, model.chunk_frames // views.shape[1]))]
        return {
            task: head.predict([outputs[task][-1] for outputs in rolled], self.sample, self.scale)
            for task, head in model.running.items()
        }

    def _roll(self, video: Tensor, *, backwards: bool = False) -> dict[str, list]:
        """Outputs of all steps, by task; masks as index maps ``(T, H, W)`` in the size of their truth."""
        model, sample, arrivals = self.model, self.sample, {0: {}}
        if 'masks' in model.running and sample.masks is not None and not backwards:
            arrivals = object_queries([sample], self.scale, tuple(video.shape[-2:]), video.device)
        state = self._start(video, backwards=backwards)
        collected: dict[str, list] = {task: [] for task in model.running}
        size = 1 if self.forget else model.chunk_frames
        for outputs in model.walk(video, state, arrivals, size, model.step, forget=self.forget):
            for task, output in outputs.items():
                collected[task].append(_index_maps(output, sample, self.scale) if task == 'masks' else output)
        return collected

    def _start(self, video: Tensor, *, backwards: bool) -> RecurrentState:
        """State before the first frame; the objects are given when their frames come."""
        sample, running = self.sample, self.model.running
        queries: dict[str, dict] = dict(masks=dict(capacity=0 if sample.masks is None else len(sample.masks.ids)))
        if sample.points is None:
            queries['points'] = dict(query_txy=torch.zeros(1, 0, 3, device=video.device))
        elif 'points' in running:
            query = torch.from_numpy(sample.points.query_txy.astype(np.float32)) * torch.tensor([1.0, *self.scale])
            if backwards:
                query[:, 0] = video.shape[1] - 1 - query[:, 0].round()
            queries['points'] = dict(query_txy=query[None].to(video.device))
        for task, head in running.items():
            if task not in ('points', 'masks'):
                queries[task] = head.sample_queries(sample)
        return self.model.start(len(video), video.device, **queries)

    def _tracks(self, outputs: list) -> PointTracks:
        """Tracks of the sample's queries, in its own pixels, from the outputs of the forward pass."""
        query = self.sample.points.query_txy.astype(np.float32)
        xy, visible = _to_pixels(outputs, self.scale)
        if self.sample.meta.get('query_mode') == 'strided':
            back_xy, back_visible = _to_pixels(self._roll(self.video.flip(1), backwards=True)['points'], self.scale)
            before = np.arange(self.video.shape[1])[None] < np.round(query[:, :1])  # (N, T)
            xy = np.where(before[..., None], back_xy[:, ::-1], xy)
            visible = np.where(before, back_visible[:, ::-1], visible)
        return PointTracks(xy, visible, query, self.sample.points.group)


def _index_maps(output: MaskOutput, sample: VideoSample, scale: tuple[float, float]) -> np.ndarray:
    """``(T, H, W)`` uint8 ids in the size of the sample's truth, or of its video."""
    size = sample.size if sample.masks is None else sample.masks.labels.shape[1:]
    ids = torch.tensor([0, *(() if sample.masks is None else sample.masks.ids)], dtype=torch.uint8)
    ratio = scale[0] * sample.size[1] / size[1], scale[1] * sample.size[0] / size[0]
    return np.stack([ids[slots[0].long().cpu()].numpy() for slots in output.labels(size, ratio)])


def _to_pixels(outputs: list, scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of consecutive steps to ``xy (N, T, 2)`` in pixels of the sample and ``visible (N, T)``."""
    xy = torch.cat([output.xy_px[0].float() for output in outputs]).cpu().numpy()  # (T, N, 2)
    visible = torch.cat([output.visible[0] for output in outputs]).cpu().numpy()
    return xy.transpose(1, 0, 2) / np.array(scale, dtype=np.float32), visible.T
