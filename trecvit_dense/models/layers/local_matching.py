"""The most similar cells of some reference frames, within a window: what label propagation is made of.

Neither the affinities of all pairs of cells nor a sort of them is ever held: a tile of the frame is compared with the
part of the references that its windows cover, and only rows that can hold one of the best ``k`` are looked into.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TILE = 8  # cells; the affinities of a tile then stay in the cache of one core


def best_matches(
    frame: Tensor,
    references: Sequence[Tensor],
    sets: Sequence[Sequence[int]],
    *,
    k: int,
    radius: int | None = None,
    nearness: float = 0.0,
) -> list[tuple[Tensor, Tensor]]:
    """For every cell of a frame the ``k`` best cells within each set of references.

    Every pair of frames is compared once, however many sets a reference belongs to.

    Args:
        frame: ``(h, w, C)`` features; their scalar product is the similarity.
        references: R maps ``(h, w, C)``.
        sets: Indices of references; the best matches are sought within each set on its own.
        k: Matches for a cell.
        radius: How far in cells a match may lie along each axis (a square window); None: anywhere.
        nearness: Similarity lost one cell away, growing with the square of the distance: decides between equals.

    Returns:
        For every set the similarities ``(h * w, k)``, best first, and their places ``(h * w, k)`` int64, which are
        ``(i * h + row) * w + column`` of reference ``i``. Where fewer than ``k`` cells are in reach, the similarity of
        the rest is ``-inf``.
    """
    height, width, _ = frame.shape
    radius = max(height, width) if radius is None else radius
    values = [frame.new_full((height, width, k), -torch.inf) for _ in sets]
    places = [torch.zeros(height, width, k, dtype=torch.int64, device=frame.device) for _ in sets]
    biases: dict[tuple[int, ...], Tensor] = {}
    for top in range(0, height, TILE):
        first_row = max(top - radius, 0)
        # columns outermost: the part that a tile needs is then one piece of memory, and nothing is copied for it
        band = torch.stack([part[first_row : top + TILE + radius].transpose(0, 1) for part in references], 1)
        for left in range(0, width, TILE):
            tile = frame[top : top + TILE, left : left + TILE]  # (th, tw, C)
            first_column = max(left - radius, 0)
            keys = band[first_column : left + TILE + radius]  # (kw, R, kh, C)
            key = (*tile.shape[:2], keys.shape[2], keys.shape[0], first_row - top, first_column - left)
            if key not in biases:
                biases[key] = _bias(key[:2], key[2:4], key[4:], radius, nearness).to(frame)
            similar = (tile.flatten(0, 1) @ keys.flatten(0, 2).T).view(-1, *keys.shape[:3]).add_(biases[key])
            peaks = similar.amax(1)  # (n, R, kh): of every row of every reference
            for best, where, members in zip(values, places, sets, strict=True):
                found = _pick(similar, peaks, members, k)
                target = (slice(top, top + TILE), slice(left, left + TILE), slice(found[0].shape[1]))
                column, reference, row = _unravel(found[1], keys.shape[1:3])
                place = (reference * height + row + first_row) * width + column + first_column
                best[target], where[target] = (part.view(*tile.shape[:2], -1) for part in (found[0], place))
    return [(best.flatten(0, 1), where.flatten(0, 1)) for best, where in zip(values, places, strict=True)]


def _bias(tile: Sequence[int], region: Sequence[int], shift: Sequence[int], radius: int, nearness: float) -> Tensor:
    """What is added to a similarity: ``-inf`` outside the window, a little less with distance: ``(n, kw, 1, kh)``."""
    total = torch.zeros(())
    for axis, shape in ((0, (tile[0], 1, 1, 1, region[0])), (1, (1, tile[1], region[1], 1, 1))):
        away = (torch.arange(region[axis]) + shift[axis] - torch.arange(tile[axis])[:, None]).float()  # (t, k)
        total = total + (-nearness * away.square()).masked_fill(away.abs() > radius, -torch.inf).view(shape)
    return total.flatten(0, 1)


def _pick(similar: Tensor, peaks: Tensor, members: Sequence[int], k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of some references, ``(n, k)``, and their indices into ``(kw, R, kh)``.

    They lie in the ``k`` rows with the largest peaks, so only ``k`` rows are searched: 4 times faster.
    """
    _, width, count, height = similar.shape
    if len(members) < count:
        chosen = torch.tensor(members, device=similar.device)
        peaks = peaks[:, chosen]
    row = peaks.flatten(1).topk(min(k, peaks[0].numel()), sorted=False).indices  # (n, k) of (members, kh)
    if len(members) < count:
        row = chosen[row.div(height, rounding_mode='floor')] * height + row % height
    index = row[..., None] + torch.arange(width, device=similar.device) * (count * height)
    values, best = similar.flatten(1).gather(1, index.flatten(1)).topk(min(k, index[0].numel()))
    return values, index.flatten(1).gather(1, best)


def _unravel(index: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The three indices into ``(..., *sizes)`` of a flat one."""
    rest = index.div(sizes[1], rounding_mode='floor')
    return rest.div(sizes[0], rounding_mode='floor'), rest % sizes[0], index % sizes[1]
