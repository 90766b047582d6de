"""What Predictor and Session share: a model from a name, frames to model input, outputs to pixels of the video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trecvit_dense.checkpoints import load_model
from trecvit_dense.models.heads.base import MaskOutput, PointOutput

DOES = dict(points='track points', masks='segment objects')


@dataclass
class SoftMasks:
    """Probabilities of N objects on one frame, kept in the cells of the head until they are asked for.

    Args:
        ids: Of the objects.
        output: One frame of one video, background and these objects alone.
        size: ``(H, W)`` pixels of the original frame.
        scale: ``(2,)`` model pixels per pixel, x and y.
    """

    ids: list[int]
    output: MaskOutput
    size: tuple[int, int]
    scale: np.ndarray

    def labels(self) -> np.ndarray:
        """``(H, W)`` uint8: the id of the most probable object, 0 where background is more probable."""
        slots = next(self.output.labels(self.size, tuple(self.scale.tolist())))[0]
        return np.array([0, *self.ids], np.uint8)[slots.cpu().numpy()]

    def scores(self) -> np.ndarray:
        """``(N,)`` float32 in [0, 1]: mean probability over the object's own cells; 0 where it is not to be seen."""
        cells = self.output.probabilities[0, 0].float()  # (N + 1, h, w)
        own = cells.argmax(0)[None] == torch.arange(1, len(cells), device=cells.device)[:, None, None]
        return ((cells[1:] * own).sum((1, 2)) / own.sum((1, 2)).clamp(min=1)).cpu().numpy()

    def probability(self, identity: int) -> np.ndarray:
        """``(H, W)`` float32 in [0, 1] at the original size.

        Raises:
            ValueError: an object that is not on this frame.
        """
        if identity not in self.ids:
            raise ValueError(f'object {identity} is not followed on this frame; known ids: {self.ids}')
        index = self.ids.index(identity) + 1
        one = MaskOutput(
            self.output.probabilities[:, :, index : index + 1],
            self.output.active,
            self.output.given,
            self.output.stride,
        )
        return next(one.at_size(self.size, tuple(self.scale.tolist())))[0, 0].cpu().numpy()


@dataclass
class FrameResult:
    """Points and objects on one frame.

    Args:
        frame: Index of the frame in its stream.
        ids: ``(N,)`` int64 identities of the points.
        xy_px: ``(N, 2)`` float32 x, y in pixels of the original frame.
        visible: ``(N,)`` bool.
        certainty: ``(N,)`` float32 in [0, 1], or None when the model gives none.
        image: The frame itself, ``(H, W, 3)`` uint8, or None.
        masks: ``(H, W)`` uint8 index map, 0 background, else the id of an object; None without a head for masks.
        object_ids: Objects that are followed, seen on this frame or not.
        scores: ``(len(object_ids),)`` float32 in [0, 1], how sure the model is of each; 0: not seen.
        soft: What :meth:`probability` reads.
    """

    frame: int
    ids: np.ndarray
    xy_px: np.ndarray
    visible: np.ndarray
    certainty: np.ndarray | None = None
    image: np.ndarray | None = None
    masks: np.ndarray | None = None
    object_ids: list[int] | None = None
    scores: np.ndarray | None = None
    soft: SoftMasks | None = None

    @staticmethod
    def without_points(frame: int, image: np.ndarray | None = None) -> FrameResult:
        return FrameResult(frame, np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, bool), image=image)

    def with_masks(self, soft: SoftMasks) -> FrameResult:
        """This frame with objects."""
        return replace(self, masks=soft.labels(), object_ids=soft.ids, scores=soft.scores(), soft=soft)

    def probability(self, identity: int) -> np.ndarray:
        """``(H, W)`` float32 in [0, 1]: where the object is, at the original size; made when asked for.

        Raises:
            ValueError: an object that is not followed on this frame.
        """
        if self.soft is None:
            raise ValueError(f'object {identity} is not followed on this frame; the model gave no masks')
        return self.soft.probability(identity)


def pick_device(device: str | torch.device = 'auto') -> torch.device:
    """``'auto'`` is the GPU when there is one.

    Raises:
        ValueError: a device that does not exist here.
    """
    if str(device) == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device '{device}' cannot be used: {str(error).splitlines()[0]}") from None
    return torch.device(device)


def load_for_use(checkpoint: str | Path | nn.Module, device: str | torch.device = 'auto') -> nn.Module:
    """A model in eval mode on ``device``.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: not a usable checkpoint.
    """
    device = pick_device(device)
    return checkpoint.to(device).eval() if isinstance(checkpoint, nn.Module) else load_model(checkpoint, device=device)


def require_task(model: nn.Module, task: str, name: str = 'the model') -> None:
    """Raises ValueError when the model has no head for ``task``."""
    if task not in model.heads:
        raise ValueError(f'{name} does not {DOES[task]}; its heads are: {", ".join(model.heads)}')


@contextmanager
def running(model: nn.Module, tasks: Sequence[str]) -> Iterator[None]:
    """Only the heads of ``tasks`` take part meanwhile; a model may be shared by others who want other heads."""
    before, model.tasks = model.tasks, tuple(tasks)
    try:
        yield
    finally:
        model.tasks = before


def patch_size(model: nn.Module) -> tuple[int, int]:
    """``(y, x)`` pixels of the model's coarsest token."""
    strides = model.backbone.strides
    return max(int(stride[0]) for stride in strides), max(int(stride[1]) for stride in strides)


def check_frame_size(size: tuple[int, int], model: nn.Module) -> None:
    """Raises ValueError for a frame ``(H, W)`` that does not fill one patch."""
    (height, width), (patch_y, patch_x) = size, patch_size(model)
    if height < patch_y or width < patch_x:
        frame = f'a frame of {width}x{height} px'
        raise ValueError(f'{frame} is smaller than one patch of the model, {patch_x}x{patch_y} px')


def to_model(model: nn.Module, frames: Sequence[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """Frames ``(H, W, 3)`` uint8 to the model's input ``(1, T, 3, h, w)`` and ``(2,)`` model pixels per pixel, x and y.

    They are prepared one by one: only the resized copies are held as float.
    """
    prepared = []
    for frame in frames:
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None, None]  # (1, 1, 3, H, W)
        video, scale = model.data_preprocessor.prepare(pixels)
        prepared.append(video)
    return torch.cat(prepared, dim=1), np.array(scale, dtype=np.float32)


def to_pixels(output: PointOutput, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """First video of a batch: ``(T, Q, 2)`` x, y in pixels of the video, ``(T, Q)`` visible, ``(T, Q)`` certainty."""
    xy = output.xy_px[0].float().cpu().numpy() / scale
    certainty = None if output.certainty is None else output.certainty[0].float().cpu().numpy()
    return xy, output.visible[0].cpu().numpy(), certainty
