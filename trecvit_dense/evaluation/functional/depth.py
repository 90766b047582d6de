"""Errors of depth maps: per frame, then over the frames of a clip.

Depth is in metres along the optical axis; ``p`` is the prediction after its alignment, ``g`` the truth. Every error is
first reduced to means over the pixels of one frame (:func:`frame_moments`), because the programs that are compared with
disagree on what comes next: a root per frame or one over all, frames that weigh the same or pixels that do
(:func:`summarise`). Sources: Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
arXiv 1406.2283, section 4; the KITTI depth benchmark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

NAMES = ('AbsRel', 'SqRel', 'RMSE', 'logRMSE', 'log10', 'iRMSE', 'SILog', 'delta1', 'delta2', 'delta3')
DELTA = 1.25
SILOG = ('kitti', 'marigold', 'depth_anything_v2')
POOLING = ('frames', 'pixels')
_PLAIN = ('AbsRel', 'SqRel', 'log10', 'delta1', 'delta2', 'delta3')

Moments = dict[str, float]


def frame_moments(depth_m: np.ndarray, truth_m: np.ndarray, log_ratio: np.ndarray | None = None) -> Moments:
    """Means over the pixels of one frame, from which every error follows.

    Args:
        depth_m: ``(N,)`` positive metres, aligned prediction at the valid pixels. The comparisons with 1.25^k are
            made in the type of the arguments, as float32 programs do; the means are float64.
        truth_m: ``(N,)`` positive metres.
        log_ratio: ``(N,)`` ``ln p - ln g``, where it is known already.

    Returns:
        ``count``, the plain errors, and mean squares: ``squared`` (m^2), ``log_squared``, ``inverse_squared`` (1/m^2);
        ``log_mean`` is the mean of ``ln p - ln g``. All but ``count`` are NaN without pixels.
    """
    if not len(truth_m):
        return dict(count=0, **dict.fromkeys(_MOMENTS, np.nan))
    difference = depth_m - truth_m
    relative = np.abs(difference) / truth_m
    if log_ratio is None:
        log_ratio = np.log(depth_m) - np.log(truth_m)
    ratio = np.maximum(depth_m / truth_m, truth_m / depth_m)
    log10 = np.abs(log_ratio) * log_ratio.dtype.type(1 / np.log(10))
    return dict(
        count=len(truth_m),
        AbsRel=_mean(relative),
        SqRel=_mean(relative * np.abs(difference)),
        log10=_mean(log10),
        squared=_mean(difference**2),
        log_squared=_mean(log_ratio**2),
        log_mean=_mean(log_ratio),
        inverse_squared=_mean((1 / depth_m - 1 / truth_m) ** 2),
        **{f'delta{k}': np.count_nonzero(ratio < DELTA**k) / len(truth_m) for k in (1, 2, 3)},
    )


def summarise(
    frames: Sequence[Moments], *, silog: str = 'kitti', pooling: str = 'frames', log10: str | None = None
) -> dict[str, float]:
    """Errors of a clip from the moments of its frames.

    Args:
        frames: Frames without a valid pixel do not count.
        silog: ``'kitti'``: 100 times the deviation of ``ln p - ln g`` in a frame, then the mean over frames (KITTI,
            BTS). ``'marigold'``: one root over the mean of the variances (Marigold, DepthCrafter, Video Depth
            Anything). ``'depth_anything_v2'``: half of the squared mean is taken off, not times 100.
        pooling: ``'frames'``: mean over frames, with a root in each. ``'pixels'``: all pixels of the clip weigh the
            same, with one root (MonST3R).
        log10: The pooling of log10 alone, where it differs. None: ``pooling``.

    Returns:
        ``NAMES``; iRMSE in 1/m. All NaN if no frame counts.

    Raises:
        ValueError: unknown variant.
    """
    _check('silog', silog, SILOG)
    _check('pooling', pooling, POOLING)
    _check('log10', log10 or pooling, POOLING)
    frames = [frame for frame in frames if frame['count']]
    if not frames:
        return dict.fromkeys(NAMES, np.nan)
    table = {key: np.array([frame[key] for frame in frames], np.float64) for key in frames[0]}
    counts = table.pop('count')
    if pooling == 'pixels':
        table = {key: np.average(values, weights=counts, keepdims=True) for key, values in table.items()}
    values = {name: float(table[name].mean()) for name in _PLAIN}
    if pooling == 'frames' and log10 == 'pixels':
        values['log10'] = float(np.average(table['log10'], weights=counts))
    values['RMSE'] = float(np.sqrt(table['squared']).mean())
    values['logRMSE'] = float(np.sqrt(table['log_squared']).mean())
    values['iRMSE'] = float(np.sqrt(table['inverse_squared']).mean())
    values['SILog'] = _silog(table['log_squared'], table['log_mean'], silog)
    return {name: values[name] for name in NAMES}


def clip_errors(
    depth_m: np.ndarray, truth_m: np.ndarray, valid: np.ndarray | None = None, **options: str
) -> dict[str, float]:
    """Errors of ``(T, H, W)`` aligned depth; ``valid`` None counts every pixel. Options: see :func:`summarise`."""
    if valid is None:
        valid = np.ones(truth_m.shape, bool)
    frames = [frame_moments(p[v], g[v]) for p, g, v in zip(depth_m, truth_m, valid, strict=True)]
    return summarise(frames, **options)


def best_constant(frames: Iterable[np.ndarray]) -> float:
    """The depth that, given for every pixel, has the least AbsRel: the median of the truth weighted by one over it.

    Args:
        frames: ``(N,)`` positive metres each, say one array a frame.
    """
    # The mean of |c - g| / g over g is least where half of the weight 1/g lies below c. Sorting a whole clip takes
    # seconds, so a histogram finds the bin in which the half lies, and only its pixels are sorted.
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return float('nan')
    low, high = min(float(frame.min()) for frame in frames), max(float(frame.max()) for frame in frames)
    if low == high:
        return low

    def bins(frame: np.ndarray) -> np.ndarray:
        return np.minimum(((frame - low) * (_BINS / (high - low))).astype(np.int32), _BINS - 1)

    weights = np.zeros(_BINS)
    for frame in frames:
        weights += np.bincount(bins(frame), 1 / frame, minlength=_BINS)
    cumulated = np.cumsum(weights)
    half = cumulated[-1] / 2
    chosen = int(np.searchsorted(cumulated, half))
    inside = np.sort(np.concatenate([frame[bins(frame) == chosen] for frame in frames]))
    below = cumulated[chosen] - weights[chosen]
    place = int(np.searchsorted(below + np.cumsum(1 / inside, dtype=np.float64), half))
    return float(inside[min(place, len(inside) - 1)])


_BINS = 4096
_MOMENTS = (*_PLAIN, 'squared', 'log_squared', 'log_mean', 'inverse_squared')


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64))


def _silog(log_squared: np.ndarray, log_mean: np.ndarray, variant: str) -> float:
    if variant == 'depth_anything_v2':
        return float(np.sqrt(log_squared - log_mean**2 / 2).mean())
    variance = np.maximum(log_squared - log_mean**2, 0)  # rounding may leave -1e-17 where all ratios are equal
    if variant == 'marigold':
        return float(100 * np.sqrt(variance.mean()))
    return float(100 * np.sqrt(variance).mean())


def _check(argument: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{argument} is '{value}'; wanted one of {', '.join(known)}")
