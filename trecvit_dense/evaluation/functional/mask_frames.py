"""J and F of all objects of one frame, from two index maps: every object in its own small window.

The work goes with the size of the objects, not of the frame: one pass over the frame finds the rows and columns that
each object can lie in, everything else happens inside. Nothing is approximate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .davis import BOUND_TH, Overlap, bound_pixels, f_measure, overlap

VOID = 255
Window = tuple[slice, slice]
Score = Callable[[Overlap, tuple[int, int]], tuple[float, ...]]


class Windows:
    """Where the objects of an index map can be.

    The bits of all ids in a row (or column) are joined by OR; an object can only be where all of its own bits are set.
    That is a window around the object which may be too large, never too small, and costs one pass for all ids.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray) -> None:
        self.rows, self.columns = rows, columns

    @classmethod
    def find(cls, labels: np.ndarray) -> Windows:
        """Of an ``(H, W)`` uint8 index map."""
        columns = np.bitwise_or.reduce(labels, axis=0)
        filled = np.flatnonzero(columns)
        part = slice(filled[0], filled[-1] + 1) if len(filled) else slice(0, 1)
        return cls(np.bitwise_or.reduce(labels[:, part], axis=1), columns)

    def __or__(self, other: Windows) -> Windows:
        return Windows(self.rows | other.rows, self.columns | other.columns)

    def of(self, object_id: int) -> Window | None:
        """Rows and columns of one object and a pixel around it, where boundaries lie; None if it is nowhere."""
        return self._window(self.rows & object_id == object_id, self.columns & object_id == object_id)

    def over(self, object_id: int) -> Window | None:
        """The same for everything with an id over this one."""
        return self._window(self.rows > object_id, self.columns > object_id)

    def _window(self, rows: np.ndarray, columns: np.ndarray) -> Window | None:
        rows, columns = np.flatnonzero(rows), np.flatnonzero(columns)
        if not len(rows) or not len(columns):
            return None
        spans = ((rows, len(self.rows)), (columns, len(self.columns)))
        return tuple(slice(max(0, int(found[0]) - 1), min(int(found[-1]) + 2, end)) for found, end in spans)

    def inside(self, object_id: int) -> bool:
        """Nothing of an object lies in the first or last column or the last row of the image."""
        ends = (self.columns[0], self.columns[-1], self.rows[-1])
        return not any(end & object_id == object_id for end in ends)


def check_same_size(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Raises ValueError for index maps of different size."""
    if truth.shape != prediction.shape:
        sizes = (' x '.join(map(str, labels.shape)) for labels in (prediction, truth))
        raise ValueError('prediction is {}, truth {}; wanted masks in the size of the annotation'.format(*sizes))


def ids_of(labels: np.ndarray, windows: Windows, *, over: int = 0) -> list[int]:
    """Ids over ``over`` that an index map holds, ascending."""
    window = windows.over(over)
    counts = np.zeros(1) if window is None else np.bincount(labels[window].ravel())
    return [object_id for object_id in np.flatnonzero(counts).tolist() if object_id > over]


def check_ids(prediction: np.ndarray, windows: Windows, allowed: Sequence[int]) -> None:
    """Raises ValueError if an index map holds an id that is none of ``allowed``."""
    consecutive = max(allowed, default=0) == len(allowed)  # then only larger ones can be strange
    found = ids_of(prediction, windows, over=len(allowed) if consecutive else 0)
    strange = [object_id for object_id in found if object_id not in allowed]
    if strange:
        known = f'wanted {", ".join(map(str, allowed))}' if len(allowed) else 'the truth has no object'
        raise ValueError(f'prediction holds the id {strange[-1]}; {known} (0 is background)')


def jaccard_and_f(pair: Overlap, size: tuple[int, int], *, bound_th: float = BOUND_TH) -> tuple[float, float]:
    """J and F of one object; ``size`` ``(H, W)`` of the frame."""
    return pair.jaccard(), *pair.boundary_f(bound_pixels(bound_th, size))


def score_frame(
    truth: np.ndarray,
    prediction: np.ndarray,
    ids: Sequence[int],
    *,
    allowed: Sequence[int] | None = None,
    score: Score = jaccard_and_f,
    bound_th: float = BOUND_TH,
) -> list[tuple[float, ...]]:
    """``score`` (J and F) of each of ``ids`` in one frame.

    Args:
        truth, prediction: ``(H, W)`` uint8 index maps.
        ids: Objects, from 1 on. What has another id counts as background.
        allowed: Ids that the prediction may hold. None: any.
        score: What to compute.
        bound_th: Largest tolerance that ``score`` will use, as a share of the diagonal or in pixels.

    Raises:
        ValueError: sizes differ, or the prediction holds an id that is not allowed.
    """
    check_same_size(truth, prediction)
    predicted = Windows.find(prediction)
    if allowed is not None:
        check_ids(prediction, predicted, allowed)
    windows, radius = Windows.find(truth) | predicted, bound_pixels(bound_th, truth.shape)
    return [score(_pair(truth, prediction, i, windows, radius), truth.shape) for i in ids]


_NOTHING = Overlap(0, 0, 1, None)


def _pair(truth: np.ndarray, prediction: np.ndarray, object_id: int, windows: Windows, radius: float) -> Overlap:
    window = windows.of(object_id)
    if window is None:
        return _NOTHING
    return overlap(truth[window], prediction[window], (object_id,) * 2, radius, inside=windows.inside(object_id))


class Region:
    """One object of one frame, to be compared with several others of another index map."""

    def __init__(self, labels: np.ndarray, object_id: int, windows: Windows) -> None:
        self.labels, self.object_id, self.window = labels, object_id, windows.of(object_id)
        part = labels[self.window or (slice(0, 1), slice(0, 1))]
        pair = overlap(part, part, (object_id, object_id))
        self.area, self.boundary = pair.truth.bit_count(), pair.boundaries()[0].bit_count()

    def compare(self, other: Region, radius: float) -> tuple[float, float]:
        """J and F with this region as truth."""
        if not self.area or not other.area or self._apart(other, radius):
            nothing = float(not self.area and not other.area)
            return nothing, f_measure(self.boundary, other.boundary, 0, 0)
        window = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(self.window, other.window, strict=True)
        )
        pair = overlap(self.labels[window], other.labels[window], (self.object_id, other.object_id), radius)
        return pair.jaccard(), *pair.boundary_f(radius)

    def _apart(self, other: Region, radius: float) -> bool:
        """Too far for any pixel or boundary to match."""
        windows = zip(self.window, other.window, strict=True)
        return any(max(a.start, b.start) - min(a.stop, b.stop) > radius for a, b in windows)
