"""Depth of PointOdyssey (arXiv 2307.15055): long synthetic videos of people and animals."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import UNITS_PER_METRE, read_depth_png
from ..registry import DATASETS
from .cameras import camera_to_world
from .depth_clips import DepthVideoDataset
from .depth_layout import number_of, pair_by_number
from .depth_sequence import DepthSequence
from .mask_layout import choose, list_folders, list_images


@DATASETS.register_module()
class PointOdysseyDepthDataset(DepthVideoDataset):
    """``<split>/<name>/{rgbs/rgb_00000.jpg, depths/depth_00000.png}``, and ``anno.npz`` with the cameras.

    Args:
        data_root: Holds the splits.
        split: ``'train'``, ``'val'``, ``'test'``; '' when ``data_root`` itself holds the sequences.
        poses: Whether to read the cameras; of ``anno.npz`` nothing else is read.
        sequences: Only these, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 80.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: frames, depth and cameras do not fit together.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'test',
        *,
        poses: bool = True,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        root = Path(data_root).expanduser() / split
        names = [name for name in list_folders(root) if (root / name / 'depths').is_dir()]
        if not names:
            raise FileNotFoundError(f'{root}: no sequence here; wanted {root}/<name>/ with rgbs/ and depths/')
        found = [_sequence(root / name, poses) for name in choose(names, sequences, where=root)]
        super().__init__(found, **(dict(dataset_name='pointodyssey', max_depth_m=80.0) | options))


def _sequence(folder: Path, poses: bool) -> DepthSequence:
    files = list_images(folder / 'depths', what='depth maps')
    frames, files = pair_by_number(list_images(folder / 'rgbs'), files)
    numbers = [number_of(path) for path in files]
    matrices = extrinsics = None
    if poses and (folder / 'anno.npz').is_file():
        matrices, extrinsics = read_cameras(folder / 'anno.npz')
        if max(numbers) >= len(matrices):
            raise ValueError(f'{folder / "anno.npz"}: cameras of {len(matrices)} frames; there is a {max(numbers)}')
        matrices, extrinsics = matrices[numbers], camera_to_world(extrinsics[numbers])
    return DepthSequence(
        folder.name,
        frames,
        files,
        partial(read_depth_png, units_per_metre=UNITS_PER_METRE['point_odyssey']),
        matrices,
        extrinsics,
        meta=dict(fps=30.0),
    )


def read_cameras(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics ``(T, 3, 3)`` px and world to camera ``(T, 4, 4)``; half floats in the file.

    Raises:
        ValueError: damaged, or not there.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            matrices, extrinsics = (arrays[key].astype(np.float64) for key in ('intrinsics', 'extrinsics'))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path}: no cameras of PointOdyssey ({" ".join(str(error).split())})') from None
    if matrices.shape[1:] != (3, 3) or extrinsics.shape != (len(matrices), 4, 4):
        raise ValueError(
            f'{path}: intrinsics {matrices.shape}, extrinsics {extrinsics.shape}; wanted (T, 3, 3) and (T, 4, 4)'
        )
    if not (np.isfinite(matrices).all() and np.isfinite(extrinsics).all()):
        raise ValueError(f'{path}: a camera holds NaN or infinity; poses=False does without')
    return matrices, extrinsics
