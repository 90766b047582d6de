"""Something-Something v2 (arXiv 1706.04261): 174 classes that are told by what happens, not by what is seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..registry import DATASETS
from .labelled_files import VideoFolder, class_numbers, first_file, label_of, read_json_file
from .labelled_videos import LabelledVideo, LabelledVideosDataset

_OFFICIAL = {'train': 'train', 'val': 'validation', 'test': 'test'}


@DATASETS.register_module()
class SomethingSomethingDataset(LabelledVideosDataset):
    """The official JSON files and ``<id>.webm`` or ``.mp4``.

    ``labels.json`` holds ``{template: id}``; an entry of the other files is ``{'id', 'label', 'template',
    'placeholders'}``, its class the template without brackets. The test file has ids only, its samples no label.
    Do not mirror these videos: left and right are classes.

    Args:
        data_root: Folder of ``something-something-v2-{train,validation,test,labels}.json`` (also without the name of
            the data set, or in ``labels/``) and of the videos.
        split: ``'train'``, ``'val'`` or ``'test'``.
        video_root: Folder of the videos; default: ``data_root``, and whatever is below it.
        options: Of :class:`~trecvit_dense.datasets.labelled_videos.LabelledVideosDataset`.

    Raises:
        FileNotFoundError: a JSON file or a video is missing.
        ValueError: a file is of another form; the message names it.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        *,
        video_root: str | None = None,
        dataset_name: str = 'ssv2',
        **options: Any,
    ) -> None:
        super().__init__(dataset_name, split=split, **options)
        root = Path(data_root).expanduser()
        path = _find(root, _OFFICIAL[split])
        entries = read_json_file(path, list, wanted='a list of videos with id and template')
        classes = _read_classes(_find(root, 'labels'))
        numbers = class_numbers(classes)
        folder = VideoFolder(Path(video_root).expanduser() if video_root else root)
        videos = []
        for number, entry in enumerate(entries):
            where = f'{path}, entry {number}'
            if not isinstance(entry, dict) or 'id' not in entry or (split != 'test' and 'template' not in entry):
                raise ValueError(f'{where}: {str(entry)[:80]}; wanted a video with id and template')
            name, template = str(entry['id']), entry.get('template')
            label = None if template is None else label_of(re.sub(r'[\[\]]', '', template), numbers, where=where)
            videos.append(LabelledVideo(folder.find(name), label, name))
        self.take(videos, classes, where=path)


def _find(root: Path, part: str) -> Path:
    names = [f'something-something-v2-{part}.json', f'{part}.json']
    return first_file(root, [*names, *(f'labels/{name}' for name in names)], wanted=f'the {part} file of SSv2')


def _read_classes(path: Path) -> list[str]:
    """Templates without brackets, in order of their ids.

    Raises:
        ValueError: ids are not the numbers from 0.
    """
    ids = read_json_file(path, dict, wanted='{template: id}')
    try:
        ordered = sorted((int(number), re.sub(r'[\[\]]', '', name)) for name, number in ids.items())
    except (TypeError, ValueError):
        raise ValueError(f'{path}: an id is no number; wanted {{template: id}}') from None
    if [number for number, _ in ordered] != list(range(len(ordered))):
        raise ValueError(f'{path}: the ids are not 0 to {len(ordered) - 1}; wanted one for each class')
    return [name for _, name in ordered]
