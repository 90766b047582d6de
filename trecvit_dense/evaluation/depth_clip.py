"""One clip of depth, ready to be compared: the truth that counts, and predictions aligned with it.

Nothing is held but what was given: aligned frames are made when they are asked for, because a clip may be long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..structures import DepthMap, DepthPrediction
from .functional import depth_alignment as fits
from .functional import depth_time
from .functional.depth import POOLING, SILOG, best_constant
from .functional.depth_alignment import Alignment
from .functional.depth_crops import Crop, crop_intrinsics, find_crop, resize_maps

FARTHEST_M = 1000.0  # where nothing caps depth; disparity that is fitted may come out as zero
TAE_RULES = ('sound', 'official')
_SMALLEST = 1e-3  # least disparity of unknown scale, relative to the mean of the clip


@dataclass(frozen=True)
class DepthRules:
    """What counts and how it is counted; :class:`.depth_metric.DepthMetric` says what each means."""

    alignments: tuple[Alignment, ...]
    cap_m: float | None = None
    min_depth_m: float = 1e-3
    crop: Any = None
    scale_fit: str = 'median'
    silog: str = 'kitti'
    pooling: str = 'frames'
    temporal: bool = True
    tae: str = 'sound'

    def __post_init__(self) -> None:
        choices = dict(scale_fit=fits.SCALE_FITS, silog=SILOG, pooling=POOLING, tae=TAE_RULES)
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is '{getattr(self, name)}'; wanted one of {', '.join(known)}")
        if self.cap_m is not None and not self.cap_m > self.min_depth_m:
            raise ValueError(f'cap_m is {self.cap_m}, min_depth_m {self.min_depth_m}; wanted a cap above the minimum')

    @property
    def farthest_m(self) -> float:
        return FARTHEST_M if self.cap_m is None else float(self.cap_m)


@dataclass(frozen=True)
class Frame:
    """Truth of one frame.

    Args:
        valid: ``(h, w)`` bool.
        metres: ``(N,)`` depth of the valid pixels.
        log: ``(h, w)`` its logarithm, 0 where it is not valid.
        places: What the frame before sees as well, see :func:`.functional.depth_time.static_places`; None: not known.
    """

    t: int
    valid: np.ndarray
    metres: np.ndarray
    log: np.ndarray
    places: tuple[np.ndarray, np.ndarray] | None


@dataclass
class Truth:
    """A clip of truth, cropped: ``depth_m`` (T, h, w) float32, ``valid`` where it counts."""

    depth_m: np.ndarray
    valid: np.ndarray
    cameras: depth_time.Cameras | None
    size: tuple[int, int]
    crop: Crop

    def at(self, t: int) -> np.ndarray:
        """``(N,)`` metres of the valid pixels of a frame."""
        return self.depth_m[t][self.valid[t]]

    def frame(self, t: int) -> Frame:
        valid, places = self.valid[t], None
        if t and self.cameras is not None and self.cameras.known(t - 1, t):
            places = depth_time.static_places(self.depth_m, self.valid, self.cameras, t - 1)
        return Frame(t, valid, self.at(t), depth_time.log_truth(self.depth_m[t], valid), places)

    def __len__(self) -> int:
        return len(self.depth_m)


def read_truth(depth: DepthMap, rules: DepthRules) -> Truth:
    """The part of the truth that counts: within the crop, finite, above the minimum and below the cap."""
    size = depth.depth_m.shape[1:]
    crop = find_crop(rules.crop, size)
    a, b, c, d = crop
    metres = np.ascontiguousarray(depth.depth_m[:, a:b, c:d], np.float32)
    with np.errstate(invalid='ignore'):
        valid = depth.valid[:, a:b, c:d] & (metres > rules.min_depth_m)
        valid &= metres < (np.inf if rules.cap_m is None else rules.cap_m)
    cameras = None
    if rules.temporal and depth.intrinsics is not None and depth.camera_to_world is not None:
        intrinsics = np.asarray(depth.intrinsics, np.float64)
        if rules.tae == 'sound':
            intrinsics = crop_intrinsics(intrinsics, crop)
        cameras = depth_time.Cameras(intrinsics, np.asarray(depth.camera_to_world, np.float64))
    return Truth(metres, valid, cameras, size, crop)


def why_empty(depth: DepthMap, truth: Truth, rules: DepthRules) -> str:
    """Says why no pixel counts."""
    inside = depth.depth_m[depth.valid]
    inside = inside[np.isfinite(inside)]
    if not len(inside):
        return 'no pixel is valid'
    limits = f'{rules.min_depth_m:g} m and {"no cap" if rules.cap_m is None else f"the cap of {rules.cap_m:g} m"}'
    where = '' if rules.crop is None else f' within the crop {rules.crop}'
    text = f'valid depth is {inside.min():.4g} to {inside.max():.4g} m, none between {limits}{where}'
    return text + ('; are these millimetres?' if np.median(inside) > 100 else '')


class Aligned:
    """A prediction in the truth's frame, with the scale and shift that fit it best.

    Args:
        prediction: ``(T, H, W)``; resized linearly to the size of the truth, then cropped.
        alignment: Name of the fit.
    """

    def __init__(self, prediction: DepthPrediction, truth: Truth, alignment: Alignment, rules: DepthRules) -> None:
        self.prediction, self.truth, self.alignment, self.rules = prediction, truth, alignment, rules
        self.space = prediction.kind if alignment.fit == 'none' else alignment.space
        if alignment.fit == 'none' and prediction.kind != 'depth':
            raise ValueError(
                "alignment is 'none', but the prediction is disparity of unknown scale and shift; choose an alignment, "
                'such as scale_shift_disparity_clip, or predict metres'
            )
        self.least = rules.min_depth_m
        if prediction.kind == 'disparity':
            self.least = max(_SMALLEST * float(np.abs(prediction.values).mean(dtype=np.float64)), 1e-12)
        self.fits = self._fit()

    @property
    def inverted(self) -> bool:
        """The best scale was negative, and became zero."""
        return any(scale == 0 for scale, _ in self.fits)

    def frame(self, t: int) -> np.ndarray | None:
        """``(h, w)`` float32 metres; None where there was nothing to fit to."""
        scale, shift = self.fits[min(t, len(self.fits) - 1)]
        if np.isnan(scale):
            return None
        values = self._values(t)
        near, far = np.float32(self.rules.min_depth_m), np.float32(self.rules.farthest_m)
        if (scale, shift) != (1.0, 0.0):
            values = values * np.float32(scale) + np.float32(shift)
        if self.space == 'depth':
            return np.clip(values, near, far)
        return 1 / np.clip(values, 1 / far, 1 / near)

    def _values(self, t: int) -> np.ndarray:
        """``(h, w)`` of the prediction, in the space in which it is aligned."""
        a, b, c, d = self.truth.crop
        values = self.prediction.values[t : t + 1].astype(np.float32, copy=False)
        values = resize_maps(values, self.truth.size)[0, a:b, c:d]
        return values if self.space == self.prediction.kind else 1 / np.maximum(values, np.float32(self.least))

    def _goal(self, t: int) -> np.ndarray:
        return 1 / self.truth.at(t) if self.space == 'disparity' else self.truth.at(t)

    def _fit(self) -> list[tuple[float, float]]:
        if self.alignment.fit == 'none':
            return [(1.0, 0.0)]
        frames = range(len(self.truth))
        groups = [[t] for t in frames] if self.alignment.scope == 'frame' else [list(frames)]
        return [self._fit_frames(group) for group in groups]

    def _fit_frames(self, frames: list[int]) -> tuple[float, float]:
        frames = [t for t in frames if self.truth.valid[t].any()]
        if not frames:
            return float('nan'), float('nan')
        pairs = ((self._values(t)[self.truth.valid[t]], self._goal(t)) for t in frames)
        if self.alignment.fit == 'scale_shift':
            return fits.least_squares(pairs, positive=True)
        if self.rules.scale_fit == 'least_squares':
            scale = fits.least_squares_scale(pairs)
        else:
            x, y = (np.concatenate(values) for values in zip(*pairs, strict=True))
            scale = fits.median_scale(x, y)
        if not scale > 0:
            raise ValueError(f'no positive scale fits the {self.prediction.kind} (found {scale:.4g})')
        return scale, 0.0


class Constant:
    """The best constant depth of each frame, or of the clip."""

    def __init__(self, truth: Truth, rules: DepthRules, *, per_frame: bool) -> None:
        frames = [truth.at(t) for t in range(len(truth))]
        values = [best_constant([frame]) for frame in frames] if per_frame else [best_constant(frames)]
        self.values, self.size = values, truth.depth_m.shape[1:]

    def frame(self, t: int) -> np.ndarray | None:
        value = self.values[min(t, len(self.values) - 1)]
        return None if np.isnan(value) else np.full(self.size, value, np.float32)
