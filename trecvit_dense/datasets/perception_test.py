"""Perception Test, single point tracking (arXiv 2305.13786): a JSON file of tracks and a folder of videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..evaluation.functional.perception_test import dense_track
from ..evaluation.functional.tapvid import check_query_mode
from ..io import FrameSource
from ..registry import DATASETS
from .point_clips import parse_resolution, point_item, stack_frames
from .tapvid_csv import find_video


@DATASETS.register_module()
class PerceptionTestPoints(Dataset):
    """Videos of a Perception Test JSON that have point tracks.

    A point is occluded on every frame that its track does not list, and is asked for on the first one it does.

    Args:
        ann_file: JSON ``{video_id: {'metadata': ..., 'point_tracking': [{'id', 'frame_ids', 'points'}]}}``.
        video_root: Folder with ``<video_id>.mp4``; default: ``videos`` beside the JSON, or the JSON's folder.
        resolution: As in :class:`~trecvit_dense.datasets.tapvid.TapVidDataset`; the benchmark ignores the aspect ratio.
        query_mode: ``'first'`` as the benchmark, or ``'strided'``.
        max_videos: Use only the first so many.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a JSON.
    """

    metainfo = dict(dataset_name='perception_test')

    def __init__(
        self,
        ann_file: str,
        video_root: str | None = None,
        *,
        resolution: int | str | Sequence[int] | None = (256, 256),
        query_mode: str = 'first',
        max_videos: int | None = None,
    ) -> None:
        check_query_mode(query_mode)
        self.path, self.query_mode, self.resolution = (
            Path(ann_file).expanduser(),
            query_mode,
            parse_resolution(resolution),
        )
        beside = self.path.parent / 'videos'
        default = beside if beside.is_dir() else self.path.parent
        self.video_root = Path(video_root).expanduser() if video_root else default
        self.labels = {name: label for name, label in _read_labels(self.path).items() if label.get('point_tracking')}
        self.names = list(self.labels)[:max_videos]
        if not self.names:
            raise ValueError(
                f'{self.path}: no video has a point track; wanted a Perception Test file with point_tracking'
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``; ``meta`` holds ``camera_moving``."""
        name = self.names[index]
        label = self.labels[name]
        num_frames = int(label['metadata']['num_frames'])
        where = f'{self.path}, {name}'
        dense = [
            dense_track(track, num_frames, where=f'{where}, point {i}')
            for i, track in enumerate(label['point_tracking'])
        ]
        video, original = stack_frames(FrameSource.open(find_video(self.video_root, name)), self.resolution)
        if len(video) < num_frames:
            raise ValueError(f'{where}: the video has {len(video)} frames, its label {num_frames}; is it cut short?')
        points, listed = (np.stack(column) for column in zip(*dense, strict=True))  # (N, T, 2), (N, T)
        moving = bool(label['metadata'].get('is_camera_moving', False))
        meta = dict(original_size=original, dataset='perception_test', camera_moving=moving)
        return point_item(video[:num_frames], points, ~listed, query_mode=self.query_mode, name=name, meta=meta)


def _read_labels(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; wanted a Perception Test JSON')
    try:
        labels = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path}: not a JSON file ({error})') from None
    if not isinstance(labels, dict) or not all(isinstance(v, dict) and 'metadata' in v for v in labels.values()):
        raise ValueError(
            f"{path}: not a Perception Test file; wanted {{video_id: {{'metadata': ..., 'point_tracking': ...}}}}"
        )
    return labels
