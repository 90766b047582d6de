"""COIN (arXiv 1903.02874): 180 tasks of everyday life in instructional videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..registry import DATASETS
from .labelled_files import VideoFolder, read_json_file
from .labelled_videos import LabelledVideo, LabelledVideosDataset

COIN_SKIPPED = ('AfiVmAjfTNs', 'cjwtcDKTQM8')
_SUBSETS = {'train': 'training', 'val': 'testing', 'test': 'testing'}


@DATASETS.register_module()
class COINDataset(LabelledVideosDataset):
    """``COIN.json``: ``{'database': {id: {'subset', 'recipe_type', 'class', ...}}}``, and videos named by their ids.

    The label is ``recipe_type``. Two videos are left out as ViS4mer's program does: see :data:`COIN_SKIPPED`.

    Args:
        ann_file: The JSON file.
        split: ``'train'``: the subset ``training``; ``'val'`` and ``'test'``: ``testing``.
        video_root: Folder of ``<id>.mp4`` or ``<recipe_type>/<id>.mp4``; default: the folder of the JSON file.
        options: Of :class:`~trecvit_dense.datasets.labelled_videos.LabelledVideosDataset`; for features
            ``pipeline=[dict(type='SpreadClips', num_clips=64, clip_frames=32, pool=256)]``.

    Raises:
        FileNotFoundError: JSON or video is missing.
        ValueError: an entry of another form; the message names it.
    """

    def __init__(
        self,
        ann_file: str,
        split: str = 'train',
        *,
        video_root: str | None = None,
        dataset_name: str = 'coin',
        **options: Any,
    ) -> None:
        super().__init__(dataset_name, split=split, **options)
        path = Path(ann_file).expanduser()
        content = read_json_file(path, dict, wanted='a JSON object with database')
        if not isinstance(content.get('database'), dict):
            raise ValueError(f"{path}: has no 'database'; wanted {{'database': {{id: ...}}}}")
        folder = VideoFolder(Path(video_root).expanduser() if video_root else path.parent)
        videos, names = [], {}
        for name, entry in content['database'].items():
            label = entry.get('recipe_type') if isinstance(entry, dict) else None
            if not isinstance(label, int) or label < 0 or entry.get('subset') not in _SUBSETS.values():
                raise ValueError(f"{path}, '{name}': {str(entry)[:80]}; wanted recipe_type and subset")
            names[label] = str(entry.get('class', f'class {label}'))
            if entry['subset'] == _SUBSETS[split] and name not in COIN_SKIPPED:
                videos.append(LabelledVideo(folder.find(name, beside=str(label)), label, name))
        classes = [names.get(label, f'class {label}') for label in range(max(names, default=-1) + 1)]
        self.take(videos, classes, where=path)
