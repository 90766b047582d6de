"""Objects as people point at them: a box or a click to a mask (by graph cut on colours), and given masks checked.

The model is always given a mask. GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) makes one from a box or a point
with the colours of one frame: good where object and surroundings differ in colour, rough where they do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

WORKING_SIDE = 192  # pixels of the longer side of the crop on which colours are cut; bounds the time at any frame size
MARGIN = 0.4  # of the box, on each side: the surroundings from which the background's colours are learnt
ITERATIONS = 3
SEED = 0.012  # radius of the disc around a click that is surely the object, of the frame's shorter side
FALLBACK = 0.05  # radius of the disc that stands in when the cut finds nothing, of the frame's shorter side
REACHES = (0.12, 0.25, 0.45)  # half sides of the windows in which the object of a click is looked for, of that side


def mask_from_box(rgb: np.ndarray, xyxy_px: Sequence[float]) -> np.ndarray:
    """The object that fills a box.

    Args:
        rgb: ``(H, W, 3)`` uint8.
        xyxy_px: Left, top, right, bottom in pixels of the frame; a part outside the frame is cut off.

    Returns:
        ``(H, W)`` bool, True nowhere outside the box. The whole box when its colours cannot be told from those around.

    Raises:
        ValueError: not four numbers, not a box, or one outside the frame.
    """
    left, top, right, bottom = _box_pixels(check_box(xyxy_px, rgb.shape[:2]), rgb.shape[:2])
    window = _grown((left, top, right, bottom), rgb.shape[:2])
    trimap = np.full(rgb.shape[:2], cv2.GC_BGD, np.uint8)
    trimap[top:bottom, left:right] = cv2.GC_PR_FGD
    mask = _cut(rgb, trimap, window)
    mask = _filled(_largest(mask))
    box = (bottom - top) * (right - left)
    if mask.sum() < 0.05 * box:  # a speck: the colours of the box are also those around it
        mask[top:bottom, left:right] = True
    return mask


def mask_from_point(rgb: np.ndarray, xy_px: Sequence[float]) -> np.ndarray:
    """The object under a click.

    The cut is made in windows of three sizes around the click. The piece whose outline has the strongest edges is
    taken; where it runs into the border of its window it has none. Of two alike the larger is preferred: the
    whole object, not a part of it.

    Args:
        rgb: ``(H, W, 3)`` uint8.
        xy_px: x, y in pixels of the frame.

    Returns:
        ``(H, W)`` bool, True at the point. A disc when nothing stands out.

    Raises:
        ValueError: not two numbers, or outside the frame.
    """
    height, width = rgb.shape[:2]
    x, y = check_point(xy_px, rgb.shape[:2])
    centre = (min(int(x), width - 1), min(int(y), height - 1))
    side = min(height, width)
    seed = _disc(rgb.shape[:2], centre, max(1, round(SEED * side)))
    best, best_score = _disc(rgb.shape[:2], centre, max(1, round(FALLBACK * side))), 0.0
    for step, reach in enumerate(REACHES):
        window = _window(centre, max(3, round(reach * side)), rgb.shape[:2])
        mask = _cut_around(rgb, seed, centre, window)
        score = (1 + 0.2 * step) * _outline_strength(rgb, mask, window) if mask.sum() > 3 * seed.sum() else 0.0
        if score > best_score:
            best, best_score = mask, score
    return best | seed


def check_box(xyxy_px: Sequence[float], size: tuple[int, int] | None = None) -> np.ndarray:
    """``(4,)`` float32; with a frame of ``size`` ``(H, W)`` also that the box lies in it, at least in part."""
    box = _numbers(xyxy_px, 4, 'box', 'x0, y0, x1, y1')
    text = ', '.join(f'{value:g}' for value in box.tolist())
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(f'box {text} is empty; wanted x0, y0, x1, y1 with x0 < x1 and y0 < y1')
    if size is not None and (box[0] >= size[1] or box[1] >= size[0] or box[2] <= 0 or box[3] <= 0):
        raise ValueError(f'box {text} is outside the frame of {size[1]}x{size[0]} px')
    return box


def check_point(xy_px: Sequence[float], size: tuple[int, int] | None = None) -> np.ndarray:
    """``(2,)`` float32; with a frame of ``size`` ``(H, W)`` also that the point lies in it."""
    point = _numbers(xy_px, 2, 'point', 'x, y')
    if size is not None and not (0 <= point[0] <= size[1] and 0 <= point[1] <= size[0]):
        raise ValueError(f'point {point[0]:g}, {point[1]:g} is outside the frame of {size[1]}x{size[0]} px')
    return point


def check_mask(mask: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """The mask of one object, ``(H, W)`` bool.

    Args:
        mask: ``(H, W)`` bool, number or probability in [0, 1] (the object is above one half); uint8 of 0 and one other
            value.
        size: ``(H, W)`` of the frame that it belongs to, where that is known.

    Raises:
        ValueError: an RGB picture, another size, nothing in it, several objects.
    """
    mask = _two_dimensional(mask, size)
    if mask.dtype.kind == 'f':
        return _not_empty(mask > 0.5)
    values = np.unique(mask)
    values = values[values != 0]
    if len(values) > 1:
        listed = ', '.join(str(value) for value in values[:5].tolist())
        raise ValueError(f'the mask holds several objects ({listed}); wanted one, or call add_objects(labels)')
    return _not_empty(mask != 0)


def check_labels(labels: np.ndarray, size: tuple[int, int] | None = None) -> dict[int, np.ndarray]:
    """Masks of an index map, ``{id: (H, W) bool}``; 0 is background and 255 void. A map of 0 and 255 is one object, 1.

    Raises:
        ValueError: an RGB picture, another size, no object in it, or an id that a palette PNG cannot hold.
    """
    labels = _two_dimensional(labels, size)
    if labels.dtype.kind == 'f':
        raise ValueError(f'the labels are {labels.dtype}; wanted integers: 0 background, 1 to 254 objects')
    ids = [int(value) for value in np.unique(labels) if value != 0]
    if ids == [255]:
        return {1: labels != 0}
    ids = [identity for identity in ids if identity != 255]
    if not ids:
        raise ValueError('the mask is empty: no pixel belongs to an object')
    if ids[0] < 0 or ids[-1] > 254:
        raise ValueError(f'object id {ids[0] if ids[0] < 0 else ids[-1]}; wanted 1 to 254 (0 background, 255 void)')
    return {identity: labels == identity for identity in ids}


# ------------------------------------------------------------------------------------------------ checks


def _numbers(values: Sequence[float], count: int, what: str, names: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        numbers = np.zeros(0, np.float32)
    if numbers.shape != (count,):
        raise ValueError(f'{what} {values!r} is not understood; wanted {count} numbers: {names}')
    if not np.isfinite(numbers).all():
        raise ValueError(f'{what} {numbers.tolist()} has a value that is not a number; wanted {names} in pixels')
    return numbers


def _two_dimensional(mask: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[2] in (3, 4):
        raise ValueError(
            f'the mask has shape {mask.shape}: an RGB picture; wanted (H, W), one index a pixel (a palette or gray PNG)'
        )
    if mask.ndim != 2 or mask.dtype.kind not in 'buif':
        raise ValueError(f'the mask is {mask.dtype} with shape {mask.shape}; wanted (H, W) bool, uint8 or float')
    if size is not None and mask.shape != tuple(size):
        seen, wanted = (f'{width}x{height}' for height, width in (mask.shape, size))
        raise ValueError(f'the mask has {seen} px, the frame {wanted}; wanted the same size')
    return mask


def _not_empty(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        raise ValueError('the mask is empty: no pixel belongs to the object')
    return mask


# ------------------------------------------------------------------------------------------------ cutting


def _box_pixels(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels that the box touches, inside the frame."""
    height, width = size
    left, top = max(int(np.floor(box[0])), 0), max(int(np.floor(box[1])), 0)
    right, bottom = min(int(np.ceil(box[2])), width), min(int(np.ceil(box[3])), height)
    return left, top, right, bottom


