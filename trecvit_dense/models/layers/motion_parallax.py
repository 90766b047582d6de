"""Depth from motion, in closed form: how the camera went, what moved how far, and what was known before.

Near things move more than far ones when the camera travels. :class:`.VisualOdometry` finds the camera's way over the
last frames in one unit of length, and the depth of the points that it follows; with that way, dense optical flow from
one frame to the next gives depth everywhere, and a map that is carried from frame to frame gathers it: a Kalman filter
on inverse depth, as in semi-dense visual odometry (Engel, Sturm and Cremers, ICCV 2013). Flow is believed as far as
it agrees with the points around. Nothing is learned here, and a head joins it with what it has learnt from looks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.structures import RecurrentState

from .ego_motion import epipolar_distance, inverse_depth
from .inverse_depth_map import CellGrid, KnownPoints, blunted, joined, smoothed, trust, weighted_median
from .visual_odometry import Odometry, VisualOdometry

FOCAL = 1.05  # of phones and RGB-D cameras: focal length over the root of the frame's area
_Some = TypeVar('_Some', bound='_Frames')


class _Frames:
    """A dataclass of tensors ``(B, T, ...)``."""

    def at(self: _Some, step: int) -> _Some:
        """Of one frame, without T."""
        return type(self)(*(getattr(self, part.name)[:, step] for part in fields(self)))


@dataclass
class Parallax(_Frames):
    """What motion says of every frame, at the stride of the maps.

    Args:
        log_inverse: ``(B, T, h, w)`` log of inverse depth in the unit that is carried along; 0 on average in the first
            frame in which anything is known.
        trust: ``(B, T, h, w)`` from 0 (nothing known) to 1.
        source: ``(B, T, h, w, 2)`` where each cell was one frame before, for ``grid_sample``.
        nearer: ``(B, T, h, w)`` by how much its log inverse depth has grown since.
        follows: ``(B, T, h, w)`` from 0 to 1: whether it can be followed back; 0 on the first frame.
    """

    log_inverse: Tensor
    trust: Tensor
    source: Tensor
    nearer: Tensor
    follows: Tensor


class MotionParallax(nn.Module):
    """Depth from motion, frame after frame, with a state of constant size.

    The state holds the last frame in grey, how many frames were seen, the points that are followed and the poses of the
    window (see :class:`.Odometry`), and the map of inverse depth and of one over its variance.

    Args:
        window: Frames whose poses are found together.
        points: Most points that are followed.
        focal: Focal length over the root of the frame's area, where the camera is not known; an error of a
            fifth bends depth little.
        noise_px: Standard deviation of the flow.
        drift: Share of inverse depth that its standard deviation gains from frame to frame.

    Raises:
        ValueError: a window of fewer than two frames, or fewer than 16 points.
    """

    def __init__(
        self,
        *,
        window: int = 10,
        points: int = 240,
        focal: float = FOCAL,
        noise_px: float = 0.4,
        drift: float = 0.03,
    ) -> None:
        super().__init__()
        if window < 2 or points < 16:
            raise ValueError(f'{points} points over {window} frames; wanted at least 16 points over 2 frames')
        self.window, self.points, self.focal, self.noise_px, self.drift = window, points, focal, noise_px, drift

    @torch.no_grad()
    def forward(self, grey: Tensor, grid: tuple[int, int], state: RecurrentState) -> tuple[Parallax, RecurrentState]:
        """Advance by the T frames of ``grey (B, T, H, W)``, values in [0, 1], with maps of ``grid`` cells."""
        with torch.autocast(grey.device.type, enabled=False):  # geometry needs all the digits there are
            return self._watch(grey.float(), grid, state)

    def _watch(self, grey: Tensor, grid: tuple[int, int], state: RecurrentState) -> tuple[Parallax, RecurrentState]:
        batch, time, height, width = grey.shape
        now = (grey * 255).round().clamp(0, 255).to(torch.uint8)
        past = state.get('grey', torch.zeros_like(now[:, 0]))
        seen = state.get('seen', torch.zeros(batch, dtype=torch.int64, device=grey.device))
        before = torch.cat([past[:, None], now[:, :-1]], 1)
        known = seen[:, None] + torch.arange(time, device=seen.device) > 0
        flow, error = _flow(now, before, known)
        cells = CellGrid.of((height, width), grid, self.focal * (height * width) ** 0.5, grey)
        odometry = VisualOdometry((height, width), cells.focal, points=self.points, window=self.window)
        motion = _Motion.between(now, flow, error, known, cells)
        memories = _unpacked(state.scope('odometry'), batch, odometry)
        nothing = torch.zeros(batch, len(cells.place), device=grey.device)
        inverse, precision = (state.get(name, nothing) for name in ('inverse', 'precision'))
        images, olds, known = (part.cpu().numpy() for part in (now, before, known))
        flow, steps = flow.permute(0, 1, 3, 4, 2).contiguous().cpu().numpy(), []
        for step in range(time):
            for row in range(batch):
                if known[row, step]:
                    pictures = olds[row, step], images[row, step], flow[row, step]
                    memories[row] = odometry.step(memories[row], *pictures)
                else:
                    memories[row] = odometry.start(images[row, step])
            view = _View.of(memories, motion.at(step), cells, self.noise_px)
            inverse, precision, nearer = self._advance(view, cells, inverse, precision)
            told = smoothed(inverse, precision, view.motion.brightness, view.points.unit, grid)
            steps.append((*told, view.points.unit, nearer.log()))
        found = _describe(*(torch.stack(part, 1) for part in zip(*steps, strict=True)), motion, grid)
        kept = RecurrentState(grey=now[:, -1], seen=seen + time, inverse=inverse, precision=precision)
        return found, kept.put('odometry', _packed(memories, grey.device))

    def _advance(
        self, view: _View, cells: CellGrid, inverse: Tensor, precision: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The map ``(B, M)`` of the last frame, carried to this one and joined with what is seen in it; and inverse
        depth over what it was."""
        points, unit = view.points, view.points.unit
        maps = torch.stack([inverse, precision], 1).unflatten(2, cells.grid)
        source = view.motion.source.unflatten(1, cells.grid)
        inverse, precision = F.grid_sample(maps, source, align_corners=False).flatten(2).unbind(1)
        likely = torch.lerp(unit.expand_as(inverse), inverse, trust(inverse, precision, unit))
        tilt = (cells.rays(cells.place) @ view.rotation.mT)[..., 2].clamp(min=0.1)
        nearer = (tilt / (1 - likely * view.travel[:, 2:]).clamp(min=0.2)).clamp(0.2, 5)
        inverse, precision = inverse * nearer, blunted(inverse, precision, self.drift) / nearer.square()
        precision = points.doubted(inverse, precision)
        inverse, precision = joined(inverse, precision, view.inverse, points.doubted(view.inverse, view.worth))
        inverse, precision = points.corrected(*joined(inverse, precision, *points.as_map()))
        return inverse, precision, nearer


