"""Classification in numpy: views to one answer per video, top-k, mean class accuracy, and the rules of LVU.

A video that is tested on several views (clips x crops) has one row of scores for each; how they become one answer is
named, since the names give different decisions: SlowFast sums or takes the greatest probability, mmaction2 takes the
mean of probabilities or of logits, XViT sums logits. LVU (arXiv 2106.11310) does the same over windows of a film.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

AGGREGATIONS = ('mean_probs', 'mean_logits', 'sum_probs', 'sum_logits', 'max_probs')
TIES = ('expected', 'optimistic', 'pessimistic', 'mmaction', 'slowfast')
CLASS_SETS = ('labels', 'labels_and_predictions')

LVU_LIKE_MEAN = 9.138220535629456  # of 10 * likes / (likes + dislikes), as ViS4mer's program has it
LVU_VIEW_MEAN = 11.76425435683139  # of ln(views)


def check_name(what: str, name: str, known: Sequence[str]) -> None:
    """Raises ValueError when ``name`` is none of ``known``."""
    if name not in known:
        raise ValueError(f"{what} is '{name}'; wanted one of {', '.join(known)}")


# ---- several views of a video


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, float64."""
    shifted = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def aggregate_views(views: np.ndarray, aggregation: str = 'mean_probs') -> np.ndarray:
    """``(..., V, C)`` scores of V views to ``(..., C)`` of the video.

    Args:
        views: Probabilities for ``*_probs``, logits for ``*_logits``.
        aggregation: ``'mean_probs'`` (mmaction2 ``prob``; TRecViT), ``'mean_logits'`` (mmaction2 ``score``),
            ``'sum_probs'`` (SlowFast, LVU), ``'max_probs'`` (SlowFast ``max``), ``'sum_logits'`` (XViT).
    """
    check_name('aggregation', aggregation, AGGREGATIONS)
    views, kind = np.asarray(views, np.float64), aggregation.partition('_')[0]
    if kind == 'mean':
        return views.mean(axis=-2)
    return views.sum(axis=-2) if kind == 'sum' else views.max(axis=-2)


def aggregate_windows(
    rows: np.ndarray, videos: Sequence[str], counts: Sequence[int] | None = None, *, aggregation: str = 'sum_probs'
) -> tuple[list[str], np.ndarray]:
    """Rows of several windows of the same videos to one row per video.

    Args:
        rows: ``(N, ...)``, each already the aggregate of its own views.
        videos: The video of each row.
        counts: Views in each row, which weigh a mean; None: one each.

    Returns:
        The videos in the order in which they first came, and ``(M, ...)``.
    """
    check_name('aggregation', aggregation, (*AGGREGATIONS, 'mean'))
    names = list(dict.fromkeys(videos))
    place = {name: index for index, name in enumerate(names)}
    owner = np.array([place[video] for video in videos], int)
    rows, kind = np.asarray(rows, np.float64), aggregation.partition('_')[0]
    if kind == 'max':
        merged = np.full((len(names), *rows.shape[1:]), -np.inf)
        np.maximum.at(merged, owner, rows)
        return names, merged
    weights = np.ones(len(rows)) if counts is None or kind == 'sum' else np.asarray(counts, np.float64)
    merged = np.zeros((len(names), *rows.shape[1:]))
    np.add.at(merged, owner, rows * weights.reshape(-1, *([1] * (rows.ndim - 1))))
    if kind == 'mean':
        merged /= np.bincount(owner, weights, len(names)).reshape(-1, *([1] * (rows.ndim - 1)))
    return names, merged


# ---- right and wrong


def topk_hits(scores: np.ndarray, labels: np.ndarray, k: int = 1, *, ties: str = 'expected') -> np.ndarray:
    """``(N,)`` in [0, 1]: whether the label is among the k greatest of ``scores`` ``(N, C)``.

    Args:
        ties: What to do where other classes have exactly the label's score. ``'expected'``: the probability of a hit
            when ties are broken by lot, so that a constant answer is worth what chance is worth. ``'optimistic'``,
            ``'pessimistic'``: as good or as bad as can be. ``'mmaction'``: the last k of ``numpy.argsort``;
            ``'slowfast'``: ``torch.topk``. The order of ties in these two is nobody's promise: it depends on the
            library, the first one's on the processor, too.

    A score that is not a number never is a hit.

    Raises:
        ValueError: k below 1, unknown rule, or labels that are no class.
    """
    check_name('ties', ties, TIES)
    scores, labels = _checked(scores, labels)
    if k < 1:
        raise ValueError(f'k is {k}; wanted 1 or more')
    if ties in ('mmaction', 'slowfast'):
        return (_official_top(scores, k, ties) == labels[:, None]).any(axis=1).astype(np.float64)
    own = scores[np.arange(len(scores)), labels][:, None]
    above = (~(scores <= own)).sum(axis=1)  # written so that NaN counts as above
    equal = np.maximum((scores == own).sum(axis=1), 1)
    if ties == 'optimistic':
        equal = np.ones_like(equal)
    elif ties == 'pessimistic':
        above, equal = above + equal - 1, np.ones_like(equal)
    return np.clip((k - above) / equal, 0.0, 1.0)


