"""TRecViT blocks that a head adds for itself, on maps of its own."""

from __future__ import annotations

from torch import Tensor, nn

from trecvit_dense.structures import RecurrentState

from .attention import SpatialBlock
from .recurrent_block import RecurrentBlock


class ContextBlocks(nn.Module):
    """Recurrence over time and attention over the frame (arXiv 2412.14294, section 3), for a task's own use.

    A head on a backbone that is shared, or frozen, gets a memory and a view of the whole frame that are its own.

    Args:
        width: Channels of the maps; also of the recurrence.
        depth: Blocks.
        num_heads: Of attention, and blocks of the recurrence's gates.
        mlp_dim: Hidden width of the MLP; None: twice the width.
    """

    def __init__(self, width: int, *, depth: int = 2, num_heads: int = 4, mlp_dim: int | None = None) -> None:
        super().__init__()
        self.temporal = nn.ModuleList(
            RecurrentBlock(width, width, num_heads=num_heads, depth=depth) for _ in range(depth)
        )
        self.spatial = nn.ModuleList(SpatialBlock(width, num_heads, mlp_dim=mlp_dim or 2 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, maps: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Advance by the T frames of ``maps (B, T, C, h, w)``; returns maps of the same shape and the new state."""
        new_state = RecurrentState()
        x = maps.flatten(3).transpose(2, 3)  # (B, T, N, C)
        for index, (temporal, spatial) in enumerate(zip(self.temporal, self.spatial, strict=True)):
            x, memory = temporal(x, state.scope(str(index)) or None)
            new_state.put(str(index), memory)
            x, _ = spatial(x)
        return self.norm(x).transpose(2, 3).unflatten(3, maps.shape[-2:]), new_state
