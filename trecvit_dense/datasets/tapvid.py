"""TAP-Vid (arXiv 2211.03726: DAVIS, RGB-Stacking, Kinetics) and RoboTAP (arXiv 2308.15975) from the published files.

Pickles go through a restricted reader that runs nothing. A pickle is one piece and stays in memory while it is read
from; frames are decoded and resized one video at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..evaluation.functional.tapvid import check_query_mode
from ..io import FrameSource
from ..io.restricted_pickle import load_pickle
from ..registry import DATASETS, nearest
from . import tapvid_csv
from .point_clips import check_annotation, decode_jpeg, parse_resolution, point_item, stack_frames

SUBSETS = ('davis', 'rgb_stacking', 'kinetics', 'robotap')
_KEYS = ('video', 'points', 'occluded')
_SHARDS = ('*_of_0010.pkl', 'robotap_split*.pkl', '*.pkl')


@dataclass
class _Clip:
    """Where one sample lies: an entry of a pickle shard, or frames ``[start, stop)`` of a csv video."""

    name: str
    shard: int
    entry: int
    start: int = 0
    stop: int | None = None


@DATASETS.register_module()
class TapVidDataset(Dataset):
    """Any TAP-Vid file: pickle, folder of pickle shards, or csv with videos.

    A pickle holds a dict ``{name: video}``, a list of videos, or one video; a video is a dict of
    ``video`` (uint8 ``(T, H, W, 3)``, or T encoded images), ``points`` (float ``(N, T, 2)``, x and y in 0..1) and
    ``occluded`` (``(N, T)``). Videos in which no point is ever visible have no query and are left out, with a warning.

    Args:
        ann_file: ``.pkl``, ``.npy``, ``.csv``, or a folder of ``.pkl`` shards.
        subset: ``'davis'``, ``'rgb_stacking'``, ``'kinetics'``, ``'robotap'``, or ``'auto'``: guessed from the
            content. It names the samples and metrics and changes nothing that is read.
        query_mode: ``'first'`` or ``'strided'``.
        resolution: ``(H, W)``, or one number for a square; frames are resized and points scaled. None or ``'native'``
            keeps the video's.
        video_root: Folder of the videos of a csv; default: the csv's folder.
        max_video_frames: A csv video that is longer is cut in near-equal parts, each evaluated on its own.
        max_videos: Use only the first so many.

    Raises:
        FileNotFoundError: ``ann_file`` does not exist, or a folder without shards.
        UnsafePickleError: the pickle asks for anything but plain data.
        ValueError: the content is not TAP-Vid; the message names file, video and field.
    """

    def __init__(
        self,
        ann_file: str,
        subset: str = 'auto',
        *,
        query_mode: str = 'first',
        resolution: int | str | Sequence[int] | None = (256, 256),
        video_root: str | None = None,
        max_video_frames: int = 1000,
        max_videos: int | None = None,
    ) -> None:
        check_query_mode(query_mode)
        if subset not in (*SUBSETS, 'auto'):
            raise ValueError(
                f"subset is '{subset}'; wanted one of {', '.join(SUBSETS)} or auto{nearest(subset, [*SUBSETS])}"
            )
        if max_video_frames < 1:
            raise ValueError(f'max_video_frames is {max_video_frames}; wanted at least 1')
        self.path, self.query_mode, self.resolution = (
            Path(ann_file).expanduser(),
            query_mode,
            parse_resolution(resolution),
        )
        self.video_root = Path(video_root).expanduser() if video_root else self.path.parent
        self._files = _annotation_files(self.path)
        self._loaded: tuple[int, list[tuple[str, dict[str, Any]]]] | None = None
        self._csv = tapvid_csv.read_csv(self.path) if self.path.suffix == '.csv' else None
        self._guess = 'davis'
        clips = list(self._csv_clips(max_video_frames) if self._csv else self._pickle_clips())
        if not clips:
            raise ValueError(f'{self.path}: no video with a visible point in it; wanted at least one')
        self._clips = clips[:max_videos]
        self.subset = self._guess if subset == 'auto' else subset
        self.metainfo = dict(dataset_name=self.subset if self.subset == 'robotap' else f'tapvid_{self.subset}')

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``."""
        clip = self._clips[index]
        frames, points, occluded = self._csv_video(clip) if self._csv else self._pickle_video(clip)
        video, original = stack_frames(frames, self.resolution)
        meta = dict(original_size=original, dataset=self.metainfo['dataset_name'])
        return point_item(video, points, occluded, query_mode=self.query_mode, name=clip.name, meta=meta)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process that is spawned reads the file again rather than receive gigabytes through a pipe.
        return {**self.__dict__, '_loaded': None}

    # Pickles

    def _pickle_clips(self) -> Iterator[_Clip]:
        hidden = []
        for shard, path in enumerate(self._files):
            entries = self._shard(shard)
            for number, (name, entry) in enumerate(entries):
                _, occluded = _annotation(entry, where=f'{path}, {name}')
                if occluded.all():
                    hidden.append(name)
                else:
                    yield _Clip(name, shard, number)
            self._guess = _guess_subset(path, entries)
        if hidden:
            warnings.warn(f'{self.path}: left out, no point is ever visible: {", ".join(hidden)}', stacklevel=3)

    def _shard(self, shard: int) -> list[tuple[str, dict[str, Any]]]:
        """Videos of one file by name; only the latest file is kept."""
        if self._loaded is None or self._loaded[0] != shard:
            self._loaded = None  # the old one may go before the new one comes
            self._loaded = (shard, _named_entries(load_pickle(self._files[shard]), self._files[shard]))
        return self._loaded[1]

    def _pickle_video(self, clip: _Clip) -> tuple[Iterator[np.ndarray], np.ndarray, np.ndarray]:
        name, entry = self._shard(clip.shard)[clip.entry]
        where = f'{self._files[clip.shard]}, {name}'
        return _frames(entry['video'], where=where), *_annotation(entry, where=where)

    # Csv

    def _csv_clips(self, max_frames: int) -> Iterator[_Clip]:
        hidden = []
        for number, video in enumerate(self._csv):
            self._guess = 'kinetics' if video.kinetics else 'robotap'
            with self._source(video) as source:
                parts = tapvid_csv.chunks(len(tapvid_csv.frame_numbers(source, video)), max_frames)
            for part, (start, stop) in enumerate(parts):
                name = video.name if len(parts) == 1 else f'{video.name}#{part}'
                if video.occluded[:, start:stop].all():
                    hidden.append(name)
                else:
                    yield _Clip(name, 0, number, start, stop)
        if hidden:
            warnings.warn(f'{self.path}: left out, no point is ever visible: {", ".join(hidden)}', stacklevel=3)

    def _source(self, video: tapvid_csv.CsvVideo) -> FrameSource:
        return FrameSource.open(tapvid_csv.find_video(self.video_root, video.name))

    def _csv_video(self, clip: _Clip) -> tuple[Iterator[np.ndarray], np.ndarray, np.ndarray]:
        video = self._csv[clip.entry]
        source = self._source(video)
        numbers = tapvid_csv.frame_numbers(source, video)[clip.start : clip.stop]
        part = slice(clip.start, clip.stop)
        return tapvid_csv.read_frames(source, numbers), video.at_size(source.size)[:, part], video.occluded[:, part]


