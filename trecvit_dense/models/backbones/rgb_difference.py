"""A backbone that is shown what changes: the difference of every frame and the one before (arXiv 1608.00859, RGB
difference).

What stands still fills most of a video and says nothing about motion, but a network from scratch has to learn to look
past it first. The difference takes it out, is causal, and needs no more memory than one frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, RecurrentState


@MODELS.register_module()
class RGBDifference(nn.Module):
    """``backbone`` on ``gain * (x_t - x_(t-1))``; the first frame of a video is zero everywhere.

    Heads that read pixels themselves are given the video as it is.

    State: ``last`` ``(B, 3, H, W)``, the last frame, and below ``backbone`` that of the backbone. One that wants whole
    clips keeps its own state alone, and refuses to go on from it.

    Args:
        backbone: Config of a registered backbone that takes video.
        gain: Differences are small; this brings them to about the range of pictures.

    Attributes:
        embed_dim, out_channels, strides, causal, supports_prompts, supports_patch_mask, class_token_dim: Those of the
            backbone.

    Raises:
        ValueError: ``backbone`` takes no video, or ``gain`` is not positive.
    """

    def __init__(self, backbone: dict, *, gain: float = 4.0) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)
        if not getattr(self.backbone, 'takes_video', True):
            raise ValueError(f'RGBDifference around {backbone["type"]}, which takes no video; wrap its encoder instead')
        if not gain > 0:
            raise ValueError(f'gain is {gain}; wanted a number above 0')
        self.gain = gain
        self.embed_dim, self.causal = self.backbone.embed_dim, self.backbone.causal
        self.out_channels, self.strides = self.backbone.out_channels, self.backbone.strides
        self.supports_prompts = self.backbone.supports_prompts
        self.supports_patch_mask = getattr(self.backbone, 'supports_patch_mask', False)
        if hasattr(self.backbone, 'class_token_dim'):
            self.class_token_dim = self.backbone.class_token_dim

    def forward(
        self, video: Tensor, prompts: Any = None, state: RecurrentState | None = None, **options: Any
    ) -> tuple[Features, RecurrentState]:
        """Advance by the T frames of ``video`` ``(B, T, 3, H, W)``; everything else goes to the backbone.

        Raises:
            ValueError: ``state`` is of frames of another size.
        """
        state = state or RecurrentState()
        last = state.get('last', video[:, 0])
        if last.shape != video[:, 0].shape:
            raise ValueError(
                f'frames of shape {tuple(video.shape[2:])} go on from frames of {tuple(last.shape[1:])} in a batch of '
                f'{len(last)}; start a new state for another video'
            )
        change = self.gain * torch.diff(video, dim=1, prepend=last[:, None])
        features, memory = self.backbone(change, prompts, state.scope('backbone') or None, **options)
        return features, RecurrentState(last=video[:, -1].clone()).put('backbone', memory)
