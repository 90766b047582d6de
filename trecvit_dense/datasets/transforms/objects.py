"""Transforms for training on masks: which objects a clip asks for, and crops that do not lose them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import ObjectMasks, VideoSample

from .depth import depth_at
from .geometry import RandomCrop, crop, resize
from .tapnextpp import ask_again

_TRIES = 10


@TRANSFORMS.register_module()
class SelectObjects:
    """Keep at most ``max_objects`` objects and give each on the first frame that shows enough of it.

    Ids keep their values; pixels of an object that is not kept, or that come before the frame on which it is given,
    become background. Objects that no frame shows well enough are dropped.

    Args:
        max_objects: Most objects; None keeps all.
        min_area: Share of the frame that must be seen for an object to be given.
        late: How often, after the first one, an object that is not there on frame 0 is preferred to one that is.
    """

    def __init__(self, max_objects: int | None = None, *, min_area: float = 0.002, late: float = 0.5) -> None:
        if max_objects is not None and max_objects < 1:
            raise ValueError(f'SelectObjects: max_objects is {max_objects}; wanted at least 1')
        if not 0 <= min_area < 1 or not 0 <= late <= 1:
            raise ValueError(f'SelectObjects: min_area is {min_area}, late {late}; wanted shares from 0 to 1')
        self.max_objects, self.min_area, self.late = max_objects, min_area, late

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        if sample.masks is None:
            return sample
        first = first_frames(sample.masks, self.min_area)
        chosen = draw_objects(first, len(first) if self.max_objects is None else self.max_objects, self.late, rng)
        return replace(sample, masks=keep_objects(sample.masks, {i: first[i] for i in chosen}))


@TRANSFORMS.register_module()
class RandomResizedCrop(RandomCrop):
    """Crop a random window and resize it to ``size``; the window is drawn again when it loses every object.

    Args:
        size: ``(H, W)`` pixels of the result.
        area, aspect: As in :class:`~trecvit_dense.datasets.transforms.geometry.RandomCrop`.
        keep: Share of the pixels of some object, on the frame on which it is given, that the window must hold. After
            ten draws the whole frame is taken.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        area: tuple[float, float] = (0.3, 1.0),
        aspect: tuple[float, float] = (0.75, 1.33),
        keep: float = 0.3,
    ) -> None:
        super().__init__(size, area=area, aspect=aspect)
        if not 0 <= keep <= 1:
            raise ValueError(f'RandomResizedCrop: keep is {keep}; wanted a share from 0 to 1')
        self.keep = keep

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        for _ in range(_TRIES):
            top, left, rows, columns = self.window(sample.size, rng)
            if _holds_object(sample, top, left, rows, columns, self.keep):
                return resize(crop(sample, top, left, rows, columns), self.size)
        return resize(sample, self.size)


@TRANSFORMS.register_module()
class ScaleJitter:
    """Enlarge or reduce the clip at random, then cut or fill it to ``size``: objects come in many sizes.

    Args:
        size: ``(H, W)`` pixels of the result.
        scale: Least and greatest factor, relative to the one at which the clip just covers ``size``. What a smaller
            clip leaves free is grey, background, and without depth.
        keep: As in :class:`RandomResizedCrop`.
    """

    def __init__(self, size: tuple[int, int], *, scale: tuple[float, float] = (0.7, 1.6), keep: float = 0.3) -> None:
        if min(size) < 1 or not 0 < scale[0] <= scale[1] or not 0 <= keep <= 1:
            raise ValueError(
                f'ScaleJitter: size {tuple(size)}, scale {tuple(scale)}, keep {keep}; wanted pixels, two positive '
                f'factors with the smaller first, and a share from 0 to 1'
            )
        self.size, self.scale, self.keep = tuple(size), scale, keep

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        cover = max(self.size[0] / sample.size[0], self.size[1] / sample.size[1])
        factor = cover * np.exp(rng.uniform(*np.log(self.scale)))
        sample = resize(sample, tuple(max(1, round(side * factor)) for side in sample.size))
        height, width = (min(side, wanted) for side, wanted in zip(sample.size, self.size, strict=True))
        for _ in range(_TRIES):
            top = int(rng.integers(0, sample.size[0] - height + 1))
            left = int(rng.integers(0, sample.size[1] - width + 1))
            if _holds_object(sample, top, left, height, width, self.keep):
                break
        sample = crop(sample, top, left, height, width)
        free = self.size[0] - height, self.size[1] - width
        return pad(sample, self.size, int(rng.integers(0, free[0] + 1)), int(rng.integers(0, free[1] + 1)))


