"""Losses of a segmentation head: cross-entropy over background and objects, and Dice of each object.

Both can be taken at sampled points where they would not fit (PointRend, arXiv 1912.08193, section 3.1; Mask2Former,
arXiv 2112.01527, section 3.3), and the cross-entropy over the hardest pixels alone (bootstrapping, as in STCN,
arXiv 2106.05210, section 4). K objects, cells ``(h, w)``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.registry import MODELS


def _spread(flags: Tensor, like: Tensor) -> Tensor:
    """``flags (B, T, K)`` with as many dimensions as ``like (B, T, K, ...)``."""
    return flags.view(*flags.shape, *(1,) * (like.ndim - flags.ndim))


def target_distribution(shares: Tensor, active: Tensor) -> Tensor:
    """Truth over background and objects ``(B, T, K + 1, ...)``; an object that is not followed is background.

    Args:
        shares: ``(B, T, K, ...)`` in [0, 1], how much of a cell, or whether of a point, each object covers.
        active: ``(B, T, K)`` bool.
    """
    objects = shares * _spread(active, shares)
    objects = objects / objects.sum(2, keepdim=True).clamp(min=1)
    return torch.cat([1 - objects.sum(2, keepdim=True), objects], 2)


def without_inactive(probabilities: Tensor, active: Tensor) -> Tensor:
    """``probabilities (B, T, K + 1, ...)`` with nothing for the objects that are not ``active (B, T, K)``."""
    allowed = torch.cat([torch.ones_like(active[:, :, :1]), active], 2)
    kept = probabilities * _spread(allowed, probabilities)
    return kept / kept.sum(2, keepdim=True).clamp(min=1e-6)


def counted_cells(known: Tensor, shares: Tensor, active: Tensor, given: Tensor) -> Tensor:
    """Cells ``(B, T, h, w)`` bool on which the model had to decide.

    Not counted: cells without truth (``known (B, T, h, w)``: void, padding, frames without annotation), frames on which
    every object was just given or none is followed, and the masks given on a frame, which the output repeats.
    """
    decided = (active & ~given).any(2)[..., None, None]
    repeated = (shares * (given & active)[..., None, None]).sum(2) > 0
    return known & decided & ~repeated


def cell_cross_entropy(probabilities: Tensor, target: Tensor) -> Tensor:
    """``(B, T, ...)`` from two distributions ``(B, T, K + 1, ...)``."""
    return -(target * probabilities.clamp(min=1e-6).log()).sum(2)


def hardest_mean(values: Tensor, counted: Tensor, fraction: float = 1.0) -> Tensor:
    """Mean of the largest ``fraction`` of the counted values of every frame; zero where nothing counts.

    Args:
        values: ``(B, T, ...)``, not negative.
        counted: ``(B, T, ...)`` bool.
    """
    values, counted = values.flatten(2), counted.flatten(2)
    if fraction >= 1:
        return (values * counted).sum() / counted.sum().clamp(min=1)
    number = counted.sum(2)  # (B, T)
    number = torch.where(number > 0, (number * fraction).long().clamp(min=1), 0)
    largest = values.masked_fill(~counted, -1).topk(max(int(number.max()), 1)).values
    chosen = torch.arange(largest.shape[2], device=values.device) < number[..., None]
    return (largest * chosen).sum() / chosen.sum().clamp(min=1)


def dice_loss(probabilities: Tensor, shares: Tensor, known: Tensor, counted: Tensor) -> Tensor:
    """Soft Dice, ``1 - (2 p.g + 1) / (p + g + 1)``, mean over the counted objects of all frames.

    Args:
        probabilities: ``(B, T, K, ...)``.
        shares: ``(B, T, K, ...)`` truth.
        known: ``(B, T, ...)`` bool, cells or points that have truth.
        counted: ``(B, T, K)`` bool.
    """
    known = known.flatten(2)[:, :, None]  # (B, T, 1, N)
    p, g = probabilities.flatten(3) * known, shares.flatten(3) * known
    dice = 1 - (2 * (p * g).sum(-1) + 1) / (p.sum(-1) + g.sum(-1) + 1)
    counted = counted & known.any(-1)
    return (dice * counted).sum() / counted.sum().clamp(min=1)


def uncertain_points(
    probabilities: Tensor,
    counted: Tensor,
    num_points: int,
    *,
    oversample: float = 3.0,
    importance: float = 0.75,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random points, more of them where the two best labels are close (PointRend, section 3.1).

    ``oversample * num_points`` points are drawn, the ``importance * num_points`` most uncertain of them kept, and the
    rest drawn evenly.

    Args:
        probabilities: ``(N, K + 1, h, w)``.
        counted: ``(N, h, w)`` bool; points elsewhere come last.

    Returns:
        ``(N, num_points, 2)`` x, y in [0, 1] of the map's extent.
    """
    frames, device = len(probabilities), probabilities.device
    important = round(importance * num_points)
    drawn = max(round(oversample * num_points), important)
    xy = torch.rand(frames, drawn, 2, generator=generator, device=device)
    with torch.no_grad():
        best = sample_points(probabilities, xy).topk(min(2, probabilities.shape[1]), 1).values
        certainty = best[:, 0] - best[:, -1]  # (N, drawn)
        certainty = certainty + 2.0 * (sample_points(counted[:, None].float(), xy)[:, 0] < 0.999)
    chosen = certainty.topk(important, largest=False).indices[..., None].expand(-1, -1, 2)
    even = torch.rand(frames, num_points - important, 2, generator=generator, device=device)
    return torch.cat([xy.gather(1, chosen), even], 1)


