"""Scale and shift between a prediction and the truth: named, because the numbers depend on it.

A name says what is fitted, where, and over what: ``scale_shift_disparity_clip`` is one scale and one shift for a clip,
fitted to one over the true depth. Sources: Ranftl et al., "Towards Robust Monocular Depth Estimation", arXiv 1907.01341
(scale and shift); Zhang et al., "MonST3R", arXiv 2410.03825 (robust fits).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

ALIGNMENTS = (
    'none',
    *(f'{fit}_{space}_{scope}' for fit in ('scale', 'scale_shift') for space in ('depth', 'disparity')
      for scope in ('frame', 'clip')),
)  # fmt: skip
SCALE_FITS = ('median', 'least_squares')
Pairs = Iterable[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Alignment:
    """``fit`` is ``'none'``, ``'scale'`` or ``'scale_shift'``; ``space`` and ``scope`` are those of the name."""

    name: str
    fit: str
    space: str = 'depth'
    scope: str = 'clip'


def find_alignment(name: str) -> Alignment:
    """Raises: ValueError: unknown name; the nearest one is given."""
    if name == 'none':
        return Alignment(name, 'none')
    if name not in ALIGNMENTS:
        import difflib

        near = difflib.get_close_matches(str(name), ALIGNMENTS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ''
        raise ValueError(f"alignment is '{name}'{hint}; wanted one of {', '.join(ALIGNMENTS)}")
    fit, space, scope = name.rsplit('_', 2)
    return Alignment(name, fit, space, scope)


def least_squares(pairs: Pairs, *, positive: bool = False) -> tuple[float, float]:
    """Scale and shift with the least squares of ``scale * x + shift - y``, float64, without one large matrix.

    Args:
        pairs: ``(N,)`` values x and y, say frame after frame.
        positive: A scale below zero becomes 0, with the shift that is best then: an inverted prediction says nothing.

    Returns:
        Where x is constant, the solution of least norm, as ``numpy.linalg.lstsq`` gives it.
    """
    count, mean_x, mean_y, sxx, sxy = 0, 0.0, 0.0, 0.0, 0.0
    for x, y in pairs:
        if not len(x):
            continue
        x, y = x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
        n, mx, my = len(x), float(x.mean()), float(y.mean())
        dx = x - mx
        total = count + n
        # Moments of parts are joined about their common mean: no cancellation, however many frames there are.
        weight = count * n / total
        sxx += float(dx @ dx) + weight * (mx - mean_x) ** 2
        sxy += float(dx @ (y - my)) + weight * (mx - mean_x) * (my - mean_y)
        mean_x += (mx - mean_x) * n / total
        mean_y += (my - mean_y) * n / total
        count = total
    if not count:
        return float('nan'), float('nan')
    largest = sxx + count * (mean_x**2 + 1)  # the larger eigenvalue of A^T A, and a little more
    if count * sxx <= (np.finfo(np.float64).eps * count * largest) ** 2:
        shift = mean_y / (mean_x**2 + 1)
        return shift * mean_x, shift
    scale = sxy / sxx
    if positive and scale <= 0:
        return 0.0, mean_y
    return scale, mean_y - scale * mean_x


def least_squares_as_typed(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The same of one pair of vectors in the type of the arguments: programs in float32 differ in the last digits."""
    scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=1), y, rcond=None)[0]
    return float(scale), float(shift)


def least_squares_scale(pairs: Pairs) -> float:
    """The scale alone with the least squares; NaN where x is zero everywhere."""
    sxx = sxy = 0.0
    for x, y in pairs:
        x = x.astype(np.float64, copy=False)
        sxx += float(x @ x)
        sxy += float(x @ y.astype(np.float64, copy=False))
    return sxy / sxx if sxx else float('nan')


def median_scale(x: np.ndarray, y: np.ndarray, *, lower: bool = False) -> float:
    """Ratio of the medians of y and x. ``lower``: of an even count the lower middle value, as torch does."""
    if not len(x):
        return float('nan')
    middles = [lower_median(values) if lower else float(np.median(values)) for values in (y, x)]
    return middles[0] / middles[1] if middles[1] else float('nan')


def lower_median(values: np.ndarray) -> float:
    """The middle value; of an even count the lower one."""
    middle = (len(values) - 1) // 2
    return float(np.partition(values, middle)[middle])


def weiszfeld_scale(x: np.ndarray, y: np.ndarray, *, iterations: int = 10) -> float:
    """The scale with the least absolute error, nearly: least squares, reweighted by one over the error (MonST3R).

    In float32 the weight of a pixel whose error happens to be zero outweighs all others, so the result hangs on the
    order in which sums are rounded, by up to 1e-3. It is summed with torch, as the program does.
    """
    import torch

    x_, y_ = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y))
    scale = y_.mean() / x_.mean()
    for _ in range(iterations):
        weights = 1 / ((scale * x_ - y_).abs() + 1e-8)
        scale = (weights * x_ * y_).sum() / (weights * x_**2).sum()
    return max(float(scale), 1e-3)


def least_absolute(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Scale and shift with the least absolute error, from the median scale and no shift (MonST3R: BFGS)."""
    from scipy.optimize import minimize  # half a second to import, and only this fit needs it

    start = [median_scale(x, y, lower=True), 0.0]
    scale, shift = minimize(lambda fit: np.abs(fit[0] * x + fit[1] - y).sum(), start).x
    return float(scale), float(shift)


def least_absolute_adam(
    x: np.ndarray, y: np.ndarray, *, rate: float = 1e-4, iterations: int = 1000, tolerance: float = 1e-6
) -> tuple[float, float]:
    """Scale and shift on the way to the least absolute error: Adam from the median scale and no shift (MonST3R).

    With the released rate it stops long before the optimum, so the result says more about where it began.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    value = np.array([median_scale(x, y, lower=True), 0.0])
    first, second, last = np.zeros(2), np.zeros(2), None
    for step in range(1, iterations + 1):
        error = value[0] * x + value[1] - y
        loss, sign = np.abs(error).sum(), np.sign(error)
        gradient = np.array([sign @ x, sign.sum()])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        value = value - rate * first / (1 - 0.9**step) / corrected
        if last is not None and abs(last - loss) < tolerance:
            break
        last = loss
    return float(value[0]), float(value[1])
