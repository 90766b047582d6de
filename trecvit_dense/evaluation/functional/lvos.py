"""LVOS: long videos. Each object counts within its own range of frames; means are taken over seen and unseen videos.

Source: Hong et al., "LVOS: A Benchmark for Long-term Video Object Segmentation", arXiv 2211.10181, section 5, and the
official evaluator (its Python boundaries, which are those of DAVIS; the optional compiled ones differ).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .davis import statistics
from .vos import Frames, ObjectScores, score_objects

STEP = 5  # every fifth frame is annotated


def object_frames(start: int, end: int, frame_nums: int, *, step: int = STEP) -> list[int]:
    """Numbers of the frames on which an object counts, from its ``frame_range``: not on its first and last one."""
    return [number for i, number in enumerate(range(start, end, step)) if 0 < i < frame_nums - 1]


def score_sequence(
    truth: Frames, prediction: Frames, frames: Mapping[int, Sequence[int]], *, allowed: Sequence[int] | None = None
) -> list[ObjectScores]:
    """J and F of each object on its own frames.

    Args:
        frames: Object id to the indices (not numbers) of the frames on which it counts.
        allowed: Ids that the prediction may hold. None: the objects.
    """
    return score_objects(truth, prediction, frames, sorted(frames) if allowed is None else allowed)


def variation(scores: ObjectScores) -> float:
    """V: standard deviation over time of J&F, of which the variance is rounded to four digits. Lower is better."""
    both = (scores.J + scores.F) / 2
    return math.sqrt(round(float(np.sum((both - both.mean()) ** 2)) / len(both), 4))


def object_statistics(objects: Sequence[ObjectScores], *, decay: str = 'sound') -> dict[str, list[float]]:
    """``J_M J_R J_D F_M F_R F_D V``, each a list over objects.

    Args:
        decay: ``'sound'`` is that of DAVIS. ``'official'`` is 0 for every object: the official program takes the length
            of a series from the wrong axis.
    """
    table: dict[str, list[float]] = {}
    for measure in 'JF':
        rows = [statistics(getattr(scores, measure)) for scores in objects]
        for name, column in zip('MRD', zip(*rows, strict=True), strict=True):
            table[f'{measure}_{name}'] = [0.0] * len(rows) if name == 'D' and decay == 'official' else list(column)
    return {**table, 'V': [variation(scores) for scores in objects]}


def summarise(
    seen: Sequence[ObjectScores], unseen: Sequence[ObjectScores], *, decay: str = 'sound'
) -> dict[str, float]:
    """Means over the objects of seen and of unseen videos, and the means of the two; of one group if that is all.

    Returns:
        ``J&F``, ``J``, ``F``, ``V`` and for each measure ``.._seen`` and ``.._unseen``; recall and decay of J and F.
    """
    groups = {name: group for name, group in (('seen', seen), ('unseen', unseen)) if len(group)}
    names = {'J': 'J_M', 'J_recall': 'J_R', 'J_decay': 'J_D', 'F': 'F_M', 'F_recall': 'F_R', 'F_decay': 'F_D', 'V': 'V'}
    tables = {name: object_statistics(group, decay=decay) for name, group in groups.items()}
    by_group = {
        name: {key: float(np.mean(table[column])) for key, column in names.items()} for name, table in tables.items()
    }
    means = {key: float(np.mean([row[key] for row in by_group.values()])) for key in names}
    parts = {f'{key}_{name}': row[key] for name, row in by_group.items() for key in ('J', 'F', 'V')}
    return {'J&F': (means['J'] + means['F']) / 2, **means, **(parts if len(groups) == 2 else {})}
