"""Maps of inverse depth and of how well it is known: joining, doubting, correcting and smoothing them.

A map is ``(B, M)`` inverse depth over the M cells of a grid and ``(B, M)`` precision, one over its variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_ENOUGH = 4.0  # information on log depth at which a value counts half
_REACH = 0.08  # of the width: how far a point speaks for its surroundings
_FEW = 8  # points; fewer do not say how good a map is


@dataclass
class CellGrid:
    """The cells of a map and the camera that sees them.

    Args:
        size: ``(H, W)`` of the frame in pixels.
        grid: ``(h, w)`` cells.
        focal: Focal length in pixels; the principal point is the middle.
        place: ``(M, 2)`` x, y in pixels of the middle of every cell.
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    focal: float
    place: Tensor

    @classmethod
    def of(cls, size: tuple[int, int], grid: tuple[int, int], focal: float, like: Tensor) -> CellGrid:
        y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing='ij')
        place = torch.stack([(x + 0.5) * size[1] / grid[1], (y + 0.5) * size[0] / grid[0]], -1)
        return cls(size, grid, focal, place.view(-1, 2).to(like))

    @property
    def extent(self) -> Tensor:
        """``(2,)`` width and height in pixels."""
        return self.place.new_tensor([self.size[1], self.size[0]])

    def rays(self, place: Tensor) -> Tensor:
        """``(..., 2)`` pixels to ``(..., 3)`` rays of depth 1."""
        flat = (place - self.extent / 2) / self.focal
        return torch.cat([flat, torch.ones_like(flat[..., :1])], -1)

    def normalised(self, place: Tensor) -> Tensor:
        """``(..., 2)`` pixels to the coordinates of ``grid_sample``."""
        return 2 * place / self.extent - 1


@dataclass
class KnownPoints:
    """Points of one frame whose depth is known, as judges of a map and as part of it.

    Args:
        cells: The grid of the map.
        place: ``(B, N, 2)`` x, y in pixels.
        inverse: ``(B, N)`` inverse depth.
        information: ``(B, N)`` one over its variance; 0 for a free slot.
        known: ``(B, N)`` bool: those that may judge.
        unit: ``(B, 1)`` typical inverse depth.
    """

    cells: CellGrid
    place: Tensor
    inverse: Tensor
    information: Tensor
    known: Tensor
    unit: Tensor

    def __post_init__(self) -> None:
        square = torch.cdist(self.cells.place.expand(len(self.place), -1, -1), self.place).square()
        near = torch.exp(-square / (2 * (_REACH * self.cells.size[1]) ** 2)) * self.known[:, None]
        self.near = near  # (B, M, N)
        self.enough = self.known.sum(1, keepdim=True) >= _FEW

    def _excess(self, inverse: Tensor, lowest: float) -> Tensor:
        """``(B, N)`` log of the map over that of the points, 0 where there is no judge."""
        field = inverse.unflatten(1, self.cells.grid)[:, None]
        place = self.cells.normalised(self.place)[:, None]
        there = F.grid_sample(field, place, align_corners=False, padding_mode='border')[:, 0, 0]
        excess = torch.maximum(there, lowest * self.unit).log() - self.inverse.clamp(min=1e-6).log()
        return torch.where(self.known, excess, 0)

    def doubted(self, inverse: Tensor, precision: Tensor) -> Tensor:
        """The precision of a map, lowered by how far it is from the points around."""
        square = self._excess(inverse, 0.05).clamp(-2, 2).square()
        typical = 2 * weighted_median(square, self.known.to(square))[:, None]
        around = (torch.einsum('bmn,bn->bm', self.near, square) + 0.5 * typical) / (self.near.sum(2) + 0.5)
        return torch.where(self.enough, precision / (1 + 2 * precision * inverse.square() * around), precision)

    def corrected(self, inverse: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """The map, bent to go through the points."""
        inverse_ = torch.maximum(inverse, 0.1 * self.unit)
        excess = self._excess(inverse_, 0.05).clamp(-1, 1)
        around = torch.einsum('bmn,bn->bm', self.near, excess) / (self.near.sum(2) + 0.5)
        around = torch.where(self.enough, around, 0)
        return inverse * (-around).exp(), precision * (2 * around).exp()

    def as_map(self) -> tuple[Tensor, Tensor]:
        """A map that knows the cells of the points alone."""
        height, width = self.cells.grid
        share = (self.place / self.cells.extent).clamp(0, 1 - 1e-6)
        index = (share[..., 1] * height).long() * width + (share[..., 0] * width).long()  # (B, N)
        worth = blunted(self.inverse, self.information, 0.05)
        nothing = torch.zeros(len(index), height * width).to(worth)
        precision = nothing.scatter_add(1, index, worth)
        return nothing.scatter_add(1, index, worth * self.inverse) / precision.clamp(min=1e-9), precision


def blunted(inverse: Tensor, precision: Tensor, share: float | Tensor) -> Tensor:
    """The precision, if the standard deviation is at least ``share`` of the inverse depth, added in squares."""
    return precision / (1 + precision * (share * inverse).square())


def joined(first: Tensor, first_worth: Tensor, second: Tensor, second_worth: Tensor) -> tuple[Tensor, Tensor]:
    """Two estimates and their precisions as one; where they contradict each other, the older counts less."""
    clash = (first - second).square() / (1 / first_worth.clamp(min=1e-9) + 1 / second_worth.clamp(min=1e-9))
    first_worth = first_worth / (1 + clash / 4)
    total = first_worth + second_worth
    mean = (first * first_worth + second * second_worth) / total.clamp(min=1e-9)
    return torch.where(total > 1e-9, mean, first), total


def trust(inverse: Tensor, precision: Tensor, unit: Tensor) -> Tensor:
    """From 0 (nothing known) to 1, by what is known of the logarithm."""
    information = precision * torch.maximum(inverse, 0.3 * unit).square()
    return information / (information + _ENOUGH)


def smoothed(
    inverse: Tensor, precision: Tensor, brightness: Tensor, unit: Tensor, grid: tuple[int, int], reach: int = 3
) -> tuple[Tensor, Tensor]:
    """Every value with what its neighbours of like ``brightness (B, M)``, in grey levels, know (joint bilateral)."""
    side = 2 * reach + 1

    def around(values: Tensor, mode: str) -> Tensor:
        padded = F.pad(values.unflatten(1, grid)[:, None], (reach,) * 4, mode=mode)
        return F.unfold(padded, side)  # (B, side * side, M)

    alike = torch.exp(-((around(brightness, 'replicate') - brightness[:, None]) / 12).square())
    y, x = torch.meshgrid(*(torch.arange(side, device=inverse.device) - reach,) * 2, indexing='ij')
    alike = alike * torch.exp(-(x.square() + y.square()).flatten() / 8)[:, None]
    weight = alike * around(torch.minimum(precision, 100 / unit.square()), 'constant')
    mean = (weight * around(inverse, 'replicate')).sum(1) / weight.sum(1).clamp(min=1e-9)
    return mean, 2 * weight.sum(1) / alike.sum(1)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """``(..., M)`` each; ``(...)``, 0 where all weights are 0."""
    ordered, order = values.sort(-1)
    reached = weights.gather(-1, order).cumsum(-1)
    index = (reached < reached[..., -1:] / 2).sum(-1, keepdim=True).clamp(max=values.shape[-1] - 1)
    return torch.where(reached[..., -1] > 0, ordered.gather(-1, index)[..., 0], 0)