def _official_top(scores: np.ndarray, k: int, program: str) -> np.ndarray:
    """``(N, k)`` classes."""
    if program == 'mmaction':
        return np.argsort(scores, axis=1)[:, -k:]
    import torch  # the one rule that is torch's own

    return torch.from_numpy(np.ascontiguousarray(scores)).topk(min(k, scores.shape[1])).indices.numpy()


def topk_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1, *, ties: str = 'expected') -> float:
    """Mean of :func:`topk_hits`; NaN without videos."""
    hits = topk_hits(scores, labels, k, ties=ties)
    return float(hits.mean()) if len(hits) else float('nan')


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``(C, C)`` int64: row = label, column = class with the greatest score (the first of several)."""
    scores, labels = _checked(scores, labels)
    classes = scores.shape[1]
    return np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray, *, class_set: str = 'labels') -> float:
    """Mean of the recalls of the classes.

    Args:
        class_set: ``'labels'``: classes that occur as a label. ``'labels_and_predictions'`` (mmaction2): also those
            that are only predicted, with a recall of 0.
    """
    check_name('class_set', class_set, CLASS_SETS)
    matrix = confusion_matrix(scores, labels)
    counts = matrix.sum(axis=1)
    counted = counts > 0
    if class_set == 'labels_and_predictions':
        counted |= matrix.sum(axis=0) > 0
    if not counted.any():
        return float('nan')
    return float((np.diag(matrix)[counted] / np.maximum(counts[counted], 1)).mean())


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels, np.int64)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f'scores have shape {scores.shape}, labels {labels.shape}; wanted (N, C) and (N,)')
    wrong = labels[(labels < 0) | (labels >= scores.shape[1])]
    if len(wrong):
        raise ValueError(f'label {wrong[0]} is no class; wanted 0 to {scores.shape[1] - 1}')
    return scores, labels


# ---- what a model must beat


def chance_accuracy(num_classes: int, k: int = 1) -> float:
    """Of an answer by lot."""
    return min(k / num_classes, 1.0)


def majority_accuracy(labels: np.ndarray, k: int = 1) -> float:
    """Of the k most frequent labels, always given."""
    counts = np.sort(np.bincount(np.asarray(labels, np.int64)))[::-1]
    return float(counts[:k].sum() / counts.sum())


# ---- Long-form Video Understanding


def lvu_like_target(likes: float, dislikes: float) -> float:
    """Target of ``like_ratio``: 10 times the share of likes, about its mean over the data set."""
    if likes < 0 or dislikes < 0 or likes + dislikes == 0:
        raise ValueError(f'{likes} likes, {dislikes} dislikes; wanted at least one vote and none below 0')
    return 10.0 * likes / (likes + dislikes) - LVU_LIKE_MEAN


def lvu_view_target(views: float) -> float:
    """Target of ``view_count``: the natural logarithm of the views, about its mean over the data set."""
    if views <= 0:
        raise ValueError(f'{views} views; wanted at least 1, since the target is a logarithm')
    return float(np.log(views)) - LVU_VIEW_MEAN


def lvu_accuracy(logits: np.ndarray, videos: Sequence[str], labels: Sequence[int]) -> float:
    """Top-1 accuracy over videos; softmaxes of the windows ``(N, C)`` of one video are summed.

    Args:
        videos, labels: Of each window.

    Raises:
        ValueError: two windows of one video with different labels.
    """
    names, scores = aggregate_windows(softmax(logits), videos, aggregation='sum_probs')
    return topk_accuracy(scores, np.array(one_per_video(names, videos, labels)))


def lvu_mse(predictions: np.ndarray, videos: Sequence[str], targets: Sequence[float]) -> float:
    """Squared error, mean over videos, of the mean prediction over the windows ``(N,)`` of one video."""
    names, means = aggregate_windows(predictions, videos, aggregation='mean')
    return float(np.mean((means - np.array(one_per_video(names, videos, targets), np.float64)) ** 2))


def one_per_video(names: Sequence[str], videos: Sequence[str], values: Sequence) -> list:
    """The value that all rows of a video share, in the order of ``names``.

    Raises:
        ValueError: two rows of one video differ.
    """
    found: dict[str, object] = {}
    for video, value in zip(videos, values, strict=True):
        if found.setdefault(video, value) != value:
            raise ValueError(f"windows of video '{video}' have the labels {found[video]} and {value}; wanted one")
    return [found[name] for name in names]
