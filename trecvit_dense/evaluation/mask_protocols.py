"""The protocols of video object segmentation by name: how a sequence is scored and what is reported of all of them.

Shared by the metric of a training run and by the evaluator of folders. NumPy alone: child processes start fast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .functional import lvos, mose, vos, youtube_vos
from .functional.davis import DECAY_RULES
from .functional.vos import Frames, ObjectScores


@dataclass
class SequenceFacts:
    """What is known of a sequence besides its masks.

    Args:
        name: Identity in reports.
        frame_names: What the annotated frames are called, in order.
        first_frame: Object id to the index of the frame on which it is given; None: read off the truth.
        categories: Object id to its category (YouTube-VOS).
        frame_range: Object id to ``(start, end, frame_nums)`` in frame numbers (LVOS).
        ids: Objects of the sequence where a list of them exists (MOSE v2).
    """

    name: str
    frame_names: list[str] = field(default_factory=list)
    first_frame: dict[int, int] | None = None
    categories: Mapping[int, str] = field(default_factory=dict)
    frame_range: Mapping[int, tuple[int, int, int]] | None = None
    ids: Sequence[int] | None = None


@dataclass
class Groups:
    """What counts as unseen: videos in LVOS, categories in YouTube-VOS; ``seen`` may be given instead."""

    seen: Collection[str] | None = None
    unseen: Collection[str] | None = None


Scores = Mapping[str, list[ObjectScores]]  # by sequence


@dataclass(frozen=True)
class MaskProtocol:
    """One protocol.

    Args:
        dataset: First part of metric keys by default.
        key: What the protocol adds to that part, for one that shares a data set with others.
        score: Truth, prediction and facts of a sequence to one row per object.
        summarise: All rows to what is reported.
        annotations: Folder of the truth.
        image_set: Folder of ``ImageSets`` that holds the lists.
        some_frames: The truth may leave out frames that the prediction has.
        binary: Anything but black is the object, in colour files, too.
        least: Annotated frames that a sequence needs.
    """

    dataset: str
    score: Callable[[Frames, Frames, SequenceFacts], list[ObjectScores]]
    summarise: Callable[[Scores, Groups, str], dict[str, float]]
    key: str = ''
    annotations: str = 'Annotations'
    image_set: str | None = None
    some_frames: bool = False
    binary: bool = False
    least: int = 3


def _semi(truth: Frames, prediction: Frames, facts: SequenceFacts) -> list[ObjectScores]:
    if facts.first_frame is None:
        return vos.semi_supervised(truth, prediction)
    return vos.late_objects(truth, prediction, facts.first_frame, count_last=False)


def _youtube(truth: Frames, prediction: Frames, facts: SequenceFacts) -> list[ObjectScores]:
    objects = vos.late_objects(truth, prediction, facts.first_frame)
    for scores in objects:
        scores.extra['category'] = facts.categories.get(scores.object_id)
    return objects


def _mose(truth: Frames, prediction: Frames, facts: SequenceFacts) -> list[ObjectScores]:
    return mose.mose_v1(truth, prediction, facts.first_frame)


def _mosev2(truth: Frames, prediction: Frames, facts: SequenceFacts) -> list[ObjectScores]:
    ids = facts.ids or sorted(facts.first_frame or vos.first_appearance(truth))
    return mose.mose_v2(truth, prediction, ids)


def _lvos(truth: Frames, prediction: Frames, facts: SequenceFacts) -> list[ObjectScores]:
    if facts.frame_range is None:
        raise ValueError('no frame_range of its objects is known; wanted the meta file of LVOS')
    places = {int(name): index for index, name in enumerate(facts.frame_names)}
    frames: dict[int, list[int]] = {}
    for object_id, span in facts.frame_range.items():
        numbers = lvos.object_frames(*span)
        missing = [number for number in numbers if number not in places]
        if missing:
            raise ValueError(f'object {object_id}: frame {missing[0]} of its range has no annotation')
        if numbers:
            frames[object_id] = [places[number] for number in numbers]
    return lvos.score_sequence(truth, prediction, frames, allowed=sorted(facts.frame_range))


def _davis_summary(scores: Scores, groups: Groups, decay: str) -> dict[str, float]:
    return vos.summarise(_all(scores), decay=decay)


def _youtube_summary(scores: Scores, groups: Groups, decay: str) -> dict[str, float]:
    for row in _all(scores):
        row.extra['group'] = youtube_vos.group_of(row.extra['category'], groups.seen, groups.unseen)
    return youtube_vos.summarise(_all(scores), decay=decay)


def _mosev2_summary(scores: Scores, groups: Groups, decay: str) -> dict[str, float]:
    return mose.summarise(_all(scores))


def _lvos_summary(scores: Scores, groups: Groups, decay: str) -> dict[str, float]:
    parts: tuple[list, list] = ([], [])
    for name, rows in scores.items():
        unseen = name in groups.unseen if groups.unseen is not None else name not in (groups.seen or scores)
        parts[unseen].extend(rows)
    return lvos.summarise(*parts, decay=decay)


def _all(scores: Scores) -> list[ObjectScores]:
    return [row for rows in scores.values() for row in rows]


PROTOCOLS = {
    'davis2017-semi': MaskProtocol('davis', _semi, _davis_summary, image_set='2017'),
    'davis2016': MaskProtocol(
        'davis2016', lambda *x: vos.merged(*x[:2]), _davis_summary, image_set='2016', binary=True
    ),
    'davis2017-unsupervised': MaskProtocol(
        'davis',
        lambda *x: vos.unsupervised(*x[:2]),
        _davis_summary,
        key='unsupervised',
        annotations='Annotations_unsupervised',
        image_set='2017',
        least=1,
    ),
    'youtubevos': MaskProtocol('youtubevos', _youtube, _youtube_summary, some_frames=True, least=2),
    'mose': MaskProtocol('mose', _mose, _davis_summary),
    'mosev2': MaskProtocol('mosev2', _mosev2, _mosev2_summary),
    'lvos': MaskProtocol('lvos', _lvos, _lvos_summary, some_frames=True, least=2),
}


def find_protocol(name: str) -> MaskProtocol:
    """Raises: ValueError: unknown name; the nearest one is given."""
    if name not in PROTOCOLS:
        import difflib

        near = difflib.get_close_matches(name, PROTOCOLS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ''
        raise ValueError(f"protocol is '{name}'{hint}; wanted one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def check_decay(decay: str) -> None:
    """Raises: ValueError: an unknown rule."""
    if decay not in DECAY_RULES:
        raise ValueError(f"decay is '{decay}'; wanted one of {', '.join(DECAY_RULES)}")


def report(
    protocol: MaskProtocol,
    scores: Scores,
    groups: Groups | None = None,
    *,
    decay: str = 'sound',
    per_sequence: bool = False,
) -> dict[str, float]:
    """What is reported of all sequences: summary, ``num_sequences``, ``num_objects``, and single ones if wanted.

    A sequence without any object that counts is left out.
    """
    scores = {name: rows for name, rows in scores.items() if rows}
    metrics: dict[str, float] = dict(num_sequences=len(scores), num_objects=len(_all(scores)))
    if not scores:
        return metrics
    metrics.update(protocol.summarise(scores, groups or Groups(), decay))
    for name, rows in scores.items() if per_sequence else ():
        similarity, boundary = (float(np.mean([getattr(row, m).mean() for row in rows])) for m in 'JF')
        values = {'J&F': (similarity + boundary) / 2, 'J': similarity, 'F': boundary}
        metrics.update({f'per_sequence/{name}/{key}': value for key, value in values.items()})
    return metrics