@dataclass
class _Motion(_Frames):
    """Flow to the last frame over the cells of a map, ``(B, T, M, ...)``, or ``(B, M, ...)`` of one frame."""

    target: Tensor  # (B, T, M, 2) pixels: where each cell was
    source: Tensor  # (B, T, M, 2) the same for grid_sample
    follows: Tensor  # (B, T, M) from 0 to 1: whether the two look alike
    reliable: Tensor  # (B, T, M) from 0 to 1: and there is something to be seen
    brightness: Tensor  # (B, T, M) grey levels

    @classmethod
    def between(cls, now: Tensor, flow: Tensor, error: Tensor, known: Tensor, cells: CellGrid) -> _Motion:
        """From uint8 ``(B, T, H, W)``, flow ``(B, T, 2, H, W)`` in pixels, its error in grey levels, and whether there
        is a last frame."""
        pool = partial(F.adaptive_avg_pool2d, output_size=cells.grid)
        parts = torch.cat([flow, error, _texture(now), now[:, :, None].float()], 2)
        away, error, texture, brightness = pool(parts.flatten(0, 1)).flatten(2).mT.split([2, 1, 1, 1], -1)  # (N, M, C)
        target = cells.place + away
        inside = ((target > 0) & (target < cells.extent)).all(-1) & known.view(-1, 1)
        far = away.square().sum(2) / (0.15**2 * cells.extent.square().sum())  # beyond a sixth of the diagonal
        follows = inside / (1 + far) / (1 + (error[..., 0] / 12).square())
        reliable = follows * (0.05 + texture[..., 0] / (texture[..., 0] + 30))
        parts = (target, cells.normalised(target), follows, reliable, brightness[..., 0])
        return cls(*(part.unflatten(0, known.shape) for part in parts))


