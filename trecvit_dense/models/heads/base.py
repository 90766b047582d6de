"""The interface of every head, and what a point-tracking head returns."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[Any, RecurrentState]:
        """Decode the frames in ``features``, which follow those that ``state`` has seen."""
        raise TypeError(f'{type(self).__name__} must define forward(features, state, input_size)')

    def loss(self, output: Any, samples: list, scale: tuple[float, float]) -> dict[str, Tensor]:
        """Training losses; keys start with ``loss``. ``scale`` is model-input pixels per sample pixel, ``(x, y)``."""
        raise TypeError(f'{type(self).__name__} must define loss(output, samples, scale)')

    def predict(self, outputs: list, sample: Any, scale: tuple[float, float]) -> Any:
        """The answer for one sample, in its own pixels, from the outputs of all steps (point heads need none)."""
        raise TypeError(f'{type(self).__name__} must define predict(outputs, sample, scale) to be evaluated')

    def forget(self, state: RecurrentState) -> RecurrentState:
        """``state`` without what was gathered on the way, queries kept; the default has gathered nothing."""
        return state


@dataclass
class PointOutput:
    """Tracks of Q points over the T frames of one call.

    Args:
        xy_px: ``(B, T, Q, 2)`` x, y in pixels of the model input.
        visible_logits: ``(B, T, Q)``; above zero means visible.
        active: ``(B, T, Q)`` bool: the slot holds a point that has been asked for on or before this frame.
        certainty: ``(B, T, Q)`` in [0, 1], or None.
        extras: What the head's own loss needs (logits, intermediate estimates).
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
