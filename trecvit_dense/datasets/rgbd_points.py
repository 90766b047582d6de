"""Point tracks on real video without annotation: RGB-D recordings of static scenes with known camera poses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..evaluation.functional.tapvid import check_query_mode
from ..registry import DATASETS
from .point_clips import parse_resolution, point_item, stack_frames
from .reprojection import DepthTracks, tracks_from_depth
from .rgbd_recording import RGBDRecording, find_recordings


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
            RGBDRecording(path, depth_scale=depth_scale) for path in find_recordings(Path(data_root).expanduser())
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
