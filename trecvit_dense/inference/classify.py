"""What a video shows, over time: after every frame, or clip by clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from trecvit_dense.io import FrameSource, VideoError
from trecvit_dense.models.perceiver import only_tasks, wants_whole_clips
from trecvit_dense.structures import RecurrentState

from .runtime import FrameResult, to_model

TASK = 'classification'
DEFAULT_CLIP = 16  # frames, for models that read whole clips and do not say of which length


@dataclass
class ClassPrediction:
    """What a video shows.

    Args:
        probs: ``(C,)`` float32, sums to 1.
        classes: Names of the classes, or None where the weights have none.
    """

    probs: np.ndarray
    classes: tuple[str, ...] | None = None

    def name(self, label: int) -> str:
        return f'class {label}' if self.classes is None else self.classes[label]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes and their probabilities, the best one first."""
        order = np.argsort(-self.probs, kind='stable')[:count]
        return [(self.name(int(label)), float(self.probs[label])) for label in order]


def clip_length(model: nn.Module, clip: int | None, every: int) -> int | None:
    """Frames that the model reads for one answer; None: all so far.

    Raises:
        ValueError: a number below 1, or a model that reads no video.
    """
    for name, value in dict(clip=clip, every=every).items():
        if value is not None and value < 1:
            raise ValueError(f'{name} is {value}; wanted 1 or more')
    if not getattr(model.backbone, 'takes_video', True):
        raise ValueError('this model reads stored features, not video; give it the video of its feature extractor')
    if clip is None and wants_whole_clips(model.backbone):
        return getattr(model.backbone, 'num_frames', None) or DEFAULT_CLIP
    return clip


def stream_classes(
    model: nn.Module, source: FrameSource, *, clip: int | None, every: int, max_frames: int | None
) -> Iterator[FrameResult]:
    """One result with ``class_probs`` per frame.

    Args:
        clip: From :func:`clip_length`. With a number the video is cut into clips of that many read frames; each is read
            from the start, and its answer stands on all of its frames (the last clip repeats its last frame).
            Otherwise the answer on a frame is that of all frames up to it.
        every: The model reads every so many frames; those in between keep the answer.

    Raises:
        VideoError: the video is empty.
    """
    frames, count = islice(source, max_frames), 0
    answers = _running(model, frames, every) if clip is None else _by_clip(model, frames, clip, every)
    for image, probs in answers:
        yield FrameResult(count, image=image, class_probs=probs)
        count += 1
    if not count:
        raise VideoError(f'{source.name}: the video is empty')


def _running(model: nn.Module, frames: Iterator[np.ndarray], every: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    state, probs = None, None
    for count, image in enumerate(frames):
        if count % every == 0:
            probs, state = _step(model, [image], state)
        yield image, probs


def _by_clip(
    model: nn.Module, frames: Iterator[np.ndarray], clip: int, every: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while images := list(islice(frames, clip * every)):
        read: Sequence[np.ndarray] = images[::every]
        probs, _ = _step(model, [*read, *[read[-1]] * (clip - len(read))], None)
        for image in images:
            yield image, probs


@torch.no_grad()
def _step(
    model: nn.Module, images: Sequence[np.ndarray], state: RecurrentState | None
) -> tuple[np.ndarray, RecurrentState]:
    """``(C,)`` probabilities after ``images``, and the state; without one a video begins."""
    with only_tasks(model, [TASK]):
        state = model.start(1) if state is None else state
        outputs, state = model.step(to_model(model, images, [TASK])[0], state)
    return outputs[TASK].probs[0].float().cpu().numpy(), state