def _annotation_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f'{path}: no such file; wanted a TAP-Vid .pkl or .csv, or a folder of .pkl shards')
    for pattern in _SHARDS:
        files = sorted(path.glob(pattern))
        if files:
            return files
    raise FileNotFoundError(f'{path}: no .pkl file in this folder; wanted TAP-Vid shards such as 0000_of_0010.pkl')


def _named_entries(content: Any, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Videos by name, whichever container the file uses."""
    if isinstance(content, dict) and 'video' in content and 'points' in content:
        named = [(path.stem, content)]
    elif isinstance(content, dict):
        named = [(str(name), entry) for name, entry in content.items()]
    elif isinstance(content, (list, tuple)):
        named = [(f'{path.stem}_{number:04d}', entry) for number, entry in enumerate(content)]
    else:
        raise ValueError(f'{path}: holds a {type(content).__name__}; wanted a dict or list of TAP-Vid videos')
    if not named:
        raise ValueError(f'{path}: is an empty {type(content).__name__}; wanted at least one TAP-Vid video')
    for name, entry in named:
        if not isinstance(entry, dict):
            raise ValueError(f'{path}, {name}: is a {type(entry).__name__}; wanted a dict with {", ".join(_KEYS)}')
        for key in _KEYS:
            if key not in entry:
                known = ', '.join(map(str, entry)) or 'nothing'
                raise ValueError(f"{path}, {name}: has no '{key}' (found {known}); wanted {', '.join(_KEYS)}")
    return named


def _is_encoded(video: Any) -> bool:
    if isinstance(video, np.ndarray):
        return video.ndim == 1 and video.dtype.kind in 'SO'
    return isinstance(video, (list, tuple))


def _annotation(entry: dict[str, Any], *, where: str) -> tuple[np.ndarray, np.ndarray]:
    video = entry['video']
    if _is_encoded(video):
        if not all(isinstance(frame, bytes) for frame in video):
            raise ValueError(f'{where}: video is a list with entries that are not bytes; wanted encoded images')
    elif not isinstance(video, np.ndarray) or video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
        seen = f'{video.dtype} {video.shape}' if isinstance(video, np.ndarray) else f'a {type(video).__name__}'
        raise ValueError(
            f'{where}: video is {seen}; wanted uint8 (frames, height, width, 3) or a list of encoded images'
        )
    if len(video) == 0 or (not _is_encoded(video) and 0 in video.shape):
        raise ValueError(f'{where}: the video is empty; wanted at least one frame')
    return check_annotation(entry['points'], entry['occluded'], len(video), where=where)


def _frames(video: Any, *, where: str) -> Iterator[np.ndarray]:
    if not _is_encoded(video):
        yield from video
        return
    size = None
    for number, data in enumerate(video):
        frame = decode_jpeg(data, where=f'{where}, frame {number}')
        if size not in (None, frame.shape):
            raise ValueError(
                f'{where}: frame {number} is {frame.shape[:2]} px, the first one {size[:2]}; all must agree'
            )
        size = frame.shape
        yield frame


def _guess_subset(path: Path, entries: list[tuple[str, dict[str, Any]]]) -> str:
    if 'robotap' in path.name:
        return 'robotap'
    if _is_encoded(entries[0][1]['video']):
        return 'kinetics'
    return 'rgb_stacking' if entries[0][0] == f'{path.stem}_0000' else 'davis'
