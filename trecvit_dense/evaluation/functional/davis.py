"""DAVIS measures: region similarity J, boundary accuracy F and their statistics over a sequence.

The same digits as the official programs of DAVIS 2016 and 2017, at a fraction of their time. Sources: Perazzi et al.,
"A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016, section 4; Pont-Tuset et al.,
"The 2017 DAVIS Challenge on Video Object Segmentation", arXiv 1704.00675, section 3. There is no thinning of
boundaries anywhere, in spite of what descriptions say.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from . import pixel_bits

BOUND_TH = 0.008  # tolerance of F: share of the image's diagonal
DECAY_RULES = ('sound', 'official', 'official_numpy1')


class Overlap(NamedTuple):
    """Truth and prediction of one object in a window of the frame, as integers of :mod:`pixel_bits`.

    Args:
        truth, prediction: The masks.
        width: Columns of the window, the free ones on the right included.
        size: ``(H, W)`` of a window that touches the border of the image; None for one that does not.
    """

    truth: int
    prediction: int
    width: int
    size: tuple[int, int] | None

    def counts(self) -> tuple[int, int]:
        """Pixels of intersection and of union."""
        intersection = (self.truth & self.prediction).bit_count()
        return intersection, self.truth.bit_count() + self.prediction.bit_count() - intersection

    def jaccard(self) -> float:
        """Intersection over union, 1 if both are empty."""
        intersection, union = self.counts()
        return intersection / union if union else 1.0

    def boundaries(self) -> tuple[int, int]:
        """Boundary pixels of truth and prediction."""
        return tuple(pixel_bits.boundary(mask, self.width, self.size) for mask in (self.truth, self.prediction))

    def boundary_f(self, *radii: float) -> tuple[float, ...]:
        """Boundary accuracy for each tolerance in pixels."""
        if self.truth == self.prediction:
            return (1.0,) * len(radii)
        boundaries = self.boundaries()
        return tuple(f_measure(*match(*boundaries, self.width, radius)) for radius in radii)


def overlap(
    truth: np.ndarray,
    prediction: np.ndarray,
    ids: tuple[int, int] = (True, True),
    radius: float = 0,
    *,
    inside: bool = False,
) -> Overlap:
    """One object in a window of two index maps, or of two masks.

    Args:
        truth, prediction: ``(H, W)``.
        ids: The object's id in each.
        radius: Largest tolerance that will be asked for, in pixels.
        inside: Of the object, nothing is in the first or last column or in the last row.
    """
    height, columns = truth.shape
    width = columns + max(1, pixel_bits.reach(radius))
    bits = []
    for labels, object_id in zip((truth, prediction), ids, strict=True):
        framed = np.zeros((height, width), bool)
        np.equal(labels, object_id, out=framed[:, :columns])
        bits.append(pixel_bits.pack(framed))
    return Overlap(*bits, width, None if inside else (height, columns))


def match(truth: int, prediction: int, width: int, radius: float) -> tuple[int, int, int, int]:
    """Boundary pixels of truth and of prediction, and how many of each lie within ``radius`` px of the other's."""
    numbers = truth.bit_count(), prediction.bit_count()
    if not all(numbers):
        return *numbers, 0, 0
    moved = pixel_bits.reach(radius) * (width + 1)
    near_prediction = truth << moved & pixel_bits.dilate(prediction, width, radius)
    near_truth = prediction << moved & pixel_bits.dilate(truth, width, radius)
    return *numbers, near_prediction.bit_count(), near_truth.bit_count()


def f_measure(num_truth: int, num_prediction: int, truth_near: int, prediction_near: int) -> float:
    """Harmonic mean of precision and recall from the counts of :func:`match`; 1 if neither has a boundary."""
    if not num_truth or not num_prediction:
        return float(num_truth == num_prediction)
    precision, recall = prediction_near / num_prediction, truth_near / num_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@lru_cache(maxsize=64)
def bound_pixels(bound_th: float, size: tuple[int, int]) -> float:
    """Tolerance in pixels: ``bound_th`` itself from 1 on, else that share of the diagonal of ``size``, rounded up."""
    return bound_th if bound_th >= 1 else float(math.ceil(bound_th * np.linalg.norm(size)))


def jaccard(truth: np.ndarray, prediction: np.ndarray, void: np.ndarray | None = None) -> float:
    """J: intersection over union of two ``(H, W)`` masks, 1 if both are empty; ``void`` pixels do not count."""
    return overlap(*cleared(truth, prediction, void)).jaccard()


def boundary_f(
    truth: np.ndarray, prediction: np.ndarray, void: np.ndarray | None = None, *, bound_th: float = BOUND_TH
) -> float:
    """F: how well the boundaries of two ``(H, W)`` masks agree within a tolerance, :func:`bound_pixels`."""
    radius = bound_pixels(bound_th, np.shape(truth))
    return overlap(*cleared(truth, prediction, void), radius=radius).boundary_f(radius)[0]


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """``(H, W)`` bool: pixels of a mask that differ from their right, lower or lower-right neighbour.

    A neighbour outside the image does not count, so the image's border is no boundary; a boundary lies on either side
    of the change, up or left of it.
    """
    height, width = np.shape(mask)
    pair = overlap(*cleared(mask, mask))
    return pixel_bits.unpack(pair.boundaries()[0], (height, pair.width))[:, :width]


def cleared(truth: np.ndarray, prediction: np.ndarray, void: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Both masks as bool, without the pixels of ``void``.

    Raises:
        ValueError: sizes differ.
    """
    truth, prediction = np.asarray(truth) != 0, np.asarray(prediction) != 0
    shapes = [mask.shape for mask in (truth, prediction)] + ([] if void is None else [np.shape(void)])
    if truth.ndim != 2 or len(set(shapes)) > 1:
        raise ValueError(f'masks are {", ".join(map(str, shapes))}; wanted all (H, W), of one size')
    if void is not None:
        valid = np.asarray(void) == 0
        truth, prediction = truth & valid, prediction & valid
    return truth, prediction


def statistics(values: np.ndarray, *, decay: str = 'sound') -> tuple[float, float, float]:
    """Mean, recall (share of frames over 0.5) and decay (mean of the first quarter less that of the last) of a series.

    NaN frames are left out of means and count as misses in the recall.

    Args:
        values: One number per frame.
        decay: ``'sound'``. ``'official'`` keeps the limits of the quarters in one byte, as the official program does:
            series of 256 frames or more then mostly have a decay of NaN; ``'official_numpy1'`` is the same
            program under NumPy 1, which differs at 256 and 512 frames.

    Raises:
        ValueError: no values, or an unknown rule.
    """
    values = np.asarray(values, np.float64).ravel()
    if not len(values):
        raise ValueError('no frame to take statistics of')
    return _mean(values), float(np.mean(values > 0.5)), _decay(values, decay)


def _decay(values: np.ndarray, rule: str) -> float:
    if rule not in DECAY_RULES:
        raise ValueError(f"decay is '{rule}'; wanted one of {', '.join(DECAY_RULES)}")
    # Neighbouring quarters share a frame; the tiny number rounds halves up, as Matlab does.
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1
    if rule != 'sound':
        edges &= 255
    ends = edges + 1
    if rule == 'official':
        ends &= 255
    return _mean(values[edges[0] : ends[1]]) - _mean(values[edges[3] : ends[4]])


def _mean(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # nothing to take the mean of: NaN says so
        return float(np.nanmean(values))
