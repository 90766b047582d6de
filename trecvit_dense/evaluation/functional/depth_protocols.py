"""Depth protocols of papers, number for number: what is clipped when, what is fitted to what, which mean is taken.

Each function takes one clip (or one image) and returns its errors with the names of :mod:`.depth`, with ``scale`` and
``shift`` where they are fitted. Results of different protocols are not comparable. None of them guards against a fitted
scale below zero. Sources: the released evaluators of Video Depth Anything (arXiv 2501.12375), DepthCrafter
(2409.02095), MonST3R (2410.03825), Marigold (2312.02145), monodepth2 (1806.01260), BTS (1907.10326) and NVDS
(2307.08695).
"""

from __future__ import annotations

import numpy as np

from . import depth_alignment as fits
from .depth import Moments, frame_moments, summarise
from .depth_crops import find_crop, resize_maps

_FLOOR = 1e-3  # of disparities and of depths, metres
_OFFSET = 1e-8  # keeps 1/depth finite
Scores = dict[str, float]


def video_depth_anything(
    disparity: np.ndarray,
    truth_m: np.ndarray,
    *,
    cap_m: float,
    crop: tuple[int, int, int, int] | None = None,
    max_frames: int | None = None,
    missing: tuple[int, ...] = (),
) -> Scores:
    """Video Depth Anything's ``eval.py``: one scale and shift per clip in disparity, means over frames.

    Args:
        disparity: ``(T, h, w)`` of the cropped view, any size; resized to the crop.
        truth_m: ``(T, H, W)`` metres; at or below 1e-3 is not valid.
        crop: Rows ``a:b``, columns ``c:d`` of the truth.
        max_frames: Only the first so many.
        missing: Frames without a prediction, left out.
    """
    depth, truth, fit = align_video_depth_anything(
        disparity, truth_m, cap_m=cap_m, crop=crop, max_frames=max_frames, missing=missing
    )
    return _scores(depth, truth, (truth > _FLOOR) & (truth < cap_m), fit)


