"""Resize, crop, flip and time: frames, points, masks, depth and camera move together.

Points live in raster coordinates (pixel centre at +0.5), so a resize multiplies them by a plain ratio and a crop
subtracts its corner. Queries stay on their frame where the point is still seen there, move to its first visible frame
otherwise; points that are no longer seen at all are dropped. Depth that has a size of its own is first brought to that
of the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import PointTracks, VideoSample

from .depth import depth_at, map_depth
from .tapnextpp import ask_again, give_again


@TRANSFORMS.register_module()
class Resize:
    """Resize to ``size``; aspect ratio is not kept unless asked.

    Args:
        size: ``(H, W)`` pixels.
        keep_ratio: Fit inside ``size`` instead of filling it; sides are rounded to whole pixels.
    """

    def __init__(self, size: tuple[int, int], *, keep_ratio: bool = False) -> None:
        if min(size) < 1:
            raise ValueError(f'Resize: size is {tuple(size)}; wanted (H, W) of at least 1 pixel')
        self.size, self.keep_ratio = tuple(size), keep_ratio

    def __call__(self, sample: VideoSample, rng: np.random.Generator | None = None) -> VideoSample:
        return resize(sample, self._target(sample.size))

    def _target(self, size: tuple[int, int]) -> tuple[int, int]:
        if not self.keep_ratio:
            return self.size
        ratio = min(self.size[0] / size[0], self.size[1] / size[1])
        return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


@TRANSFORMS.register_module()
class RandomCrop:
    """Crop a window of random area and aspect ratio and resize it.

    Args:
        size: ``(H, W)`` pixels of the result; None keeps the window's own, which varies from clip to clip.
        area: Least and greatest share of the frame's area.
        aspect: Least and greatest ``(w / h)`` relative to the frame's own.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        *,
        area: tuple[float, float] = (0.3, 1.0),
        aspect: tuple[float, float] = (0.6, 1.67),
    ) -> None:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f'RandomCrop: area is {tuple(area)}; wanted two shares in (0, 1], the smaller first')
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f'RandomCrop: aspect is {tuple(aspect)}; wanted two positive numbers, the smaller first')
        self.size, self.area, self.aspect = size, area, aspect

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        sample = crop(sample, *self.window(sample.size, rng))
        return sample if self.size is None else resize(sample, self.size)

    def window(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a random window in a frame of ``size``."""
        height, width = size
        area, aspect = rng.uniform(*self.area), np.exp(rng.uniform(*np.log(self.aspect)))
        rows = int(np.clip(round(height * np.sqrt(area / aspect)), 1, height))
        columns = int(np.clip(round(width * np.sqrt(area * aspect)), 1, width))
        top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
        return top, left, rows, columns


@TRANSFORMS.register_module()
class HorizontalFlip:
    """Mirror the clip with probability ``p``; the camera's path is mirrored with it."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _probability('HorizontalFlip', p)

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        return flip(sample) if rng.random() < self.p else sample


@TRANSFORMS.register_module()
class TemporalReverse:
    """Play the clip backwards with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _probability('TemporalReverse', p)

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        return pick_frames(sample, np.arange(sample.num_frames)[::-1]) if rng.random() < self.p else sample


@TRANSFORMS.register_module()
class TemporalStride:
    """Take ``num_frames`` frames at a random stride and start.

    Args:
        num_frames: Frames of the result.
        max_stride: Largest stride; smaller where the clip is too short for it.

    Raises:
        ValueError: (on call) the clip has fewer than ``num_frames`` frames.
    """

    def __init__(self, num_frames: int, *, max_stride: int = 3) -> None:
        if num_frames < 1 or max_stride < 1:
            raise ValueError(
                f'TemporalStride: num_frames {num_frames}, max_stride {max_stride}; wanted at least 1 each'
            )
        self.num_frames, self.max_stride = num_frames, max_stride

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        if sample.num_frames < self.num_frames:
            raise ValueError(
                f'TemporalStride: {sample.name!r} has {sample.num_frames} frames; wanted at least {self.num_frames}'
            )
        longest = (sample.num_frames - 1) // max(1, self.num_frames - 1)
        stride = int(rng.integers(1, max(1, min(self.max_stride, longest)) + 1))
        start = int(rng.integers(0, sample.num_frames - stride * (self.num_frames - 1)))
        return pick_frames(sample, start + stride * np.arange(self.num_frames))


# ---- what the transforms are made of: nothing below draws anything


def resize(sample: VideoSample, size: tuple[int, int]) -> VideoSample:
    """Area averaging when shrinking, bilinear when growing; masks and depth take the nearest pixel."""
    height, width = sample.size
    if (height, width) == tuple(size):
        return sample
    scale_x, scale_y = size[1] / width, size[0] / height
    smooth = cv2.INTER_AREA if scale_x < 1 or scale_y < 1 else cv2.INTER_LINEAR

    def to(interpolation: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda frame: cv2.resize(frame, (size[1], size[0]), interpolation=interpolation)

    moved = _map_frames(sample, to(smooth), to(cv2.INTER_NEAREST_EXACT))
    points = None if sample.points is None else sample.points.scaled(scale_x, scale_y)
    return _with_camera(replace(moved, points=points), np.diag([scale_x, scale_y, 1.0]))


def crop(sample: VideoSample, top: int, left: int, height: int, width: int) -> VideoSample:
    """The window whose upper left corner is pixel ``(top, left)``."""

    def cut(frame: np.ndarray) -> np.ndarray:
        return frame[top : top + height, left : left + width]

    moved = _map_frames(sample, cut, cut)
    if sample.points is not None:
        xy = sample.points.xy_px - np.array([left, top], sample.points.xy_px.dtype)
        inside = ((xy >= 0) & (xy < np.array([width, height]))).all(axis=-1)
        query = sample.points.query_txy
        query = None if query is None else query - np.array([0, left, top], query.dtype)
        shifted = replace(sample.points, xy_px=xy, visible=sample.points.visible & inside, query_txy=query)
        moved.points = ask_again(shifted)
    if moved.masks is not None:
        moved.masks = give_again(moved.masks)
    return _with_camera(moved, np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]))


def flip(sample: VideoSample) -> VideoSample:
    """Left becomes right."""
    width = sample.size[1]
    moved = _map_frames(sample, lambda frame: frame[:, ::-1], lambda frame: frame[:, ::-1])
    if sample.points is not None:
        points = sample.points.scaled(-1.0, 1.0)
        points.xy_px[..., 0] += width
        if points.query_txy is not None:
            points.query_txy[:, 1] += width
        moved.points = points
    # x -> W - x in the image, x -> -x in the world: the two together keep the focal length positive.
    mirror = np.diag([-1.0, 1, 1])
    moved = _with_camera(moved, np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]), mirror)
    if moved.depth is not None and moved.depth.camera_to_world is not None:
        world = np.diag([-1.0, 1, 1, 1])
        moved.depth.camera_to_world = world @ moved.depth.camera_to_world @ world
    return moved


def pick_frames(sample: VideoSample, frames: np.ndarray) -> VideoSample:
    """The clip that consists of these ``frames`` ``(T',)``, in this order."""
    moved = replace(sample, video=np.ascontiguousarray(sample.video[frames]))
    if sample.masks is not None:
        annotated = sample.masks.annotated
        annotated = None if annotated is None else annotated[frames]
        moved.masks = give_again(replace(sample.masks, labels=sample.masks.labels[frames], annotated=annotated))
    if sample.depth is not None:
        depth = sample.depth
        matrix = depth.intrinsics
        matrix = matrix[frames] if matrix is not None and matrix.ndim == 3 else matrix
        pose = None if depth.camera_to_world is None else depth.camera_to_world[frames]
        moved.depth = replace(
            depth, depth_m=depth.depth_m[frames], valid=depth.valid[frames], intrinsics=matrix, camera_to_world=pose
        )
    if sample.points is not None:
        moved.points = _pick_points(sample.points, frames, sample.meta.get('query_mode') == 'first')
    if 'frame_names' in sample.meta:
        moved.meta = {**sample.meta, 'frame_names': [sample.meta['frame_names'][t] for t in frames]}
    return moved


def _pick_points(points: PointTracks, frames: np.ndarray, first: bool) -> PointTracks:
    xy, visible, query = points.xy_px[:, frames], points.visible[:, frames], points.query_txy
    if query is not None:
        # The new place of the query's frame; where it was left out, a frame of no visibility: asked again below.
        place = np.abs(frames[None] - np.round(query[:, :1])).argmin(axis=1)
        gone = frames[place] != np.round(query[:, 0])
        if first or gone.any():
            place = np.where(gone | first, visible.argmax(axis=1), place)
        query = np.concatenate([place[:, None], xy[np.arange(len(xy)), place]], axis=1).astype(query.dtype)
    return ask_again(replace(points, xy_px=xy, visible=visible, query_txy=query))


def _map_frames(
    sample: VideoSample, image: Callable[[np.ndarray], np.ndarray], labels: Callable[[np.ndarray], np.ndarray]
) -> VideoSample:
    moved = replace(sample, video=np.stack([image(frame) for frame in sample.video]))
    if sample.masks is not None:
        moved.masks = replace(sample.masks, labels=np.stack([labels(frame) for frame in sample.masks.labels]))
    if sample.depth is not None:
        moved.depth = map_depth(depth_at(sample.depth, sample.size), labels)
    return moved


def _with_camera(sample: VideoSample, image: np.ndarray, camera: np.ndarray | None = None) -> VideoSample:
    """Put ``image`` ``(3, 3)`` after the intrinsics, and ``camera`` ``(3, 3)``, a change of axes, before them."""
    if sample.depth is not None and sample.depth.intrinsics is not None:
        matrix = image @ sample.depth.intrinsics
        sample.depth = replace(sample.depth, intrinsics=matrix if camera is None else matrix @ camera)
    return sample


def _probability(name: str, p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f'{name}: p is {p}; wanted a probability in [0, 1]')
    return p
