"""Roll and homography augmentation of TAPNext++ (arXiv 2604.10582): a camera that shakes, rolls and tilts.

Per-frame motion is a sum of slow and fast sinusoids that is zero on the first frame. Frames, points, masks and depth
move together. What is drawn is kept apart from what is done with it: ``draw(rng)`` gives plain arrays,
``apply(sample, draws)`` has no chance in it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import DepthMap, ObjectMasks, PointTracks, VideoSample

from .depth import depth_at

Draws = dict[str, np.ndarray]
_FREQUENCIES = {'low': (1, 4), 'high': (8, 16)}  # half turns per clip


def sinusoids(draws: Draws, prefix: str, num_frames: int, strength: float) -> np.ndarray:
    """``(..., T)`` sum over slow and fast waves ``A (sin(f t + p) - sin p)``, t in [0, 1).

    Args:
        draws: ``{low,high}_{prefix}{amp,freq,phase}``, each ``(..., waves)``; frequencies in half turns.
    """
    time = np.arange(num_frames) / num_frames
    total = 0.0
    for band in _FREQUENCIES:
        amplitude = draws[f'{band}_{prefix}amp'][..., None] * strength
        phase = draws[f'{band}_{prefix}phase'][..., None]
        angle = draws[f'{band}_{prefix}freq'][..., None] * np.pi * time + phase  # (..., waves, T)
        total = total + (amplitude * (np.sin(angle) - np.sin(phase))).sum(-2)
    return total


def draw_sinusoids(rng: np.random.Generator, prefix: str, amplitude: dict[str, float], shape: tuple[int, ...]) -> Draws:
    """Amplitudes up to ``amplitude[band]``, frequencies of the band, any phase."""
    draws = {}
    for band, (slowest, fastest) in _FREQUENCIES.items():
        draws[f'{band}_{prefix}amp'] = rng.uniform(0, amplitude[band], shape)
        draws[f'{band}_{prefix}freq'] = rng.uniform(slowest, fastest, shape)
        draws[f'{band}_{prefix}phase'] = rng.uniform(0, 2 * np.pi, shape)
    return draws


class _CameraMotion:
    """With probability ``p``, moves everything in a sample frame by frame; subclasses say how."""

    def __init__(self, p: float, strength: float, official_points: bool) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f'{type(self).__name__}: p is {p}; wanted a probability in [0, 1]')
        self.p, self.strength, self.official_points = p, strength, official_points

    @property
    def centre(self) -> float:
        """Where the centre of pixel 0 lies in point coordinates; the released program takes points as pixel indices."""
        return 0.0 if self.official_points else 0.5

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        return self.apply(sample, self.draw(rng)) if rng.random() < self.p else sample

    def apply(self, sample: VideoSample, draws: Draws) -> VideoSample:
        """A new sample; frames of the original are not written to."""
        plan = self.plan(draws, sample.num_frames, sample.size)
        moved = replace(sample, video=self.move(sample.video, plan, cv2.INTER_LINEAR))
        if sample.masks is not None:
            labels = self.move(sample.masks.labels, plan, cv2.INTER_NEAREST)
            moved.masks = give_again(replace(sample.masks, labels=labels))
        if sample.depth is not None:
            # A warped picture has no pinhole camera any more: intrinsics and pose would be wrong, so they go.
            known = depth_at(sample.depth, sample.size)
            depth = self.move(known.depth_m, plan, cv2.INTER_NEAREST)
            valid = self.move(known.valid.astype(np.uint8), plan, cv2.INTER_NEAREST)
            moved.depth = DepthMap(depth, valid.astype(bool))
        if sample.points is not None:
            moved.points = self._move_points(sample.points, plan, sample.size, moved.size)
        return moved

    def _move_points(
        self, points: PointTracks, plan: dict, size: tuple[int, int], new_size: tuple[int, int]
    ) -> PointTracks:
        frames = points.xy_px.shape[1]
        xy = np.stack([self.move_points(points.xy_px[:, t], plan, t, size) for t in range(frames)], axis=1)
        low, high = self.centre - 0.5, np.array(new_size[::-1]) + self.centre - 0.5
        visible = points.visible & ((xy >= low) & (xy < high)).all(-1)
        return ask_again(replace(points, xy_px=xy.astype(points.xy_px.dtype), visible=visible))


def ask_again(points: PointTracks) -> PointTracks:
    """Put queries on the moved tracks: on their old frame where still visible, else on the first visible frame.

    Points that are never visible are dropped.
    """
    if points.query_txy is None:
        return points
    keep = points.visible.any(1)
    frame = np.round(points.query_txy[:, 0]).astype(int)
    rows = np.arange(len(points))
    frame = np.where(points.visible[rows, frame], frame, points.visible.argmax(1))
    query = np.concatenate([frame[:, None], points.xy_px[rows, frame]], 1).astype(points.query_txy.dtype)
    pick = [None if values is None else values[keep] for values in (points.group, points.ids)]
    return PointTracks(points.xy_px[keep], points.visible[keep], query[keep], *pick)


def give_again(masks: ObjectMasks) -> ObjectMasks:
    """Give each object on the first frame that shows it; one that is never seen keeps its place in the list."""
    first = [int((masks.labels == i).any(axis=(1, 2)).argmax()) for i in masks.ids]
    return replace(masks, first_frame=first) if masks.first_frame is not None or any(first) else masks


@TRANSFORMS.register_module()
class RollAugmentation(_CameraMotion):
    """Cyclic shifts of the picture and rotation about its centre.

    With rotation a frame is first padded by ``(diagonal - shorter side) / 2``, so that shifts bring in the padding too.

    Args:
        rotate: Rotate as well.
        p: Probability per clip.
        strength: Factor of all amplitudes.
        official_crop: The released program overwrites the size with the padded one, so its rotated clips come back
            larger than they went in.
        official_points: The released program takes coordinates as pixel indices and wraps points outside as well.
    """

    _SHIFT = {'x_': {'low': 30.0, 'high': 10.0}, 'y_': {'low': 20.0, 'high': 7.0}}  # pixels
    _ROTATION = {'low': 10.0, 'high': 5.0}  # degrees

    def __init__(
        self,
        *,
        rotate: bool = True,
        p: float = 0.8,
        strength: float = 1.0,
        official_crop: bool = False,
        official_points: bool = False,
    ) -> None:
        super().__init__(p, strength, official_points)
        self.rotate, self.official_crop = rotate, official_crop

    def draw(self, rng: np.random.Generator) -> Draws:
        draws = {}
        for prefix, amplitude in self._SHIFT.items():
            draws.update(draw_sinusoids(rng, prefix, amplitude, (5,)))
        if self.rotate:
            draws.update(draw_sinusoids(rng, 'rot_', self._ROTATION, (5,)))
        return draws

    def plan(self, draws: Draws, num_frames: int, size: tuple[int, int]) -> dict:
        """Whole-pixel shifts ``(T, 2)`` x, y; padding; ``(T, 2, 3)`` rotations of the padded frame, pixel indices."""
        waves = [sinusoids(draws, prefix, num_frames, self.strength) for prefix in self._SHIFT]
        plan = dict(shift=np.round(np.stack(waves, -1)).astype(int), pad=0, rotation=None)
        if self.rotate:
            height, width = size
            plan['pad'] = pad = math.ceil((math.hypot(height, width) - min(height, width)) / 2)
            centre = ((width + 2 * pad) // 2, (height + 2 * pad) // 2)
            angles = sinusoids(draws, 'rot_', num_frames, self.strength)  # degrees, positive is counter-clockwise
            plan['rotation'] = np.stack([cv2.getRotationMatrix2D(centre, float(a), 1.0) for a in angles])
        return plan

    def move(self, frames: np.ndarray, plan: dict, interpolation: int) -> np.ndarray:
        """``(T, H, W[, C])`` frames, shifted and rotated; what comes from outside is zero."""
        height, width = frames.shape[1:3]
        pad = plan['pad']
        bottom, right = (None, None) if self.official_crop else (pad + height, pad + width)
        moved = []
        for index, frame in enumerate(frames):
            frame = np.pad(frame, [(pad, pad), (pad, pad)] + [(0, 0)] * (frame.ndim - 2))
            frame = np.roll(frame, plan['shift'][index][::-1], axis=(0, 1))
            if plan['rotation'] is not None:
                frame = cv2.warpAffine(frame, plan['rotation'][index], frame.shape[1::-1], flags=interpolation)
            moved.append(frame[pad:bottom, pad:right])
        return np.stack(moved)

    def move_points(self, xy: np.ndarray, plan: dict, index: int, size: tuple[int, int]) -> np.ndarray:
        """``(N, 2)`` points of frame ``index``."""
        pad = plan['pad']
        extent = np.array([size[1], size[0]]) + 2 * pad
        padded = xy.astype(np.float64) + pad
        shifted = padded + plan['shift'][index]
        inside = ((padded >= 0) & (padded < extent)).all(-1, keepdims=True) | self.official_points
        shifted = np.where(inside, shifted % extent, shifted)
        if plan['rotation'] is not None:
            matrix = plan['rotation'][index]
            shifted = (shifted - self.centre) @ matrix[:, :2].T + matrix[:, 2] + self.centre
        return shifted - pad


@TRANSFORMS.register_module()
class HomographyAugmentation(_CameraMotion):
    """The four corners wander inwards, each within 30 % of the picture's size; the picture is warped to them.

    Args:
        p: Probability per clip.
        strength: Factor of all amplitudes.
        border: Outside of the warped picture: ``'constant'`` (black) or ``'replicate'``; masks and depth end there.
        official_points: The released program takes coordinates as pixel indices.
    """

    _AMPLITUDE = {'low': 0.05, 'high': 0.02}  # of the picture's width or height
    _BOX = 0.3
    _INWARDS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])  # top left, top right, bottom right, bottom left

    def __init__(
        self, *, p: float = 0.8, strength: float = 1.0, border: str = 'constant', official_points: bool = False
    ) -> None:
        super().__init__(p, strength, official_points)
        if border not in ('constant', 'replicate'):
            raise ValueError(f"HomographyAugmentation: border is '{border}'; wanted 'constant' or 'replicate'")
        self.border = border

    def draw(self, rng: np.random.Generator) -> Draws:
        return draw_sinusoids(rng, '', self._AMPLITUDE, (8, 3))

    def plan(self, draws: Draws, num_frames: int, size: tuple[int, int]) -> dict:
        """``(T, 3, 3)`` homographies from old to new pixel indices."""
        extent = np.array([size[1], size[0]])
        last = extent - 1
        corners = np.array([[0, 0], [last[0], 0], last, [0, last[1]]], dtype=np.float32)
        waves = np.abs(sinusoids(draws, '', num_frames, self.strength)).T.reshape(num_frames, 4, 2)
        waves = self._BOX - np.abs(self._BOX - waves % (2 * self._BOX))  # reflected at the walls of the box
        moved = corners + (self._INWARDS * waves * extent).astype(np.float32)
        return dict(matrix=np.stack([cv2.getPerspectiveTransform(corners, target) for target in moved]))

    def move(self, frames: np.ndarray, plan: dict, interpolation: int) -> np.ndarray:
        """``(T, H, W[, C])`` frames, warped."""
        replicate = self.border == 'replicate' and interpolation == cv2.INTER_LINEAR
        options = dict(flags=interpolation, borderMode=cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT)
        size = frames.shape[2], frames.shape[1]
        return np.stack(
            [cv2.warpPerspective(f, m, size, **options) for f, m in zip(frames, plan['matrix'], strict=True)]
        )

    def move_points(self, xy: np.ndarray, plan: dict, index: int, size: tuple[int, int]) -> np.ndarray:
        """``(N, 2)`` points of frame ``index``."""
        matrix = plan['matrix'][index]
        mapped = (xy.astype(np.float64) - self.centre) @ matrix[:, :2].T + matrix[:, 2]
        return mapped[:, :2] / mapped[:, 2:] + self.centre
