"""Where one video with depth lies, and reading it: which pixels have depth, in metres, beside which frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..io.depth_file import DEPTH_SUFFIXES, depth_size, read_depth
from ..io.frame_source import read_image
from ..structures import DepthMap
from .video_files import image_size, misfit, reduce_image

Crop = tuple[int, int, int, int]
_SMALLEST_M = 0.02  # half of a picture nearer than this is in another unit


class NoDepthError(ValueError):
    """Frames without a single value that counts. The message is one line and names the first file."""


@dataclass
class DepthSequence:
    """Where one video lies.

    Args:
        name: Identity in reports and results.
        frames: Image files, in order.
        depth: One for each frame, or None for a frame without truth.
        read: File to ``(H, W)`` float32 metres, 0 where there is no value.
        intrinsics: ``(3, 3)`` or ``(T, 3, 3)``, in pixels of the depth files; None: not known.
        camera_to_world: ``(T, 4, 4)``, metres, x right, y down, z forward; None: not known.
        meta: What else the adapter knows.
    """

    name: str
    frames: list[Path]
    depth: list[Path | None]
    read: Callable[[Path], np.ndarray] = read_depth
    intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def annotated(self) -> np.ndarray:
        """``(T,)`` bool, frames that have a depth map."""
        return np.array([path is not None for path in self.depth])

    def only(self, frames: Sequence[int]) -> DepthSequence:
        """The video that consists of these frames."""
        poses, matrix = self.camera_to_world, self.intrinsics
        return replace(
            self,
            frames=[self.frames[t] for t in frames],
            depth=[self.depth[t] for t in frames],
            intrinsics=matrix[list(frames)] if matrix is not None and matrix.ndim == 3 else matrix,
            camera_to_world=None if poses is None else poses[list(frames)],
        )

    def image(self, t: int) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB of frame ``t``."""
        return read_image(self.frames[t])

    def depth_m(self, t: int) -> np.ndarray:
        """``(H, W)`` float32 metres of frame ``t``, which has some; 0 where there is no value."""
        return self.read(self.depth[t])

    def depth_map(
        self, *, min_depth_m: float, max_depth_m: float | None, crop: Crop | None = None
    ) -> tuple[DepthMap, tuple[int, int]]:
        """Depth of all frames, 0 where it is not valid, and the ``(H, W)`` of the files before the crop.

        Raises:
            NoDepthError: no value in the range.
            ValueError: depth of different sizes, or in another unit; the file is named.
        """
        known = np.flatnonzero(self.annotated)
        stacked = valid = nearest = None
        size: tuple[int, int] = (0, 0)
        for t in known:
            depth_m = self.depth_m(int(t))
            if stacked is not None and depth_m.shape != size:
                raise ValueError(misfit(self.depth[t], depth_m.shape, 'the other depth maps of the video', size))
            size = depth_m.shape
            depth_m = cut(depth_m, crop, self.depth[t])
            if stacked is None:
                stacked = np.zeros((len(self.depth), *depth_m.shape), np.float32)
                valid = np.zeros(stacked.shape, bool)
            inside = depth_m > min_depth_m
            if inside.any():
                nearest = min(float(depth_m[inside].min()), nearest or np.inf)
            if max_depth_m is not None:
                inside &= depth_m < max_depth_m
            stacked[t], valid[t] = np.where(inside, depth_m, np.float32(0)), inside
        self._check_values(stacked, valid, nearest, min_depth_m, max_depth_m)
        matrix = self.intrinsics
        if matrix is not None and crop is not None:
            top, left = slice(*crop[:2]).indices(size[0])[0], slice(*crop[2:]).indices(size[1])[0]
            matrix = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]) @ matrix
        return DepthMap(stacked, valid, matrix, self.camera_to_world), size

    def _check_values(
        self,
        depth_m: np.ndarray | None,
        valid: np.ndarray | None,
        nearest: float | None,
        least: float,
        most: float | None,
    ) -> None:
        first = next((path for path in self.depth if path is not None), self.name)
        if depth_m is None or nearest is None:
            raise NoDepthError(
                f'{first}: no depth at all, nor in the other {len(self.frames) - 1} frames of {self.name}: every value '
                f'is 0, NaN or infinite; wanted metres'
            )
        if not valid.any():
            raise NoDepthError(
                f'{first}: no value between {least:g} and {most:g} m in {len(self.frames)} frames of {self.name}, the '
                f'nearest is {nearest:.4g} m; are these millimetres? wanted metres, or another max_depth_m'
            )
        frame = int(valid.any(axis=(1, 2)).argmax())
        typical = float(np.median(depth_m[frame][valid[frame]]))
        if typical < _SMALLEST_M:
            raise ValueError(
                f'{self.depth[frame]}: half of the values are below {typical * 1000:.3g} mm; wanted metres, is the '
                f'number of units per metre (depth_scale) right?'
            )

    def video(
        self, max_side: int | None = None, crop: Crop | None = None, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """``(T, H, W, 3)`` uint8 RGB, reduced until no side exceeds ``max_side``, and the size before that.

        Args:
            size: ``(H, W)`` of the depth files. A frame of another size is brought to it before it is cropped.
        """
        original, stacked = None, None
        for t in range(len(self.frames)):
            image = self.image(t)
            if original not in (None, image.shape[:2]):
                raise ValueError(misfit(self.frames[t], image.shape[:2], 'the other frames of the video', original))
            original = image.shape[:2]
            if crop is not None and size is not None and size != original:
                image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
            image = reduce_image(cut(image, crop, self.frames[t]), max_side)
            stacked = np.empty((len(self.frames), *image.shape), np.uint8) if stacked is None else stacked
            stacked[t] = image
        return stacked, (int(original[0]), int(original[1]))

    def check(self) -> None:
        """See from the headers whether frames and depth fit together, before any work is done.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: sizes differ, a picture where depth is wanted, or no depth at all.
        """
        frame_size = truth_size = None
        if not self.annotated.any():
            raise ValueError(f'{self.name}: no frame has a depth map; wanted at least one')
        for path, truth in zip(self.frames, self.depth, strict=True):
            size = image_size(path)
            if size != (frame_size := frame_size or size):
                raise ValueError(misfit(path, size, 'the first frame of the video', frame_size))
            if truth is None:
                continue
            if truth.suffix.lower() not in DEPTH_SUFFIXES:
                if not truth.is_file():
                    raise FileNotFoundError(f'{truth}: no such depth file')
                continue
            size = depth_size(truth)
            if size != (truth_size := truth_size or size):
                raise ValueError(misfit(truth, size, 'the first depth map of the video', truth_size))
            ratio = (size[1] / size[0]) / (frame_size[1] / frame_size[0])
            if not 0.9 < ratio < 1.1:
                raise ValueError(misfit(truth, size, 'the frames', frame_size) + ', another shape')


def cut(picture: np.ndarray, crop: Crop | None, name: Path | None) -> np.ndarray:
    """``picture[top:bottom, left:right]``.

    Raises:
        ValueError: nothing is left.
    """
    if crop is None:
        return picture
    part = picture[crop[0] : crop[1], crop[2] : crop[3]]
    if not part.size:
        height, width = picture.shape[:2]
        raise ValueError(f'{name}: nothing is left of {width}x{height} px by crop={list(crop)}; wanted a smaller crop')
    return part