# ---- what the transforms are made of


def first_frames(masks: ObjectMasks, min_area: float = 0.0) -> dict[int, int]:
    """Id to the first frame that shows the object on at least ``min_area`` of the frame, in the order of ``ids``.

    Objects that no such frame shows are missing; with ``min_area`` 0 one pixel is enough.
    """
    counts = np.stack([np.bincount(frame.ravel(), minlength=256) for frame in masks.labels])  # (T, 256)
    seen = counts >= max(1, min_area * masks.labels[0].size)
    return {i: int(seen[:, i].argmax()) for i in masks.ids if seen[:, i].any()}


def draw_objects(first: dict[int, int], count: int, late: float, rng: np.random.Generator) -> list[int]:
    """``count`` ids (fewer when there are no more), in order; each is with odds ``late`` one that appears later.

    Where no object is there from the start, or none appears later, the others are taken.
    """
    early = [i for i in rng.permutation(list(first)).tolist() if first[i] == 0]
    later = [i for i in rng.permutation(list(first)).tolist() if first[i] > 0]
    chosen = []
    for number in range(min(count, len(first))):
        # The first object of a clip is there from the start, so that there is something to follow.
        wants_late = rng.random() < late and number > 0
        source = (later or early) if wants_late else (early or later)
        chosen.append(source.pop())
    return sorted(chosen)


def keep_objects(masks: ObjectMasks, first: dict[int, int]) -> ObjectMasks:
    """Only the objects of ``first`` (id to the frame on which it is given), and nothing of them before that frame."""
    labels = masks.labels.copy()
    kept = np.zeros(256, bool)
    kept[[0, 255, *first]] = True
    labels[~kept[labels]] = 0
    for i, frame in first.items():
        labels[:frame][labels[:frame] == i] = 0
    return replace(masks, labels=labels, ids=list(first), first_frame=list(first.values()))


def pad(sample: VideoSample, size: tuple[int, int], top: int, left: int) -> VideoSample:
    """Lay the clip into a grey frame of ``size``, its corner at pixel ``(top, left)``; masks and depth end there."""
    height, width = sample.size
    if (height, width) == tuple(size):
        return sample
    around = [(0, 0), (top, size[0] - top - height), (left, size[1] - left - width)]
    moved = replace(sample, video=np.pad(sample.video, [*around, (0, 0)], constant_values=127))
    if sample.masks is not None:
        moved.masks = replace(sample.masks, labels=np.pad(sample.masks.labels, around))
    if sample.depth is not None:
        depth = depth_at(sample.depth, sample.size)
        shift = np.array([[1.0, 0, left], [0, 1, top], [0, 0, 1]])
        moved.depth = replace(
            depth,
            depth_m=np.pad(depth.depth_m, around),
            valid=np.pad(depth.valid, around),
            intrinsics=None if depth.intrinsics is None else shift @ depth.intrinsics,
        )
    if sample.points is not None:
        xy, query = sample.points.xy_px, sample.points.query_txy
        query = None if query is None else query + np.array([0, left, top], query.dtype)
        xy = xy + np.array([left, top], xy.dtype)
        moved.points = ask_again(replace(sample.points, xy_px=xy, query_txy=query))
    return moved


def labels_at(masks: ObjectMasks, size: tuple[int, int]) -> ObjectMasks:
    """The same masks at ``(H, W)``, nearest pixel."""
    if masks.labels.shape[1:] == tuple(size):
        return masks
    width_height = (size[1], size[0])
    labels = [cv2.resize(frame, width_height, interpolation=cv2.INTER_NEAREST_EXACT) for frame in masks.labels]
    return replace(masks, labels=np.stack(labels))


def _holds_object(sample: VideoSample, top: int, left: int, height: int, width: int, keep: float) -> bool:
    """Whether the window holds the share ``keep`` of an object where it is given; true without objects."""
    masks = sample.masks
    if masks is None or not masks.ids:
        return True
    for i, frame in first_frames(masks).items():
        labels = masks.labels[frame] == i
        inside = np.count_nonzero(labels[top : top + height, left : left + width])
        if inside >= max(1, keep * np.count_nonzero(labels)):
            return True
    return False
