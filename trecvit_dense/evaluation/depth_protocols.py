"""Depth protocols by name: which function scores a clip, what it wants to be given, and how clips are averaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .functional import depth_protocols as papers
from .functional.depth_crops import find_crop, resize_maps
from .functional.depth_time import official_tae

Scores = dict[str, float]


@dataclass(frozen=True)
class Limits:
    """What a protocol is told about a data set.

    Args:
        cap_m: Truth at or beyond it does not count.
        crop: Rows and columns, or a name of :data:`.functional.depth_crops.CROPS`.
        max_frames: Only so many frames of a clip count.
        units_per_metre: Of 16-bit files of truth.
        min_depth_m: For marigold and bts.
        limit_m: For monst3r: aligned depth is limited to it.
        align: For monst3r: ``'median'``, ``'scale'``, ``'lstsq'``, ``'lad'``, ``'lad2'``.
        hard_crop: For vda and vda-tae: predictions show the whole frame, and are cropped like the truth; otherwise
            they show what the crop leaves.
    """

    cap_m: float | None = None
    crop: Any = None
    max_frames: int | None = None
    units_per_metre: float = 1000.0
    min_depth_m: float = 1e-3
    limit_m: float | None = None
    align: str = 'median'
    hard_crop: bool = False


@dataclass(frozen=True)
class Clip:
    """One clip: ``values`` (T, h, w) of a prediction and their kind; ``truth_m`` (T, H, W), at most 0 where unknown."""

    values: np.ndarray
    truth_m: np.ndarray
    missing: tuple[int, ...] = ()
    kind: str = 'disparity'
    intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None


@dataclass(frozen=True)
class DepthProtocol:
    """How a paper scores depth.

    Args:
        score: From a clip and limits to errors and the weight of the clip in the mean; weight 0: it does not count.
        kinds: What predictions may be, ``'disparity'`` or ``'depth'``; the first is meant where nothing says so.
        sets: Its limits for data sets.
        needs_cap: Whether it cannot do without ``cap_m``.
    """

    score: Callable[[Clip, Limits], tuple[Scores, float]]
    kinds: tuple[str, ...]
    sets: dict[str, Limits]
    needs_cap: bool = True


def find_protocol(name: str) -> DepthProtocol:
    """Raises: ValueError: unknown name; the nearest one is given."""
    if name not in PROTOCOLS:
        import difflib

        near = difflib.get_close_matches(name, PROTOCOLS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ''
        raise ValueError(f"protocol is '{name}'{hint}; wanted one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def find_limits(name: str, dataset: str | None, **given: Any) -> Limits:
    """What the protocol says of the data set, and what is given in its place; None is not given.

    Raises:
        ValueError: the protocol needs a cap and there is none.
    """
    protocol = find_protocol(name)
    limits = replace(
        protocol.sets.get(dataset or '', Limits()), **{key: value for key, value in given.items() if value is not None}
    )
    if protocol.needs_cap and limits.cap_m is None:
        known = ', '.join(protocol.sets)
        raise ValueError(f"protocol '{name}' needs a cap in metres, or a data set that it knows: {known}")
    return limits


def score_clip(name: str, clip: Clip, limits: Limits) -> tuple[Scores, float]:
    """Errors of a clip by the rules of ``name``, and its weight; 0 if no pixel counts.

    Raises:
        ValueError: what cannot be scored.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        return find_protocol(name).score(as_wanted(clip, name), limits)


def mean_over_clips(scored: Sequence[tuple[Scores, float]]) -> Scores:
    """Weighted mean of every error over the clips that have it; clips of weight 0 do not count."""
    scored = [(scores, weight) for scores, weight in scored if weight]
    means = {}
    for key in dict.fromkeys(key for scores, _ in scored for key in scores if key not in ('scale', 'shift')):
        values, weights = zip(*((scores[key], weight) for scores, weight in scored if key in scores), strict=True)
        means[key] = float(np.average(values, weights=weights))
    return means


