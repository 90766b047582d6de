"""Parts of the cost-volume head: its recurrent unit, the geometry of its windows, and the truth it is taught."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Refiner(nn.Module):
    """Gated recurrent unit that turns volume look-ups into a displacement, visibility and certainty.

    Every level and template already proposes a displacement, the mean of its look-up window under a softmax. The unit
    learns whom to trust and adds a correction, so that it can track as soon as the features match.
    """

    def __init__(self, lookup_dim: int, hidden_dim: int, proposals: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Linear(lookup_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, hidden_dim), nn.GELU()
        )
        self.cell = nn.GRUCell(hidden_dim + 4 + 2 * proposals, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.move = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, 2 + proposals))
        self.flags = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, 2))
        nn.init.normal_(self.move[-1].weight, std=1e-3)
        nn.init.zeros_(self.move[-1].bias)

    def forward(self, code: Tensor, proposals: Tensor, motion: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One refinement of R points.

        Args:
            code: ``(R, H)`` encoded look-ups.
            proposals: ``(R, P, 2)`` displacements in cells.
            motion: ``(R, 4)`` way gone on this frame and velocity, in cells.
            hidden: ``(R, H)``.

        Returns:
            Step ``(R, 2)`` in cells and the new hidden state.
        """
        inputs = torch.cat([code, motion, proposals.flatten(1) / 4], -1)
        hidden = self.cell(inputs, hidden)
        correction, trust = self.move(self.norm(hidden)).float().split([2, proposals.shape[1]], -1)
        return correction + (trust.softmax(-1)[..., None] * proposals).sum(1), hidden


def window_offsets(radius: int) -> Tensor:
    """``((2r+1)**2, 2)`` offsets x, y, row by row."""
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.stack(torch.meshgrid(steps, steps, indexing='xy'), -1).flatten(0, 1)


def patch_index(radius: int, patch_radius: int) -> Tensor:
    """For every shift of a window and cell of a patch, the index of that pair among all (patch cell, window cell)."""
    side, reach = 2 * patch_radius + 1, 2 * (radius + patch_radius) + 1
    shifts, cells = (window_offsets(r).long() + r for r in (radius, patch_radius))
    places = shifts[:, None] + cells  # (shifts, cells, 2) in the larger window
    pair = (cells[:, 1] * side + cells[:, 0]) * reach**2 + places[..., 1] * reach + places[..., 0]
    return pair.flatten()


def pick(parts: Tensor, choice: Tensor) -> Tensor:
    """``parts (B, Q, K, ...)`` at ``choice (B, Q)``: ``(B, Q, ...)``."""
    index = choice.view(*choice.shape, *(1,) * (parts.ndim - 2)).expand(-1, -1, 1, *parts.shape[3:])
    return parts.gather(2, index)[:, :, 0]


def stack_targets(samples: list, scale: tuple[float, float], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ground truth of a batch, padded: ``xy (B, T, Q, 2)`` model pixels; ``visible``, ``known`` ``(B, T, Q)`` bool."""
    batch, time, count, _ = like.shape
    xy = torch.zeros(batch, time, count, 2)
    visible = torch.zeros(batch, time, count, dtype=torch.bool)
    known = torch.zeros(batch, time, count, dtype=torch.bool)
    for row, sample in enumerate(samples):
        points = sample.points.scaled(*scale)
        xy[row, :, : len(points)] = torch.from_numpy(points.xy_px).float().transpose(0, 1)
        visible[row, :, : len(points)] = torch.from_numpy(points.visible).T
        known[row, :, : len(points)] = True
    return xy.to(like.device), visible.to(like.device), known.to(like.device)
