"""TUM RGB-D and Bonn RGB-D Dynamic (arXiv 1905.02082): hand-held depth cameras whose streams are paired by time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import UNITS_PER_METRE, read_depth_png
from ..registry import DATASETS
from .cameras import pinhole, poses_from_quaternions, read_table
from .depth_clips import DepthVideoDataset
from .depth_layout import nearest_in_time
from .depth_sequence import DepthSequence
from .mask_layout import choose, list_folders, list_images

# Calibrated colour cameras; depth is registered to them. From the pages of the data sets.
TUM_CAMERAS = {
    'freiburg1': pinhole(517.3, 516.5, 318.6, 255.3),
    'freiburg2': pinhole(520.9, 521.0, 325.1, 249.7),
    'freiburg3': pinhole(535.4, 539.2, 320.1, 247.6),
}
BONN_CAMERA = pinhole(542.822841, 542.576870, 315.593520, 237.756098)


@DATASETS.register_module()
class TUMRGBDDataset(DepthVideoDataset):
    """``<sequence>/{rgb/*.png, depth/*.png, rgb.txt, depth.txt, groundtruth.txt}``, file names and lists by time.

    Each colour frame is paired with the depth map nearest in time, and with the pose nearest in time where
    ``groundtruth.txt`` is there; frames that have none are left out.

    Args:
        data_root: A sequence, or a folder of sequences.
        max_difference_s: Farthest that two records of one moment may lie apart.
        poses: Whether to read ``groundtruth.txt``.
        sequences: Only these, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 10.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: no depth map is near any frame in time.
    """

    name = 'tum'

    def __init__(
        self,
        data_root: str,
        *,
        max_difference_s: float = 0.02,
        poses: bool = True,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        root = Path(data_root).expanduser()
        single = (root / 'depth').is_dir() and (root / 'rgb').is_dir()
        names = [name for name in list_folders(root) if (root / name / 'depth').is_dir()]
        folders = {root.resolve().name: root} if single else {name: root / name for name in names}
        if not folders:
            raise FileNotFoundError(f'{root}: no sequence here; wanted {root}/<sequence>/ with rgb/ and depth/')
        found = [
            _sequence(folders[name], name, self.camera(name), poses, max_difference_s)
            for name in choose(folders, sequences, where=root)
        ]
        super().__init__(found, **(dict(dataset_name=self.name, max_depth_m=10.0) | options))

    @staticmethod
    def camera(sequence: str) -> np.ndarray | None:
        """``(3, 3)`` intrinsics, px of 640 x 480; None where the name does not tell."""
        return next((matrix for name, matrix in TUM_CAMERAS.items() if name in sequence), None)


@DATASETS.register_module()
class BonnDataset(TUMRGBDDataset):
    """The Bonn RGB-D Dynamic data set: the same layout, ``rgbd_bonn_<sequence>``.

    ``groundtruth.txt`` follows markers on the camera, and how they sit on it is not in the files: poses are left aside
    unless ``poses=True``. Video-Depth-Anything: ``sequences=[rgbd_bonn_balloon2, ...], frame_range=(30, 140)``.
    """

    name = 'bonn'

    def __init__(self, data_root: str, *, poses: bool = False, **options: Any) -> None:
        super().__init__(data_root, poses=poses, **options)

    @staticmethod
    def camera(sequence: str) -> np.ndarray | None:
        return BONN_CAMERA


def _sequence(folder: Path, name: str, matrix: np.ndarray | None, poses: bool, limit_s: float) -> DepthSequence:
    frame_times, frames = _stamped(folder, 'rgb')
    depth_times, files = _stamped(folder, 'depth')
    match = nearest_in_time(frame_times, depth_times, limit_s)
    match = _closest_only(match, np.abs(depth_times[match] - frame_times))
    kept, camera_to_world = match >= 0, None
    truth = folder / 'groundtruth.txt'
    if poses and truth.is_file():
        table = read_table(truth, 8)  # time, position, quaternion
        table = table[np.argsort(table[:, 0], kind='stable')]
        pose = nearest_in_time(frame_times, table[:, 0], limit_s)
        kept &= pose >= 0
        camera_to_world = poses_from_quaternions(table[pose[kept], 1:4], table[pose[kept], 4:])
    if not kept.any():
        raise ValueError(
            f'{folder}: none of {len(frames)} frames has depth{" and a pose" if camera_to_world is not None else ""} '
            f'within {limit_s:g} s; wanted times of one clock, or a larger max_difference_s'
        )
    chosen = np.flatnonzero(kept)
    return DepthSequence(
        name,
        [frames[t] for t in chosen],
        [files[match[t]] for t in chosen],
        partial(read_depth_png, units_per_metre=UNITS_PER_METRE['tum']),
        matrix,
        camera_to_world,
        meta=dict(fps=30.0),
    )


def _closest_only(match: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """A depth map goes to one frame, the nearest; -1 for the others."""
    kept = np.full_like(match, -1)
    for t in np.lexsort((distance, match)):
        if match[t] >= 0 and not (kept == match[t]).any():
            kept[t] = match[t]
    return kept


def _stamped(folder: Path, kind: str) -> tuple[np.ndarray, list[Path]]:
    """Times in seconds, and files, in order: from ``<kind>.txt``, else from the names of the files."""
    listing = folder / f'{kind}.txt'
    if not listing.is_file():
        files = list_images(folder / kind)
        pairs = [(path.stem, path) for path in files]
    else:
        lines = [line.split() for line in listing.read_text().splitlines() if line.strip() and line[0] != '#']
        if any(len(words) < 2 for words in lines) or not lines:
            raise ValueError(f'{listing}: wanted lines of a time and a file, as in 1305031102.175304 {kind}/1.png')
        pairs = [(words[0], folder / words[1]) for words in lines]
    try:
        stamped = sorted(((float(time), path) for time, path in pairs), key=lambda pair: pair[0])
    except ValueError as error:
        raise ValueError(f'{listing if listing.is_file() else folder / kind}: no times in seconds ({error})') from None
    return np.array([time for time, _ in stamped]), [path for _, path in stamped]