def report(rows: dict[str, tuple[Scores, float]]) -> Scores:
    """Means over clips, ``num_clips``, and ``per_sequence/<name>/...``.

    Raises:
        ValueError: no clip has a valid pixel.
    """
    empty = [name for name, (_, weight) in rows.items() if not weight]
    if rows and len(empty) == len(rows):
        raise ValueError(f'nothing to score: no pixel has valid depth ({", ".join(empty[:3])})')
    if empty:
        warnings.warn(f'not scored, no pixel has valid depth: {", ".join(empty)}', stacklevel=2)
    metrics = dict(num_clips=float(sum(1 for _, weight in rows.values() if weight)))
    metrics.update(mean_over_clips(list(rows.values())))
    for name, (scores, weight) in rows.items():
        metrics.update({f'per_sequence/{name}/{key}': value for key, value in scores.items() if weight})
    return metrics


def as_wanted(clip: Clip, protocol: str) -> Clip:
    """The clip with predictions of a kind that the protocol takes; of depth, 1 mm is the least.

    Raises:
        ValueError: disparity of unknown scale where depth is wanted.
    """
    kinds = find_protocol(protocol).kinds
    if clip.kind in kinds:
        return clip
    if clip.kind == 'disparity':
        raise ValueError(f"predictions are disparity of unknown scale; protocol '{protocol}' wants depth")
    return replace(clip, values=1 / np.maximum(clip.values, np.float32(1e-3)), kind='disparity')


def _frames(clip: Clip, limits: Limits) -> list[int]:
    return [t for t in range(len(clip.truth_m))[: limits.max_frames] if t not in clip.missing]


def _vda(clip: Clip, limits: Limits) -> tuple[Scores, float]:
    options = dict(cap_m=limits.cap_m, crop=limits.crop, max_frames=limits.max_frames, missing=clip.missing)
    values, size = clip.values, clip.truth_m.shape[1:]
    if limits.hard_crop:
        a, b, c, d = find_crop(limits.crop, size)
        values = resize_maps(values, size)[:, a:b, c:d]
    return _counted(papers.video_depth_anything(values, clip.truth_m, **options))


def _vda_tae(clip: Clip, limits: Limits) -> tuple[Scores, float]:
    if clip.intrinsics is None or clip.camera_to_world is None:
        raise ValueError('no poses and intrinsics; vda-tae needs both')
    chosen = _frames(clip, limits)[_TAE_FRAMES]
    if len(chosen) < 2:
        raise ValueError(
            f'{len(clip.truth_m)} frames; vda-tae uses frames {_TAE_FRAMES.start} to {_TAE_FRAMES.stop} of a clip'
        )
    intrinsics = clip.intrinsics[chosen] if clip.intrinsics.ndim == 3 else clip.intrinsics
    tae = official_tae(
        clip.values[chosen],
        np.maximum(clip.truth_m[chosen], 0),
        intrinsics,
        clip.camera_to_world[chosen],
        cap_m=limits.cap_m,
        crop=limits.crop,
        crop_prediction=limits.hard_crop,
    )
    return dict(TAE=tae), float(np.isfinite(tae))


def _depthcrafter(clip: Clip, limits: Limits) -> tuple[Scores, float]:
    chosen = _frames(clip, limits)
    return _counted(papers.depthcrafter(clip.values[chosen], clip.truth_m[chosen], cap_m=limits.cap_m))


def _monst3r(clip: Clip, limits: Limits) -> tuple[Scores, float]:
    chosen = _frames(clip, limits)
    options = dict(
        cap_m=limits.cap_m, align=limits.align, clip_max_m=limits.limit_m, disparity=clip.kind == 'disparity'
    )
    scores = papers.monst3r(clip.values[chosen], clip.truth_m[chosen], **options)
    return scores, scores.pop('valid_pixels')


