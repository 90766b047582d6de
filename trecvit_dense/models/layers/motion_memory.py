"""What moved since the last frame, and what was known there: a memory that follows the picture.

Near things move more than far ones when the camera travels: motion is evidence of depth that does not depend on what
the world looks like. Similarities of neighbouring frames give the motion from coarse to fine (a cost volume at each of
two strides, the second one around what the first has found, as in PWC-Net, CVPR 2018, section 3). The motion says from
where to read the memory, which is then blended with the new frame by a gate (as in a convolutional GRU, ICLR 2016).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.structures import RecurrentState

_CUES = 10


class MotionMemory(nn.Module):
    """Motion and memory at one stride, and the same motion at half of it.

    The state holds what the last frame looked like at both strides and the memory, ``(B, C, h, w)`` each; all are zero
    before frame 0, and then no motion is seen: similarities are zero.

    Args:
        width, fine_width: Channels of the maps that come in and go out.
        channels: Channels that are compared, and of the memory.
        radius: Cells; motion beyond is not seen.
        fine_radius: Fine cells by which the fine motion may differ from the coarse one.
    """

    offsets: Tensor  # (S, 2) x, y of each shift

    def __init__(
        self, width: int, fine_width: int, *, channels: int = 32, radius: int = 4, fine_radius: int = 2
    ) -> None:
        super().__init__()
        self.channels, self.radius, self.fine_radius = channels, radius, fine_radius
        self.embed = nn.Conv2d(width, channels, 3, padding=1)
        self.fine_embed = nn.Conv2d(fine_width, channels, 3, padding=1)
        self.temperature = nn.Parameter(torch.tensor(2.5))
        self.register_buffer('offsets', window_offsets(radius), persistent=False)
        windows = (2 * fine_radius + 1) ** 2
        self.refine = nn.Sequential(
            nn.Conv2d(windows + channels + 4, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 3, 3, padding=1),
        )
        self.describe = nn.Conv2d(width + channels + _CUES, width, 3, padding=1)
        self.fine_describe = nn.Conv2d(6, fine_width, 3, padding=1)
        self.gate = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)

    def forward(
        self, maps: Tensor, fine_maps: Tensor, state: RecurrentState
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], RecurrentState]:
        """Advance by the T frames of ``maps (B, T, C, h, w)`` and ``fine_maps (B, T, C', 2h, 2w)``.

        Returns:
            What motion and memory add to both maps; the motion to the frame before at both strides, ``(B, T, h, w, 2)``
            x, y in cells of that stride; the new state.
        """
        shape = maps.shape[:2]
        looks = self.embed(maps.flatten(0, 1)).unflatten(0, shape).float()
        fine_looks = self.fine_embed(fine_maps.flatten(0, 1)).unflatten(0, shape).float()
        similar = self._compare(looks, state.get('looks'))  # (B*T, S, h, w)
        shares = (similar * self.temperature.exp()).softmax(1)
        coarse = torch.einsum('nshw,sk->nkhw', shares, self.offsets)
        fine, sure = self._refine(coarse, fine_looks, state.get('fine_looks'))
        motion = F.adaptive_avg_pool2d(fine, coarse.shape[-2:]) / 2
        weight = F.adaptive_avg_pool2d(sure, coarse.shape[-2:])
        parallax = motion - planar_motion(motion, weight)
        memories = self._remember_all(motion, looks, state.get('memory'))
        cues = self._cues(motion, parallax, weight, shares, coarse, similar)
        added = self.describe(torch.cat([maps.flatten(0, 1).float(), memories.flatten(0, 1), cues], 1).to(maps.dtype))
        fine_parallax = F.interpolate(parallax * 2, fine.shape[-2:], mode='bilinear', align_corners=False)
        fine_cues = torch.cat([fine / self.radius, fine_parallax / self.radius, (2 * fine_parallax).tanh()], 1)
        fine_added = self.fine_describe((fine_cues * sure).to(maps.dtype))
        motions = tuple(flow.unflatten(0, shape).permute(0, 1, 3, 4, 2) for flow in (coarse, fine))
        new_state = RecurrentState(looks=looks[:, -1], fine_looks=fine_looks[:, -1], memory=memories[:, -1])
        return added.unflatten(0, shape), fine_added.unflatten(0, shape), motions, new_state

    def _compare(self, looks: Tensor, last: Tensor | None) -> Tensor:
        """Cosine of every cell with those around it one frame before, ``(B*T, S, h, w)``; 0 outside the picture."""
        return compare(*(F.normalize(part, dim=1, eps=1e-4) for part in _pairs(looks, last)), self.radius)

    def _refine(self, coarse: Tensor, looks: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        """Motion ``(B*T, 2, 2h, 2w)`` in fine cells and how sure it is, ``(B*T, 1, 2h, 2w)`` in (0, 1)."""
        now, before = (F.normalize(part, dim=1, eps=1e-4) for part in _pairs(looks, last))
        start = 2 * F.interpolate(coarse, now.shape[-2:], mode='bilinear', align_corners=False)
        similar = compare(now, follow(before, start), self.fine_radius)
        offsets = window_offsets(self.fine_radius).to(similar)
        nudge = torch.einsum('nshw,sk->nkhw', (similar * self.temperature.exp()).softmax(1), offsets)
        step = self.refine(torch.cat([similar, now, start / self.radius, nudge], 1))
        return start + nudge + step[:, :2], step[:, 2:].sigmoid()

    def _remember_all(self, motion: Tensor, looks: Tensor, memory: Tensor | None) -> Tensor:
        """The memory after every frame, ``(B, T, C, h, w)``."""
        memory = torch.zeros_like(looks[:, 0]) if memory is None else memory
        memories = []
        for flow, look in zip(motion.unflatten(0, looks.shape[:2]).unbind(1), looks.unbind(1), strict=True):
            carried = follow(memory, flow)
            keep, new = self.gate(torch.cat([carried, look], 1)).chunk(2, 1)
            memory = torch.lerp(new.tanh(), carried, keep.sigmoid())
            memories.append(memory)
        return torch.stack(memories, 1)

    def _cues(
        self, motion: Tensor, parallax: Tensor, weight: Tensor, shares: Tensor, mean: Tensor, similar: Tensor
    ) -> Tensor:
        """Per cell: motion and parallax, plain and squeezed; best similarity, that of no motion, spread, how sure."""
        square = torch.einsum('nshw,s->nhw', shares, self.offsets.square().sum(1))
        spread = (square - mean.square().sum(1)).clamp(min=1e-6).sqrt()  # no infinite slope at 0
        best, still = similar.amax(1), similar[:, len(self.offsets) // 2]
        extras = torch.stack([best, still - best, spread / self.radius, weight[:, 0]], 1)
        return torch.cat([motion / self.radius, parallax / self.radius, (2 * parallax).tanh(), extras], 1)


def _pairs(looks: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
    """Every frame of ``(B, T, C, h, w)`` and the one before it, ``(B*T, C, h, w)`` each."""
    first = torch.zeros_like(looks[:, :1]) if last is None else last[:, None]
    return looks.flatten(0, 1), torch.cat([first, looks[:, :-1]], 1).flatten(0, 1)


def follow(maps: Tensor, motion: Tensor) -> Tensor:
    """``maps (N, C, h, w)`` read where each cell came from, ``motion (N, 2, h, w)`` in cells; 0 outside."""
    height, width = maps.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    place = torch.stack([x, y]).to(motion) + motion + 0.5  # (N, 2, h, w)
    size = place.new_tensor([width, height]).view(1, 2, 1, 1)
    return F.grid_sample(maps, (2 * place / size - 1).permute(0, 2, 3, 1), align_corners=False)


def planar_motion(motion: Tensor, weight: Tensor) -> Tensor:
    """The motion that one plane would show, fitted by weighted least squares: what is left over is parallax.

    A camera that turns, and one that travels before a plane, move the picture by the same eight numbers, quadratic in
    the place (Longuet-Higgins and Prazdny, 1980): neither focal length nor travel need be known.

    Args:
        motion: ``(N, 2, h, w)``.
        weight: ``(N, 1, h, w)``, not negative.
    """
    height, width = motion.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing='ij')
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_x = torch.stack([one, x, y, zero, zero, zero, x * x, x * y], -1)
    rows_y = torch.stack([zero, zero, zero, one, x, y, x * y, y * y], -1)
    basis = torch.cat([rows_x.view(-1, 8), rows_y.view(-1, 8)]).to(motion)  # (2*h*w, 8)
    flat, weights = motion.flatten(1), weight.flatten(1).repeat(1, 2)
    normal = torch.einsum('ma,nm,mb->nab', basis, weights, basis)
    normal = normal + 1e-3 * (weights.mean(1)[:, None, None] + 1e-3) * torch.eye(8).to(normal) * len(basis)
    right = torch.einsum('ma,nm->na', basis, weights * flat)
    return (torch.linalg.solve(normal, right) @ basis.T).view_as(motion)


def window_offsets(radius: int) -> Tensor:
    """``(S, 2)`` x, y of the shifts of a square window, row by row."""
    side = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.stack(torch.meshgrid(side, side, indexing='ij')[::-1], -1).view(-1, 2)


def compare(now: Tensor, before: Tensor, radius: int) -> Tensor:
    """Scalar product of every cell with those around it in another map, ``(N, S, h, w)``; 0 outside the picture.

    A row of cells is compared with whole rows: more products than windows need, but as matrices, which takes a tenth of
    the time and less memory than a window for each cell.
    """
    height, width = now.shape[-2:]
    around = F.pad(before, (radius,) * 4).permute(0, 2, 3, 1)  # (N, H, W, C)
    rows = around.unfold(1, 2 * radius + 1, 1).permute(0, 1, 4, 2, 3).flatten(2, 3)  # (N, h, side * W, C)
    pairs = now.permute(0, 2, 3, 1) @ rows.transpose(2, 3)  # (N, h, w, side * W)
    pairs = pairs.unflatten(3, (2 * radius + 1, -1)).transpose(2, 3)  # (N, h, side, w, W)
    return from_band(pairs).permute(0, 2, 4, 1, 3).reshape(len(now), -1, height, width)


def from_band(band: Tensor) -> Tensor:
    """``(..., w, w + side - 1)`` to the ``side`` entries ``(..., w, side)`` that row ``x`` has from column ``x`` on."""
    width, wide = band.shape[-2:]
    return F.pad(band.flatten(-2), (0, width)).unflatten(-1, (width, wide + 1))[..., : wide - width + 1]
