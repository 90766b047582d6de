"""Kinetics-400 and -600 (arXiv 1705.06950, 1808.01340) from the official csv files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..registry import DATASETS
from .labelled_files import VideoFolder, class_numbers, first_file, label_of, read_class_list
from .labelled_videos import LabelledVideo, LabelledVideosDataset

_COLUMNS = ('youtube_id', 'time_start', 'time_end')
_NAMES = ('{split}.csv', 'kinetics400_{split}.csv', 'kinetics600_{split}.csv', 'annotations/{split}.csv')


@DATASETS.register_module()
class KineticsDataset(LabelledVideosDataset):
    """Rows ``label,youtube_id,time_start,time_end,split`` of a csv with a header, and ten-second clips.

    Labels are the classes in alphabetical order. Clips are ``<youtube_id>_<start:06d>_<end:06d>`` with any video
    suffix, anywhere below ``video_root``: in folders of classes, of splits, or in none.

    Args:
        data_root: Folder of the csv files and, by default, of the videos.
        split: ``'train'``, ``'val'`` (also called ``validate.csv``) or ``'test'``: which csv, and whether clips are
            drawn at random.
        ann_file: The csv, if it has another name.
        video_root: Folder of the videos.
        class_file: Names of the classes, one a line. Default: the labels of ``train.csv`` beside the csv if it is
            there, else those of the csv itself, which must then name every class.
        options: Of :class:`~trecvit_dense.datasets.labelled_videos.LabelledVideosDataset`.

    Raises:
        FileNotFoundError: csv or video is missing.
        ValueError: the csv has other columns; the message names file and row.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        *,
        ann_file: str | None = None,
        video_root: str | None = None,
        class_file: str | None = None,
        dataset_name: str = 'kinetics',
        **options: Any,
    ) -> None:
        super().__init__(dataset_name, split=split, **options)
        root = Path(data_root).expanduser()
        path = Path(ann_file).expanduser() if ann_file else _find_csv(root, split)
        rows = list(_rows(path))
        classes = read_class_list(class_file) if class_file else _classes(path, rows)
        folder, numbers = VideoFolder(Path(video_root).expanduser() if video_root else root), class_numbers(classes)
        videos = []
        for line, row in rows:
            label = row.get('label') or None
            where = f'{path}, row {line}'
            number = None if label is None else label_of(label, numbers, where=where)
            name = _clip_name(row, where=where)
            video = folder.find(name, beside=label)
            videos.append(LabelledVideo(video, number, name))
        self.take(videos, classes, where=path)


def _find_csv(root: Path, split: str) -> Path:
    names = [name.format(split=split) for name in _NAMES]
    names += [name.format(split='validate') for name in _NAMES] if split == 'val' else []
    return first_file(root, names, wanted='the csv of Kinetics with label,youtube_id,time_start,time_end,split')


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Row numbers and rows; the header is row 1."""
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; wanted a csv with label,youtube_id,time_start,time_end,split')
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f'{path}: the first row has no column {missing[0]}; wanted label,youtube_id,time_start,time_end,split'
            )
        yield from enumerate(reader, start=2)


def _classes(path: Path, rows: list[tuple[int, dict[str, str]]]) -> list[str]:
    beside = path.with_name(path.name.replace('validate', 'train').replace('val', 'train').replace('test', 'train'))
    if beside != path and beside.is_file():
        rows = list(_rows(beside))
    return sorted({row['label'] for _, row in rows if row.get('label')})


def _clip_name(row: dict[str, str], *, where: str) -> str:
    try:
        start, end = (int(float(row[name])) for name in ('time_start', 'time_end'))
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: time_start '{row['time_start']}', time_end '{row['time_end']}'; wanted seconds"
        ) from None
    return f'{row["youtube_id"]}_{start:06d}_{end:06d}'