@dataclass
class _View:
    """What one frame says: of the camera, of points, and of the depth of every cell."""

    motion: _Motion
    points: KnownPoints
    rotation: Tensor  # (B, 3, 3) and
    travel: Tensor  # (B, 3) to the last frame
    inverse: Tensor  # (B, M) inverse depth by flow and camera
    worth: Tensor  # (B, M) its precision

    @classmethod
    def of(cls, memories: list[Odometry], motion: _Motion, cells: CellGrid, noise_px: float) -> _View:
        def together(values: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(values)).to(cells.place)

        unit = together([np.array([memory.unit]) for memory in memories])
        unrest = together([np.array([memory.unrest]) for memory in memories])
        points = KnownPoints(
            cells,
            together([memory.places[:, 0] for memory in memories]),
            together([memory.inverse for memory in memories]),
            together([memory.information * memory.alive for memory in memories]),
            torch.from_numpy(np.stack([memory.known for memory in memories])).to(cells.place.device),
            unit,
        )
        rotation = together([memory.rotation[0] for memory in memories])
        travel = together([memory.travel[0] for memory in memories])
        turned, seen = cells.rays(cells.place) @ rotation.mT, cells.rays(motion.target)
        inverse = inverse_depth(turned, seen, travel)
        stray = epipolar_distance(turned, seen, travel).abs() * cells.focal
        lever = torch.linalg.cross(seen, travel[:, None].expand_as(turned), dim=-1).norm(dim=-1) * cells.focal
        # A frame whose flow strays everywhere is not to be believed along the epipolar lines either.
        typical = 2 * weighted_median(stray, motion.reliable)[:, None]
        worth = motion.reliable * lever.square() / (noise_px**2 + typical.square() + stray.square())
        worth = blunted(torch.maximum(inverse.abs(), 0.3 * unit), worth, unrest.clamp(min=0.05))
        return cls(motion, points, rotation, travel, inverse, worth)


def _packed(memories: list[Odometry], device: torch.device) -> RecurrentState:
    """As tensors ``(B, ...)``, float64."""
    names = [part.name for part in fields(Odometry)]
    stacked = {name: np.stack([np.asarray(getattr(memory, name)) for memory in memories]) for name in names}
    return RecurrentState({name: torch.from_numpy(value).to(device) for name, value in stacked.items()})


def _unpacked(state: RecurrentState, batch: int, odometry: VisualOdometry) -> list[Odometry]:
    if not state:
        return [Odometry.empty(odometry.points, odometry.window)] * batch
    arrays = {name: value.cpu().numpy() for name, value in state.items()}
    single = ('poses', 'unit', 'unrest')
    rows = ({name: value[row] for name, value in arrays.items()} for row in range(batch))
    return [Odometry(**{name: v.item() if name in single else v for name, v in row.items()}) for row in rows]


def _describe(
    inverse: Tensor, precision: Tensor, unit: Tensor, nearer: Tensor, motion: _Motion, grid: tuple[int, int]
) -> Parallax:
    """Maps ``(B, T, M)`` in logarithms, as maps."""
    log_inverse = (inverse / unit).clamp(0.1, 10).log() + unit.log()
    parts = (log_inverse, trust(inverse, precision, unit), motion.source, nearer, motion.follows)
    return Parallax(*(part.unflatten(2, grid) for part in parts))


def _texture(frames: Tensor) -> Tensor:
    """Squared slope of uint8 ``(B, T, H, W)``, ``(B, T, 1, H, W)``: how much there is to follow."""
    slopes = (cv2.spatialGradient(image) for image in frames.flatten(0, 1).cpu().numpy())
    squares = np.stack([(x.astype(np.float32) ** 2 + y.astype(np.float32) ** 2) / 64 for x, y in slopes])
    return torch.from_numpy(squares).to(frames.device).view(frames.shape)[:, :, None]


def _flow(now: Tensor, before: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Motion from ``now (B, T, H, W)`` uint8 to ``before``: dense inverse search (ECCV 2016), as OpenCV has it.

    Returns:
        Flow ``(B, T, 2, H, W)`` x, y in pixels; the grey levels by which both frames differ along it, ``(B, T, 1, H,
        W)``. Zero where not ``known (B, T)``.
    """
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setPatchSize(12)  # larger than preset, and smoothed longer: the error falls by a sixth on rendered scenes
    search.setPatchStride(4)
    search.setVariationalRefinementIterations(10)
    height, width = now.shape[-2:]
    found = np.zeros((*known.shape, 3, height, width), np.float32)
    images, olds = now.cpu().numpy(), before.cpu().numpy()
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    for row, step in zip(*np.nonzero(known.cpu().numpy()), strict=True):
        image, old = images[row, step], olds[row, step]
        flow = search.calc(image, old, None)
        seen = cv2.remap(old, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found[row, step, :2] = flow.transpose(2, 0, 1)
        found[row, step, 2] = cv2.absdiff(image, seen)
    return torch.from_numpy(found).to(now.device).split([2, 1], 2)
