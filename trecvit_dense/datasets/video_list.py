"""Labelled videos of your own: a text file with one video and label a line, or a folder of folders of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..registry import DATASETS
from .labelled_files import class_numbers, label_of, list_class_folders, read_class_list, read_text_lines
from .labelled_videos import LabelledVideo, LabelledVideosDataset
from .procedural_base import SPLITS

_WANTED = 'a path and a label a line'


@DATASETS.register_module()
class VideoListDataset(LabelledVideosDataset):
    """Lines ``path label``, as SlowFast's ``train.csv`` and mmaction2's lists have them.

    Args:
        ann_file: Text file. The label is the last field: a number from 0, or the name of a class of ``class_file``.
        split: ``'train'`` draws clips at random.
        video_root: Folder to which paths are relative; default: the folder of ``ann_file``.
        separator: Between path and label: ``','``, ``';'``...; None: blanks.
        class_file: Names of the classes, one a line.
        options: Of :class:`~trecvit_dense.datasets.labelled_videos.LabelledVideosDataset`.

    Raises:
        FileNotFoundError: list or video is missing.
        ValueError: a line is not as said; the message gives its number.
    """

    def __init__(
        self,
        ann_file: str,
        split: str = 'train',
        *,
        video_root: str | None = None,
        separator: str | None = None,
        class_file: str | None = None,
        dataset_name: str = 'videos',
        **options: Any,
    ) -> None:
        super().__init__(dataset_name, split=split, **options)
        path = Path(ann_file).expanduser()
        root = Path(video_root).expanduser() if video_root else path.parent
        classes = read_class_list(class_file) if class_file else None
        numbers, videos = class_numbers(classes or ()), []
        for line, text in read_text_lines(path, wanted=_WANTED):
            where = f'{path}, line {line}'
            fields = text.strip().rsplit(separator, 1)
            if len(fields) != 2:
                raise ValueError(f"{where}: '{text}'; wanted a path, {separator or 'a blank'} and a label")
            name, label = (field.strip().strip('"') for field in fields)
            number = int(label) if label.isdecimal() else label_of(label, numbers, where=where)
            if classes and number >= len(classes):
                raise ValueError(f'{where}: label {number}; {class_file} names {len(classes)} classes, counted from 0')
            videos.append(LabelledVideo(root / name, number, name))
        self.take(videos, classes, where=path)


@DATASETS.register_module()
class ClassFoldersDataset(LabelledVideosDataset):
    """``<root>/<split>/<class>/<video>``, or ``<root>/<class>/<video>``; a video is a file or a folder of frames.

    Args:
        data_root: The folder.
        split: ``'train'``, ``'val'`` or ``'test'``; ``'train'`` draws clips at random.
        class_file: Names of the classes, one a line; default: the names of the folders, in alphabetical order.
        options: Of :class:`~trecvit_dense.datasets.labelled_videos.LabelledVideosDataset`.

    Raises:
        FileNotFoundError: no such folder, or no class in it.
        ValueError: a folder that is no class.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        *,
        class_file: str | None = None,
        dataset_name: str = 'videos',
        **options: Any,
    ) -> None:
        super().__init__(dataset_name, split=split, **options)
        root = Path(data_root).expanduser()
        parts = [name for name in SPLITS if (root / name).is_dir()]
        if parts and split not in parts:
            raise FileNotFoundError(f'{root / split}: no such folder; {root} has the splits {", ".join(parts)}')
        folders = list_class_folders(root / split if parts else root)
        classes = read_class_list(class_file) if class_file else self._all_classes(root, parts, list(folders))
        numbers = class_numbers(classes)
        videos = [
            LabelledVideo(path, label_of(name, numbers, where=str(path.parent)), f'{name}/{path.stem}')
            for name, paths in folders.items()
            for path in paths
        ]
        self.take(videos, classes, where=root)

    @staticmethod
    def _all_classes(root: Path, parts: list[str], found: list[str]) -> list[str]:
        """Classes of the training split, so that labels are the same in every split."""
        return list(list_class_folders(root / 'train')) if 'train' in parts else found
