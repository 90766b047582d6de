"""DAVIS 2016 (Perazzi et al., CVPR 2016), 2017 (arXiv 1704.00675, unsupervised 1905.00737), and folders like it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..io.frame_source import IMAGE_SUFFIXES
from ..io.mask_file import mask_header, read_mask
from ..registry import DATASETS, nearest
from .mask_clips import MaskSequence, MaskVideoDataset
from .mask_layout import choose, list_folders, list_images, pair_masks

VERSIONS = ('auto', '2016', '2017')
TASKS = ('semi', 'unsupervised')


@DATASETS.register_module()
class DAVISDataset(MaskVideoDataset):
    """``JPEGImages/<resolution>/<sequence>/00000.jpg`` and ``Annotations/<resolution>/<sequence>/00000.png``.

    Masks may be palette or grey PNGs. A sequence whose first mask holds nothing but 0 and 255 is one of the DAVIS
    2016 kind: anything but black is its one object. Objects are given on the first frame, which is the protocol's rule.

    Args:
        data_root: The folder with ``JPEGImages`` (or one above it that is named ``DAVIS``).
        split: ``'val'``, ``'train'``, ``'test-dev'`` ...: a list of ``ImageSets``, which has one name a line, or the
            pairs of paths of 2016. Without ``ImageSets``: every folder of ``JPEGImages``.
        version: ``'2017'``: ids as they are; ``'2016'``: all objects merged to one; ``'auto'``: 2016 where the split
            has only a list of 2016, and by the first mask of each sequence.
        task: ``'semi'``, or ``'unsupervised'``: masks of ``Annotations_unsupervised``, with every object.
        resolution: ``'480p'``, ``'Full-Resolution'`` ...; None: 480p if there, else what is. Masks are taken at the
            same one if they have it, else at what they have.
        sequences: Only these: names, or a text file with one a line. None: all of the split.
        late_objects: Also follow objects that the first frame does not show.
        options: See :class:`~trecvit_dense.datasets.mask_clips.MaskVideoDataset`.

    Raises:
        FileNotFoundError: a folder, list, frame or mask is missing.
        ValueError: the parts do not fit together; the file is named.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'val',
        *,
        version: str | int = 'auto',
        task: str = 'semi',
        resolution: str | None = None,
        sequences: Sequence[str] | str | None = None,
        late_objects: bool = False,
        **options: Any,
    ) -> None:
        version = str(version)
        for name, value, known in (('version', version, VERSIONS), ('task', task, TASKS)):
            if value not in known:
                raise ValueError(f"{name} is '{value}'; wanted one of {', '.join(known)}{nearest(value, list(known))}")
        root = _find_root(Path(data_root).expanduser())
        images = _level(root / 'JPEGImages', resolution)
        kind = 'Annotations' if task == 'semi' else 'Annotations_unsupervised'
        annotations = _level(root / kind, images.name if images.name != 'JPEGImages' else None, exact=False)
        listed, of_2016 = _read_split(root, split, version, images)
        if version == 'auto' and of_2016 and task == 'semi':
            version = '2016'
        found = []
        for name in choose(listed, sequences, where=root):
            frames = listed[name] or list_images(images / name)
            masks = pair_masks(frames, annotations / name, all_or_first=True) if not listed[name] else None
            masks = masks or [annotations / name / f'{frame.stem}.png' for frame in frames]
            found.append(
                MaskSequence(
                    name,
                    frames,
                    masks,
                    mask_format='binary' if version == '2016' or (version == 'auto' and _is_binary(masks)) else 'index',
                    first_only=task == 'semi' and not late_objects,
                    meta=dict(fps=24.0, task=task),
                )
            )
        self.root, self.version = root, '2016' if all(s.mask_format == 'binary' for s in found) else '2017'
        options = dict(dataset_name=f'davis{self.version}') | options
        super().__init__(found, **options)


def _find_root(root: Path) -> Path:
    for folder in (root, root / 'DAVIS'):
        if (folder / 'JPEGImages').is_dir():
            return folder
    raise FileNotFoundError(f'{root / "JPEGImages"}: no such folder; wanted a DAVIS layout: JPEGImages, Annotations')


def _level(folder: Path, resolution: str | None, *, exact: bool = True) -> Path:
    """The folder of a resolution; the folder itself where sequences lie in it directly."""
    known = list_folders(folder)
    if resolution in known:
        return folder / resolution
    if resolution is not None and exact:
        raise FileNotFoundError(f'{folder / resolution}: no such folder{nearest(resolution, known)}')
    if not known:
        raise FileNotFoundError(f'{folder}: no such folder, or an empty one; wanted a DAVIS layout')
    direct = [name for name in known if _has_images(folder / name)]
    if direct:
        return folder
    return folder / ('480p' if '480p' in known else known[0])


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir() if path.is_file())


def _read_split(root: Path, split: str, version: str, images: Path) -> tuple[dict[str, list[Path]], bool]:
    """Sequences of a split, with their frames where the list names them, and whether only a list of 2016 has it."""
    folder = root / 'ImageSets'
    newer = [folder / '2017', folder / '2019', folder]
    older = [folder / '2016', folder / images.name, folder / '480p', folder / '1080p']
    for of_2016, places in ((True, older), (False, newer)) if version == '2016' else ((False, newer), (True, older)):
        for place in places:
            if (place / f'{split}.txt').is_file():
                return _read_list(place / f'{split}.txt', images), of_2016
    lists = sorted(str(path.relative_to(folder)) for path in folder.rglob('*.txt')) if folder.is_dir() else []
    if lists:
        raise FileNotFoundError(f'{folder}: no list {split}.txt; there are {", ".join(lists)}')
    return {name: [] for name in list_folders(images)}, False


def _read_list(path: Path, images: Path) -> dict[str, list[Path]]:
    """One name a line, or the pairs of paths of 2016, ``/JPEGImages/480p/bear/00000.jpg /Annotations/...``."""
    listed: dict[str, list[Path]] = {}
    for line in path.read_text(encoding='utf-8').split('\n'):
        words = line.split()
        if not words:
            continue
        parts = words[0].strip('/').split('/')
        frames = listed.setdefault(parts[-2] if len(parts) > 1 else parts[0], [])
        if len(parts) > 1:
            frames.append(images / parts[-2] / parts[-1])
    if not listed:
        raise ValueError(f'{path}: an empty list; wanted the name of one sequence a line')
    return listed


def _is_binary(masks: list[Path | None]) -> bool:
    """Whether the first mask holds nothing but 0 and 255."""
    first = next((mask for mask in masks if mask is not None), None)
    if first is None or not first.is_file() or mask_header(first)[1]:
        return False
    values = np.unique(read_mask(first))
    return bool(len(values) and values[-1] == 255 and (values[:-1] == 0).all())
