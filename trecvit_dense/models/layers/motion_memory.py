"""What moved since the last frame, and what was known there: a memory that follows the picture.

Near things move more than far ones when the camera travels: motion is evidence of depth that does not depend on what
the world looks like. The window of similarities between neighbouring frames (a cost volume, as in PWC-Net, CVPR 2018,
section 3) gives the motion and says from where to read the memory, which is then blended with the new frame by a gate
(as in a convolutional GRU, ICLR 2016).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.structures import RecurrentState


class MotionMemory(nn.Module):
    """Motion and memory at one stride.

    The state holds what the last frame looked like and the memory, ``(B, C, h, w)`` each; both are zero before frame 0,
    and then no motion is seen: similarities are zero.

    Args:
        width: Channels of the maps that come in and go out.
        channels: Channels that are compared, and of the memory.
        radius: Cells; motion beyond is not seen.
    """

    offsets: Tensor  # (S, 2) x, y of each shift

    def __init__(self, width: int, *, channels: int = 32, radius: int = 4) -> None:
        super().__init__()
        self.channels, self.radius = channels, radius
        self.embed = nn.Conv2d(width, channels, 3, padding=1)
        self.temperature = nn.Parameter(torch.tensor(2.5))
        side = torch.arange(-radius, radius + 1, dtype=torch.float32)
        offsets = torch.stack(torch.meshgrid(side, side, indexing='ij')[::-1], -1).view(-1, 2)
        self.register_buffer('offsets', offsets, persistent=False)
        # similarity of the best shift, of none, and its spread; motion at two ranges
        self.describe = nn.Conv2d(width + channels + 7, width, 3, padding=1)
        self.gate = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)

    def forward(self, maps: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """Advance by the T frames of ``maps (B, T, C, h, w)``.

        Returns:
            What motion and memory add to the maps, ``(B, T, C, h, w)``; the logits of all shifts
            ``(B, T, (2r + 1)**2, h, w)``, from the frame to the one before it; the new state.
        """
        batch, time = maps.shape[:2]
        looks = self.embed(maps.flatten(0, 1)).unflatten(0, (batch, time)).float()
        last = state.get('looks', torch.zeros_like(looks[:, 0]))
        memory = state.get('memory', torch.zeros_like(looks[:, 0]))
        before = torch.cat([last[:, None], looks[:, :-1]], 1)
        similar = self._compare(looks.flatten(0, 1), before.flatten(0, 1)).unflatten(0, (batch, time))
        logits = similar * self.temperature.exp()
        shares = logits.softmax(2)
        memories = []
        for t in range(time):
            memory = self._remember(self._read(memory, shares[:, t]), looks[:, t])
            memories.append(memory)
        cues = torch.cat([maps.float(), torch.stack(memories, 1), self._motion(shares, similar)], 2)
        added = self.describe(cues.flatten(0, 1).to(maps.dtype)).unflatten(0, (batch, time))
        return added, logits, RecurrentState(looks=looks[:, -1], memory=memory)

    def _compare(self, now: Tensor, before: Tensor) -> Tensor:
        """Cosine of every cell with those around it one frame before, ``(N, S, h, w)``; 0 outside the picture."""
        now, before = (F.normalize(part, dim=1, eps=1e-4) for part in (now, before))
        height, width = now.shape[-2:]
        keys = self._rows(before).transpose(2, 3)  # (N, h, C, side * W)
        pairs = now.permute(0, 2, 3, 1) @ keys  # (N, h, w, side * W)
        pairs = pairs.unflatten(3, (2 * self.radius + 1, -1)).transpose(2, 3)  # (N, h, side, w, W)
        return from_band(pairs).permute(0, 2, 4, 1, 3).reshape(len(now), -1, height, width)

    def _read(self, memory: Tensor, shares: Tensor) -> Tensor:
        """Mean of what lies around each cell of ``memory (N, C, h, w)``, weighed by ``shares (N, S, h, w)``."""
        side = 2 * self.radius + 1
        band = to_band(shares.unflatten(1, (side, side)).permute(0, 3, 1, 4, 2))  # (N, h, side, w, W)
        return (band.transpose(2, 3).flatten(3) @ self._rows(memory)).permute(0, 3, 1, 2)

    def _rows(self, maps: Tensor) -> Tensor:
        """Of every row of ``maps (N, C, h, w)`` those within the radius, W = w + 2r wide: ``(N, h, side * W, C)``.

        A row of cells is compared with these rows as a whole: more products than windows need, but as matrices, which
        takes a tenth of the time and less memory than a window for each cell.
        """
        around = F.pad(maps, (self.radius,) * 4).permute(0, 2, 3, 1)  # (N, H, W, C)
        return around.unfold(1, 2 * self.radius + 1, 1).permute(0, 1, 4, 2, 3).flatten(2, 3)

    def _remember(self, carried: Tensor, looks: Tensor) -> Tensor:
        keep, new = self.gate(torch.cat([carried, looks], 1)).chunk(2, 1)
        return torch.lerp(new.tanh(), carried, keep.sigmoid())

    def _motion(self, shares: Tensor, similar: Tensor) -> Tensor:
        """Per cell: motion x, y in cells, plain and squeezed; best similarity, that of no motion, spread."""
        offsets = self.offsets.to(shares)
        flow = torch.einsum('btshw,sk->btkhw', shares, offsets)
        square = torch.einsum('btshw,s->bthw', shares, offsets.square().sum(1))
        spread = (square - flow.square().sum(2)).clamp(min=1e-6).sqrt()  # no infinite slope at 0
        best, still = similar.amax(2), similar[:, :, len(offsets) // 2]
        extras = torch.stack([best, still, spread / self.radius], 2)
        return torch.cat([flow / self.radius, (2 * flow).tanh(), extras], 2)


def to_band(windows: Tensor) -> Tensor:
    """``(..., w, side)`` to ``(..., w, w + side - 1)`` in which row ``x`` begins at column ``x``; 0 elsewhere."""
    width, side = windows.shape[-2:]
    flat = F.pad(windows, (0, width)).flatten(-2)  # rows of w + side: one more than wanted, so each shifts by one
    return flat[..., :-width].unflatten(-1, (width, width + side - 1))


def from_band(band: Tensor) -> Tensor:
    """Inverse of :func:`to_band`; what is off the band is lost."""
    width, wide = band.shape[-2:]
    return F.pad(band.flatten(-2), (0, width)).unflatten(-1, (width, wide + 1))[..., : wide - width + 1]
