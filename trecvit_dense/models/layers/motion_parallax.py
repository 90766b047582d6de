"""Depth from motion, in closed form: what moved how far, how the camera went, and what was known before.

Near things move more than far ones when the camera travels. Optical flow to a few earlier frames gives the motion of
the camera (:mod:`.ego_motion`) and with it the depth of everything that moved enough, up to one scale for each pair
of frames. The map that is carried from frame to frame settles the scale and steadies the motion, and what is seen anew
is joined to it by how much each is worth: a Kalman filter on inverse depth, as in semi-dense visual odometry (Engel,
Sturm and Cremers, ICCV 2013). Nothing is learned here; a head learns what to make of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.structures import RecurrentState

from .ego_motion import aligned_motion, epipolar_distance, homogeneous, inverse_depth, relative_motion

_MOST = 400.0  # information: no log depth is known better than to 0.05
_ENOUGH = 4.0  # information at which a value counts half
_POINTS = 400


@dataclass
class Parallax:
    """What motion says of every frame, at the stride of the maps.

    Args:
        log_inverse: ``(B, T, h, w)`` log of inverse depth in the unit that is carried along; 0 on average in the first
            frame in which anything is known.
        trust: ``(B, T, h, w)`` from 0 (nothing known) to 1.
        centre: ``(B, T)`` typical log inverse depth of a frame: that of what is known.
        strangeness: ``(B, T, h, w)`` from 0 to 1: how far the motion is from one that a standing thing can show.
        source: ``(B, T, h, w, 2)`` where each cell was one frame before, for ``grid_sample``.
        nearer: ``(B, T, h, w)`` by how much its log inverse depth has grown since.
        follows: ``(B, T, h, w)`` from 0 to 1: whether it can be followed back; 0 on the first frame.
    """

    log_inverse: Tensor
    trust: Tensor
    centre: Tensor
    strangeness: Tensor
    source: Tensor
    nearer: Tensor
    follows: Tensor

    @property
    def filled(self) -> Tensor:
        """``(B, T, h, w)`` log inverse depth where it is known, the frame's typical one elsewhere."""
        return torch.lerp(self.centre[..., None, None].expand_as(self.trust), self.log_inverse, self.trust)

    def cues(self) -> Tensor:
        """``(B * T, 3, h, w)`` for a convolution."""
        relief = self.trust * (self.log_inverse - self.centre[..., None, None]).clamp(-3, 3)
        return torch.stack([relief, self.trust, self.strangeness], 2).flatten(0, 1)


