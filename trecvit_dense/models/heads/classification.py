"""Video classification, the decoder of TRecViT (arXiv 2412.14294, section 3.3): a mean over frames that streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trecvit_dense.models.heads.base import Head
from trecvit_dense.models.layers.embedding import lecun_normal_
from trecvit_dense.models.losses.classification import classification_loss
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
            ``'last'``: the class token of the last frame alone, for backbones in which it stands for all frames so far
            (ViS4mer).
        token_dim: Width of the class token, where it is not that of the last level.
        label_smoothing: Of the cross-entropy.
        dropout: On the representation, in training.
        classes: Names of the classes, in order; answers then carry them.
        backbone_channels, backbone_strides: Passed by the perceiver.

    Raises:
        ValueError: an unknown ``pool``, or names that do not fit.
    """

    reads_views = True

    def __init__(
        self,
        num_classes: int,
        *,
        rep_size: int | None = 3072,
        pool: str = 'tok',
        token_dim: int | None = None,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        classes: Sequence[str] | None = None,
        backbone_channels: tuple[int, ...] = (),
        backbone_strides: tuple[tuple[float, float], ...] = (),
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        if pool not in ('tok', 'gap', 'last'):
            raise ValueError(
                f"pool is '{pool}'; wanted 'tok' (class token), 'last' (that of the last frame) or 'gap' (mean of the "
                f'patches)'
            )
        width = self.backbone_channels[-1] if token_dim is None or pool == 'gap' else token_dim
        self.num_classes, self.rep_size, self.pool = num_classes, rep_size or width, pool
        self.class_token_dim = None if pool == 'gap' else width
        self.label_smoothing, self.classes = label_smoothing, check_classes(classes, num_classes)
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
        frames = state['frames'] + pooled.shape[1]
        if self.pool == 'last':
            total = mean = pooled[:, -1].float()
        else:
            total = state['sum'] + pooled.float().sum(dim=1)
            mean = total / frames[:, None]
        logits = self.classifier(self.dropout(mean)).float()
        output = ClassificationOutput(logits, logits.softmax(dim=-1), mean[:, None])
        return output, RecurrentState(sum=total, frames=frames)

    def _pool(self, features: Features) -> Tensor:
        if self.pool == 'gap':
            return features.levels[-1].tokens.mean(dim=2)
        if features.class_token is None:
            raise ValueError(
                f"pool='{self.pool}' needs a backbone with class_token=True; this one has none (or pool='gap')"
            )
        return features.class_token

    def join(self, outputs: list[ClassificationOutput]) -> ClassificationOutput:
        """The last one, which answers for all frames."""
        return outputs[-1]

    def loss(
        self, output: ClassificationOutput, samples: list[VideoSample], scale: tuple[float, float]
    ) -> dict[str, Tensor]:
        """Cross-entropy with the samples' labels, or with what mixup and cutmix made of them."""
        return {'loss_cls': classification_loss(output.logits, samples, label_smoothing=self.label_smoothing)}

    def predict(
        self, outputs: list[ClassificationOutput], sample: VideoSample, scale: tuple[float, float]
    ) -> dict[str, Any]:
        """The answer for one video after its last frame.

        Args:
            outputs: Of all steps; where ``sample.meta['views']`` says that the video was cut into views, of each group
                of views, in order.

        Returns:
            ``probs`` and ``logits`` ``(num_classes,)``, means over the V views of ``view_probs`` and ``view_logits``
            ``(V, num_classes)``; ``label``, the likeliest class, and ``class_name`` (None without names).
        """
        parts = outputs if 'views' in sample.meta else outputs[-1:]
        logits, probs = (torch.cat([getattr(part, name) for part in parts]).float() for name in ('logits', 'probs'))
        label = int(probs.mean(dim=0).argmax())
        return dict(
            logits=logits.mean(dim=0),
            probs=probs.mean(dim=0),
            view_logits=logits,
            view_probs=probs,
            label=label,
            class_name=None if self.classes is None else self.classes[label],
        )


def check_classes(classes: Sequence[str] | None, num_classes: int) -> tuple[str, ...] | None:
    """The names of the classes.

    Raises:
        ValueError: one string, another number of names than classes, or a name that occurs twice.
    """
    if classes is None:
        return None
    if isinstance(classes, str):
        raise ValueError(f"classes is the text '{classes}'; wanted a list of {num_classes} names")
    names = tuple(str(name) for name in classes)
    if len(names) != num_classes:
        raise ValueError(f'classes has {len(names)} names; num_classes is {num_classes}, wanted one name for each')
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"classes names '{twice[0]}' twice; wanted a name of its own for each class")
    return names


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