def align_video_depth_anything(
    disparity: np.ndarray,
    truth_m: np.ndarray,
    *,
    cap_m: float,
    crop: tuple[int, int, int, int] | None = None,
    max_frames: int | None = None,
    missing: tuple[int, ...] = (),
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Aligned depth ``(T', H', W')`` in [1e-3, cap], the cropped truth, and (scale, shift)."""
    a, b, c, d = find_crop(crop, truth_m.shape[1:])
    chosen = [t for t in range(len(truth_m))[:max_frames] if t not in missing]
    truth = truth_m[chosen, a:b, c:d]
    disparity = np.maximum(resize_maps(disparity[chosen], truth.shape[1:]), _FLOOR)
    valid = (truth > _FLOOR) & (truth < cap_m)
    fit = fits.least_squares((x[v], 1 / (g[v] + _OFFSET)) for x, g, v in zip(disparity, truth, valid, strict=True))
    return _depth_of(fit, disparity, cap_m), truth, fit


def depthcrafter(
    prediction: np.ndarray, truth: np.ndarray, *, cap_m: float, domain: str = 'depth', max_frames: int | None = None
) -> Scores:
    """DepthCrafter's evaluator: like Video Depth Anything's, in float64 and without a crop.

    Only the interpolation is done in the type of the prediction.

    Args:
        prediction: ``(T, h, w)`` disparity; frames beyond those of the truth are ignored, and the other way round.
        truth: ``(T, H, W)`` metres; disparity where ``domain`` is ``'disp'``: then the fit and the errors are in it.
    """
    if domain not in ('depth', 'disp'):
        raise ValueError(f"domain is '{domain}'; wanted 'depth' or 'disp'")
    frames = min(len(truth), len(prediction), max_frames or len(truth))
    truth = truth[:frames].astype(np.float64)
    prediction = np.maximum(resize_maps(prediction[:frames], truth.shape[1:]).astype(np.float64), _FLOOR)
    valid = (truth > _FLOOR) & (truth < cap_m)
    goal = (lambda g: g) if domain == 'disp' else (lambda g: 1 / (g + _OFFSET))
    fit = fits.least_squares((x[v], goal(g[v])) for x, g, v in zip(prediction, truth, valid, strict=True))
    if domain == 'disp':
        aligned = np.clip(np.maximum(fit[0] * prediction + fit[1], _FLOOR), _FLOOR, cap_m)
    else:
        aligned = _depth_of(fit, prediction, cap_m)
    return _scores(aligned, truth, valid, fit)


def monst3r(
    prediction: np.ndarray,
    truth_m: np.ndarray,
    *,
    align: str = 'median',
    disparity: bool = False,
    cap_m: float | None = 70,
    clip_min_m: float | None = None,
    clip_max_m: float | None = None,
    rate: float = 1e-4,
    iterations: int = 1000,
) -> Scores:
    """MonST3R's ``depth_evaluation``: all pixels of a video in one vector, one root over all.

    Args:
        prediction: ``(T, h, w)``; resized by cubic interpolation.
        align: ``'median'``, ``'scale'`` (robust), ``'lstsq'``, ``'lad'`` or ``'lad2'`` (scale and shift; robust).
        disparity: The prediction is one, and is aligned to one over the truth.
        cap_m: None: none.
        clip_min_m, clip_max_m: Limits of the aligned depth; None: none.
        rate, iterations: Of ``'lad2'``.

    Returns:
        Errors and ``valid_pixels``, by which the program weighs videos. Without a valid pixel all are zero.
    """
    if align not in ('median', 'scale', 'lstsq', 'lad', 'lad2'):
        raise ValueError(f"align is '{align}'; wanted median, scale, lstsq, lad or lad2")
    prediction = resize_maps(prediction, truth_m.shape[1:], 'cubic')
    valid = (truth_m > 0) & (truth_m < (np.inf if cap_m is None else cap_m))
    x, truth = prediction[valid], truth_m[valid]
    y = 1 / (truth + truth.dtype.type(_OFFSET)) if disparity else truth
    if not len(x):
        return dict.fromkeys((*summarise([]), 'valid_pixels'), 0.0)
    scale, shift = _fit_monst3r(x, y, align, rate, iterations)
    depth = scale * x.astype(np.float64) + shift
    if disparity:
        depth = np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
    if clip_min_m is not None or clip_max_m is not None:
        depth = np.clip(depth, clip_min_m, clip_max_m)
    return dict(_errors_monst3r(depth, truth), scale=scale, shift=shift, valid_pixels=float(len(truth)))


def marigold(
    prediction: np.ndarray,
    truth_m: np.ndarray,
    valid: np.ndarray,
    *,
    min_depth_m: float,
    max_depth_m: float,
    max_resolution: int | None = None,
    disparity: bool = False,
) -> Scores:
    """Marigold: scale and shift per image by least squares, then limits of the data set.

    Args:
        prediction, truth_m, valid: ``(H, W)``.
        disparity: The prediction is one, and is aligned to one over the truth.
    """
    goal = np.where(valid, 1 / np.maximum(truth_m, _FLOOR), 0) if disparity else truth_m
    aligned, fit = align_marigold(prediction, goal, valid, max_resolution=max_resolution)
    if disparity:
        aligned = 1 / np.maximum(aligned, _FLOOR)
    aligned = np.maximum(np.clip(aligned, min_depth_m, max_depth_m), 1e-6)
    return _scores(aligned[None], truth_m[None], valid[None], fit)


def align_marigold(
    prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray, *, max_resolution: int | None = None
) -> tuple[np.ndarray, tuple[float, float]]:
    """Aligned ``(H, W)`` prediction and (scale, shift).

    Args:
        max_resolution: Fit to fewer pixels. As released, only columns are left out, by nearest neighbour.
    """
    columns = slice(None)
    if max_resolution is not None:
        share = min(max_resolution / side for side in prediction.shape)
        if share < 1:
            count = int(prediction.shape[1] * share)
            columns = np.minimum((np.arange(count) * np.float32(1 / share)).astype(int), prediction.shape[1] - 1)
    chosen = valid[:, columns]
    fit = fits.least_squares_as_typed(prediction[:, columns][chosen], truth[:, columns][chosen])
    return fit[0] * prediction + fit[1], fit


def monodepth2(
    disparity: np.ndarray,
    truth_m: np.ndarray,
    *,
    split: str = 'eigen',
    median_scaling: bool = True,
    scale: float = 1.0,
) -> Scores:
    """monodepth2, one image: depth is one over the resized disparity, scaled by the ratio of medians.

    Args:
        disparity: ``(h, w)``.
        truth_m: ``(H, W)``.
        split: ``'eigen'``: Garg crop, 1e-3 to 80 m. ``'eigen_benchmark'``: every pixel with truth.
        median_scaling: False: ``scale`` alone (5.4 for the stereo models).
    """
    if split not in ('eigen', 'eigen_benchmark'):
        raise ValueError(f"split is '{split}'; wanted 'eigen' or 'eigen_benchmark'")
    depth = 1 / resize_maps(disparity[None], truth_m.shape)[0]
    valid = truth_m > 0
    if split == 'eigen':
        valid = inside('garg', truth_m.shape) & (truth_m > _FLOOR) & (truth_m < 80)
    depth, truth = depth[valid] * depth.dtype.type(scale), truth_m[valid]
    ratio = 1.0
    if median_scaling:
        ratio = fits.median_scale(depth, truth)
        depth = depth * depth.dtype.type(ratio)
    return dict(summarise([frame_moments(np.clip(depth, _FLOOR, 80), truth)]), scale=ratio, shift=0.0)


def bts(
    depth_m: np.ndarray, truth_m: np.ndarray, *, cap_m: float, min_depth_m: float = 1e-3, crop: str | None = None
) -> Scores:
    """BTS, one image: no alignment; SILog of KITTI.

    Args:
        depth_m, truth_m: ``(H, W)``. What is not finite in the prediction becomes a limit.
        crop: ``'garg'``, ``'eigen_kitti'``, ``'eigen_nyu'`` or None.
    """
    depth = np.clip(np.nan_to_num(depth_m, nan=min_depth_m, posinf=cap_m, neginf=min_depth_m), min_depth_m, cap_m)
    valid = (truth_m > min_depth_m) & (truth_m < cap_m) & inside(crop, truth_m.shape)
    return summarise([frame_moments(depth[valid], truth_m[valid])], silog='kitti')


def nvds(disparity: np.ndarray, truth_m: np.ndarray) -> Scores:
    """NVDS on NYUv2, one image: scale and shift by least squares in disparity over the whole image, then the crop.

    Args:
        disparity: ``(h, w)``; resized by nearest neighbour.
        truth_m: ``(H, W)``; every pixel with truth counts, there is no cap on it. Aligned depth is kept within
            0.7133 and 9.9955 m.
    """
    values, valid = resize_maps(disparity[None], truth_m.shape, 'nearest')[0], truth_m > 0
    fit = fits.least_squares([(values[valid], 1 / truth_m[valid])])
    aligned = np.maximum(fit[0] * values.astype(np.float64) + fit[1], 1 / 10)
    depth, (a, b, c, d) = np.clip(1 / aligned, 0.7133, 9.9955), find_crop('nvds_nyu', truth_m.shape)
    counts = valid[a:b, c:d]
    scores = summarise([frame_moments(depth[a:b, c:d][counts], truth_m[a:b, c:d][counts])])
    return dict(scores, scale=fit[0], shift=fit[1])


def weighted_by_pixels(videos: list[Scores]) -> Scores:
    """Mean over the videos of :func:`monst3r`, weighted by their valid pixels; ``valid_pixels`` is the sum."""
    weights = np.array([video['valid_pixels'] for video in videos])
    if not weights.sum():
        return dict.fromkeys(videos[0], 0.0)
    names = [name for name in videos[0] if name != 'valid_pixels']
    means = {name: float(np.average([video[name] for video in videos], weights=weights)) for name in names}
    return dict(means, valid_pixels=float(weights.sum()))


def _depth_of(fit: tuple[float, float], disparity: np.ndarray, cap_m: float) -> np.ndarray:
    """One over the aligned disparity, float64, within [1e-3, cap]."""
    aligned = np.maximum(fit[0] * disparity.astype(np.float64) + fit[1], _FLOOR)
    return np.clip(1 / aligned, _FLOOR, cap_m)


def _scores(depth: np.ndarray, truth: np.ndarray, valid: np.ndarray, fit: tuple[float, float]) -> Scores:
    frames: list[Moments] = [frame_moments(p[v], g[v]) for p, g, v in zip(depth, truth, valid, strict=True)]
    return dict(summarise(frames, silog='marigold', log10='pixels'), scale=fit[0], shift=fit[1])


def _fit_monst3r(x: np.ndarray, y: np.ndarray, align: str, rate: float, iterations: int) -> tuple[float, float]:
    if align == 'median':
        return fits.median_scale(x, y, lower=True), 0.0
    if align == 'scale':
        return fits.weiszfeld_scale(x, y), 0.0
    if align == 'lstsq':
        return fits.least_squares_as_typed(x, y)
    if align == 'lad':
        return fits.least_absolute(x, y)
    return fits.least_absolute_adam(x, y, rate=rate, iterations=iterations)


def _errors_monst3r(depth: np.ndarray, truth: np.ndarray) -> Scores:
    """Depth is kept above 1e-5 for the logarithm alone; a depth of zero is wrong by any factor."""
    with np.errstate(divide='ignore', invalid='ignore'):
        plain = summarise([frame_moments(depth, truth)], silog='marigold', pooling='pixels')
    safe = summarise([frame_moments(np.maximum(depth, 1e-5), truth)], silog='marigold', pooling='pixels')
    names = ('AbsRel', 'SqRel', 'RMSE')
    return {name: plain[name] if name in names else value for name, value in safe.items()}


def inside(crop: str | None, size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` bool: the pixels of a crop."""
    a, b, c, d = find_crop(crop, size)
    mask = np.zeros(size, bool)
    mask[a:b, c:d] = True
    return mask
