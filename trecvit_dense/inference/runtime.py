"""What Predictor and Session share: a model from a name, frames to model input, outputs to pixels of the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trecvit_dense.checkpoints import load_model
from trecvit_dense.models.heads.base import PointOutput


@dataclass
class FrameResult:
    """Points on one frame.

    Args:
        frame: Index of the frame in its stream.
        ids: ``(N,)`` int64 identities of the points.
        xy_px: ``(N, 2)`` float32 x, y in pixels of the original frame.
        visible: ``(N,)`` bool.
        certainty: ``(N,)`` float32 in [0, 1], or None when the model gives none.
        image: The frame itself, ``(H, W, 3)`` uint8, or None.
    """

    frame: int
    ids: np.ndarray
    xy_px: np.ndarray
    visible: np.ndarray
    certainty: np.ndarray | None = None
    image: np.ndarray | None = None


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


def load_tracker(checkpoint: str | Path | nn.Module, device: str | torch.device = 'auto') -> nn.Module:
    """A model with a point head, in eval mode on ``device``.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: not a usable checkpoint, or a model that does not track points.
    """
    device = pick_device(device)
    model = checkpoint.to(device).eval() if isinstance(checkpoint, nn.Module) else load_model(checkpoint, device=device)
    if 'points' not in model.heads:
        name = 'the model' if isinstance(checkpoint, nn.Module) else checkpoint
        raise ValueError(f'{name} does not track points; its heads are: {", ".join(model.heads)}')
    return model


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