class MotionParallax(nn.Module):
    """Depth from motion, frame after frame, with a state of constant size.

    The state holds the last ``max(lags)`` frames in grey, how many frames were seen, the map of inverse depth, one over
    its variance, and the typical inverse depth.

    Args:
        lags: Frames back to which motion is taken: short ones see what moves fast, long ones a slow camera.
        focal: Focal length over the root of the frame's area, where the camera is not known. 1.05 is that of phones
            and RGB-D cameras; an error of a fifth bends depth little.
        noise_px: Standard deviation of the flow.
        drift: Share of inverse depth that its standard deviation gains from frame to frame.

    Raises:
        ValueError: lags that are not whole, positive and ascending.
    """

    def __init__(
        self, *, lags: Sequence[int] = (1, 3, 9), focal: float = 1.05, noise_px: float = 0.8, drift: float = 0.03
    ) -> None:
        super().__init__()
        if not lags or min(lags) < 1 or list(lags) != sorted(set(lags)):
            raise ValueError(f'lags are {list(lags)}; wanted whole numbers of frames from 1 on, ascending')
        self.lags, self.focal, self.noise_px, self.drift = tuple(lags), focal, noise_px, drift

    @torch.no_grad()
    def forward(self, grey: Tensor, grid: tuple[int, int], state: RecurrentState) -> tuple[Parallax, RecurrentState]:
        """Advance by the T frames of ``grey (B, T, H, W)``, values in [0, 1], with maps of ``grid`` cells."""
        with torch.autocast(grey.device.type, enabled=False):  # geometry needs all the digits there are
            return self._watch(grey.float(), grid, state)

    def _watch(self, grey: Tensor, grid: tuple[int, int], state: RecurrentState) -> tuple[Parallax, RecurrentState]:
        batch, time, height, width = grey.shape
        now = (grey * 255).round().clamp(0, 255).to(torch.uint8)
        past, seen = state.get('grey'), state.get('seen')
        if past is None:
            past = now.new_zeros(batch, self.lags[-1], height, width)
            seen = torch.zeros(batch, dtype=torch.int64, device=grey.device)
        frames = torch.cat([past, now], 1)
        pairs = self._pairs(frames, seen[:, None] + torch.arange(time, device=seen.device), grid)
        nothing = torch.zeros(batch, grid[0] * grid[1], device=grey.device)
        inverse, precision = (state.get(name, nothing) for name in ('inverse', 'precision'))
        centre = state.get('centre', torch.ones(batch, 1, device=grey.device))
        steps = []
        for step in range(time):
            views = [pair.at(step) for pair in pairs]
            inverse, precision, nearer, strangeness = self._advance(views, grid, inverse, precision, centre)
            centre = _centre(inverse, precision, centre)
            steps.append((inverse, precision, centre, nearer, strangeness))
        found = _describe(*(torch.stack(part, 1) for part in zip(*steps, strict=True)), pairs[0], grid)
        kept = RecurrentState(grey=frames[:, -self.lags[-1] :], seen=seen + time)
        return found, RecurrentState(kept, inverse=inverse, precision=precision, centre=centre)

    def _pairs(self, frames: Tensor, seen: Tensor, grid: tuple[int, int]) -> list[_Pair]:
        """Of every lag: each of the last T frames of ``frames (B, L + T, H, W)`` beside the one so far back."""
        history, pairs = self.lags[-1], []
        now = frames[:, history:]
        texture = _texture(now)
        for lag in self.lags:
            before, known = frames[:, history - lag : frames.shape[1] - lag], seen >= lag
            pairs.append(self._compare(*_flow(now, before, known), texture, known, grid))
        return pairs

    def _compare(self, flow: Tensor, error: Tensor, texture: Tensor, known: Tensor, grid: tuple[int, int]) -> _Pair:
        """From flow ``(B, T, 2, H, W)`` in pixels, its error in grey levels and how much there is to follow."""
        height, width = flow.shape[-2:]
        focal = self.focal * (height * width) ** 0.5
        pool = partial(F.adaptive_avg_pool2d, output_size=grid)
        cells, error, texture = (pool(part.flatten(0, 1)).flatten(2).mT for part in (flow, error, texture))
        y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing='ij')
        place = torch.stack([(x + 0.5) * width / grid[1], (y + 0.5) * height / grid[0]], -1).to(flow).view(-1, 2)
        target = place + cells  # (N, M, 2) pixels
        size = target.new_tensor([width, height])
        inside = ((target > 0) & (target < size)).all(-1) & known.view(-1, 1)
        far = cells.square().sum(2) / (0.15**2 * size.square().sum())  # beyond a sixth of the diagonal
        follows = inside / (1 + far) / (1 + (error[..., 0] / 12).square())
        reliable = follows * (0.05 + texture[..., 0] / (texture[..., 0] + 30))
        rays, seen = ((place - size / 2) / focal).expand_as(target), (target - size / 2) / focal
        some = slice(None, None, max(1, rays.shape[1] // _POINTS))
        rotation, travel = relative_motion(rays[:, some], seen[:, some], reliable[:, some], pixel=1 / focal)
        # A camera that turns is easily taken for one that travels before something flat and far: what a turn alone
        # leaves unexplained is the evidence that there is depth to be seen at all.
        turned = self._turn_only(rays[:, some], seen[:, some], reliable[:, some], rotation, focal)
        evidence = (turned.square() / (turned.square() + (2 * self.noise_px) ** 2))[:, None]
        source = 2 * target / size - 1
        parts = (homogeneous(rays), homogeneous(seen), reliable, rotation, travel, source, evidence, follows)
        pair = _Pair(*(part.unflatten(0, known.shape) for part in parts), focal)
        inverse, pair.worth, _ = self._triangulate(pair, pair.rotation, pair.travel)
        # What is behind the camera for one direction of travel is before it for the other.
        sign = torch.sign((inverse * pair.worth).sum(-1, keepdim=True) + 1e-12)
        pair.travel, pair.inverse = pair.travel * sign, inverse * sign
        return pair

    def _turn_only(self, rays: Tensor, seen: Tensor, reliable: Tensor, rotation: Tensor, focal: float) -> Tensor:
        """``(N,)`` pixels by which a typical point is off if the camera has only turned."""
        far = torch.zeros_like(reliable)
        still = torch.zeros_like(rotation[:, 0])
        motion = (rays, far, far + 1e9, seen, reliable, rotation, still)
        rotation, _ = aligned_motion(*motion, pixel=4 * self.noise_px / focal, steps=4)
        turned = homogeneous(rays) @ rotation.mT
        off = (turned[..., :2] / turned[..., 2:].clamp(min=0.1) - seen).norm(dim=-1) * focal
        return weighted_median(off, reliable)

    def _triangulate(self, pair: _Pair, rotation: Tensor, travel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse depth, its precision, and how far the motion is from one that a standing thing can show."""
        turned = pair.rays @ rotation.mT
        inverse = inverse_depth(turned, pair.seen, travel)
        stray = epipolar_distance(turned, pair.seen, travel).abs() * pair.focal
        lever = torch.linalg.cross(pair.seen, travel[..., None, :].expand_as(turned), dim=-1).norm(dim=-1) * pair.focal
        # A frame whose flow strays everywhere is not to be believed along the epipolar lines either.
        typical = 2 * weighted_median(stray, pair.reliable)[..., None]
        variance = self.noise_px**2 + typical.square() + stray.square()
        precision = pair.evidence * pair.reliable * lever.square() / variance
        return inverse, precision, pair.reliable * stray / (1.0 + stray)

    def _advance(
        self, pairs: list[_Pair], grid: tuple[int, int], inverse: Tensor, precision: Tensor, centre: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The map ``(B, M)`` of the last frame, and what all pairs say of this one: the map of this frame."""
        last = pairs[0]
        maps = torch.stack([inverse, precision], 1).unflatten(2, grid)
        source = last.source.unflatten(1, grid)
        inverse, precision = F.grid_sample(maps, source, align_corners=False).flatten(2).unbind(1)
        rotation, travel, lost = self._arrive(last, inverse, precision, centre)
        nearer = self._nearer(last, rotation, travel, inverse, precision, centre)
        inverse, precision = self._carry(inverse, precision * (1 - 0.95 * lost), nearer)
        found, worth, strangeness = self._triangulate(last, rotation, travel)
        inverse, precision = _join(inverse, precision, found, worth)
        for pair in pairs[1:]:
            length = _ratio(pair.inverse, pair.worth, inverse, precision)
            fresh = self._fresh_length(pair, centre) * (length == 0)
            motion = (pair.rotation, pair.travel * length)
            rotation, travel = self._align(pair.rays, inverse, precision, pair.seen, pair, motion, doubt=0.1)
            rotation = torch.where(length[..., None] > 0, rotation, pair.rotation)
            travel = torch.where(length > 0, travel, pair.travel * fresh)
            found, worth, _ = self._triangulate(pair, rotation, travel)
            # A camera so fast that the last frame shows all is too fast to be followed over several.
            needed = ((length > 0) | (fresh > 0)) * (1 - last.evidence)
            inverse, precision = _join(found, worth * needed, inverse, precision * (1 - 0.95 * (fresh > 0)))
        return inverse, precision, nearer.log(), strangeness

    @staticmethod
    def _fresh_length(pair: _Pair, centre: Tensor) -> Tensor:
        """Length ``(B, 1)`` of the way if the frame is typically as far away as the last one was: to start with, and
        where there is nothing in common with the map. 0 where the pair says too little to start from."""
        middle = weighted_median(pair.inverse, pair.worth)[:, None]
        telling = _trust(_information(pair.inverse, pair.worth, middle)).mean(1, keepdim=True) > 0.25
        return torch.where(telling & (pair.evidence > 0.5) & (middle > 1e-3), middle / centre, 0)

    def _arrive(self, last: _Pair, inverse: Tensor, precision: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Motion to the last frame in the unit of the map, given where this frame's cells were in that one; and ``(B,
        1)`` 1 where the map did not help."""
        tilt = (last.rays @ last.rotation.mT)[..., 2].clamp(min=0.1)
        there = last.inverse / (tilt + last.inverse * last.travel[:, 2:]).clamp(min=0.1)  # as seen from the last frame
        length = _ratio(there, last.worth, inverse, precision)
        fresh = self._fresh_length(last, centre) * (length == 0)
        back = last.rotation.mT
        motion = (back, -(back @ (last.travel * length)[..., None])[..., 0])
        turn, way = self._align(last.seen, inverse, precision, last.rays, last, motion, doubt=0.5)
        aligned, known = -(turn.mT @ way[..., None])[..., 0], length > 0
        rotation = torch.where(known[..., None], turn.mT, last.rotation)
        return rotation, torch.where(known, aligned, last.travel * fresh), (fresh > 0).to(precision.dtype)

    def _align(
        self,
        rays: Tensor,
        inverse: Tensor,
        precision: Tensor,
        moved: Tensor,
        pair: _Pair,
        motion: tuple[Tensor, Tensor],
        *,
        doubt: float,
    ) -> tuple[Tensor, Tensor]:
        """``doubt`` is the least standard deviation of inverse depth, as a share: errors of a map are not independent,
        so many of its values say little more than one."""
        some = slice(None, None, max(1, rays.shape[1] // (2 * _POINTS)))
        precision = precision / (1 + precision * (doubt * inverse).square())
        chosen = (rays[:, some, :2], inverse[:, some], precision[:, some], moved[:, some, :2], pair.reliable[:, some])
        return aligned_motion(*chosen, *motion, pixel=self.noise_px / pair.focal)

    @staticmethod
    def _nearer(
        last: _Pair, rotation: Tensor, travel: Tensor, inverse: Tensor, precision: Tensor, centre: Tensor
    ) -> Tensor:
        """Inverse depth of each cell over that in the last frame, ``(B, M)``."""
        likely = torch.lerp(centre.expand_as(inverse), inverse, _trust(_information(inverse, precision, centre)))
        tilt = (last.rays @ rotation.mT)[..., 2].clamp(min=0.1)
        return (tilt / (1 - likely * travel[:, 2:]).clamp(min=0.2)).clamp(0.2, 5)

    def _carry(self, inverse: Tensor, precision: Tensor, nearer: Tensor) -> tuple[Tensor, Tensor]:
        """The map as this frame sees it."""
        inverse, precision = inverse * nearer, precision / nearer.square()
        return inverse, precision / (1 + precision * (self.drift * inverse).square())


@dataclass
class _Pair:
    """Two frames, seen from the later one, ``(B, T, ...)``, or ``(B, ...)`` of one time."""

    rays: Tensor  # (B, T, M, 3)
    seen: Tensor  # (B, T, M, 3) the same points in the earlier frame
    reliable: Tensor  # (B, T, M) from 0 to 1
    rotation: Tensor  # (B, T, 3, 3) and the direction of travel, from the flow alone
    travel: Tensor  # (B, T, 3)
    source: Tensor  # (B, T, M, 2) where each cell was, for grid_sample
    evidence: Tensor  # (B, T, 1) from 0 to 1: how much of the motion is no mere turn
    follows: Tensor  # (B, T, M) as reliable, but bare walls count as well
    focal: float
    inverse: Tensor | None = None  # (B, T, M) inverse depth for a way of length 1, from the flow alone
    worth: Tensor | None = None  # (B, T, M) its precision

    def at(self, step: int) -> _Pair:
        parts = (self.rays, self.seen, self.reliable, self.rotation, self.travel, self.source)
        parts = (*parts, self.evidence, self.follows)
        found = (self.inverse[:, step], self.worth[:, step])
        return _Pair(*(part[:, step] for part in parts), self.focal, *found)


def _join(first: Tensor, first_worth: Tensor, second: Tensor, second_worth: Tensor) -> tuple[Tensor, Tensor]:
    """Two estimates and their precisions as one; where they contradict each other, the older counts less."""
    clash = (first - second).square() / (1 / first_worth.clamp(min=1e-9) + 1 / second_worth.clamp(min=1e-9))
    first_worth = first_worth / (1 + clash / 4)
    total = first_worth + second_worth
    mean = (first * first_worth + second * second_worth) / total.clamp(min=1e-9)
    return torch.where(total > 1e-9, mean, first), total


def _ratio(first: Tensor, first_worth: Tensor, second: Tensor, second_worth: Tensor) -> Tensor:
    """By how much ``second (B, M)`` has to be multiplied to be like ``first``; ``(B, 1)``, 0 if nothing tells.

    Both are noisy, so neither may be regressed on the other, and no weight may hang on a noisy value of one of them:
    any of that is a small bias, and a small bias for each frame is a drift.
    """
    centre, other = weighted_median(first, first_worth)[:, None], weighted_median(second, second_worth)[:, None]
    # Information on the logarithm of a typical value.
    one, two = (first_worth * centre.square()).clamp(min=1e-9), (second_worth * other.square()).clamp(min=1e-9)
    usable = (first_worth > 0) & (second_worth > 0) & (other > 1e-3) & (centre > 1e-3)
    weight = usable / (1 / one + 1 / two + 1 / _MOST)
    guess = torch.where((other > 1e-3) & (centre > 1e-3), centre / other.clamp(min=1e-3), 0)
    for width in (0.5, 0.3, 0.2, 0.1, 0.1):
        spread = (first - guess * second).abs() / (first.abs() + guess * second.abs() + 0.2 * centre).clamp(min=1e-9)
        kept = weight / (1 + (spread / width).square()).square()
        guess = (kept * first).sum(1, keepdim=True) / (kept * second).sum(1, keepdim=True).clamp(min=1e-9)
    sure = weight.mean(1, keepdim=True) > 0.5
    return torch.where(sure & (guess > 0), guess, 0)


def _information(inverse: Tensor, precision: Tensor, centre: Tensor) -> Tensor:
    """One over the variance of the logarithm of ``inverse``."""
    return precision * torch.maximum(inverse, 0.3 * centre).square()


def _trust(information: Tensor) -> Tensor:
    return information / (information + _ENOUGH)


def _centre(inverse: Tensor, precision: Tensor, last: Tensor) -> Tensor:
    """Typical inverse depth of what is known, ``(B, 1)``; as it was where that is little."""
    information = _information(inverse, precision, last)
    trust = _trust(information)
    middle = weighted_median(inverse, trust)[:, None]
    share = (trust.mean(1, keepdim=True) / 0.2).clamp(max=1) * (middle > 0)
    return (middle.clamp(min=1e-6).log() * share + last.log() * (1 - share)).exp()


def _describe(
    inverse: Tensor,
    precision: Tensor,
    centre: Tensor,
    nearer: Tensor,
    strangeness: Tensor,
    last: _Pair,
    grid: tuple[int, int],
) -> Parallax:
    """Maps ``(B, T, M)`` in logarithms, as maps."""
    trust = _trust(_information(inverse, precision, centre))
    log_inverse = (inverse / centre).clamp(0.1, 10).log() + centre.log()
    parts = (log_inverse, trust, strangeness, last.source, nearer, last.follows)
    log_inverse, trust, *others = (part.unflatten(2, grid) for part in parts)
    return Parallax(log_inverse, trust, centre.log()[..., 0], *others)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """``(..., M)`` each; ``(...)``, 0 where all weights are 0."""
    ordered, order = values.sort(-1)
    reached = weights.gather(-1, order).cumsum(-1)
    index = (reached < reached[..., -1:] / 2).sum(-1, keepdim=True).clamp(max=values.shape[-1] - 1)
    return torch.where(reached[..., -1] > 0, ordered.gather(-1, index)[..., 0], 0)


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
