"""Video classification, the decoder of TRecViT (arXiv 2412.14294, section 3.3): a mean over frames that streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trecvit_dense.models.heads.base import Head
from trecvit_dense.models.layers.embedding import lecun_normal_
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, RecurrentState, VideoSample

if TYPE_CHECKING:
    from trecvit_dense.models.perceiver import VideoPerceiver


@dataclass
class ClassificationOutput:
    """What is known after the last frame of a call.

    Args:
        logits: ``(B, num_classes)``.
        probs: ``(B, num_classes)``; over several clips the mean of their softmaxes, not the softmax of the mean.
        pre_logits: ``(B, num_clips, rep_size)``, the representation, averaged over the frames of each clip.
    """

    logits: Tensor
    probs: Tensor
    pre_logits: Tensor


@MODELS.register_module()
class ClassificationHead(Head):
    """``classifier(mean over frames of tanh(pre_logits(f)))``, with ``f`` the class token or the mean patch token.

    Args:
        num_classes: Classes.
        rep_size: Width of the representation. None: none, ``classifier(mean of f)``, as in ViViT.
        pool: ``'tok'``: the backbone's class token. ``'gap'``: the mean of the patch tokens of the last level.
        label_smoothing: Of the cross-entropy.
        dropout: On the representation, in training.
        backbone_channels, backbone_strides: Passed by the perceiver.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        rep_size: int | None = 3072,
        pool: str = 'tok',
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        backbone_channels: tuple[int, ...] = (),
        backbone_strides: tuple[tuple[float, float], ...] = (),
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        if pool not in ('tok', 'gap'):
            raise ValueError(f"pool is '{pool}'; wanted 'tok' (class token) or 'gap' (mean of the patches)")
        width = self.backbone_channels[-1]
        self.num_classes, self.rep_size, self.pool = num_classes, rep_size or width, pool
        self.label_smoothing = label_smoothing
        self.pre_logits = nn.Linear(width, rep_size) if rep_size else None
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.rep_size, num_classes)
        for linear in (self.pre_logits, self.classifier):
            if linear is not None:
                lecun_normal_(linear.weight)
                nn.init.zeros_(linear.bias)

    def begin(self, batch_size: int, device: torch.device | str, **queries: object) -> RecurrentState:
        return RecurrentState(
            sum=torch.zeros(batch_size, self.rep_size, device=device),
            frames=torch.zeros(batch_size, dtype=torch.int64, device=device),
        )

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[ClassificationOutput, RecurrentState]:
        """Class scores of all frames since :meth:`begin`, after the last one here."""
        pooled = self._pool(features)
        if self.pre_logits is not None:
            pooled = torch.tanh(self.pre_logits(pooled))  # (B, T, rep_size)
        total = state['sum'] + pooled.float().sum(dim=1)
        frames = state['frames'] + pooled.shape[1]
        mean = total / frames[:, None]
        logits = self.classifier(self.dropout(mean)).float()
        output = ClassificationOutput(logits, logits.softmax(dim=-1), mean[:, None])
        return output, RecurrentState(sum=total, frames=frames)

    def _pool(self, features: Features) -> Tensor:
        if self.pool == 'gap':
            return features.levels[-1].tokens.mean(dim=2)
        if features.class_token is None:
            raise ValueError("pool='tok' needs a backbone with class_token=True; this one has none (or pool='gap')")
        return features.class_token

    def loss(
        self, output: ClassificationOutput, samples: list[VideoSample], scale: tuple[float, float]
    ) -> dict[str, Tensor]:
        """Cross-entropy with the samples' labels."""
        unlabelled = [sample.name for sample in samples if sample.label is None]
        if unlabelled:
            raise ValueError(f"sample '{unlabelled[0]}' has no label; classification trains on labelled videos only")
        labels = torch.tensor([sample.label for sample in samples], device=output.logits.device)
        return {'loss_cls': F.cross_entropy(output.logits, labels, label_smoothing=self.label_smoothing)}

    def predict(
        self, outputs: list[ClassificationOutput], sample: VideoSample, scale: tuple[float, float]
    ) -> dict[str, Tensor]:
        """``logits`` and ``probs`` ``(num_classes,)`` of one video after its last frame."""
        return dict(logits=outputs[-1].logits[0], probs=outputs[-1].probs[0])


# ------------------------------------------------------------------------------------------------------ clips


def split_clips(video: Tensor, frames_per_clip: int) -> Tensor:
    """``(B, T, ...)`` to ``(B * n, T / n, ...)`` with ``n = max(T // frames_per_clip, 1)``, the clip index inside.

    Raises:
        ValueError: the frames do not divide into ``n`` clips.
    """
    batch, frames = video.shape[:2]
    clips = max(frames // frames_per_clip, 1)
    if frames % clips:
        raise ValueError(f'{frames} frames do not divide into {clips} clips; cut them to {clips * frames_per_clip}')
    return video.reshape(batch * clips, frames // clips, *video.shape[2:])


def merge_clips(output: ClassificationOutput, batch_size: int) -> ClassificationOutput:
    """One answer per video from clips in the order of :func:`split_clips`: mean logits, mean probabilities."""
    logits, probs = (x.view(batch_size, -1, x.shape[-1]).mean(dim=1) for x in (output.logits, output.probs))
    return ClassificationOutput(logits, probs, output.pre_logits.view(batch_size, -1, output.pre_logits.shape[-1]))


def classify_clips(
    model: VideoPerceiver, video: Tensor, frames_per_clip: int, *, task: str = 'classification'
) -> ClassificationOutput:
    """The official protocol: clips see nothing of each other, then their answers are averaged.

    Args:
        video: ``(B, T, 3, H, W)`` normalised.
    """
    clips = split_clips(video, frames_per_clip)
    outputs, _ = model.step(clips, model.start(len(clips), video.device))
    return merge_clips(outputs[task], len(video))
