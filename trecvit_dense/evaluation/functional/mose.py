"""MOSE: objects that vanish and come back. Version 2 has measures of its own, version 1 those of DAVIS.

Sources: Ding et al., "MOSE: A New Dataset for Video Object Segmentation in Complex Scenes", arXiv 2302.01872, section
4; "MOSEv2", arXiv 2508.05630, section 4. Version 1 is scored on a server only; here an object counts on every frame
after the one on which it is given, but for the last frame of the video, as in DAVIS and in version 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from .davis import BOUND_TH, Overlap
from .vos import Frames, ObjectScores, check_length, late_objects, score_objects

MEASURES = ('J', 'F_new', 'F', 'disappear_J', 'disappear_F_new', 'reappear_J', 'reappear_F_new')


def mose_v1(
    truth: Frames,
    prediction: Frames,
    first_frame: dict[int, int] | None = None,
    *,
    allowed: Sequence[int] | None = None,
) -> list[ObjectScores]:
    """J and F of DAVIS for each object, from the frame after its first to the last but one of the video."""
    return late_objects(truth, prediction, first_frame, count_last=False, allowed=allowed)


def mose_v2(
    truth: Frames, prediction: Frames, ids: Iterable[int], *, allowed: Sequence[int] | None = None
) -> list[ObjectScores]:
    """J, F_new, F and whether the object is absent, of every object on all frames but the first and the last.

    Args:
        ids: The objects; they need not be in the first frame.
        allowed: Ids that the prediction may hold. None: ``ids``.
    """
    check_length(truth, prediction, least=3)
    ids = sorted(ids)
    frames = {object_id: range(1, len(truth) - 1) for object_id in ids}
    names = ('J', 'F_new', 'F', 'absent')
    allowed = ids if allowed is None else allowed
    return score_objects(truth, prediction, frames, allowed, score=score_pair, names=names)


def score_pair(pair: Overlap, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """J with one pixel added to intersection and union, F_new with a tolerance for small objects, F, and absence."""
    intersection, union = pair.counts()
    similarity = min((intersection + 1) / (union + 1), 1.0) if union else 1.0
    area = pair.truth.bit_count()
    usual, small = tolerances(area, size)
    values = pair.boundary_f(usual, small) if small != usual else pair.boundary_f(usual) * 2
    return similarity, values[1], values[0], float(not area)


def tolerances(area: int, size: tuple[int, int]) -> tuple[float, float]:
    """Pixels of F and of F_new for an object of ``area`` pixels (0: absent) in a frame ``(H, W)``.

    The usual one is rounded up only where the object is so small that F_new has another.
    """
    diagonal = float(np.linalg.norm(size))
    usual = BOUND_TH * diagonal
    own = float(math.ceil(0.1 * (math.sqrt(area) if area else diagonal)))
    return (float(math.ceil(usual)), own) if own < usual else (usual, usual)


def merge(scores: ObjectScores) -> dict[str, float]:
    """The seven numbers of one object, :data:`MEASURES`; NaN where it never is away, or never comes back."""
    series = dict(J=scores.J, F_new=scores.extra['F_new'])
    means = dict(J=scores.J.mean(), F_new=series['F_new'].mean(), F=scores.F.mean())
    gone, back = absences(scores.extra['absent'].astype(bool))
    for name, spans in (('disappear', gone), ('reappear', back)):
        for measure, values in series.items():
            parts = [values[start:end].mean() for start, end in spans]
            means[f'{name}_{measure}'] = np.mean(parts) if parts else math.nan
    return {name: float(means[name]) for name in MEASURES}


def absences(absent: np.ndarray) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Frames ``start:end`` of each absence and of each presence, without the one that the first frame belongs to."""
    limits = [*(np.flatnonzero(np.diff(absent.astype(np.int8))) + 1).tolist(), len(absent)]
    spans = list(zip(limits[:-1], limits[1:], strict=True))
    return [s for s in spans if absent[s[0]]], [s for s in spans if not absent[s[0]]]


def summarise(objects: Sequence[ObjectScores]) -> dict[str, float]:
    """Means over all objects; ``J&F_new``, ``J&F`` and :data:`MEASURES`."""
    rows = [merge(scores) for scores in objects]
    means = {}
    for name in MEASURES:
        values = [row[name] for row in rows if not math.isnan(row[name])]
        means[name] = float(np.mean(values)) if values else math.nan
    pairs = {'J&F_new': (means['J'] + means['F_new']) / 2, 'J&F': (means['J'] + means['F']) / 2}
    return {**pairs, **means}
