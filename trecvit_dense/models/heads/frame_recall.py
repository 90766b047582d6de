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
        patches: ``(B, T, D, N, P)``, in units of the model's input.
        truth: ``(B, T, N, P)`` patches of the frames themselves.
        grid: ``(h, w)`` patches of a frame.
        patch: ``(y, x)`` pixels of a patch.
    """

    patches: Tensor
    truth: Tensor
    grid: tuple[int, int]
    patch: tuple[int, int]


@dataclass
class Recall:
    """The same for one whole video, as arrays ``patches (T, D, N, P)`` and ``truth (T, N, P)``.

    ``asked (T, D)`` int: number of the frame that each of the answers is about; negative where there is none yet.
    """

    patches: np.ndarray
    truth: np.ndarray
    asked: np.ndarray
    grid: tuple[int, int]
    patch: tuple[int, int]


@MODELS.register_module()
class FrameRecall(Head):
    """Reconstruct frames of the past from the features of the present one, patch by patch.

    The head has no memory, so whatever it paints the backbone has carried along: in its recurrent state, or in the
    window of one that is not causal. Two kinds of question, both asked on every frame:

    - ``distances``: the frames seen so many frames ago. All of the last frames must be kept at any time.
    - ``anchor``: one frame of the video, by its number, from then on. This is the paper's question (frame 16, asked at
      the end of a clip), put on every frame, so that one model gives the whole curve over distance.

    Works on every backbone whose tokens stand for whole patches of pixels.

    Args:
        distances: Frames back, ascending; 0 is the present frame, which tells what the readout itself costs.
        anchor: Number of a frame instead.
        hidden_dim: Width of one hidden layer before the readout; None reads features with one linear layer.

    Raises:
        ValueError: both questions or none, distances out of order, or tokens that do not stand for whole patches.
    """

    reads_video = True

    def __init__(
        self,
        *,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...],
        distances: Sequence[int] = (),
        anchor: int | None = None,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        _check_question(tuple(distances), anchor)
        self.distances, self.anchor = tuple(distances), anchor
        _, patch = patch_grid((1 << 30, 1 << 30), self.backbone_strides[-1], who=type(self).__name__)
        width, answers = self.backbone_channels[-1], len(self.distances) or 1
        self.mlp = nn.Sequential(nn.Linear(width, hidden_dim), nn.GELU()) if hidden_dim else None
        self.readout = nn.Linear(hidden_dim or width, answers * patch[0] * patch[1] * 3)
        nn.init.normal_(self.readout.weight, std=0.02)
        nn.init.zeros_(self.readout.bias)

    def asked(self, num_frames: int) -> Tensor:
        """``(T, D)`` int64: number of the frame that is asked for on each frame of a video; negative: none yet."""
        frame = torch.arange(num_frames)[:, None]
        if self.anchor is None:
            return frame - torch.tensor(self.distances)
        return torch.where(frame >= self.anchor, self.anchor, -1)

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[RecallOutput, RecurrentState]:
        """Paint what was seen before each of the frames in ``features``."""
        tokens = features.levels[-1].tokens  # (B, T, N, C)
        grid, patch = patch_grid(input_size, self.backbone_strides[-1], who=type(self).__name__)
        painted = self.readout(tokens if self.mlp is None else self.mlp(tokens)).float()
        painted = painted.unflatten(3, (len(self.distances) or 1, -1)).transpose(2, 3)  # (B, T, D, N, P)
        return RecallOutput(painted, to_patches(features.video.float(), grid, patch), grid, patch), state

    def loss(self, output: RecallOutput, samples: list[VideoSample], scale: tuple[float, float]) -> dict[str, Tensor]:
        """Mean squared error, every distance alike; frames that lie before the clip do not count.

        Raises:
            ValueError: a clip in which a question is never asked.
        """
        asked, errors = self.asked(output.truth.shape[1]), []
        for index, frames in enumerate(asked.unbind(1)):
            there = frames >= 0
            if not there.any():
                what = f'frame {self.anchor}' if self.distances == () else f'{self.distances[index]} frames ago'
                raise ValueError(f'clips of {len(asked)} frames say nothing about {what}; wanted longer ones')
            painted, wanted = output.patches[:, there, index], output.truth[:, frames[there]]
            errors.append((painted - wanted).square().mean())
        return {'loss_recall': torch.stack(errors).mean()}

    @torch.no_grad()
    def predict(self, outputs: list[RecallOutput], sample: VideoSample, scale: tuple[float, float]) -> Recall:
        """All frames of one video."""
        patches, truth = (
            torch.cat([getattr(output, name)[0] for output in outputs]).cpu().numpy() for name in ('patches', 'truth')
        )
        return Recall(patches, truth, self.asked(len(truth)).numpy(), outputs[0].grid, outputs[0].patch)


def _check_question(distances: tuple[int, ...], anchor: int | None) -> None:
    if bool(distances) == (anchor is not None):
        raise ValueError(f'distances {distances} and anchor {anchor}; wanted one of the two')
    if list(distances) != sorted(set(distances)) or min((*distances, anchor or 0)) < 0:
        raise ValueError(f'distances {distances}, anchor {anchor}; wanted ascending numbers from 0 up')
