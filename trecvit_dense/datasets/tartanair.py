"""TartanAir (arXiv 2003.14338): rendered flights through hundreds of places, with exact depth and poses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import read_depth_npy
from ..registry import DATASETS
from .cameras import FORWARD_RIGHT_DOWN, pinhole, poses_from_quaternions, read_table, turned_axes
from .depth_clips import DepthVideoDataset
from .depth_layout import number_of, pair_by_number
from .depth_sequence import DepthSequence
from .mask_layout import choose, list_images

_PLACES = ('{}/P*', '*/{}/P*', '*/*/{}/P*')


@DATASETS.register_module()
class TartanAirDataset(DepthVideoDataset):
    """``<place>/{Easy,Hard}/P000/{image_left/000000_left.png, depth_left/000000_left_depth.npy, pose_left.txt}``.

    Args:
        data_root: Holds the places, or is one place or one trajectory.
        difficulty: ``'Easy'``, ``'Hard'``, or None for both.
        sequences: Only these, as ``abandonedfactory/Easy/P000``, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 80; the sky has
            depths of ten kilometres.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: frames, depth and poses do not fit together.
    """

    def __init__(
        self,
        data_root: str,
        *,
        difficulty: str | None = None,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        if difficulty not in (None, 'Easy', 'Hard'):
            raise ValueError(f"difficulty is '{difficulty}'; wanted 'Easy', 'Hard' or none")
        root = Path(data_root).expanduser()
        levels = [difficulty] if difficulty else ['Easy', 'Hard']
        folders = {
            path.relative_to(root).as_posix(): path
            for pattern in _PLACES
            for level in levels
            for path in sorted(root.glob(pattern.format(level)))
            if (path / 'depth_left').is_dir()
        }
        if (root / 'depth_left').is_dir():
            folders = {root.resolve().name: root}
        if not folders:
            raise FileNotFoundError(f'{root}: no trajectory here; wanted {root}/<place>/Easy/P000/ with depth_left/')
        found = [_sequence(folders[name], name) for name in choose(sorted(folders), sequences, where=root)]
        super().__init__(found, **(dict(dataset_name='tartanair', max_depth_m=80.0) | options))


def _sequence(folder: Path, name: str) -> DepthSequence:
    files = list_images(folder / 'depth_left', ('.npy',), what='depth maps')
    frames, files = pair_by_number(list_images(folder / 'image_left'), files)
    rows = read_table(folder / 'pose_left.txt', 7)  # position, quaternion x y z w
    numbers = [number_of(path) for path in files]
    if max(numbers) >= len(rows):
        raise ValueError(f'{folder / "pose_left.txt"}: {len(rows)} poses; there is a frame {max(numbers)}')
    poses = poses_from_quaternions(rows[numbers, :3], rows[numbers, 3:])
    return DepthSequence(
        name,
        frames,
        files,
        read_depth_npy,
        pinhole(320.0, 320.0, 320.0, 240.0),  # px of 640 x 480
        turned_axes(np.asarray(poses), FORWARD_RIGHT_DOWN),
    )
