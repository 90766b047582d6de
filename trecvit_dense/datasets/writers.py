"""Write samples in the layouts of public datasets, so that their adapters read exact truth.

Layouts: TAP-Vid pickle (arXiv 2211.03726), DAVIS 2017 folders (arXiv 1704.00675), and a folder of RGB-D frames with
poses and intrinsics.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ..io import write_mask
from ..structures import VideoSample

_MAX_MM = 65535


def tapvid_entry(sample: VideoSample) -> dict[str, np.ndarray]:
    """``video`` ``(T, H, W, 3)`` uint8, ``points`` ``(N, T, 2)`` float32 as x/W, y/H, ``occluded`` ``(N, T)`` bool."""
    height, width = sample.size
    points = sample.points.scaled(1 / width, 1 / height)
    return dict(video=sample.video, points=points.xy_px.astype(np.float32), occluded=~points.visible)


def write_tapvid(path: Path, entries: dict[str, dict[str, np.ndarray]]) -> None:
    """One pickle, as ``tapvid_davis.pkl``: name to entry, plain arrays only."""
    with path.open('wb') as file:
        pickle.dump(entries, file, protocol=4)


def write_davis(root: Path, sample: VideoSample) -> None:
    """``JPEGImages/480p`` and ``Annotations/480p`` of one clip; the list of names is :func:`write_davis_list`'s."""
    images, masks = root / 'JPEGImages/480p' / sample.name, root / 'Annotations/480p' / sample.name
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for t, (frame, labels) in enumerate(zip(sample.video, sample.masks.labels, strict=True)):
        Image.fromarray(frame).save(images / f'{t:05d}.jpg', quality=95)
        write_mask(masks / f'{t:05d}.png', labels)


def write_davis_list(root: Path, names: Iterable[str]) -> None:
    """``ImageSets/2017/val.txt``."""
    folder = root / 'ImageSets/2017'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'val.txt').write_text(''.join(f'{name}\n' for name in names))


def write_depth(folder: Path, sample: VideoSample) -> None:
    """``images/00000.png``, ``depth/00000.png`` (16 bit, millimetres, 0 = no value), ``poses.txt``, ``K.txt``.

    Poses are camera to world, one row-major 4 x 4 matrix a line. Depth beyond 65.5 m has no value.

    Raises:
        ValueError: the intrinsics change within the clip; the layout holds one matrix.
    """
    depth = sample.depth
    matrices = depth.intrinsics.reshape(-1, 3, 3)
    if not np.allclose(matrices, matrices[0]):
        raise ValueError(f'{sample.name}: the intrinsics change within the clip; wanted constant ones (zoom=False)')
    for name in ('images', 'depth'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    millimetres = np.rint(depth.depth_m * 1000.0)
    millimetres = np.where(depth.valid & (millimetres <= _MAX_MM), millimetres, 0).astype(np.uint16)
    for t, frame in enumerate(sample.video):
        Image.fromarray(frame).save(folder / 'images' / f'{t:05d}.png')
        Image.fromarray(millimetres[t]).save(folder / 'depth' / f'{t:05d}.png')
    np.savetxt(folder / 'poses.txt', depth.camera_to_world.reshape(len(sample.video), 16))
    np.savetxt(folder / 'K.txt', matrices[0])
