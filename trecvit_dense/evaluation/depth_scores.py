"""Scores a clip of depth: every prediction under every alignment, and the best constants, in one pass over frames."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from ..structures import DepthMap, DepthPrediction
from .depth_clip import Aligned, Constant, DepthRules, Frame, Truth, read_truth, why_empty
from .functional import depth_time
from .functional.depth import Moments, frame_moments, summarise
from .functional.depth_crops import resize_maps

CONSTANTS = ('constant_frame', 'constant_clip')


def score_clip(
    depth: DepthMap,
    predictions: Mapping[str, DepthPrediction],
    rules: DepthRules,
    *,
    video: np.ndarray | None = None,
    flow: np.ndarray | str | None = None,
) -> dict[str, Any]:
    """Numbers of one clip.

    Args:
        depth: Truth.
        predictions: By name, ``'model'`` first; one map a frame, of any size that shows the same view.
        video: ``(T, H, W, 3)`` uint8 of that view; for ``flow``.
        flow: ``(T - 1, H, W, 2)`` px of ``video`` to the frame before, or ``'dis'`` to compute it. None: no OPW.

    Returns:
        ``rows``: alignment to name to errors, with the constants beside the predictions; empty if no pixel counts, and
        then ``empty`` says why. ``num_frames`` with a valid pixel; ``inverted``: names with a negative best scale.

    Raises:
        ValueError: a prediction does not fit, is not finite, or cannot be aligned in the way that is asked for.
    """
    for name, prediction in predictions.items():
        check_prediction(prediction, depth, name)
    truth = read_truth(depth, rules)
    if not truth.valid.any():
        return dict(rows={}, num_frames=0, inverted=[], empty=why_empty(depth, truth, rules))
    matching = Flow(video, flow, truth) if flow is not None and video is not None else None
    aligned = {
        (alignment.name, name): Row(Aligned(prediction, truth, alignment, rules))
        for alignment in rules.alignments
        for name, prediction in predictions.items()
    }
    constants = {name: Row(Constant(truth, rules, per_frame=name == 'constant_frame')) for name in CONSTANTS}
    for t in range(len(truth)):
        frame = truth.frame(t)
        for row in (*aligned.values(), *constants.values()):
            row.add(frame, truth, rules, matching)
    baselines = {name: row.scores(truth, rules, matching) for name, row in constants.items()}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for (alignment, name), row in aligned.items():
        rows.setdefault(alignment, {})[name] = row.scores(truth, rules, matching)
    return dict(
        rows={alignment: {**methods, **baselines} for alignment, methods in rows.items()},
        num_frames=int(truth.valid.any(axis=(1, 2)).sum()),
        inverted=[name for (_, name), row in aligned.items() if row.source.inverted],
        empty='',
    )


def report(results: Sequence[dict[str, Any]], *, per_sequence: bool = False) -> dict[str, float]:
    """Means over the clips of :func:`score_clip`, each with its ``name``; keys as in a table.

    Raises:
        ValueError: no clip has a valid pixel.
    """
    scored = [result for result in results if result['rows']]
    empty = [f'{result["name"]} ({result["empty"]})' for result in results if not result['rows']]
    if results and not scored:
        raise ValueError(f'nothing to score: {"; ".join(empty[:3])}')
    if empty:
        warnings.warn(f'not scored: {"; ".join(empty)}', stacklevel=2)
    inverted = [f'{result["name"]} ({", ".join(result["inverted"])})' for result in scored if result['inverted']]
    if inverted:
        names = ', '.join(inverted)
        warnings.warn(f'no positive scale fits, 0 is taken (are near and far swapped?): {names}', stacklevel=2)
    metrics: dict[str, float] = {}
    for alignment in dict.fromkeys(name for result in scored for name in result['rows']):
        metrics[f'{alignment}/num_clips'] = len(scored)
        metrics[f'{alignment}/num_frames'] = sum(result['num_frames'] for result in scored)
        rows = {result['name']: result['rows'][alignment] for result in scored}
        for method in dict.fromkeys(method for methods in rows.values() for method in methods):
            part = '' if method == 'model' else f'{method}/'
            values = _means([methods[method] for methods in rows.values() if method in methods])
            metrics.update({f'{alignment}/{part}{key}': value for key, value in values.items()})
        for name, methods in rows.items() if per_sequence else ():
            for method, values in methods.items():
                part = f'{alignment}/per_sequence/{name}/' + ('' if method == 'model' else f'{method}/')
                metrics.update({part + key: value for key, value in values.items()})
    return metrics


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Over the clips for which a value is defined: not every clip has poses, or overlapping frames."""
    means = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if key in row and not np.isnan(row[key])]
        means[key] = float(np.mean(values)) if values else float('nan')
    return means


