"""What Predictor and Session share: a model from a name, frames to model input, outputs to pixels of the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trecvit_dense.checkpoints import load_model
from trecvit_dense.models.heads.base import DepthOutput, MaskOutput, PointOutput

from .fast_linear import check_precision, speed_up

DOES = dict(points='track points', masks='segment objects', depth='estimate depth', classification='classify videos')


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

    def fields(self) -> dict[str, Any]:
        """What :class:`FrameResult` has of them."""
        return dict(masks=self.labels(), object_ids=self.ids, scores=self.scores(), soft=self)

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
class SoftDepth:
    """Depth of one frame, kept in the cells of the head until it is asked for.

    Args:
        output: One frame of one video.
        size: ``(H, W)`` pixels of the original frame.
        scale: ``(2,)`` model pixels per pixel, x and y.
        factor: What values are multiplied with: metres of this camera per metre of the one that the head stands for.
    """

    output: DepthOutput
    size: tuple[int, int]
    scale: np.ndarray
    factor: float = 1.0

    @staticmethod
    def of(output: DepthOutput, index: int, size: tuple[int, int], scale: np.ndarray, factor: float = 1.0) -> SoftDepth:
        """Frame ``index`` of the first video of an output."""
        frame, sure = slice(index, index + 1), output.confidence_logits
        part = DepthOutput(
            output.log_values[:1, frame], output.kind, output.stride, None if sure is None else sure[:1, frame]
        )
        return SoftDepth(part, tuple(size), scale, factor)

    def values(self) -> np.ndarray:
        """``(H, W)`` float32 at the original size."""
        alone = DepthOutput(self.output.log_values, self.output.kind, self.output.stride)
        values = alone.at_size(self.size, tuple(self.scale.tolist())).values[0, 0].cpu().numpy()
        return values if self.factor == 1 else values * np.float32(self.factor)

    def confidence(self) -> np.ndarray | None:
        """``(H, W)`` float32 in (0, 1) at the original size, or None when the head gives none."""
        full = self.output.at_size(self.size, tuple(self.scale.tolist())).confidence
        return None if full is None else full[0, 0].cpu().numpy()


@dataclass
class FrameResult:
    """Points, objects, depth and classes on one frame.

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
        soft_depth: What :attr:`depth` and :attr:`depth_confidence` read; None without a head for depth.
        class_probs: ``(C,)`` float32, what the video shows; None without a head for classification.
    """

    frame: int
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    xy_px: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    visible: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    certainty: np.ndarray | None = None
    image: np.ndarray | None = None
    masks: np.ndarray | None = None
    object_ids: list[int] | None = None
    scores: np.ndarray | None = None
    soft: SoftMasks | None = None
    soft_depth: SoftDepth | None = None
    class_probs: np.ndarray | None = None

    @property
    def depth_kind(self) -> str | None:
        """``'disparity'``: one over depth, but for an unknown scale and shift; ``'depth'``: metres; None: no depth."""
        return None if self.soft_depth is None else self.soft_depth.output.kind

    @cached_property
    def depth(self) -> np.ndarray | None:
        """``(H, W)`` float32, positive, of :attr:`depth_kind`, at the original size; made when asked for."""
        return None if self.soft_depth is None else self.soft_depth.values()

    @cached_property
    def depth_confidence(self) -> np.ndarray | None:
        """``(H, W)`` float32 in (0, 1), or None when the model gives none; made when asked for."""
        return None if self.soft_depth is None else self.soft_depth.confidence()

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


def load_for_use(
    checkpoint: str | Path | nn.Module, device: str | torch.device = 'auto', precision: str = 'auto'
) -> nn.Module:
    """A model in eval mode on ``device``.

    Args:
        precision: As in :func:`.speed_up`, which is done to what is loaded. A model that is given as a module is
            left as it is with ``'auto'``, and changed in place otherwise.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: not a usable checkpoint, or a precision that cannot be had here.
    """
    device = pick_device(device)
    check_precision(precision, device)
    given = isinstance(checkpoint, nn.Module)
    model = checkpoint.to(device).eval() if given else load_model(checkpoint, device=device)
    if not given or precision != 'auto':
        speed_up(model, precision)
    return model


def require_task(model: nn.Module, task: str, name: str = 'the model') -> None:
    """Raises ValueError when the model has no head for ``task``."""
    if task not in model.heads:
        raise ValueError(f'{name} does not {DOES[task]}; its heads are: {", ".join(model.heads)}')


def camera_factor(model: nn.Module, intrinsics: np.ndarray | None, scale: np.ndarray) -> float:
    """Metres per metre that the head for depth gives, for a head that stands for a camera of one focal length.

    Args:
        intrinsics: ``(3, 3)`` in pixels of the frames; None: as that camera would see it, a factor of 1.
        scale: ``(2,)`` model pixels per pixel, x and y.
    """
    focal = canonical_focal(model)
    if intrinsics is None or focal is None:
        return 1.0
    return float((np.diag(intrinsics)[:2] * scale).mean() / focal)


def canonical_focal(model: nn.Module) -> float | None:
    """Focal length, in pixels of the model input, for which the head for depth gives metres; None: it does not ask."""
    head = model.heads['depth']
    return getattr(head, 'canonical_focal_px', None) if getattr(head, 'kind', None) == 'depth' else None


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


def to_model(model: nn.Module, frames: Sequence[np.ndarray], tasks: Sequence[str] = ()) -> tuple[Tensor, np.ndarray]:
    """Frames ``(H, W, 3)`` uint8 to the model's input ``(1, T, 3, h, w)`` and ``(2,)`` model pixels per pixel, x and y.

    They are prepared one by one: only the resized copies are held as float. ``tasks`` are those that are asked for.
    """
    prepared = []
    for frame in frames:
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None, None]  # (1, 1, 3, H, W)
        video, scale = model.data_preprocessor.prepare(pixels, tasks)
        prepared.append(video)
    return torch.cat(prepared, dim=1), np.array(scale, dtype=np.float32)


def to_pixels(output: PointOutput, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """First video of a batch: ``(T, Q, 2)`` x, y in pixels of the video, ``(T, Q)`` visible, ``(T, Q)`` certainty."""
    xy = output.xy_px[0].float().cpu().numpy() / scale
    certainty = None if output.certainty is None else output.certainty[0].float().cpu().numpy()
    return xy, output.visible[0].cpu().numpy(), certainty
