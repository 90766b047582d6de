"""Static images with object masks become clips, as pre-training for video object segmentation does it.

Every object and the background move on their own: a random affine path and a smooth bending that grows and swings.
Objects of other images pass in front. What is behind an object of the picture is filled in from around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from torch.utils.data import Dataset

from ..io.frame_source import read_image
from ..io.mask_file import decode_run_lengths
from ..registry import DATASETS
from ..structures import ObjectMasks, VideoSample
from .items import build_pipeline, one_thread_in_workers, place_of, run_pipeline, video_item
from .mask_layout import read_json
from .procedural.motion import affine, heavy_tailed, path
from .transforms.colour import ColorJitter
from .transforms.objects import SelectObjects

_TRIES = 10
_MOST = 8  # objects of one image
_HOLE_SIDE = 96  # pixels; what lies behind an object is made up at this size, and is hardly ever seen


@dataclass
class _Cutout:
    """A piece of picture that moves: premultiplied RGBA with values in 0..255, and the path it takes."""

    picture: np.ndarray  # (h, w, 4) uint8
    matrices: np.ndarray  # (T, 3, 3) from pixels of the picture to pixels of the frame
    bend: np.ndarray  # (T, 4, 4, 2) shifts of a coarse grid over the picture, its pixels
    endless: bool = False


@DATASETS.register_module()
class CocoClipsDataset(Dataset):
    """Clips made from the images of a COCO JSON. Every item depends on ``(seed, draw, index)`` alone.

    Args:
        ann_file: COCO instances JSON: polygons or run lengths; crowds are left out.
        image_root: Folder of the images.
        size: ``(H, W)`` of the frames.
        num_frames: Frames of a clip.
        max_objects: Most objects that a clip asks for.
        pasted: Fewest and most objects of another image that are laid over the picture; they count as objects.
        motion: Multiplies all speeds, 0 for a still picture.
        bending: Multiplies the deformation.
        colour: Multiplies the change of colour, from clip to clip and from frame to frame.
        min_area: Share of the image that an object must cover.
        pipeline: Transforms, configs or callables ``(sample, rng) -> sample``, applied in order.
        seed: Another seed gives other clips.

    Raises:
        FileNotFoundError: no such JSON or folder.
        ValueError: not a COCO JSON, no object that is large enough, or a value out of range.
    """

    metainfo = dict(dataset_name='coco_clips')

    def __init__(
        self,
        ann_file: str,
        image_root: str,
        *,
        size: tuple[int, int] = (256, 256),
        num_frames: int = 8,
        max_objects: int | None = 3,
        pasted: tuple[int, int] = (0, 2),
        motion: float = 1.0,
        bending: float = 1.0,
        colour: float = 1.0,
        min_area: float = 0.01,
        pipeline: Sequence[dict | Callable] | None = None,
        seed: int = 0,
    ) -> None:
        if min(size) < 16 or num_frames < 1:
            raise ValueError(f'size is {tuple(size)}, num_frames {num_frames}; wanted 16 x 16 pixels and a frame')
        if not 0 <= pasted[0] <= pasted[1] or min(motion, bending, colour) < 0:
            raise ValueError(
                f'pasted is {tuple(pasted)}, motion {motion}, bending {bending}, colour {colour}; wanted '
                f'(fewest, most), and strengths of 0 or more'
            )
        file, self.root = Path(ann_file).expanduser(), Path(image_root).expanduser()
        if not self.root.is_dir():
            raise FileNotFoundError(f'{self.root}: no such folder; wanted the images of {file}')
        self.file, self.images = file, _read_images(file, min_area)
        self.size, self.num_frames, self.pasted, self.seed = tuple(size), num_frames, tuple(pasted), seed
        self.motion, self.bending = motion, bending
        share = min(colour, 2.0)
        self.colour = ColorJitter(
            brightness=0.2 * share, contrast=0.2 * share, saturation=0.3 * share, hue=0.05 * share, p=float(colour > 0)
        )
        self.select = SelectObjects(max_objects)
        self.pipeline = build_pipeline(pipeline)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``."""
        one_thread_in_workers()
        draw, place = place_of(index, len(self))
        rng = np.random.default_rng([self.seed, draw, place])
        for _ in range(_TRIES):
            sample = self._clip(place, rng)
            sample = run_pipeline(self.pipeline, sample, rng)
            sample = self.select(sample, rng)
            if 0 in sample.masks.first_frame:
                return video_item(sample)
            place = int(rng.integers(len(self)))
        raise ValueError(f'{self.file}: {_TRIES} clips were drawn and none shows an object on its first frame')

    def _clip(self, index: int, rng: Generator) -> VideoSample:
        entry = self.images[index]
        image, masks = self._read(entry, rng)
        window = np.array(image.shape[1::-1]) - self.size[::-1]
        middle = np.array(self.size[::-1]) / 2
        camera = _about(middle, self._path(rng, 0.6)) @ _shift(*-np.round(rng.uniform(0, 1, 2) * window))
        layers = [_Cutout(_opaque(_fill(image, masks.any(0))), camera, self._bend(rng, image, 0.3), endless=True)]
        for mask in masks:
            picture, corner = _cut(image, mask)
            centre = corner + np.array(picture.shape[1::-1]) / 2
            matrices = camera @ _about(centre, self._path(rng, 1.0)) @ _shift(*corner)
            layers.append(_Cutout(picture, matrices, self._bend(rng, picture, 1.0)))
        layers += self._pasted(rng)
        video, labels = render(layers, self.size)
        ids = [int(i) for i in np.unique(labels) if i]
        names = [f'{t:05d}' for t in range(self.num_frames)]
        meta, name = dict(frame_names=names), Path(entry['file_name']).stem
        return self.colour(VideoSample(video, masks=ObjectMasks(labels, ids), name=name, meta=meta), rng)

    def _pasted(self, rng: Generator) -> list[_Cutout]:
        """Objects of another image, each somewhere in the frame, at a size of its own."""
        count, layers = int(rng.integers(self.pasted[0], self.pasted[1] + 1)), []
        if not count:
            return []
        image, masks = self._read(self.images[int(rng.integers(len(self)))], rng)
        for mask in masks[:count]:
            picture, _ = _cut(image, mask)
            factor = rng.uniform(0.15, 0.45) * min(self.size) / max(picture.shape[:2])
            width, height = (max(2, round(side * factor)) for side in picture.shape[1::-1])
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            place = rng.uniform(0, 1, 2) * self.size[::-1]
            matrices = _about(place, self._path(rng, 1.5)) @ _shift(*(place - (width / 2, height / 2)))
            layers.append(_Cutout(picture, matrices, self._bend(rng, picture, 1.0)))
        return layers

    def _read(self, entry: dict[str, Any], rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """Image that just covers the frame ``(h, w, 3)`` uint8, and masks of some objects ``(N, h, w)`` bool."""
        path = self.root / entry['file_name']
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such image; {self.file} lists it')
        image = read_image(path)
        height, width = image.shape[:2]
        if (height, width) != (entry['height'], entry['width']):
            raise ValueError(f'{path}: {width}x{height} px, not {entry["width"]}x{entry["height"]} as {self.file} says')
        factor = max(self.size[0] / height, self.size[1] / width)
        size = max(self.size[1], round(width * factor)), max(self.size[0], round(height * factor))
        chosen = [entry['objects'][i] for i in rng.permutation(len(entry['objects']))[:_MOST]]
        masks = [decode_run_lengths(segment, (height, width), where=f'{self.file}, {path.name}') for segment in chosen]
        masks = np.stack([cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT) > 0 for mask in masks])
        smooth = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        return cv2.resize(image, size, interpolation=smooth), masks[masks.any(axis=(1, 2))]

    def _path(self, rng: Generator, strength: float) -> np.ndarray:
        """``(T, 3, 3)`` motion about the origin in pixels of the frame, none on frame 0."""
        clock, side, pace = np.arange(self.num_frames) * 1.0, float(np.sqrt(np.prod(self.size))), self.motion * strength
        offset = path(rng, clock, heavy_tailed(rng, 0.01, 1.0, 0.06) * side * pace, 2, bound=0.4 * side)
        angle = path(rng, clock, heavy_tailed(rng, 0.01, 1.0, 0.1) * pace, 1)[:, 0]
        scale = path(rng, clock, heavy_tailed(rng, 0.006, 1.0, 0.05) * pace, 1, bound=0.4) + np.zeros((1, 2))
        shear = path(rng, clock, heavy_tailed(rng, 0.002, 1.0, 0.03) * pace, 1, bound=0.25)[:, 0]
        return affine(offset - offset[0], angle - angle[0], scale - scale[0], shear - shear[0])

    def _bend(self, rng: Generator, picture: np.ndarray, strength: float) -> np.ndarray:
        """``(T, 4, 4, 2)`` shifts of a coarse grid over a picture, pixels of the picture; none on frame 0."""
        clock, side = np.arange(self.num_frames), min(picture.shape[:2])
        pace = self.bending * strength * min(self.motion, 1.0) * (rng.random() < 0.7)
        swing = np.sin(clock * (2 * np.pi / rng.uniform(8, 40)) + rng.uniform(0, 2 * np.pi))
        return rng.normal(0, 0.05 * side * pace, (4, 4, 2)) * (swing - swing[0])[:, None, None, None]


