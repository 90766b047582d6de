"""Virtual KITTI 2 (arXiv 2001.10773): five rendered drives in ten variants of light, weather and view."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import UNITS_PER_METRE, read_depth_png
from ..registry import DATASETS
from .cameras import camera_to_world, pinhole, read_table
from .depth_clips import DepthVideoDataset
from .depth_layout import number_of, pair_by_number
from .depth_sequence import DepthSequence
from .mask_layout import choose, list_folders, list_images


@DATASETS.register_module()
class VirtualKITTI2Dataset(DepthVideoDataset):
    """``Scene01/<variant>/{frames/rgb/Camera_0/rgb_00000.jpg, frames/depth/Camera_0/depth_00000.png}``.

    ``intrinsic.txt`` and ``extrinsic.txt`` lie beside ``frames``.

    Args:
        data_root: Holds the scenes; the archives of rgb, depth and text are unpacked into one folder.
        variants: ``['clone', 'fog', ...]``; None: all.
        cameras: 0 (left), 1 (right), or both.
        sequences: Only these, as ``Scene01/clone/Camera_0``, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 80; the sky has
            655.35.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: frames, depth and cameras do not fit together.
    """

    def __init__(
        self,
        data_root: str,
        *,
        variants: Sequence[str] | None = None,
        cameras: int | Sequence[int] = 0,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        root = Path(data_root).expanduser()
        numbers = [cameras] if isinstance(cameras, int) else list(cameras)
        videos = {
            f'{scene}/{variant}/Camera_{camera}': (root / scene / variant, camera)
            for scene in list_folders(root)
            for variant in choose(list_folders(root / scene), variants, where=root / scene)
            for camera in numbers
            if (root / scene / variant / 'frames/depth' / f'Camera_{camera}').is_dir()
        }
        if not videos:
            raise FileNotFoundError(f'{root}: no drive here; wanted {root}/Scene01/clone/frames/depth/Camera_0/')
        found = [_sequence(*videos[name], name) for name in choose(videos, sequences, where=root)]
        super().__init__(found, **(dict(dataset_name='vkitti2', max_depth_m=80.0) | options))


def _sequence(folder: Path, camera: int, name: str) -> DepthSequence:
    files = list_images(folder / 'frames/depth' / f'Camera_{camera}', what='depth maps')
    frames, files = pair_by_number(list_images(folder / 'frames/rgb' / f'Camera_{camera}'), files)
    numbers = [number_of(path) for path in files]
    inside = _rows(folder / 'intrinsic.txt', 6, camera, numbers)  # frame, camera, fx, fy, cx, cy
    outside = _rows(folder / 'extrinsic.txt', 18, camera, numbers)  # frame, camera, world to camera row by row
    return DepthSequence(
        name,
        frames,
        files,
        partial(read_depth_png, units_per_metre=UNITS_PER_METRE['virtual_kitti']),
        np.stack([pinhole(*row) for row in inside]),
        camera_to_world(outside.reshape(-1, 4, 4)),
        meta=dict(fps=10.0),
    )


def _rows(path: Path, columns: int, camera: int, frames: list[int]) -> np.ndarray:
    """What the table says of these frames of the camera, without frame and camera."""
    table = read_table(path, columns, header=1)
    of_frame = {int(row[0]): row[2:] for row in table if int(row[1]) == camera}
    missing = next((frame for frame in frames if frame not in of_frame), None)
    if missing is not None:
        raise ValueError(f'{path}: no line for frame {missing} of camera {camera}')
    return np.stack([of_frame[frame] for frame in frames])
