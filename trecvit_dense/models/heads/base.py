"""The interface of every head, and what heads for points, masks and depth return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trecvit_dense.structures import Features, PromptGroup, RecurrentState


class Head(nn.Module):
    """A decoder that reads the features of a backbone, frame after frame.

    A subclass implements :meth:`forward` and :meth:`loss`; one that adds tokens to the backbone also implements
    :meth:`prompts` and sets ``requires_prompts``. Whatever a head must remember between frames lives in ``state``,
    which the perceiver carries for it (docs/new_head.md builds a head step by step).
    """

    requires_prompts = False
    hides_patches = False  # True: the backbone is given :meth:`patch_mask`
    reads_grey = False  # True: ``features.grey`` holds the frames, for what is measured and not learned
    reads_video = False  # True: ``features.video`` holds the frames: pixels are what the head is asked for
    reads_views = False  # True: the head answers for a whole video, which may be tested on several views of it

    class_token_dim: int | None = None  # width of the class token that the head reads; None: it reads none

    def __init__(
        self, backbone_channels: tuple[int, ...] = (), backbone_strides: tuple[tuple[float, float], ...] = ()
    ) -> None:
        """The perceiver passes channels and ``(y, x)`` strides of the backbone's levels to every head it builds."""
        super().__init__()
        self.backbone_channels = tuple(backbone_channels)
        self.backbone_strides = tuple(backbone_strides)

    def begin(self, batch_size: int, device: torch.device | str, **queries: Any) -> RecurrentState:
        """The head's part of the state before the first frame."""
        return RecurrentState()

    def prompts(self, state: RecurrentState, num_frames: int, input_size: tuple[int, int]) -> list[PromptGroup]:
        """Token groups for the next ``num_frames`` frames of an ``(H, W)`` input."""
        return []

    def patch_mask(self, state: RecurrentState, num_frames: int, input_size: tuple[int, int]) -> Tensor:
        """``(B, T, N)`` bool, True where a patch of the next frames is kept from the backbone (``hides_patches``)."""
        raise TypeError(f'{type(self).__name__} must define patch_mask(state, num_frames, input_size)')

    def needs_first_frame(self, state: RecurrentState) -> bool:
        """Whether the tokens of later frames depend on the features of the next one, which then goes first, alone."""
        return False

    def after_first_frame(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> RecurrentState:
        """``state`` as :meth:`prompts` wants it for the frames behind the one in ``features``."""
        return self.advance(state, 1)

    def advance(self, state: RecurrentState, num_frames: int) -> RecurrentState:
        """``state`` as :meth:`prompts` wants it ``num_frames`` later."""
        return RecurrentState(state, frame=state['frame'] + num_frames) if 'frame' in state else state

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[Any, RecurrentState]:
        """Decode the frames in ``features``, which follow those that ``state`` has seen."""
        raise TypeError(f'{type(self).__name__} must define forward(features, state, input_size)')

    def loss(self, output: Any, samples: list, scale: tuple[float, float]) -> dict[str, Tensor]:
        """Training losses; keys start with ``loss``. ``scale`` is model-input pixels per sample pixel, ``(x, y)``."""
        raise TypeError(f'{type(self).__name__} must define loss(output, samples, scale)')

    def join(self, outputs: list) -> Any:
        """Outputs of consecutive calls as one, for :meth:`loss`; the default is :func:`join_in_time`."""
        return join_in_time(outputs)

    def predict(self, outputs: list, sample: Any, scale: tuple[float, float]) -> Any:
        """The answer for one sample, in its own pixels, from the outputs of all steps (points and masks need none)."""
        raise TypeError(f'{type(self).__name__} must define predict(outputs, sample, scale) to be evaluated')

    def sample_queries(self, sample: Any) -> dict[str, Any]:
        """What :meth:`begin` is given for one sample in evaluation (points and masks have theirs from the truth)."""
        return {}

    def forget(self, state: RecurrentState) -> RecurrentState:
        """``state`` without what was gathered on the way, queries kept; the default has gathered nothing."""
        return state


def join_in_time(parts: Sequence[Any]) -> Any:
    """Outputs of consecutive calls as one: tensors ``(B, T, ...)`` are put one after the other.

    Dataclasses, dictionaries, lists and tuples are joined part by part. Anything else (tensors of one dimension or none
    included) says the same in every call, and the first is taken.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts), 1) if first.ndim > 1 else first
    if is_dataclass(first):
        names = [entry.name for entry in fields(first)]
        return type(first)(**{name: join_in_time([getattr(part, name) for part in parts]) for name in names})
    if isinstance(first, dict):
        return {key: join_in_time([part[key] for part in parts]) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(join_in_time(entries) for entries in zip(*parts, strict=True))
    return first


@dataclass
class PointOutput:
    """Tracks of Q points over the T frames of one call.

    Args:
        xy_px: ``(B, T, Q, 2)`` x, y in pixels of the model input.
        visible_logits: ``(B, T, Q)``; above zero means visible.
        active: ``(B, T, Q)`` bool: the slot holds a point that has been asked for on or before this frame.
        certainty: ``(B, T, Q)`` in [0, 1], or None.
        extras: What the head's own loss needs (logits, intermediate estimates), ``(B, T, ...)`` or one for all frames.
    """

    xy_px: Tensor
    visible_logits: Tensor
    active: Tensor
    certainty: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def visible(self) -> Tensor:
        """``(B, T, Q)`` bool."""
        return (self.visible_logits > 0) & self.active


@dataclass
class MaskOutput:
    """Masks of K objects over the T frames of one call.

    Args:
        probabilities: ``(B, T, K + 1, h, w)`` distribution over background (index 0) and the objects, per cell.
        active: ``(B, T, K)`` bool: the slot holds an object.
        given: ``(B, T, K)`` bool: the object's mask was given on this frame.
        stride: Model-input pixels per cell; cell ``(i, j)`` is centred on ``((j + 0.5), (i + 0.5)) * stride``.
        extras: What the head's own loss needs, ``(B, T, ...)``.
    """

    probabilities: Tensor
    active: Tensor
    given: Tensor
    stride: int
    extras: dict[str, Any] = field(default_factory=dict)

    def at_size(self, size: tuple[int, int], scale: tuple[float, float]) -> Iterator[Tensor]:
        """Probabilities ``(B, K + 1, H, W)`` in a frame of ``(H, W)`` pixels, frame by frame: they are large.

        ``scale`` is model-input pixels per pixel of that frame, ``(x, y)``; padding of the model input is cut off.
        """
        rows, columns = self._resize(size, scale)
        for cells in self.probabilities.unbind(1):
            yield rows @ (cells.float() @ columns.T)

    def labels(self, size: tuple[int, int], scale: tuple[float, float]) -> Iterator[Tensor]:
        """``(B, H, W)`` uint8 frame by frame: 0 is background, ``k + 1`` the object in slot ``k``.

        The objects are compared one after another: a sixth of the time of ``argmax`` over all on a CPU, and full-size
        maps of two of them instead of all.
        """
        rows, columns = self._resize(size, scale)
        for cells in self.probabilities.unbind(1):
            best = rows @ (cells[:, 0].float() @ columns.T)  # (B, H, W)
            winner = torch.zeros_like(best, dtype=torch.uint8)
            for index in range(1, cells.shape[1]):
                rival = rows @ (cells[:, index].float() @ columns.T)
                winner.masked_fill_(rival > best, index)
                best = torch.maximum(best, rival)
            yield winner

    def _resize(self, size: tuple[int, int], scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
        return _resize_matrices(self.probabilities, self.stride, size, scale)


@dataclass
class DepthOutput:
    """Depth of the T frames of one call.

    Args:
        log_values: ``(B, T, h, w)`` natural logarithm of disparity (no unit) or of depth (metres), by ``kind``.
        kind: ``'disparity'``: one over depth, but for an unknown scale and shift; ``'depth'``: metres.
        stride: Model-input pixels per cell; cell ``(i, j)`` is centred on ``((j + 0.5), (i + 0.5)) * stride``.
        confidence_logits: ``(B, T, h, w)``, or None when the head gives none.
    """

    log_values: Tensor
    kind: str
    stride: int
    confidence_logits: Tensor | None = None

    def at_size(self, size: tuple[int, int], scale: tuple[float, float]) -> DepthOutput:
        """The same in a frame of ``(H, W)`` pixels (stride 1), bilinear; padding of the model input is cut off.

        ``scale`` is model-input pixels per pixel of that frame, ``(x, y)``.
        """
        rows, columns = _resize_matrices(self.log_values, self.stride, size, scale)
        parts = (
            None if cells is None else rows @ (cells.float() @ columns.T)
            for cells in (self.log_values, self.confidence_logits)
        )
        values, confidence = parts
        return DepthOutput(values, self.kind, 1, confidence)

    @property
    def values(self) -> Tensor:
        """``(B, T, h, w)`` disparity or metres, positive."""
        return self.log_values.float().exp()

    @property
    def confidence(self) -> Tensor | None:
        """``(B, T, h, w)`` in (0, 1)."""
        return None if self.confidence_logits is None else self.confidence_logits.float().sigmoid()


def _resize_matrices(
    cells: Tensor, stride: int, size: tuple[int, int], scale: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Bilinear resizing of ``cells (..., h, w)`` to ``size`` as two matrices, ``(H, h)`` and ``(W, w)``."""
    height, width = cells.shape[-2:]
    matrices = _bilinear(height, size[0], scale[1] / stride), _bilinear(width, size[1], scale[0] / stride)
    return tuple(matrix.to(cells.device) for matrix in matrices)


def _bilinear(cells: int, length: int, ratio: float) -> Tensor:
    """``(length, cells)`` weights of linear interpolation: pixel ``i`` lies at ``(i + 0.5) * ratio`` cells."""
    place = ((torch.arange(length) + 0.5) * ratio - 0.5).clamp(0, cells - 1)
    return (1 - (place[:, None] - torch.arange(cells)).abs()).clamp(min=0)