def render(layers: list[_Cutout], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Lay ``layers`` over one another, the first one lowest: ``(T, H, W, 3)`` uint8 and ``(T, H, W)`` uint8 labels."""
    frames = len(layers[0].matrices)
    video, labels = np.empty((frames, *size, 3), np.uint8), np.zeros((frames, *size), np.uint8)
    for t in range(frames):
        canvas = np.zeros((*size, 3), np.float32)
        for label, layer in enumerate(layers):
            patch = _draw(layer, t, size)
            alpha = patch[..., 3:]
            canvas = canvas * (1 - alpha * np.float32(1 / 255)) + patch[..., :3]
            labels[t][alpha[..., 0] > 127] = label
        video[t] = np.clip(canvas + 0.5, 0, 255)
    return video, labels


def _read_images(path: Path, min_area: float) -> list[dict[str, Any]]:
    """Images with at least one object that is large enough: file_name, height, width, and their ``objects``."""
    content = read_json(path, 'images')
    if 'annotations' not in content:
        raise ValueError(f"{path}: has no 'annotations'; wanted a COCO instances JSON")
    images = {image['id']: dict(image, objects=[]) for image in content['images']}
    for found in content['annotations']:
        image = images.get(found['image_id'])
        if image is None or found.get('iscrowd') or not found.get('segmentation'):
            continue
        least = min_area * image['height'] * image['width']
        area = found['area'] if 'area' in found else least
        if area >= least:
            image['objects'].append(found['segmentation'])
    kept = [image for image in images.values() if image['objects']]
    if not kept:
        raise ValueError(f'{path}: no image with an object that covers {min_area:g} of it; wanted a smaller min_area')
    return kept


def _draw(layer: _Cutout, t: int, size: tuple[int, int]) -> np.ndarray:
    """``(H, W, 4)`` float32 premultiplied, 0..255."""
    x, y = np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32))
    (a, b, c), (d, e, f), _ = np.linalg.inv(layer.matrices[t]).astype(np.float32)
    u, v = x * a + y * b + c, x * d + y * e + f
    if layer.bend[t].any():
        height, width = layer.picture.shape[:2]
        shift = cv2.resize(layer.bend[t].astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        shift = cv2.remap(shift, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        u, v = u + shift[..., 0], v + shift[..., 1]
    mode = cv2.BORDER_REFLECT_101 if layer.endless else cv2.BORDER_CONSTANT
    return cv2.remap(layer.picture, u, v, cv2.INTER_LINEAR, borderMode=mode).astype(np.float32)


def _fill(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """``image`` with what is under ``hole`` made up from around it."""
    height, width = hole.shape
    factor = min(1.0, _HOLE_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    wider = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2)
    small_hole = cv2.resize(wider, size, interpolation=cv2.INTER_AREA)
    small_hole = cv2.dilate((small_hole > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    small = cv2.inpaint(cv2.resize(image, size, interpolation=cv2.INTER_AREA), small_hole, 3, cv2.INPAINT_TELEA)
    return np.where(wider[..., None] > 0, cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), image)


def _opaque(image: np.ndarray) -> np.ndarray:
    return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])


def _cut(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The object alone, premultiplied RGBA with soft edges, and the corner ``(x, y)`` it was cut at."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = max(0, rows[0] - 1), max(0, columns[0] - 1)
    window = slice(top, rows[-1] + 2), slice(left, columns[-1] + 2)
    alpha = mask[window].astype(np.uint8) * np.uint8(255)
    alpha = cv2.GaussianBlur(alpha, (3, 3), 0, borderType=cv2.BORDER_CONSTANT)  # nothing is mirrored into the margin
    colour = image[window] * (alpha[..., None] * (1 / 255))
    return np.dstack([colour.astype(np.uint8), alpha]), (int(left), int(top))


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def _about(centre: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """``matrices`` ``(T, 3, 3)`` turned about ``centre`` ``(2,)`` instead of the origin."""
    return _shift(*centre) @ matrices @ _shift(*-np.asarray(centre))
