"""Point tracks on real video without annotation: RGB-D recordings of static scenes with known camera poses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from ..evaluation.functional.tapvid import check_query_mode
from ..io import FrameSource
from ..io.frame_source import natural_key
from ..registry import DATASETS
from .point_clips import parse_resolution, point_item, stack_frames
from .reprojection import DepthTracks, tracks_from_depth

_LAYOUT = 'images/, depth/ (16-bit png), poses.txt and K.txt'


class RGBDRecording:
    """One folder: ``images/``, ``depth/`` (16-bit png, 0 = no value), ``poses.txt``, ``K.txt``.

    Images and depth have one size and pair up in natural order of their names; line i of ``poses.txt`` is the camera to
    world matrix of image i, 4 x 4 row by row, in metres; ``K.txt`` is the 3 x 3 matrix of intrinsics in pixels.

    Args:
        depth_scale: Units of the depth files per metre: 1000 for millimetres, 5000 for TUM RGB-D.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: the parts do not fit, or a number cannot be what it should.
    """

    def __init__(self, folder: Path, *, depth_scale: float = 1000.0) -> None:
        for part in ('images', 'depth', 'poses.txt', 'K.txt'):
            if not (folder / part).exists():
                raise FileNotFoundError(f'{folder}: {part} is missing; wanted {_LAYOUT}')
        self.name, self.folder, self.depth_scale = folder.name, folder, depth_scale
        self.images = FrameSource.open(folder / 'images')
        self.depth_files = sorted((folder / 'depth').glob('*.png'), key=natural_key)
        if len(self.depth_files) != len(self.images):
            raise ValueError(
                f'{folder}: {len(self.images)} images and {len(self.depth_files)} depth png; wanted one each'
            )
        self.intrinsics = _read_intrinsics(folder / 'K.txt', self.images.size)
        self.camera_to_world = _read_poses(folder / 'poses.txt', len(self.images))
        self._check_units()

    def __len__(self) -> int:
        return len(self.images)

    def depth(self, index: int) -> np.ndarray:
        """``(H, W)`` float32 metres, 0 where there is no value."""
        path = self.depth_files[index]
        values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise ValueError(f'{path}: not an image that can be read')
        if values.dtype != np.uint16 or values.ndim != 2:
            raise ValueError(f'{path}: {values.dtype} of shape {values.shape}; wanted a 16-bit png with one channel')
        if values.shape != tuple(self.images.size):
            (height, width), (rows, columns) = self.images.size, values.shape
            raise ValueError(f'{path}: {columns}x{rows} px, the images have {width}x{height}; wanted the same size')
        return values.astype(np.float32) / np.float32(self.depth_scale)

    def _check_units(self) -> None:
        first = self.depth(0)
        known = first[first > 0]
        typical = float(np.median(known)) if known.size else 1.0
        if typical < 0.02:
            raise ValueError(
                f'{self.depth_files[0]}: half of the values are below {typical * self.depth_scale:.3g}, which at '
                f'{self.depth_scale:g} units per metre is {typical * 1000:.3g} mm; wanted 16-bit millimetres, '
                f'are these metres? (depth_scale is the number of units per metre)'
            )
        travel = np.linalg.norm(np.diff(self.camera_to_world[:, :3, 3], axis=0), axis=1)
        if len(travel) and np.median(travel) > 10 * max(typical, 1.0):
            raise ValueError(
                f'{self.folder}: the camera moves {np.median(travel):.3g} a frame where the scene is {typical:.3g} m '
                f'away; wanted poses in metres, are these millimetres?'
            )


def _read_numbers(path: Path) -> np.ndarray:
    try:
        return np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ValueError(f'{path}: not a table of numbers ({" ".join(str(error).split())})') from None


def _read_intrinsics(path: Path, size: tuple[int, int]) -> np.ndarray:
    matrix = _read_numbers(path)
    if matrix.shape != (3, 3):
        raise ValueError(f'{path}: {matrix.shape[0]}x{matrix.shape[1]} numbers; wanted a 3x3 matrix of intrinsics')
    focal, centre = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    if not np.isfinite(matrix).all() or not np.allclose(matrix[2], (0, 0, 1)) or (focal <= 0).any():
        raise ValueError(f'{path}: {matrix.tolist()} is no matrix of intrinsics; wanted [fx 0 cx; 0 fy cy; 0 0 1]')
    if (focal < 2).any() or (centre < 0).any() or (centre > (size[1], size[0])).any():
        raise ValueError(
            f'{path}: focal length {focal.tolist()}, principal point {centre.tolist()} do not fit images of '
            f'{size[1]}x{size[0]} px; wanted pixels of these images'
        )
    return matrix


def _read_poses(path: Path, num_images: int) -> np.ndarray:
    rows = _read_numbers(path)
    if rows.shape[1] != 16:
        raise ValueError(f'{path}: {rows.shape[1]} numbers a line; wanted 16, a 4x4 camera to world matrix row by row')
    if len(rows) != num_images:
        raise ValueError(f'{path}: {len(rows)} poses for {num_images} images; wanted one line per image')
    poses = rows.reshape(-1, 4, 4)
    turn = poses[:, :3, :3]
    rigid = np.isfinite(rows).all(axis=1) & (np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) < 1e-2)
    rigid &= (np.linalg.det(np.nan_to_num(turn)) > 0) & (np.abs(poses[:, 3] - (0, 0, 0, 1)).max(axis=1) < 1e-6)
    if not rigid.all():
        line = int(np.flatnonzero(~rigid)[0])
        raise ValueError(
            f'{path}: line {line + 1} is no rigid camera to world matrix (rotation, position, last row 0 0 0 1); '
            f'leave out frames without a pose'
        )
    return poses


@DATASETS.register_module()
class RGBDPointsDataset(Dataset):
    """Clips of RGB-D recordings with point tracks that follow from depth and pose; the scene must not move.

    Points are picked on smooth surfaces, lifted to 3-D and projected into the other frames of the clip. They are
    visible where the measured depth agrees within ``depth_tolerance``, hidden outside the frame or behind a nearer
    surface; points that any frame contradicts are dropped. Positions are as good as depth and pose: a pixel or two.
    Depth files are read once when the dataset is made; images when a clip is asked for.

    Args:
        data_root: A recording (see :class:`RGBDRecording`), or a folder of recordings.
        num_frames: Frames per clip; clips do not overlap. A recording that is shorter is one clip.
        frame_stride: Use every n-th frame; larger means faster motion.
        resolution: ``(H, W)`` of the frames, as for TAP-Vid; None or ``'native'`` keeps their size.
        query_mode: ``'first'`` or ``'strided'``.
        num_points: Most tracks per clip.
        seed_every: Points are picked on frames 0, n, 2n ... of the clip, so that some enter later.
        depth_tolerance: Relative.
        keep_unknown: Keep points that pass through places without depth; there they count as hidden, although nobody
            knows. More points, an exact delta, and an OA and AJ that are no longer exact.
        depth_scale: Units of the depth files per metre.
        seed: Of the choice of points.

    Raises:
        FileNotFoundError: nothing there, or a part of a recording is missing.
        ValueError: a recording that does not fit together, or without any point that can be followed.
    """

    metainfo = dict(dataset_name='rgbd')

    def __init__(
        self,
        data_root: str,
        *,
        num_frames: int = 8,
        frame_stride: int = 1,
        resolution: int | str | Sequence[int] | None = (256, 256),
        query_mode: str = 'first',
        num_points: int = 128,
        seed_every: int = 4,
        depth_tolerance: float = 0.04,
        keep_unknown: bool = False,
        depth_scale: float = 1000.0,
        seed: int = 0,
    ) -> None:
        check_query_mode(query_mode)
        least = dict(num_frames=2, frame_stride=1, num_points=1, seed_every=1)
        given = dict(num_frames=num_frames, frame_stride=frame_stride, num_points=num_points, seed_every=seed_every)
        for name, value in given.items():
            if value < least[name]:
                raise ValueError(f'{name} is {value}; wanted at least {least[name]}')
        if not 0 < depth_tolerance < 0.5 or depth_scale <= 0:
            raise ValueError(
                f'depth_tolerance is {depth_tolerance}, depth_scale {depth_scale}; wanted a share such as 0.04, '
                f'and units per metre such as 1000'
            )
        self.query_mode, self.resolution, self.seed = query_mode, parse_resolution(resolution), seed
        self._options = dict(num_points=num_points, tolerance=depth_tolerance, keep_unknown=keep_unknown)
        self._seed_every = seed_every
        self.recordings = [
            RGBDRecording(path, depth_scale=depth_scale) for path in _folders(Path(data_root).expanduser())
        ]
        self._clips: list[tuple[RGBDRecording, list[int], DepthTracks]] = []
        for number, recording in enumerate(self.recordings):
            self._clips += self._clips_of(recording, number, num_frames, frame_stride)
        if not self._clips:
            raise ValueError(
                f'{data_root}: no point can be followed from one frame to another; are the poses camera to world in '
                f'metres, the depth {depth_scale:g} units per metre, and the scene static? (depth_tolerance is '
                f'{depth_tolerance})'
            )

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``."""
        recording, frames, tracks = self._clips[index]
        video, original = stack_frames((recording.images.read(frame) for frame in frames), self.resolution)
        points = tracks.xy_px / np.array([original[1], original[0]])
        meta = dict(original_size=original, dataset='rgbd', frames=frames)
        name = f'{recording.name}_{frames[0]:05d}'
        return point_item(video, points, ~tracks.visible, query_mode=self.query_mode, name=name, meta=meta)

    def _clips_of(
        self, recording: RGBDRecording, number: int, num_frames: int, stride: int
    ) -> list[tuple[RGBDRecording, list[int], DepthTracks]]:
        """Clips of one recording that have at least one track."""
        clips, asked, agreeing, empty = [], 0, 0, []
        for frames in _windows(len(recording), num_frames, stride):
            tracks = tracks_from_depth(
                np.stack([recording.depth(frame) for frame in frames]),
                recording.intrinsics,
                recording.camera_to_world[frames],
                np.random.default_rng([self.seed, number, frames[0]]),
                seed_frames=range(0, len(frames), self._seed_every),
                **self._options,
            )
            asked, agreeing = asked + tracks.asked, agreeing + tracks.agreeing
            if len(tracks.xy_px) and self._has_query(tracks.visible):
                clips.append((recording, frames, tracks))
            else:
                empty.append(frames[0])
        if empty:
            first = ', '.join(map(str, empty))
            warnings.warn(
                f'{recording.folder}: left out, no point to follow in the clips from frame {first}', stacklevel=3
            )
        if asked and agreeing < 0.25 * asked:
            warnings.warn(
                f'{recording.folder}: only {agreeing} of {asked} points agree with the depth of the other frames; '
                f'are the poses camera to world, the units right, and the scene static?',
                stacklevel=3,
            )
        return clips

    def _has_query(self, visible: np.ndarray) -> bool:
        return bool(visible.any() if self.query_mode == 'first' else visible[:, ::5].any())


def _windows(length: int, num_frames: int, stride: int) -> list[list[int]]:
    """Frame numbers of consecutive clips; a rest that is shorter than a clip is left out, unless it is all there is."""
    span = (num_frames - 1) * stride + 1
    if length < span:
        return [list(range(0, length, stride))]
    return [list(range(start, start + span, stride)) for start in range(0, length - span + 1, num_frames * stride)]


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder; wanted an RGB-D recording: {_LAYOUT}')
    if any((root / part).exists() for part in ('images', 'depth', 'poses.txt', 'K.txt')):
        return [root]
    folders = sorted((path for path in root.iterdir() if (path / 'images').is_dir()), key=natural_key)
    if not folders:
        raise FileNotFoundError(f'{root}: no RGB-D recording here; wanted {_LAYOUT}, or folders that hold them')
    return folders
