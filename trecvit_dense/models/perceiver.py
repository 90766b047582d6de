"""VideoPerceiver: preprocessor, one backbone and one or several heads, read from one pass and one state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from trecvit_dense.registry import MODELS
from trecvit_dense.structures import PointTracks, PromptGroup, RecurrentState, VideoSample


@MODELS.register_module()
class VideoPerceiver(BaseModel):
    """A causal video model with task heads.

    Args:
        backbone: Config of a registered backbone.
        heads: Task name to head config; ``points``, ``masks``, ``depth``, ``classification`` are the tasks that the
            tools know.
        data_preprocessor: Config of :class:`VideoPreprocessor`.
        chunk_frames: Frames per step in :meth:`predict`; bounds memory on long video and changes no result.

    Raises:
        ValueError: a head adds prompt tokens and the backbone takes none.
    """

    def __init__(
        self,
        backbone: dict,
        heads: dict[str, dict],
        *,
        data_preprocessor: dict | None = None,
        chunk_frames: int = 8,
        init_cfg: dict | None = None,
    ) -> None:
        # built here: MMEngine would look it up in the default scope, which need not be ours
        super().__init__(MODELS.build(data_preprocessor or dict(type='VideoPreprocessor')), init_cfg)
        self.backbone = MODELS.build(backbone)
        built = {}
        for task, head in heads.items():
            built[task] = MODELS.build(
                dict(head, backbone_channels=self.backbone.out_channels, backbone_strides=self.backbone.strides)
            )
            if built[task].requires_prompts and not self.backbone.supports_prompts:
                raise ValueError(
                    f'{head["type"]} adds prompt tokens, but {backbone["type"]} takes none; '
                    f'use a head that reads features alone, or a backbone with supports_prompts'
                )
        self.heads = nn.ModuleDict(built)
        self.chunk_frames = chunk_frames

    # ---------------------------------------------------------------------------------------------- stepping

    def start(self, batch_size: int = 1, device: torch.device | str | None = None, **queries: dict) -> RecurrentState:
        """State before the first frame; ``queries`` by task, e.g. ``points=dict(query_txy=...)`` in model pixels."""
        device = device or self.data_preprocessor.device
        state = RecurrentState()
        for task, head in self.heads.items():
            state.put(f'heads.{task}', head.begin(batch_size, device, **queries.get(task, {})))
        return state

    def step(self, video: Tensor, state: RecurrentState) -> tuple[dict[str, Any], RecurrentState]:
        """Advance by the T frames of ``video`` ``(B, T, 3, H, W)``, normalised; a clip is only a longer step.

        Returns:
            Task name to output, and the new state; ``state`` itself is left as it was.
        """
        input_size, num_frames = tuple(video.shape[-2:]), video.shape[1]
        scopes = {task: state.scope(f'heads.{task}') for task in self.heads}
        groups: list[PromptGroup] = []
        for task, head in self.heads.items():
            groups += head.prompts(scopes[task], num_frames, input_size)
        memory = state.scope('backbone')
        options = dict(prompts=groups, prompt_layers=self.training) if groups else {}
        features, memory = self.backbone(video, state=memory or None, **options)
        outputs, new_state = {}, RecurrentState().put('backbone', memory)
        for task, head in self.heads.items():
            outputs[task], scope = head(features, scopes[task], input_size)
            new_state.put(f'heads.{task}', scope)
        return outputs, new_state

    def forget(self, state: RecurrentState, what: str = 'all') -> RecurrentState:
        """Clear recurrent memory and keep what was asked for: the ablation that shows what the recurrence is worth.

        Args:
            what: ``'backbone'``: the backbone's rows only; ``'all'``: also what heads carry along (last positions,
                hidden states). Queries, their templates and the slot table stay.
        """
        kept = RecurrentState({key: value for key, value in state.items() if not key.startswith('backbone.')})
        if what == 'all':
            for task, head in self.heads.items():
                kept.put(f'heads.{task}', head.forget(kept.scope(f'heads.{task}')))
        return kept

    # ---------------------------------------------------------------------------------------------- MMEngine

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[VideoSample] | None = None,
        mode: str = 'tensor',
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> Any:
        """MMEngine's entry: ``mode`` is ``'loss'``, ``'predict'`` or ``'tensor'`` (features of the backbone)."""
        if mode == 'loss':
            return self.loss(inputs, data_samples, scale)
        if mode == 'predict':
            return self.predict(inputs, data_samples, scale)
        return self.backbone(inputs)[0]

    def loss(self, video: Tensor, samples: list[VideoSample], scale: tuple[float, float]) -> dict[str, Tensor]:
        """Losses of all heads; with several heads every key carries its task."""
        state = self.start(len(video), video.device, **self._queries(samples, scale, video.device))
        outputs, _ = self.step(video, state)
        losses = {}
        for task, head in self.heads.items():
            prefix = f'{task}.' if len(self.heads) > 1 else ''
            losses.update({prefix + key: value for key, value in head.loss(outputs[task], samples, scale).items()})
        return losses

    @torch.no_grad()
    def predict(self, video: Tensor, samples: list[VideoSample], scale: tuple[float, float]) -> list[VideoSample]:
        """Fill ``sample.predictions``; results are in pixels of ``sample.video``.

        A sample whose ``meta['query_mode']`` is ``'strided'`` is also run backwards, for the frames before each query.
        One whose ``meta['ablate']`` names a memory (``'all'``, ``'backbone'``) is run again with that memory
        cleared before every frame: ``predictions['points_reset']``.
        """
        for index, sample in enumerate(samples):
            clip = video[index : index + 1]
            outputs = self._roll(clip, self._start_sample(sample, scale, clip.device))
            for task, head in self.heads.items():
                if task != 'points':
                    sample.predictions[task] = head.predict(outputs[task], sample, scale)
                elif sample.points is not None:
                    sample.predictions['points'] = self._tracks(clip, sample, scale, outputs['points'])
            if 'points' in sample.predictions and sample.meta.get('ablate'):
                sample.predictions['points_reset'] = self._tracks(clip, sample, scale, forget=sample.meta['ablate'])
        return samples

    # ---------------------------------------------------------------------------------------------- points

    def _queries(self, samples: list[VideoSample], scale: tuple[float, float], device: torch.device) -> dict:
        """Queries of a batch, padded to one length, in model pixels."""
        if 'points' not in self.heads:
            return {}
        for sample in samples:
            if sample.points is None or sample.points.query_txy is None:
                raise ValueError(f"the model has a points head, but sample '{sample.name}' has no point queries")
        count = max(len(sample.points) for sample in samples)
        query = torch.zeros(len(samples), count, 3)
        valid = torch.zeros(len(samples), count, dtype=torch.bool)
        for row, sample in enumerate(samples):
            points = sample.points.scaled(*scale)
            query[row, : len(points)] = torch.from_numpy(np.ascontiguousarray(points.query_txy)).float()
            valid[row, : len(points)] = True
        return dict(points=dict(query_txy=query.to(device), valid=valid.to(device)))

    def _start_sample(
        self, sample: VideoSample, scale: tuple[float, float], device: torch.device, *, turned: int | None = None
    ) -> RecurrentState:
        """State for one sample; ``turned`` is the number of frames of a video that runs backwards."""
        if 'points' not in self.heads:
            return self.start(1, device)
        if sample.points is None:
            return self.start(1, device, points=dict(query_txy=torch.zeros(1, 0, 3, device=device)))
        query = torch.from_numpy(sample.points.query_txy.astype(np.float32)) * torch.tensor([1.0, *scale])
        if turned is not None:
            query[:, 0] = turned - 1 - query[:, 0].round()
        return self.start(1, device, points=dict(query_txy=query[None].to(device)))

    def _roll(self, video: Tensor, state: RecurrentState, forget: str | None = None) -> dict[str, list]:
        """Outputs of all steps, by task; with ``forget`` the named memory is cleared before every frame."""
        chunk = 1 if forget else self.chunk_frames
        collected: dict[str, list] = {task: [] for task in self.heads}
        for first in range(0, video.shape[1], chunk):
            if forget and first:
                state = self.forget(state, forget)
            outputs, state = self.step(video[:, first : first + chunk], state)
            for task, output in outputs.items():
                collected[task].append(output)
        return collected

    def _tracks(
        self,
        video: Tensor,
        sample: VideoSample,
        scale: tuple[float, float],
        outputs: list | None = None,
        *,
        forget: str | None = None,
    ) -> PointTracks:
        """Tracks of one sample's queries, in its own pixels; ``outputs`` of the forward pass if it was made."""
        query = sample.points.query_txy.astype(np.float32)
        if outputs is None:
            outputs = self._roll(video, self._start_sample(sample, scale, video.device), forget)['points']
        xy, visible = _to_pixels(outputs, scale)
        if sample.meta.get('query_mode') == 'strided':
            state = self._start_sample(sample, scale, video.device, turned=video.shape[1])
            back_xy, back_visible = _to_pixels(self._roll(video.flip(1), state, forget)['points'], scale)
            before = np.arange(video.shape[1])[None] < np.round(query[:, :1])  # (N, T)
            xy = np.where(before[..., None], back_xy[:, ::-1], xy)
            visible = np.where(before, back_visible[:, ::-1], visible)
        return PointTracks(xy, visible, query, sample.points.group)


def _to_pixels(outputs: list, scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of consecutive steps to ``xy (N, T, 2)`` in pixels of the sample and ``visible (N, T)``."""
    xy = torch.cat([output.xy_px[0].float() for output in outputs]).cpu().numpy()  # (T, N, 2)
    visible = torch.cat([output.visible[0] for output in outputs]).cpu().numpy()
    return xy.transpose(1, 0, 2) / np.array(scale, dtype=np.float32), visible.T
