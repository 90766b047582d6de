"""Protocols of video object segmentation over one sequence: which frames and objects count, and from when on.

Every function takes truth and prediction as sequences of ``(H, W)`` uint8 index maps (arrays ``(T, H, W)``, or anything
that reads frame ``t`` when it is asked for) and returns one :class:`ObjectScores` per object. Only the frames that
count are looked at. Sources: the DAVIS papers named in :mod:`.davis`; Caelles et al., "The 2019 DAVIS Challenge on VOS:
Unsupervised Multi-Object Segmentation", arXiv 1905.00737; Xu et al., "YouTube-VOS", arXiv 1809.03327, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .davis import BOUND_TH, bound_pixels, statistics
from .mask_frames import VOID, Region, Score, Windows, check_same_size, ids_of, jaccard_and_f, score_frame

MAX_PROPOSALS = 20
Frames = Sequence[np.ndarray]


@dataclass
class ObjectScores:
    """One object of one sequence.

    Args:
        object_id: Its id; in the unsupervised protocol its row.
        J, F: ``(N,)`` one value per frame that counts.
        extra: What else a protocol needs, by name: more values per frame, or the object's group.
    """

    object_id: int
    J: np.ndarray
    F: np.ndarray
    extra: dict = field(default_factory=dict)


def semi_supervised(
    truth: Frames, prediction: Frames, *, bound_th: float = BOUND_TH, allowed: Sequence[int] | None = None
) -> list[ObjectScores]:
    """DAVIS 2017, semi-supervised: the first and the last frame do not count.

    Objects are 1 to the largest id of the first frame, gaps included; what appears later is background, and so is 255.

    Args:
        allowed: Ids that the prediction may hold. None: those of the objects, as the official program demands.

    Raises:
        ValueError: fewer than three frames, no object, sizes that differ, or an id that is not allowed.
    """
    check_length(truth, prediction, least=3)
    with FrameNamed(0, truth):
        first = np.asarray(truth[0])
        ids = list(range(1, int(np.where(first == VOID, 0, first).max()) + 1))
        if not ids:
            raise ValueError('the annotation has no object')
    allowed = ids if allowed is None else allowed
    return score_objects(truth, prediction, {i: range(1, len(truth) - 1) for i in ids}, allowed, bound_th=bound_th)


def merged(truth: Frames, prediction: Frames, *, bound_th: float = BOUND_TH) -> list[ObjectScores]:
    """DAVIS 2016: all ids are one foreground; the first and the last frame do not count."""
    check_length(truth, prediction, least=3)
    frames = {1: range(1, len(truth) - 1)}
    return score_objects(_Foreground(truth), _Foreground(prediction), frames, bound_th=bound_th)


class _Foreground:
    """Index maps with everything that is not zero as object 1."""

    def __init__(self, frames: Frames) -> None:
        self.frames, self.names = frames, getattr(frames, 'names', None)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, t: int) -> np.ndarray:
        return (np.asarray(self.frames[t]) != 0).view(np.uint8)


def late_objects(
    truth: Frames,
    prediction: Frames,
    first_frame: Mapping[int, int] | None = None,
    *,
    count_last: bool = True,
    bound_th: float = BOUND_TH,
    allowed: Sequence[int] | None = None,
) -> list[ObjectScores]:
    """YouTube-VOS and its kin: each object counts on every frame after the one on which it is given.

    Args:
        first_frame: Object id to the index of that frame. None: where it appears first in the truth.
        count_last: Count the last frame, too; MOSE follows DAVIS and does not.
        allowed: Ids that the prediction may hold. None: those of the objects.
    """
    check_length(truth, prediction, least=2 if count_last else 3)
    first_frame = first_appearance(truth) if first_frame is None else first_frame
    end = len(truth) if count_last else len(truth) - 1
    frames = {i: range(start + 1, end) for i, start in sorted(first_frame.items()) if start + 1 < end}
    allowed = sorted(first_frame) if allowed is None else allowed
    return score_objects(truth, prediction, frames, allowed, bound_th=bound_th)


def first_appearance(truth: Frames) -> dict[int, int]:
    """Object id to the index of the first frame that has it."""
    found: dict[int, int] = {}
    for t in range(len(truth)):
        with FrameNamed(t, truth):
            labels = np.asarray(truth[t])
        for object_id in ids_of(labels, Windows.find(labels)):
            if object_id != VOID:
                found.setdefault(object_id, t)
    return found


def score_objects(
    truth: Frames,
    prediction: Frames,
    frames: Mapping[int, Sequence[int]],
    allowed: Sequence[int] | None = None,
    *,
    score: Score = jaccard_and_f,
    names: Sequence[str] = ('J', 'F'),
    bound_th: float = BOUND_TH,
) -> list[ObjectScores]:
    """Score each object on its own frames; every frame is read once.

    Args:
        frames: Object id to the indices of its frames, ascending.
        allowed: Ids that the prediction may hold on these frames. None: any.
        score, names: What to compute for an object in a frame, and how the values are called; J and F among them.

    Raises:
        ValueError: sizes differ or the prediction has an id that is not allowed; the frame is named.
    """
    present: dict[int, list[int]] = {}
    for object_id, numbers in frames.items():
        for t in numbers:
            present.setdefault(t, []).append(object_id)
    values: dict[int, list[tuple[float, ...]]] = {object_id: [] for object_id in frames}
    options = dict(allowed=allowed, score=score, bound_th=bound_th)
    for t, ids in sorted(present.items()):
        with FrameNamed(t, truth):
            rows = score_frame(np.asarray(truth[t]), np.asarray(prediction[t]), ids, **options)
        for object_id, row in zip(ids, rows, strict=True):
            values[object_id].append(row)
    scores = []
    for object_id, rows in values.items():
        columns = dict(zip(names, np.array(rows, np.float64).reshape(len(rows), len(names)).T, strict=True))
        scores.append(ObjectScores(object_id, columns.pop('J'), columns.pop('F'), columns))
    return scores


class FrameNamed:
    """Put the frame before the message of a ValueError; ``frames.names`` knows what it is called."""

    def __init__(self, t: int, frames: Frames) -> None:
        names = getattr(frames, 'names', None)
        self.name = t if names is None else names[t]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise ValueError(f'frame {self.name}: {error}') from None


def check_length(truth: Frames, prediction: Frames, *, least: int) -> None:
    """Raises ValueError for different numbers of frames, or fewer than ``least``."""
    if len(truth) != len(prediction):
        raise ValueError(f'prediction has {len(prediction)} frames, truth {len(truth)}')
    if len(truth) < least:
        raise ValueError(f'has {len(truth)} frames; wanted at least {least}, as the first or last ones do not count')


def unsupervised(truth: Frames, prediction: Frames, *, bound_th: float = BOUND_TH) -> list[ObjectScores]:
    """DAVIS 2017, unsupervised: proposals are matched to objects over the whole sequence; every frame counts.

    255 in the truth is void. Rows come in the order of the proposals, as in the official tables: they are no ids of
    the truth. Objects without a proposal are compared with nothing; proposals without an object do not count.

    Raises:
        ValueError: no object, more than 20 proposals, or sizes that differ.
    """
    check_length(truth, prediction, least=1)
    pairs = [_without_void(t, truth, prediction) for t in range(len(truth))]
    num_objects, num_proposals = (max(int(pair[k].max(initial=0)) for pair in pairs) for k in range(2))
    if num_objects == 0:
        raise ValueError('the annotation has no object')
    if num_proposals > MAX_PROPOSALS:
        raise ValueError(f'prediction holds the id {num_proposals}; wanted at most {MAX_PROPOSALS} proposals')
    scores = np.empty((2, max(num_proposals, num_objects), num_objects, len(pairs)))  # J, F; proposal, object, frame
    for t, pair in enumerate(pairs):
        radius = bound_pixels(bound_th, pair[0].shape)
        objects, proposals = (
            _regions(labels, count) for labels, count in zip(pair, (num_objects, scores.shape[1]), strict=True)
        )
        for p, proposal in enumerate(proposals):
            for o, region in enumerate(objects):
                scores[:, p, o, t] = region.compare(proposal, radius)
    return [ObjectScores(row + 1, *scores[:, p, o]) for row, (p, o) in enumerate(_assign(scores))]


def _without_void(t: int, truth: Frames, prediction: Frames) -> tuple[np.ndarray, np.ndarray]:
    labels, predicted = np.asarray(truth[t]), np.asarray(prediction[t])
    with FrameNamed(t, truth):
        check_same_size(labels, predicted)
    void = labels == VOID
    return (np.where(void, 0, labels), np.where(void, 0, predicted)) if void.any() else (labels, predicted)


def _regions(labels: np.ndarray, count: int) -> list[Region]:
    windows = Windows.find(labels)
    return [Region(labels, object_id, windows) for object_id in range(1, count + 1)]


def _assign(scores: np.ndarray) -> list[tuple[int, int]]:
    """Proposal and object of each pair of the best assignment, in the order of the proposals."""
    from scipy.optimize import linear_sum_assignment  # half a second to import, and only this protocol needs it

    mean = scores.mean(axis=3)
    rows, columns = linear_sum_assignment(-(mean[0] + mean[1]) / 2)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def vos_benchmark(
    truth: Frames, prediction: Frames, *, skip_first_last: bool = False, bound_th: float = BOUND_TH
) -> list[ObjectScores]:
    """The rules of the program ``vos-benchmark``, whose numbers many papers carry (there in percent).

    An object counts from the frame on which its id is seen first, in truth or prediction; ids that only the prediction
    has do not count; 255 is an id like any other.
    """
    check_length(truth, prediction, least=1)
    start, end = (1, len(truth) - 1) if skip_first_last else (0, len(truth))
    seen: dict[int, int] = {}
    in_truth: set[int] = set()
    for t in range(start, end):
        for frames in (truth, prediction):
            labels = np.asarray(frames[t])
            for object_id in ids_of(labels, Windows.find(labels)):
                seen.setdefault(object_id, t)
                if frames is truth:
                    in_truth.add(object_id)
    return score_objects(truth, prediction, {i: range(seen[i], end) for i in sorted(in_truth)}, bound_th=bound_th)


def summarise(objects: Sequence[ObjectScores], *, decay: str = 'sound') -> dict[str, float]:
    """Means over all objects of all sequences (not per sequence first), as DAVIS reports them.

    Returns:
        ``J&F``, and ``J``, ``J_recall``, ``J_decay``, ``F``, ``F_recall``, ``F_decay``.
    """
    means: dict[str, float] = {}
    for measure in 'JF':
        rows = [statistics(getattr(scores, measure), decay=decay) for scores in objects]
        keys = (measure, f'{measure}_recall', f'{measure}_decay')
        means.update(zip(keys, np.mean(rows, axis=0).tolist(), strict=True))
    return {'J&F': (means['J'] + means['F']) / 2, **means}