def sample_points(maps: Tensor, xy: Tensor) -> Tensor:
    """Bilinear samples of ``maps (N, C, h, w)`` at ``xy (N, P, 2)`` in [0, 1]: ``(N, C, P)``."""
    sampled = F.grid_sample(maps.float(), xy[:, :, None] * 2 - 1, padding_mode='border', align_corners=False)
    return sampled[..., 0]


@MODELS.register_module()
class MaskLoss(nn.Module):
    """Cross-entropy and Dice of a :class:`MaskOutput`; the frame on which an object is given does not count for it.

    Args:
        ce_weight, dice_weight: Factors of the two losses.
        num_points: Points sampled in every frame; None: all cells.
        oversample, importance: See :func:`uncertain_points`.
        hardest: Share of a frame's pixels, the hardest ones, that make the cross-entropy in the end (STCN: 0.15).
        warm_up: Iterations ``(start, end)`` between which that share falls from 1 to ``hardest`` (STCN: 20000, 70000).
            They are counted in a buffer, so a resumed training goes on where it was.

    Raises:
        ValueError: a share outside (0, 1], or a warm-up that ends before it starts.
    """

    iteration: Tensor

    def __init__(
        self,
        *,
        ce_weight: float = 1.0,
        dice_weight: float = 1.0,
        num_points: int | None = None,
        oversample: float = 3.0,
        importance: float = 0.75,
        hardest: float = 1.0,
        warm_up: tuple[int, int] = (20000, 70000),
    ) -> None:
        super().__init__()
        if not 0 < hardest <= 1:
            raise ValueError(f'hardest is {hardest}; wanted a share of the pixels, above 0 and at most 1')
        if warm_up[1] < warm_up[0]:
            raise ValueError(f'warm_up is {tuple(warm_up)}; wanted (start, end) with end after start')
        if not 0 <= importance <= 1 or oversample < 1:
            raise ValueError(
                f'importance is {importance} and oversample {oversample}; wanted a share in [0, 1] and 1 or more'
            )
        self.ce_weight, self.dice_weight = ce_weight, dice_weight
        self.num_points, self.oversample, self.importance = num_points, oversample, importance
        self.hardest, self.warm_up = hardest, tuple(warm_up)
        self.register_buffer('iteration', torch.zeros((), dtype=torch.int64))

    def fraction(self, iteration: int) -> float:
        """Share of the pixels that makes the cross-entropy at an iteration."""
        start, end = self.warm_up
        if iteration < start:
            return 1.0
        left = (end - iteration) / max(end - start, 1)
        return self.hardest + (1 - self.hardest) * min(max(left, 0.0), 1.0)

    def forward(
        self, probabilities: Tensor, active: Tensor, given: Tensor, shares: Tensor, known: Tensor
    ) -> dict[str, Tensor]:
        """``loss_ce`` and ``loss_dice``, scalars; zero where nothing counts.

        Args:
            probabilities: ``(B, T, K + 1, h, w)`` distribution over background and objects.
            active: ``(B, T, K)`` bool, the object is followed.
            given: ``(B, T, K)`` bool, its mask was given on this frame.
            shares: ``(B, T, K, h, w)`` in [0, 1], how much of a cell the object covers.
            known: ``(B, T, h, w)`` bool, cells that have truth (not void, 255).
        """
        probabilities = without_inactive(probabilities.float(), active)
        cells = counted_cells(known, shares, active, given)
        if self.num_points is not None:
            probabilities, shares, known, cells = self._at_points(probabilities, shares, known, cells)
        fraction = self.fraction(int(self.iteration)) if self.hardest < 1 else 1.0
        if self.training:
            self.iteration += 1
        entropy = cell_cross_entropy(probabilities, target_distribution(shares, active))
        return dict(
            loss_ce=self.ce_weight * hardest_mean(entropy, cells, fraction),
            loss_dice=self.dice_weight * dice_loss(probabilities[:, :, 1:], shares, known, active & ~given),
        )

    def _at_points(self, probabilities: Tensor, shares: Tensor, known: Tensor, cells: Tensor) -> tuple[Tensor, ...]:
        """All four at the same points: ``(B, T, K + 1, P)``, ``(B, T, K, P)``, ``(B, T, P)`` twice."""
        flat = [part.flatten(0, 1) for part in (probabilities, shares, known[:, :, None], cells[:, :, None])]
        xy = uncertain_points(
            flat[0], cells.flatten(0, 1), self.num_points, oversample=self.oversample, importance=self.importance
        )
        p, truth, there, counted = (sample_points(part, xy).unflatten(0, probabilities.shape[:2]) for part in flat)
        return p, truth, there[:, :, 0] > 0.999, counted[:, :, 0] > 0.999