def _grown(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    x, y = max(8, round(MARGIN * (right - left))), max(8, round(MARGIN * (bottom - top)))
    return max(left - x, 0), max(top - y, 0), min(right + x, size[1]), min(bottom + y, size[0])


def _cut(rgb: np.ndarray, trimap: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """``(H, W)`` bool: what the graph cut inside ``window`` ``(left, top, right, bottom)`` takes for the object."""
    left, top, right, bottom = window
    found = np.zeros(rgb.shape[:2], bool)
    picture, labels = rgb[top:bottom, left:right], trimap[top:bottom, left:right]
    shrink = max(1.0, max(picture.shape[:2]) / WORKING_SIDE)
    small = (max(2, round(picture.shape[1] / shrink)), max(2, round(picture.shape[0] / shrink)))
    scaled = np.ascontiguousarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA))
    marks = cv2.resize(labels, small, interpolation=cv2.INTER_NEAREST)
    foreground = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if foreground.all() or not foreground.any():
        return found  # no surroundings, or a box thinner than a pixel of the small picture
    cv2.setRNGSeed(0)  # its mixtures start from random clusters
    try:
        cv2.grabCut(scaled, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # a single colour leaves a mixture without samples
        return found
    chosen = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    full = cv2.resize(chosen, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR) > 0.5
    found[top:bottom, left:right] = full & (labels != cv2.GC_BGD)
    return found


def _window(centre: tuple[int, int], reach: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    (x, y), (height, width) = centre, size
    return max(x - reach, 0), max(y - reach, 0), min(x + reach + 1, width), min(y + reach + 1, height)


def _cut_around(
    rgb: np.ndarray, seed: np.ndarray, centre: tuple[int, int], window: tuple[int, int, int, int]
) -> np.ndarray:
    """The connected piece under ``seed`` inside ``window``."""
    left, top, right, bottom = window
    trimap = np.full(rgb.shape[:2], cv2.GC_BGD, np.uint8)
    trimap[top:bottom, left:right] = cv2.GC_PR_BGD
    core = _disc(rgb.shape[:2], centre, max(2, max(right - left, bottom - top) // 6))
    trimap[core & (trimap == cv2.GC_PR_BGD)] = cv2.GC_PR_FGD  # the colours of the object are first learnt here
    trimap[seed] = cv2.GC_FGD
    mask = _cut(rgb, trimap, _grown(window, rgb.shape[:2]))
    return _filled(_under(mask | seed, seed))


def _outline_strength(rgb: np.ndarray, mask: np.ndarray, window: tuple[int, int, int, int]) -> float:
    """Mean contrast of colours across the outline, 0 to 1; none where the mask only ends because its window does."""
    height, width = mask.shape
    left, top, right, bottom = window
    lab = cv2.cvtColor(np.ascontiguousarray(rgb[top:bottom, left:right]), cv2.COLOR_RGB2LAB).astype(np.float32)
    body = mask[top:bottom, left:right].astype(np.uint8)
    reach = 2 * max(1, round(0.004 * min(height, width))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    contrast = np.linalg.norm(cv2.dilate(lab, kernel) - cv2.erode(lab, kernel), axis=2)
    edges = (np.s_[0], top > 0), (np.s_[-1], bottom < height), (np.s_[:, 0], left > 0), (np.s_[:, -1], right < width)
    inner = np.pad(body, 1, mode='edge')  # the frame's own border is no outline
    for (index, inside), cut in zip(edges, (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]), strict=True):
        if inside:
            contrast[index] = 0
            inner[cut] = 0
    rim = (body > 0) & (cv2.erode(inner, np.ones((3, 3), np.uint8))[1:-1, 1:-1] == 0)
    return float(contrast[rim].mean()) / 255 if rim.any() else 0.0


def _disc(size: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    disc = np.zeros(size, np.uint8)
    cv2.circle(disc, centre, radius, 1, -1)
    return disc > 0


def _largest(mask: np.ndarray) -> np.ndarray:
    """The pieces of at least a fifth of the largest one; the rest is noise of the cut."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return np.isin(pieces, np.flatnonzero(areas >= 0.2 * areas.max()))


def _under(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The pieces that touch ``seed``."""
    _, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.isin(pieces, np.unique(pieces[seed])) & mask


def _filled(mask: np.ndarray) -> np.ndarray:
    """Holes of less than a hundredth of the object closed; larger ones are seen through."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < 0.01 * mask.sum())
    return mask | np.isin(pieces, small[small > 0])