def check_prediction(prediction: DepthPrediction, depth: DepthMap, name: str) -> None:
    """Raises: ValueError: another number of frames, or a value that is not finite."""
    what = 'prediction' if name == 'model' else f"prediction '{name}'"
    if len(prediction.values) != len(depth.depth_m):
        raise ValueError(
            f'{what} has {len(prediction.values)} frames, truth {len(depth.depth_m)}; wanted one map a frame'
        )
    for t, frame in enumerate(prediction.values):
        bad = frame.size - np.count_nonzero(np.isfinite(frame))
        if bad:
            raise ValueError(f'frame {t}: {bad} of {frame.size} values of the {what} are not finite (NaN or inf)')


@dataclass
class Row:
    """What has been gathered of one prediction so far; of the maps only those of the last frame."""

    source: Aligned | Constant
    moments: list[Moments] = field(default_factory=list)
    tae: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    opw: list[float] = field(default_factory=list)
    last: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, frame: Frame, truth: Truth, rules: DepthRules, flow: Flow | None) -> None:
        depth = self.source.frame(frame.t)
        if depth is None:
            self.last = None
            return
        ratio = np.log(depth) - frame.log
        if len(frame.metres):
            self.moments.append(frame_moments(depth[frame.valid], frame.metres, ratio[frame.valid]))
        if self.last is not None and frame.places is not None:
            errors = depth_time.alignment_errors if rules.tae == 'sound' else depth_time.official_errors
            self.tae += errors(self.last[0], depth, truth.cameras, frame.t - 1, frame.t)
            self.changes += depth_time.change(self.last[1], ratio, *frame.places)
        if self.last is not None and flow is not None:
            self.opw.append(flow.error(self.last[0], depth, frame.t))
        self.last = (depth, ratio)

    def scores(self, truth: Truth, rules: DepthRules, flow: Flow | None) -> dict[str, float]:
        scores = summarise(self.moments, silog=rules.silog, pooling=rules.pooling)
        if truth.cameras is not None:
            scores['TAE'] = depth_time.mean_of(self.tae, scale=100)
            scores['flicker'] = depth_time.mean_of(self.changes)
        if flow is not None:
            scores['OPW'] = depth_time.mean_of(self.opw)
        return scores


class Flow:
    """Optical flow to the frame before, in pixels of the cropped truth, and how far it can be trusted.

    Args:
        video: ``(T, H, W, 3)`` uint8.
        flow: ``(T - 1, H, W, 2)``, or ``'dis'``: OpenCV's dense inverse search (Kroeger et al., arXiv 1603.03590).
    """

    def __init__(self, video: np.ndarray, flow: np.ndarray | str, truth: Truth) -> None:
        self.video, self.given, self.truth = video, flow, truth
        if isinstance(flow, str):
            if flow != 'dis':
                raise ValueError(f"flow is '{flow}'; wanted 'dis' or an array (T - 1, H, W, 2)")
            self.search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        elif flow.shape != (len(video) - 1, *video.shape[1:3], 2):
            raise ValueError(f'flow has shape {flow.shape}; wanted {(len(video) - 1, *video.shape[1:3], 2)}')
        self.at = -1

    def error(self, before: np.ndarray, after: np.ndarray, t: int) -> float:
        if self.at != t:
            images = [self._image(i) for i in (t - 1, t)]
            self.flow = self._flow(t, *images)
            colours = [image.astype(np.float32) / 255 for image in images]
            self.weight, self.at = depth_time.colour_weight(*colours, self.flow), t
        return depth_time.warping_error(before, after, self.weight, self.flow)

    def _image(self, t: int) -> np.ndarray:
        a, b, c, d = self.truth.crop
        frame, size = self.video[t], self.truth.size
        if frame.shape[:2] != size:
            frame = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
        return frame[a:b, c:d]

    def _flow(self, t: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        if isinstance(self.given, str):
            grey = [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (after, before)]
            return self.search.calc(*grey, None)
        a, b, c, d = self.truth.crop
        height, width = self.truth.size
        flow = np.moveaxis(self.given[t - 1], -1, 0).astype(np.float32)
        scale = np.array([width / flow.shape[2], height / flow.shape[1]], np.float32)
        return np.moveaxis(resize_maps(flow, self.truth.size), 0, -1)[a:b, c:d] * scale
