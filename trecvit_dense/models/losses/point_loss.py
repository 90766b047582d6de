"""Losses of a point tracker with coordinate bins (TAPNext, arXiv 2504.05579; TAPNext++, arXiv 2604.10582).

Coordinates are ``(y, x)`` in *model space*: ``num_bins * bin_size`` units along each axis of the image, 256 in the
released models. Element-wise functions return ``(B, T, Q)``; :class:`TAPNextLoss` masks, weighs and adds them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.registry import MODELS


def huber_distance(
    pred_yx: Tensor, target_yx: Tensor, *, extent: float = 256.0, unit: float = 1.0, delta: float = 1.0
) -> Tensor:
    """Huber of the Euclidean distance: quadratic below ``delta``, linear above.

    Args:
        pred_yx: ``(B, T, Q, 2)`` model space.
        target_yx: ``(B, T, Q, 2)``; clipped to ``[0, extent - unit]``.
        extent: Length of model space.
        unit: Size of one bin.
    """
    offset = pred_yx - target_yx.clamp(0, extent - unit)
    squared = offset.square().sum(-1)
    # The root is taken of a value that is safe for the branch not chosen: sqrt'(0) would turn the gradient into NaN.
    far = squared > delta**2
    distance = torch.where(far, squared, torch.ones_like(squared)).sqrt()
    return torch.where(far, delta * (distance - delta / 2), squared / 2)


def coordinate_labels(target_yx: Tensor, num_bins: int, bin_size: float = 1.0) -> Tensor:
    """Bin indices ``(B, T, Q, 2)``: the bin whose centre ``(k + 0.5) * bin_size`` is nearest, ties to even."""
    return (target_yx / bin_size - 0.5).clamp(0, num_bins - 1).round().long()


def coordinate_cross_entropy(logits: Tensor, target_yx: Tensor, *, bin_size: float = 1.0) -> Tensor:
    """Cross-entropy of both axes, added.

    Args:
        logits: ``(B, T, Q, 2, num_bins)``, axes y, x, temperature 1.
        target_yx: ``(B, T, Q, 2)`` model space.
    """
    labels = coordinate_labels(target_yx, logits.shape[-1], bin_size)
    log_p = logits.float().log_softmax(-1)
    return -log_p.gather(-1, labels[..., None])[..., 0].sum(-1)


def visibility_bce(visible_logits: Tensor, visible: Tensor) -> Tensor:
    """Binary cross-entropy; ``visible`` is ``(B, T, Q)`` in {0, 1}."""
    return F.binary_cross_entropy_with_logits(visible_logits.float(), visible.float(), reduction='none')


def certainty_bce(certainty_logits: Tensor, pred_yx: Tensor, target_yx: Tensor, *, threshold: float = 1.0) -> Tensor:
    """Binary cross-entropy of "the estimate is within ``threshold`` units"; no gradient flows into the estimate."""
    close = (pred_yx.detach() - target_yx).square().sum(-1) <= threshold**2
    return F.binary_cross_entropy_with_logits(certainty_logits.float(), close.float(), reduction='none')


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """``sum(values * weight) / sum(weight)``; zero where nothing has weight."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-8)


@MODELS.register_module()
class TAPNextLoss(nn.Module):
    """Weighted sum over the final estimate and, where given, the estimates of every layer.

    Args:
        huber_weight, ce_weight, visibility_weight: 0.1, 1, 1 in the released training helper.
        certainty_weight: Weight of :func:`certainty_bce`, for a head with a certainty output.
        occluded_weight: Weight of position losses on occluded points; 0 in TAPNext, 0.2 in TAPNext++.
        layer_weight: Weight of the mean of all layers' losses, or one weight per layer. The paper supervises every
            layer; its weights are not public, 1 is ours.
        huber_delta: Distance at which the Huber loss becomes linear, model-space units.
        official_unmasked_ce: The released torch helper averages the cross-entropy over all points, visible or not: a
            default reduction returns a scalar before the mask is applied.
    """

    def __init__(
        self,
        *,
        huber_weight: float = 0.1,
        ce_weight: float = 1.0,
        visibility_weight: float = 1.0,
        certainty_weight: float = 0.0,
        occluded_weight: float = 0.0,
        layer_weight: float | list[float] = 1.0,
        huber_delta: float = 1.0,
        official_unmasked_ce: bool = False,
    ) -> None:
        super().__init__()
        self.weights = dict(huber=huber_weight, ce=ce_weight, visibility=visibility_weight, certainty=certainty_weight)
        self.occluded_weight = occluded_weight
        self.layer_weight = layer_weight
        self.huber_delta = huber_delta
        self.official_unmasked_ce = official_unmasked_ce

    def terms(
        self, estimate: dict[str, Tensor], target_yx: Tensor, visible: Tensor, mask: Tensor | None, bin_size: float
    ) -> dict[str, Tensor]:
        """Unweighted scalars of one estimate.

        Args:
            estimate: ``yx`` ``(B, T, Q, 2)``, ``logits`` ``(B, T, Q, 2, K)``, ``visible_logits`` ``(B, T, Q)`` and
                perhaps ``certainty_logits``.
            target_yx: ``(B, T, Q, 2)``; ``visible``: ``(B, T, Q)``.
            mask: ``(B, T, Q)``, False where nothing is known or asked (padding, before the query). None: all count.
        """
        counted = torch.ones_like(visible, dtype=torch.float32) if mask is None else mask.float()
        seen = visible.float()
        position = counted * (seen + self.occluded_weight * (1 - seen))
        extent = estimate['logits'].shape[-1] * bin_size
        huber = huber_distance(estimate['yx'], target_yx, extent=extent, unit=bin_size, delta=self.huber_delta)
        entropy = coordinate_cross_entropy(estimate['logits'], target_yx, bin_size=bin_size)
        terms = dict(
            huber=weighted_mean(huber, position),
            ce=weighted_mean(entropy, counted if self.official_unmasked_ce else position),
            visibility=weighted_mean(visibility_bce(estimate['visible_logits'], seen), counted),
        )
        if self.weights['certainty'] and 'certainty_logits' in estimate:
            certainty = certainty_bce(estimate['certainty_logits'], estimate['yx'], target_yx, threshold=bin_size)
            terms['certainty'] = weighted_mean(certainty, counted * seen)
        return terms

    def forward(
        self,
        estimates: list[dict[str, Tensor]],
        target_yx: Tensor,
        visible: Tensor,
        mask: Tensor | None = None,
        *,
        bin_size: float = 1.0,
    ) -> dict[str, Tensor]:
        """Losses ``loss_huber``, ``loss_ce`` ... of the last estimate and ``loss_layers`` of those before it.

        Args:
            estimates: Layers in order, the final estimate last; see :meth:`terms`.
        """
        final = self.terms(estimates[-1], target_yx, visible, mask, bin_size)
        losses = {f'loss_{name}': self.weights[name] * value for name, value in final.items()}
        layers = estimates[:-1]
        if layers and self.layer_weight:
            weights = self.layer_weight
            if not isinstance(weights, (list, tuple)):
                weights = [weights / len(layers)] * len(layers)
            if len(weights) != len(layers):
                raise ValueError(f'layer_weight has {len(weights)} values; the backbone gives {len(layers)} layers')
            total = 0.0
            for weight, layer in zip(weights, layers, strict=True):
                terms = self.terms(layer, target_yx, visible, mask, bin_size)
                total = total + weight * sum(self.weights[name] * value for name, value in terms.items())
            losses['loss_layers'] = total
        return losses
