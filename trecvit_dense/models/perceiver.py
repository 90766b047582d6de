"""VideoPerceiver: preprocessor, one backbone and one or several heads, read from one pass and one state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import pairwise
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trecvit_dense.models.backbones.sliding_window import SlidingWindow
from trecvit_dense.models.heads.base import Head
from trecvit_dense.models.prediction import Prediction, tasks_of
from trecvit_dense.models.queries import object_queries, point_queries
from trecvit_dense.registry import MODELS, nearest
from trecvit_dense.structures import ANNOTATIONS, Features, PromptGroup, RecurrentState, VideoSample


@MODELS.register_module()
class VideoPerceiver(BaseModel):
    """A causal video model with task heads.

    Args:
        backbone: Config of a registered backbone.
        heads: Task name to head config; ``points``, ``masks``, ``depth``, ``classification`` are the tasks that the
            tools know.
        data_preprocessor: Config of :class:`VideoPreprocessor`.
        chunk_frames: Frames per step in :meth:`predict`; bounds memory on long video and changes no result. A backbone
            that wants whole clips is given all frames in one step.
        train_chunk_frames: Frames per step in training. A clip of any length then keeps the states between its steps,
            the outputs, and what the backward pass of one step needs: every step is run again for it. The gradients are
            those of the whole clip. None: the clip in one step.
        freeze: Parts that are not trained: ``'backbone'``, or a task, whose head then takes no part in training.

    Attributes:
        tasks: Heads that take part in :meth:`start`, :meth:`step` and :meth:`predict`; None: all.

    Raises:
        ValueError: a head adds prompt tokens, or hides patches, and the backbone or another head cannot have that;
            ``freeze`` names an unknown part; no frame a step, or a part of a clip for a backbone that wants it whole
            or keeps some of every part (``checkpointing``).
    """

    def __init__(
        self,
        backbone: dict,
        heads: dict[str, dict],
        *,
        data_preprocessor: dict | None = None,
        chunk_frames: int = 8,
        train_chunk_frames: int | None = None,
        freeze: Sequence[str] = (),
        init_cfg: dict | None = None,
    ) -> None:
        # built here: MMEngine would look it up in the default scope, which need not be ours
        super().__init__(MODELS.build(data_preprocessor or dict(type='VideoPreprocessor')), init_cfg)
        self.backbone = MODELS.build(backbone)
        self.heads = self._build_heads(heads)
        self.chunk_frames, self.train_chunk_frames = chunk_frames, train_chunk_frames
        if train_chunk_frames is not None:
            self._check_train_chunks(backbone['type'])
        self.tasks: Sequence[str] | None = None
        self.freeze = tuple(freeze)
        for part in self.freeze:
            known = ['backbone', *self.heads]
            if part not in known:
                raise ValueError(f"freeze names '{part}'; wanted some of {', '.join(known)}{nearest(part, known)}")
            (self.backbone if part == 'backbone' else self.heads[part]).requires_grad_(False)

    def _build_heads(self, heads: dict[str, dict]) -> nn.ModuleDict:
        built = {}
        for task, head in heads.items():
            built[task] = self._build_head(head)
            if built[task].requires_prompts and not self.backbone.supports_prompts:
                raise ValueError(
                    f'{head["type"]} adds prompt tokens, but {type(self.backbone).__name__} takes none; '
                    f'use a head that reads features alone, or a backbone with supports_prompts'
                )
            self._check_class_token(head['type'], built[task])
            if not getattr(self.backbone, 'takes_video', True) and not built[task].reads_views:
                raise ValueError(
                    f'{head["type"]} answers in pixels, but {type(self.backbone).__name__} is given stored features, '
                    f'no video; use a head that answers for whole videos, or a backbone that takes video'
                )
        self._check_hiding(heads, built)
        return nn.ModuleDict(built)

    def _build_head(self, config: dict) -> Head:
        sizes = dict(backbone_channels=self.backbone.out_channels, backbone_strides=self.backbone.strides)
        try:
            return MODELS.build(dict(config, **sizes))
        except (ValueError, IndexError) as error:  # what does not fit shows in the one when it is told the other
            kind = IndexError if isinstance(error, IndexError) else ValueError
            raise kind(f'{config["type"]} on {type(self.backbone).__name__}: {error}') from error

    def _check_class_token(self, name: str, head: Head) -> None:
        wanted = head.class_token_dim
        found = getattr(self.backbone, 'class_token_dim', wanted)  # a backbone of the user's need not say
        if wanted != found and wanted is not None:
            gives = 'gives none' if found is None else f'gives one of width {found}'
            raise ValueError(
                f'{name} reads a class token of width {wanted}, but {type(self.backbone).__name__} {gives}; '
                f"use pool='gap', the head's token_dim, or a backbone with such a token (class_token=True)"
            )

    def _check_hiding(self, heads: dict[str, dict], built: dict[str, Head]) -> None:
        for hiding in (task for task, head in built.items() if head.hides_patches):
            name, backbone = heads[hiding]['type'], type(self.backbone).__name__
            if not getattr(self.backbone, 'supports_patch_mask', False):
                raise ValueError(
                    f'{name} hides patches from the backbone, but {backbone} cannot leave patches out; '
                    f'use a backbone with supports_patch_mask, such as TRecViT'
                )
            others = [task for task, head in built.items() if head.requires_prompts or head.hides_patches]
            if others != [hiding]:
                other = next(task for task in others if task != hiding)
                raise ValueError(
                    f'{name} hides patches, which {heads[other]["type"]} cannot have: it adds prompt tokens or hides '
                    f'patches itself; train the two one after the other'
                )

    def _check_train_chunks(self, backbone: str) -> None:
        if self.train_chunk_frames < 1:
            raise ValueError(f'train_chunk_frames is {self.train_chunk_frames}; wanted at least 1, or None')
        if wants_whole_clips(self.backbone):
            raise ValueError(
                f'train_chunk_frames is {self.train_chunk_frames}, but {backbone} looks both ways in time and wants '
                f'whole clips; leave it out'
            )
        if getattr(self.backbone, 'checkpointing', False):
            raise ValueError(
                f'checkpointing={self.backbone.checkpointing!r} keeps its part of every chunk for the whole clip, '
                f'which train_chunk_frames is to spare; use False, and shorter chunks for less memory'
            )

    def with_heads(self, heads: dict[str, dict]) -> VideoPerceiver:
        """The same backbone and preprocessor, shared and not copied, under new heads."""
        other = copy(self)
        other._modules = dict(self._modules)
        other.heads = self._build_heads(heads).to(self.data_preprocessor.device).train(self.training)
        other.tasks, other.freeze = None, ()
        return other

    # ---------------------------------------------------------------------------------------------- stepping

    @property
    def running(self) -> dict[str, Head]:
        """The heads that take part, by task: those in ``tasks``, or all."""
        return {task: head for task, head in self.heads.items() if self.tasks is None or task in self.tasks}

    def start(self, batch_size: int = 1, device: torch.device | str | None = None, **queries: dict) -> RecurrentState:
        """State before the first frame; ``queries`` by task, e.g. ``points=dict(query_txy=...)`` in model pixels."""
        device = device or self.data_preprocessor.device
        state = RecurrentState()
        for task, head in self.running.items():
            state.put(f'heads.{task}', head.begin(batch_size, device, **queries.get(task, {})))
        return state

    def step(self, video: Tensor, state: RecurrentState) -> tuple[dict[str, Any], RecurrentState]:
        """Advance by the T frames of ``video`` ``(B, T, 3, H, W)``, normalised; a clip is only a longer step.

        Returns:
            Task name to output, and the new state; ``state`` itself is left as it was.
        """
        heads = self.running
        scopes = {task: state.scope(f'heads.{task}') for task in heads}
        features, memory = self._encode(video, heads, scopes, state.scope('backbone'))
        return self._decode(features, memory, state, tuple(video.shape[-2:]))

    def _decode(
        self, features: Features, memory: RecurrentState, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[dict[str, Any], RecurrentState]:
        """What the running heads say of ``features``, which follow ``state``; ``memory`` is the backbone's part."""
        outputs, new_state = {}, RecurrentState().put('backbone', memory)
        for task, head in self.running.items():
            outputs[task], scope = head(features, state.scope(f'heads.{task}'), input_size)
            new_state.put(f'heads.{task}', scope)
        return outputs, new_state

    def _encode(
        self, video: Tensor, heads: dict[str, Head], scopes: dict[str, RecurrentState], memory: RecurrentState
    ) -> tuple[Features, RecurrentState]:
        """Features of all frames, with the prompts of ``heads``, whose states are ``scopes``."""
        input_size, num_frames = tuple(video.shape[-2:]), video.shape[1]
        split = num_frames > 1 and any(head.needs_first_frame(scopes[task]) for task, head in heads.items())
        first = 1 if split else num_frames
        groups: list[PromptGroup] = []
        for task, head in heads.items():
            groups += head.prompts(scopes[task], first, input_size)
        options: dict[str, Any] = dict(prompts=groups, prompt_layers=self.training) if groups else {}
        for task, head in heads.items():
            if head.hides_patches:
                options['patch_mask'] = head.patch_mask(scopes[task], first, input_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and 'backbone' not in self.freeze):
            features, memory = self.backbone(video[:, :first], state=memory or None, **options)
        if any(head.reads_grey for head in heads.values()):
            features.grey = self.data_preprocessor.grey(video[:, :first])
        if any(head.reads_video for head in heads.values()):
            features.video = video[:, :first]
        if not split:
            return features, memory
        scopes = {task: head.after_first_frame(features, scopes[task], input_size) for task, head in heads.items()}
        later, memory = self._encode(video[:, 1:], heads, scopes, memory)
        return features.then(later), memory

    def forget(self, state: RecurrentState, what: str = 'all') -> RecurrentState:
        """Clear recurrent memory and keep what was asked for: the ablation that shows what the recurrence is worth.

        Args:
            what: ``'backbone'``: the backbone's rows only; ``'all'``: also what heads carry along (last positions,
                hidden states). Queries, their templates and the slot table stay.
        """
        kept = RecurrentState({key: value for key, value in state.items() if not key.startswith('backbone.')})
        if what == 'all':
            for task, head in self.running.items():
                scope = f'heads.{task}'
                remembered = head.forget(kept.scope(scope))
                kept = RecurrentState({key: value for key, value in kept.items() if not key.startswith(scope + '.')})
                kept.put(scope, remembered)
        return kept

    # ---------------------------------------------------------------------------------------------- MMEngine

    def val_step(self, data: dict[str, Any]) -> list[VideoSample]:
        """MMEngine's, with the tasks that run; as :meth:`test_step`."""
        return super().val_step(dict(data, tasks=tuple(self.running)))

    def test_step(self, data: dict[str, Any]) -> list[VideoSample]:
        """MMEngine's, with the tasks that run: the preprocessor may have a size of its own for one alone."""
        return super().test_step(dict(data, tasks=tuple(self.running)))

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
        """Losses of all heads that are trained; with several heads every key carries its task."""
        losses = {}
        for task, output in self._outputs_for_loss(video, samples, scale).items():
            prefix = f'{task}.' if len(self.heads) > 1 else ''
            found = self.heads[task].loss(output, samples, scale)
            losses.update({prefix + key: value for key, value in found.items()})
        return losses

    def _outputs_for_loss(
        self, video: Tensor, samples: list[VideoSample], scale: tuple[float, float]
    ) -> dict[str, Any]:
        """Outputs of the trained heads over the whole clip, which is cut where objects are given later."""
        input_size, device = tuple(video.shape[-2:]), video.device
        heads = {task: head for task, head in self.running.items() if task not in self.freeze}
        queries, arrivals = {}, {0: {}}
        if 'points' in heads:
            queries['points'] = point_queries(samples, scale, device)
        if 'masks' in heads:
            arrivals = object_queries(samples, scale, input_size, device)
            queries['masks'] = arrivals[0]
        with only_tasks(self, heads):
            parts = self.train_outputs(video, self.start(len(video), device, **queries), arrivals)
        return {task: heads[task].join(outputs) for task, outputs in parts.items()}

    def train_outputs(
        self, video: Tensor, state: RecurrentState, arrivals: dict[int, dict[str, Tensor]]
    ) -> dict[str, list]:
        """Outputs of the running heads on a clip, by task and step, with ``train_chunk_frames`` in mind.

        Args:
            video: ``(B, T, 3, H, W)``, normalised.
            state: Of :meth:`start`.
            arrivals: What the head of masks is given, by the frame before which it is; frame 0 is in ``state``.
        """
        step = self.step if self.train_chunk_frames is None else self._kept_lean_step
        collected: dict[str, list] = {task: [] for task in self.running}
        size, arrivals = self.train_chunk_frames or video.shape[1], {**arrivals, 0: {}}
        for outputs in self.walk(video, state, arrivals, size, step):
            for task, output in outputs.items():
                collected[task].append(output)
        return collected

    def walk(
        self,
        video: Tensor,
        state: RecurrentState,
        arrivals: dict[int, dict[str, Tensor]],
        size: int,
        step: Callable[[Tensor, RecurrentState], tuple[dict[str, Any], RecurrentState]],
        *,
        forget: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Outputs of ``size`` frames after the other, or fewer before an arrival, which is given then.

        A backbone that wants whole clips sees the clip at once, unless what ``forget`` names is cleared between.
        """
        clip = None
        if wants_whole_clips(self.backbone) and not forget:
            scopes = {task: state.scope(f'heads.{task}') for task in self.running}
            clip, memory = self._encode(video, self.running, scopes, RecurrentState())
            size = video.shape[1]
        for first, last in _chunks(video.shape[1], size, arrivals):
            if forget and first:
                state = self.forget(state, forget)
            if arrivals.get(first):
                state = self._give(state, arrivals[first])
            if clip is None:
                outputs, state = step(video[:, first:last], state)
            else:
                outputs, state = self._decode(clip.between(first, last), memory, state, tuple(video.shape[-2:]))
            yield outputs

    def _kept_lean_step(self, video: Tensor, state: RecurrentState) -> tuple[dict[str, Any], RecurrentState]:
        """:meth:`_lean_step`, of which only what comes in is kept."""
        return checkpoint(self._lean_step, video, state, use_reentrant=False)

    def _lean_step(self, video: Tensor, state: RecurrentState) -> tuple[dict[str, Any], RecurrentState]:
        """:meth:`step`, whose state is no view of what all frames of the step left behind."""
        outputs, state = self.step(video, state)
        return outputs, state.map(lambda part: part.clone() if part.untyped_storage().nbytes() > part.nbytes else part)

    def _give(self, state: RecurrentState, objects: dict[str, Tensor]) -> RecurrentState:
        """``state`` with ``objects`` given on the next frame."""
        masks = state.scope('heads.masks')
        self.heads['masks'].give(masks, **objects)
        return RecurrentState(state).put('heads.masks', masks)

    @torch.no_grad()
    def predict(self, video: Tensor, samples: list[VideoSample], scale: tuple[float, float]) -> list[VideoSample]:
        """Fill ``sample.predictions``; results are in pixels of ``sample.video``, masks in the size of their truth.

        The heads are run for which a sample has points, masks or depth; one without any of these gets all answers.
        A sample whose ``meta['query_mode']`` is ``'strided'`` is also run backwards, for the frames before each query.
        One whose ``meta['ablate']`` names a memory (``'all'``, ``'backbone'``) is run again with that memory
        cleared before every frame: ``predictions['points_reset']`` and so on.
        One whose ``meta['views']`` is ``(clips, crops)`` holds that many views one after the other; they see nothing
        of each other, and the heads that answer for whole videos give one answer.
        """
        for index, sample in enumerate(samples):
            clip, ablate = video[index : index + 1], sample.meta.get('ablate')
            with only_tasks(self, tasks_of(self, sample)):
                sample.predictions.update(Prediction(self, clip, sample, scale).answers())
                if ablate:
                    again = Prediction(self, clip, sample, scale, forget=ablate).answers()
                    judged = (task for task in again if task in ANNOTATIONS or self.heads[task].reads_views)
                    sample.predictions.update({f'{task}_reset': again[task] for task in judged})
        return samples


def wants_whole_clips(backbone: nn.Module) -> bool:
    """A backbone that looks both ways in time and has no window cannot go on from a state."""
    parts = (value for module in backbone.modules() for value in vars(module).values())
    return not getattr(backbone, 'causal', True) and any(
        isinstance(part, SlidingWindow) and part.frames is None for part in parts
    )


def _chunks(num_frames: int, size: int, cuts: dict[int, Any]) -> list[tuple[int, int]]:
    """Frames ``first .. last - 1`` of each step: at most ``size``, and a new one wherever ``cuts`` says."""
    edges = sorted({*range(0, num_frames, size), *(cut for cut in cuts if cut < num_frames), num_frames})
    return list(pairwise(edges))


@contextmanager
def only_tasks(model: nn.Module, tasks: Sequence[str] | None) -> Iterator[None]:
    """Only the heads of ``tasks`` take part meanwhile (None: all); others who share the model may want other heads."""
    before, model.tasks = getattr(model, 'tasks', None), None if tasks is None else tuple(tasks)
    try:
        yield
    finally:
        model.tasks = before
