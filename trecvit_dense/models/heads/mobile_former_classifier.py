"""The classifier of Mobile-Former (arXiv 2108.05895, authors' code): the last map and the first global token."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from trecvit_dense.models.heads.classification import ClassificationHead, ClassificationOutput
from trecvit_dense.models.layers.global_tokens import linear
from trecvit_dense.models.layers.space_time_conv import Pointwise
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, RecurrentState

_EXPAND = 6


@MODELS.register_module()
class MobileFormerClassifier(ClassificationHead):
    """Pointwise convolution to ``6 C``, mean over frames and space, h-swish; then, beside the first token, an MLP.

    For one frame this is the authors' head. For several the mean also runs over the frames ([inferred], as nothing
    public says how the video model does it), and the token is that of the last frame. Loss and predictions are those
    of :class:`ClassificationHead`.

    State: ``sum (B, 6 C)`` over frames of their spatial means, and ``frames (B,)``.

    Args:
        num_classes: Classes.
        rep_size: Width of the hidden layer (1920 down to 1024, see ``SIZES`` of the backbone).
        token_dim: Width of the backbone's class token.
        groups: Of the convolution; that of the backbone.
        backbone_channels: Passed by the perceiver.
        **options: ``label_smoothing``, ``dropout`` (on the hidden layer) and others of :class:`ClassificationHead`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        rep_size: int = 1280,
        token_dim: int = 192,
        groups: int = 1,
        backbone_channels: tuple[int, ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(num_classes, rep_size=rep_size, backbone_channels=backbone_channels, **options)
        channels, self.class_token_dim = self.backbone_channels[-1], token_dim
        self.width = _EXPAND * channels
        self.shuffle = nn.ChannelShuffle(groups) if groups > 1 else nn.Identity()
        self.expand = Pointwise(channels, self.width, groups=groups)
        self.pre_logits = linear(self.width + token_dim, rep_size)
        self.norm = nn.BatchNorm1d(rep_size)
        self.classifier = linear(rep_size, num_classes)

    def begin(self, batch_size: int, device: torch.device | str, **queries: object) -> RecurrentState:
        return RecurrentState(
            sum=torch.zeros(batch_size, self.width, device=device),
            frames=torch.zeros(batch_size, dtype=torch.int64, device=device),
        )

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[ClassificationOutput, RecurrentState]:
        """Answer for all frames since :meth:`begin`."""
        token = features.class_token[:, -1].float()  # (B, d)
        if self.training and len(token) < 2:
            raise ValueError('MobileFormerClassifier normalises over the batch; train it with at least 2 clips a batch')
        maps = features.levels[-1].maps().permute(0, 4, 1, 2, 3)  # (B, C, T, h, w)
        pooled = F.relu6(self.expand(self.shuffle(maps))).float().mean((3, 4))  # (B, 6 C, T)
        total = state['sum'] + pooled.sum(2)
        frames = state['frames'] + pooled.shape[2]
        mean = F.hardswish(total / frames[:, None])
        hidden = F.hardswish(self.norm(self.pre_logits(torch.cat([mean, token], dim=1))))
        logits = self.classifier(self.dropout(hidden)).float()
        output = ClassificationOutput(logits, logits.softmax(dim=-1), hidden[:, None])
        return output, RecurrentState(sum=total, frames=frames)
