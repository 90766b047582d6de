"""Breakfast (Kuehne et al., CVPR 2014): ten activities, minutes long, each filmed by several cameras."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ..registry import DATASETS
from .labelled_files import VIDEO_SUFFIXES, VideoFolder
from .labelled_videos import LabelledVideo, LabelledVideosDataset

BREAKFAST_ACTIVITIES = (
    'cereals',
    'coffee',
    'friedegg',
    'juice',
    'milk',
    'pancake',
    'salat',
    'sandwich',
    'scrambledegg',
    'tea',
)
BREAKFAST_TEST_PEOPLE = tuple(f'P{number}' for number in range(47, 55))
BREAKFAST_SKIPPED = ('P28-cam01-P28_cereals', 'P27-stereo-P27_milk_ch0', 'P28-cam02-P28_cereals')


@DATASETS.register_module()
class BreakfastDataset(LabelledVideosDataset):
    """ViS4mer's csv ``file_name,duration,action,class_id``, or the folders of the data set alone.

    A video is named ``<person>-<camera>-<person>_<activity>`` and lies at
    ``<person>/<camera>/<person>_<activity>.avi``, or under its name in one folder. Without a csv, people P47 to P54
    make the test split (as in ViS4mer's), activities are numbered in alphabetical order, and of a stereo pair the first
    camera, ``_ch0``, is taken (our choice).

    Three videos are left out as ViS4mer's program does: see :data:`BREAKFAST_SKIPPED`.

    Args:
        video_root: Folder of the videos.
        split: ``'train'``, or ``'val'`` and ``'test'``, which are the same.
        ann_file: The csv of this split.
        options: Of :class:`~trecvit_dense.datasets.labelled_videos.LabelledVideosDataset`; for features
            ``pipeline=[dict(type='SpreadClips', num_clips=64, clip_frames=32, pool=512)]``.

    Raises:
        FileNotFoundError: csv or video is missing.
        ValueError: a row of another form; the message gives its number.
    """

    def __init__(
        self,
        video_root: str,
        split: str = 'train',
        *,
        ann_file: str | None = None,
        dataset_name: str = 'breakfast',
        **options: Any,
    ) -> None:
        super().__init__(dataset_name, split=split, **options)
        root = Path(video_root).expanduser()
        if ann_file:
            where, (found, classes) = Path(ann_file).expanduser(), _read_csv(Path(ann_file).expanduser(), root)
        else:
            where, (found, classes) = root, (_walk(root, split), BREAKFAST_ACTIVITIES)
        self.take([video for video in found if video.name not in BREAKFAST_SKIPPED], classes, where=where)


def _read_csv(path: Path, root: Path) -> tuple[list[LabelledVideo], list[str]]:
    """Videos, and the names of their classes."""
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; wanted a csv with file_name,duration,action,class_id')
    videos, names, folder = [], {}, VideoFolder(root)
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.DictReader(file)
        if not {'file_name', 'action', 'class_id'} <= set(reader.fieldnames or ()):
            raise ValueError(f'{path}: its first row is {reader.fieldnames}; wanted file_name,duration,action,class_id')
        for row in reader:
            if not (row['class_id'] or '').isdecimal():
                raise ValueError(f"{path}, row {reader.line_num}: class_id '{row['class_id']}'; wanted a number from 0")
            name = row['file_name']
            name = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in VIDEO_SUFFIXES else name
            names[int(row['class_id'])] = row['action']
            videos.append(LabelledVideo(_path(root, folder, name), int(row['class_id']), name))
    return videos, [names.get(label, f'class {label}') for label in range(max(names, default=-1) + 1)]


def _path(root: Path, folder: VideoFolder, name: str) -> Path:
    """``P03-cam01-P03_cereals`` is that file anywhere, or ``P03/cam01/P03_cereals``."""
    flat = folder.find(name)
    if flat.exists():
        return flat
    nested = root.joinpath(*name.split('-'))
    candidates = [nested.with_name(nested.name + suffix) for suffix in VIDEO_SUFFIXES]
    return next((path for path in candidates if path.exists()), nested.with_name(nested.name + '.avi'))


def _walk(root: Path, split: str) -> list[LabelledVideo]:
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder; wanted <person>/<camera>/<person>_<activity>.avi')
    numbers = {name: label for label, name in enumerate(BREAKFAST_ACTIVITIES)}
    videos = []
    for path in sorted(root.glob('P*/*/P*_*')):
        person, camera = path.parts[-3:-1]
        activity = path.stem.removeprefix(f'{person}_').removesuffix('_ch0')
        ours = (person in BREAKFAST_TEST_PEOPLE) == (split != 'train')
        if ours and path.suffix.lower() in VIDEO_SUFFIXES and activity in numbers:
            videos.append(LabelledVideo(path, numbers[activity], f'{person}-{camera}-{path.stem}'))
    return videos
