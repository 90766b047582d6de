"""PointOdyssey (arXiv 2307.15055): long synthetic videos with dense tracks, evaluated over the whole sequence."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..evaluation.functional.point_odyssey import select_tracks
from ..io import FrameSource
from ..registry import DATASETS
from ..structures import PointTracks, VideoSample
from .point_clips import parse_resolution, stack_frames, video_tensor


@DATASETS.register_module()
class PointOdysseyDataset(Dataset):
    """Sequences ``<data_root>/<split>/<name>/`` with ``rgbs/*.jpg`` and ``anno.npz``; every query is at frame 0.

    Args:
        data_root: The folder that holds the splits.
        split: ``'test'``, ``'val'``, ``'train'``; '' when ``data_root`` itself holds the sequences.
        num_points: Tracks of a sequence, evenly chosen as the official loader does.
        resolution: ``(H, W)`` of the frames; the official evaluation uses 512 x 896. None keeps 540 x 960.
        max_frames: Use only the first so many frames. Test sequences have thousands, which are held in memory.

    Raises:
        FileNotFoundError: no sequence there.
    """

    metainfo = dict(dataset_name='pointodyssey')

    def __init__(
        self,
        data_root: str,
        split: str = 'test',
        *,
        num_points: int = 64,
        resolution: int | str | Sequence[int] | None = (512, 896),
        max_frames: int | None = None,
    ) -> None:
        self.root = Path(data_root).expanduser() / split
        self.num_points, self.resolution, self.max_frames = num_points, parse_resolution(resolution), max_frames
        self.sequences = sorted(path.parent for path in self.root.glob('*/anno.npz'))
        if not self.sequences:
            raise FileNotFoundError(f'{self.root}: no sequence here; wanted {self.root}/<name>/anno.npz and rgbs/')

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``; ``meta['valid']`` ``(N, T)``."""
        folder = self.sequences[index]
        source = FrameSource.open(folder / 'rgbs')
        tracks, visible, valid = (part[: self.max_frames] for part in read_annotation(folder / 'anno.npz'))
        if len(tracks) > len(source):
            raise ValueError(f'{folder}: {len(tracks)} annotated frames, {len(source)} images; is rgbs/ complete?')
        tracks, visible, valid, group = select_tracks(
            tracks, visible, valid, num_tracks=self.num_points, image_size=source.size
        )
        if not len(group):
            raise ValueError(f'{folder}: no track is visible at frame 0 and good on 8 frames; use more frames')
        video, original = stack_frames(islice(iter(source), len(tracks)), self.resolution)
        height, width = video.shape[1:3]
        scale = np.array([width / original[1], height / original[0]])
        xy = (tracks * scale).transpose(1, 0, 2).astype(np.float32)  # (N, T, 2)
        points = PointTracks(xy, visible.T > 0, query_at_start(xy), group)
        meta = dict(query_mode='first', original_size=original, dataset='pointodyssey', valid=valid.T > 0)
        sample = VideoSample(video=video, points=points, name=folder.name, meta=meta)
        return dict(inputs=video_tensor(video), data_samples=sample)


def query_at_start(xy: np.ndarray) -> np.ndarray:
    """``(N, 3)`` queries t, x, y at frame 0 of tracks ``(N, T, 2)``."""
    return np.concatenate([np.zeros_like(xy[:, 0, :1]), xy[:, 0]], axis=-1)


def read_annotation(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``trajs_2d (T, N, 2)`` px float32, visible ``(T, N)`` bool, valid ``(T, N)`` bool.

    Version 1.2 stores ``visibs`` and ``valids``; before, ``visibilities`` says 0 occluded, 1 visible, 2 invalid.

    Raises:
        ValueError: damaged, or the arrays are missing.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tracks = arrays['trajs_2d'].astype(np.float32)
            if 'visibs' in arrays:
                visible, valid = arrays['visibs'] > 0, arrays['valids'] > 0
            else:
                visible, valid = arrays['visibilities'] == 1, arrays['visibilities'] != 2
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path}: not a PointOdyssey annotation ({" ".join(str(error).split())})') from None
    if tracks.ndim != 3 or visible.shape != tracks.shape[:2] or valid.shape != visible.shape:
        raise ValueError(
            f'{path}: trajs_2d {tracks.shape} and visibility {visible.shape} do not fit; wanted (T, N, 2), (T, N)'
        )
    return tracks, visible, valid