def _images(
    score: Callable[[np.ndarray, np.ndarray, Limits], Scores],
) -> Callable[[Clip, Limits], tuple[Scores, float]]:
    """Every image by itself; images weigh the same, whatever clip they are of."""

    def clip_score(clip: Clip, limits: Limits) -> tuple[Scores, float]:
        rows = [score(clip.values[t], clip.truth_m[t], limits) for t in _frames(clip, limits)]
        rows = [row for row in rows if np.isfinite(row['AbsRel'])]
        return mean_over_clips([(row, 1.0) for row in rows]), float(len(rows))

    return clip_score


def _marigold(values: np.ndarray, truth_m: np.ndarray, limits: Limits) -> Scores:
    valid = (truth_m > limits.min_depth_m) & (truth_m < limits.cap_m) & papers.inside(limits.crop, truth_m.shape)
    values = resize_maps(values[None], truth_m.shape)[0]
    return papers.marigold(values, truth_m, valid, min_depth_m=limits.min_depth_m, max_depth_m=limits.cap_m)


def _bts(values: np.ndarray, truth_m: np.ndarray, limits: Limits) -> Scores:
    values = resize_maps(values[None], truth_m.shape)[0]
    return papers.bts(values, truth_m, cap_m=limits.cap_m, min_depth_m=limits.min_depth_m, crop=limits.crop)


def _counted(scores: Scores) -> tuple[Scores, float]:
    """A clip without a valid pixel has no error."""
    return scores, float(np.isfinite(scores['AbsRel']))


def _images_with(function: Callable[..., Scores], **options: Any) -> Callable[[Clip, Limits], tuple[Scores, float]]:
    return _images(lambda values, truth_m, limits: function(values, truth_m, **options))


_TAE_FRAMES = slice(10, 180)
_VDA_SETS = {
    'kitti': Limits(80, (0, 374, 0, 1242), 110, 256.0),
    'sintel': Limits(70, (0, 436, 0, 1024), 100, 65535 / 650),
    'nyuv2': Limits(10, (45, 471, 41, 601), 500, 6000.0),
    'bonn': Limits(10, (0, 480, 0, 640), 110, 5000.0),
    'scannet': Limits(10, (8, -8, 11, -11), 90, 1000.0),
}
PROTOCOLS = {
    'vda': DepthProtocol(_vda, ('disparity',), _VDA_SETS),
    'vda-tae': DepthProtocol(_vda_tae, ('disparity',), {'scannet': replace(_VDA_SETS['scannet'], max_frames=None)}),
    'depthcrafter': DepthProtocol(
        _depthcrafter,
        ('disparity',),
        {
            'sintel': Limits(70, None, 50),
            'kitti': Limits(80, None, 110, 256.0),
            'bonn': Limits(10, None, 110, 5000.0),
            'scannet': Limits(10, None, 90),
            'nyuv2': Limits(10, None, 1),
        },
    ),
    'monst3r': DepthProtocol(
        _monst3r,
        ('depth', 'disparity'),
        {
            'sintel': Limits(70, limit_m=70),
            'bonn': Limits(70, None, None, 5000.0),
            'kitti': Limits(units_per_metre=256.0),
        },
        needs_cap=False,
    ),
    'marigold': DepthProtocol(
        _images(_marigold),
        ('depth',),
        {
            'nyuv2': Limits(10, 'eigen_nyu'),
            'kitti': Limits(80, 'eigen_kitti', None, 256.0, 1e-5),
            'scannet': Limits(10),
        },
    ),
    'monodepth2': DepthProtocol(
        _images_with(papers.monodepth2), ('disparity',), {'kitti': Limits(80, None, None, 256.0)}, needs_cap=False
    ),
    'monodepth2-benchmark': DepthProtocol(
        _images_with(papers.monodepth2, split='eigen_benchmark'),
        ('disparity',),
        {'kitti': Limits(80, None, None, 256.0)},
        needs_cap=False,
    ),
    'bts': DepthProtocol(
        _images(_bts),
        ('depth',),
        {'kitti': Limits(80, 'garg', None, 256.0), 'nyuv2': Limits(10, 'eigen_nyu')},
    ),
    'nvds': DepthProtocol(_images_with(papers.nvds), ('disparity',), {'nyuv2': Limits(10)}, needs_cap=False),
}
