"""Long-video memorisation: at every frame, paint frames that were seen some time ago (TRecViT, section 4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trecvit_dense.models.layers.pixel_patches import patch_grid, to_patches
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, RecurrentState, VideoSample

from .base import Head


@dataclass
class RecallOutput:
    """What is remembered on the T frames of one call; ``P = patch_y * patch_x * 3`` values a patch.

    Args:
        patches: ``(B, T, D, N, P)``: on frame t, patches of frame ``t - distances[d]``, in units of the model's input.
        truth: ``(B, T, N, P)`` patches of the frames themselves.
        frame: ``(B,)`` int64, number of the first frame of the call.
        distances: Frames back.
        grid: ``(h, w)`` patches of a frame.
        patch: ``(y, x)`` pixels of a patch.
    """

    patches: Tensor
    truth: Tensor
    frame: Tensor
    distances: tuple[int, ...]
    grid: tuple[int, int]
    patch: tuple[int, int]


@dataclass
class Recall:
    """The same for one whole video, as arrays: ``patches (T, D, N, P)`` and ``truth (T, N, P)``."""

    patches: np.ndarray
    truth: np.ndarray
    distances: tuple[int, ...]
    grid: tuple[int, int]
    patch: tuple[int, int]


@MODELS.register_module()
class FrameRecall(Head):
    """Reconstruct the frames seen ``distances`` frames ago from the features of the present frame, patch by patch.

    The head has no memory, so whatever it paints the backbone has carried along: in its recurrent state, or in the
    window of one that is not causal. The paper asks at the end of a clip for frame 16, one distance a model; here all
    frames are asked at all distances, so that one model gives the whole curve.

    Works on every backbone whose tokens stand for whole patches of pixels.

    Args:
        distances: Frames back, ascending; 0 is the present frame, which tells what the readout itself costs.
        hidden_dim: Width of one hidden layer before the readout; None reads features with one linear layer.

    Raises:
        ValueError: distances out of order, or tokens that do not stand for whole patches.
    """

    reads_video = True

    def __init__(
        self,
        *,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...],
        distances: Sequence[int] = (1, 2, 4, 8, 16),
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        if not distances or list(distances) != sorted(set(distances)) or distances[0] < 0:
            raise ValueError(f'distances are {tuple(distances)}; wanted ascending numbers of frames from 0 up')
        self.distances = tuple(distances)
        _, patch = patch_grid((1 << 30, 1 << 30), self.backbone_strides[-1], who=type(self).__name__)
        width = self.backbone_channels[-1]
        self.mlp = nn.Sequential(nn.Linear(width, hidden_dim), nn.GELU()) if hidden_dim else None
        self.readout = nn.Linear(hidden_dim or width, len(self.distances) * patch[0] * patch[1] * 3)
        nn.init.normal_(self.readout.weight, std=0.02)
        nn.init.zeros_(self.readout.bias)

    def begin(self, batch_size: int, device: torch.device | str, **queries: object) -> RecurrentState:
        return RecurrentState(frame=torch.zeros(batch_size, dtype=torch.int64, device=device))

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[RecallOutput, RecurrentState]:
        """Paint what was seen before each of the frames in ``features``."""
        tokens = features.levels[-1].tokens  # (B, T, N, C)
        grid, patch = patch_grid(input_size, self.backbone_strides[-1], who=type(self).__name__)
        painted = self.readout(tokens if self.mlp is None else self.mlp(tokens)).float()
        painted = painted.unflatten(3, (len(self.distances), -1)).transpose(2, 3)  # (B, T, D, N, P)
        truth = to_patches(features.video.float(), grid, patch)
        output = RecallOutput(painted, truth, state['frame'], self.distances, grid, patch)
        return output, self.advance(state, tokens.shape[1])

    def loss(self, output: RecallOutput, samples: list[VideoSample], scale: tuple[float, float]) -> dict[str, Tensor]:
        """Mean squared error, every distance alike; frames that lie before the clip do not count.

        Raises:
            ValueError: a clip that is too short for the largest distance.
        """
        frames, errors = output.truth.shape[1], []
        if frames <= self.distances[-1]:
            raise ValueError(
                f'clips of {frames} frames say nothing about {self.distances[-1]} frames ago; wanted at least '
                f'{self.distances[-1] + 1}, or smaller distances'
            )
        for index, distance in enumerate(self.distances):
            painted, wanted = output.patches[:, distance:, index], output.truth[:, : frames - distance]
            errors.append((painted - wanted).square().mean())
        return {'loss_recall': torch.stack(errors).mean()}

    @torch.no_grad()
    def predict(self, outputs: list[RecallOutput], sample: VideoSample, scale: tuple[float, float]) -> Recall:
        """All frames of one video."""
        patches, truth = (
            torch.cat([getattr(output, name)[0] for output in outputs]).cpu().numpy() for name in ('patches', 'truth')
        )
        return Recall(patches, truth, self.distances, outputs[0].grid, outputs[0].patch)
