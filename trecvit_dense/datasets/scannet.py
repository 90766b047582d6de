"""ScanNet v2 (arXiv 1702.04405): rooms, a hand-held depth camera, and its poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import read_depth_png
from ..registry import DATASETS
from .cameras import is_rigid, read_table
from .depth_clips import DepthVideoDataset
from .depth_layout import pair_by_number
from .depth_sequence import DepthSequence
from .mask_layout import choose, list_folders, list_images


@dataclass
class PoseFileSequence(DepthSequence):
    """A video whose poses lie in a file each. Those of a whole scene are read when they are first asked for.

    Args:
        pose_files: One for each frame; a pose that was lost holds infinities.
    """

    pose_files: list[Path] = field(default_factory=list)
    _known: np.ndarray | None = None

    @property
    def annotated(self) -> np.ndarray:
        """``(T,)`` bool, frames with depth and a pose."""
        if self._known is None:
            self._known = np.array([bool(is_rigid(read_pose(path)[None])[0]) for path in self.pose_files])
        return super().annotated & self._known

    def only(self, frames: Sequence[int]) -> PoseFileSequence:
        video = super().only(frames)
        video.pose_files, video._known = [self.pose_files[t] for t in frames], None
        poses = np.stack([read_pose(path) for path in video.pose_files])
        video.camera_to_world = poses if is_rigid(poses).all() else None
        return video


@DATASETS.register_module()
class ScanNetDataset(DepthVideoDataset):
    """``<scene>/{color/0.jpg, depth/0.png, pose/0.txt, intrinsic/intrinsic_depth.txt}``, exported from ``.sens``.

    Colour is 1296 x 968, depth 640 x 480. Frames whose pose was lost (-inf) are left out.

    Args:
        data_root: Holds the scenes, or ``scans/`` or ``scans_test/`` with them.
        split: Name of a list ``scannetv2_<split>.txt`` or ``<split>.txt`` in ``data_root``; None: every scene.
        poses: False leaves poses aside, and then no frame out: published lists of frames count them all.
        sequences: Only these scenes, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 10 and
            ``max_side`` 640. Video-Depth-Anything: ``frame_step=3, max_frames=90, crop=(8, -8, 11, -11)``.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: frames, depth and poses do not fit together.
    """

    def __init__(
        self,
        data_root: str,
        split: str | None = None,
        *,
        poses: bool = True,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        root = Path(data_root).expanduser()
        folders = {
            name: place / name
            for place in (root, root / 'scans', root / 'scans_test')
            for name in list_folders(place)
            if (place / name / 'depth').is_dir()
        }
        if not folders:
            raise FileNotFoundError(f'{root}: no scene here; wanted {root}/<scene>/ with color, depth, pose, intrinsic')
        if sequences is None and split is not None:
            lists = [root / f'scannetv2_{split}.txt', root / f'{split}.txt']
            sequences = str(next((path for path in lists if path.is_file()), lists[0]))
        found = [_sequence(folders[name], poses) for name in choose(folders, sequences, where=root)]
        if options.get('num_frames') is None:
            found = [_with_poses(sequence) for sequence in found]
        super().__init__(found, **(dict(dataset_name='scannet', max_depth_m=10.0, max_side=640) | options))


def read_pose(path: Path) -> np.ndarray:
    """``(4, 4)`` camera to world; may hold infinities.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not four lines of four numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such pose; poses=False does without')
    pose = read_table(path, 4)
    if pose.shape != (4, 4):
        raise ValueError(f'{path}: {pose.shape[0]} lines; wanted a 4x4 camera to world matrix')
    return pose


def _sequence(folder: Path, poses: bool) -> DepthSequence:
    frames, files = pair_by_number(list_images(folder / 'color'), list_images(folder / 'depth', what='depth maps'))
    matrix = read_table(folder / 'intrinsic/intrinsic_depth.txt', 4)[:3, :3]
    options = dict(read=partial(read_depth_png, units_per_metre=1000.0), intrinsics=matrix, meta=dict(fps=30.0))
    if not poses:
        return DepthSequence(folder.name, frames, files, **options)
    pose_files = [folder / 'pose' / f'{path.stem}.txt' for path in files]
    return PoseFileSequence(folder.name, frames, files, **options, pose_files=pose_files)


def _with_poses(sequence: DepthSequence) -> DepthSequence:
    """The frames whose pose is known, with their poses."""
    if not isinstance(sequence, PoseFileSequence):
        return sequence
    known = np.flatnonzero(sequence.annotated)
    if not len(known):
        raise ValueError(
            f'{sequence.pose_files[0].parent}: none of {len(sequence.frames)} poses is a rigid camera to world matrix; '
            f'poses=False does without'
        )
    return sequence.only(known)
