"""One number per video, such as LVU's ratio of likes: the decoder of classification, with a squared error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trecvit_dense.models.heads.classification import ClassificationHead, ClassificationOutput
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import VideoSample


@MODELS.register_module()
class RegressionHead(ClassificationHead):
    """The layers of :class:`ClassificationHead` with a single output, the ``logits`` ``(B, 1)`` of its output.

    The target of a sample stands in ``meta['target']``; for LVU see
    :func:`trecvit_dense.evaluation.functional.classification.lvu_like_target`.

    Args:
        backbone_channels: Passed by the perceiver.
        **options: ``rep_size``, ``pool``, ``dropout`` and others of :class:`ClassificationHead`.

    Raises:
        ValueError: an option that only classes have.
    """

    def __init__(self, *, backbone_channels: tuple[int, ...] = (), **options: Any) -> None:
        for key in ('num_classes', 'classes', 'label_smoothing'):
            if key in options:
                raise ValueError(f'RegressionHead gives one number and has no {key}; leave it out')
        super().__init__(1, backbone_channels=backbone_channels, **options)

    def loss(
        self, output: ClassificationOutput, samples: list[VideoSample], scale: tuple[float, float]
    ) -> dict[str, Tensor]:
        """Squared error.

        Raises:
            ValueError: a sample without a target.
        """
        return {'loss_mse': regression_loss(output.logits[:, 0], samples)}

    def predict(
        self, outputs: list[ClassificationOutput], sample: VideoSample, scale: tuple[float, float]
    ) -> dict[str, Any]:
        """``value``, the mean of ``view_values`` ``(V,)``."""
        parts = outputs if 'views' in sample.meta else outputs[-1:]
        values = torch.cat([part.logits[:, 0] for part in parts]).detach().float()
        return dict(value=float(values.mean()), view_values=values)


def regression_loss(values: Tensor, samples: list[VideoSample]) -> Tensor:
    """Mean squared error of ``values`` ``(B,)``.

    Raises:
        ValueError: a sample without a target.
    """
    missing = [sample.name for sample in samples if sample.meta.get('target') is None]
    if missing:
        raise ValueError(f"sample '{missing[0]}' has no meta['target']; regression trains on videos with a number")
    targets = torch.tensor([float(sample.meta['target']) for sample in samples], device=values.device)
    return (values.float() - targets).square().mean()
