"""Depth of RGB-D recordings: somebody's own folder of images, depth, poses and intrinsics."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..io.depth_file import read_depth
from ..registry import DATASETS
from .depth_clips import DepthVideoDataset
from .depth_sequence import DepthSequence
from .mask_layout import choose
from .rgbd_recording import RGBDRecording, find_recordings


@DATASETS.register_module()
class RGBDDepthDataset(DepthVideoDataset):
    """``images/``, ``depth/``, ``poses.txt`` and ``K.txt``: a whole recording is one video.

    See :class:`~trecvit_dense.datasets.rgbd_recording.RGBDRecording` for the files. Depth may have another size than
    the images, of the same shape. Without ``poses.txt`` or ``K.txt`` depth is scored, but nothing that needs a camera
    (TAE, flicker); a warning says so.

    Args:
        data_root: A recording, or a folder of recordings.
        depth_scale: Units of 16-bit depth files per metre: 1000 for millimetres, 5000 for TUM RGB-D.
        sequences: Only these: names, or a text file with one a line.
        fps: Frames per second.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`.

    Raises:
        FileNotFoundError: nothing there, or a part of a recording is missing.
        ValueError: a recording that does not fit together, or depth in another unit; the file is named.
    """

    def __init__(
        self,
        data_root: str,
        *,
        depth_scale: float = 1000.0,
        sequences: Sequence[str] | str | None = None,
        fps: float = 30.0,
        **options: Any,
    ) -> None:
        root = Path(data_root).expanduser()
        folders = {folder.resolve().name: folder for folder in find_recordings(root)}
        names = choose(folders, sequences, where=root)
        found = [_sequence(folders[name], depth_scale, fps) for name in names]
        super().__init__(found, **(dict(dataset_name='rgbd') | options))


def _sequence(folder: Path, depth_scale: float, fps: float) -> DepthSequence:
    recording = RGBDRecording(folder, depth_scale=depth_scale, camera=False, same_size=False)
    parts = {'poses.txt': recording.camera_to_world, 'K.txt': recording.intrinsics}
    missing = [name for name, part in parts.items() if part is None]
    if missing:
        warnings.warn(
            f'{folder}: no {" and no ".join(missing)}, so that what needs a camera (TAE, flicker) is not measured',
            stacklevel=4,
        )
    return DepthSequence(
        recording.name,
        recording.image_files,
        list(recording.depth_files),
        partial(read_depth, units_per_metre=depth_scale),
        recording.depth_intrinsics,
        recording.camera_to_world,
        meta=dict(fps=float(fps)),
    )
