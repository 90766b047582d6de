"""MPI Sintel: an animated film with exact depth and cameras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import read_dpt
from ..registry import DATASETS
from .cameras import camera_to_world
from .depth_clips import DepthVideoDataset
from .depth_layout import first_folder, number_of, pair_by_number
from .depth_sequence import DepthSequence
from .mask_layout import choose, list_folders, list_images

_TAG = np.float32(202021.25)
_CAMERA_BYTES = 4 + 8 * (9 + 12)


@DATASETS.register_module()
class SintelDepthDataset(DepthVideoDataset):
    """``training/{<render>/<scene>/frame_0001.png, depth/<scene>/frame_0001.dpt, camdata_left/<scene>/*.cam}``.

    Args:
        data_root: Holds ``training``; depth may also lie in ``depth/training/depth`` as its archive unpacks.
        render: ``'final'`` (with fog and blur) or ``'clean'``.
        sequences: Only these scenes, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 70; the sky is
            beyond.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: frames and depth do not fit together.
    """

    def __init__(
        self,
        data_root: str,
        *,
        render: str = 'final',
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        if render not in ('clean', 'final'):
            raise ValueError(f"render is '{render}'; wanted 'clean' or 'final'")
        root = Path(data_root).expanduser()
        images = first_folder(
            root / 'training' / render, root / render, holds='*/frame_*.png', what='frame of MPI Sintel'
        )
        above = images.parent
        depth = first_folder(
            above / 'depth', root / 'depth/training/depth', holds='*/frame_*.dpt', what='depth of MPI Sintel'
        )
        cameras = depth.parent / 'camdata_left'
        found = []
        for scene in choose(list_folders(depth), sequences, where=depth):
            files = list_images(depth / scene, ('.dpt',), what='depth maps')
            frames, files = pair_by_number(list_images(images / scene), files)
            found.append(_with_camera(DepthSequence(scene, frames, files, read_dpt, meta=dict(fps=24.0)), cameras))
        super().__init__(found, **(dict(dataset_name='sintel', max_depth_m=70.0) | options))


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``(3, 3)`` intrinsics and ``(3, 4)`` world to camera of a ``.cam`` file: a float tag, then 21 doubles.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such camera')
    data = path.read_bytes()
    if len(data) != _CAMERA_BYTES or np.frombuffer(data, '<f4', 1)[0] != _TAG:
        raise ValueError(f'{path}: no .cam file; wanted the tag {_TAG} and 21 doubles, {_CAMERA_BYTES} bytes')
    numbers = np.frombuffer(data, '<f8', offset=4)
    return numbers[:9].reshape(3, 3), numbers[9:].reshape(3, 4)


def _with_camera(sequence: DepthSequence, cameras: Path) -> DepthSequence:
    folder = cameras / sequence.name
    if folder.is_dir():
        files = [folder / f'frame_{number_of(path):04d}.cam' for path in sequence.depth]
        matrices, poses = zip(*map(read_camera, files), strict=True)
        sequence.intrinsics, sequence.camera_to_world = np.stack(matrices), camera_to_world(np.stack(poses))
    return sequence
