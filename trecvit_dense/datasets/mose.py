"""MOSE v1 (arXiv 2302.01872) and v2 (arXiv 2508.05630): crowded scenes, objects that leave and return."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..registry import DATASETS
from .mask_clips import MaskVideoDataset
from .mask_layout import find_meta, split_root, split_sequences


@DATASETS.register_module()
class MOSEDataset(MaskVideoDataset):
    """``<split>/{JPEGImages,Annotations}/<video>/00000.{jpg,png}``; ``valid`` has masks of first frames only.

    Args:
        data_root: The folder with the splits, or a split.
        split: ``'train'`` or ``'valid'``.
        version: 1 or 2: names the data set; the layout is the same.
        sequences: Only these: names, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.mask_clips.MaskVideoDataset`.

    Raises:
        FileNotFoundError: a folder, frame or mask is missing.
        ValueError: the parts do not fit together; the file is named.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'valid',
        *,
        version: int = 1,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        if version not in (1, 2):
            raise ValueError(f'version is {version}; wanted 1 or 2')
        root = Path(data_root).expanduser()
        folder = split_root(root, split)
        found = split_sequences(folder, split, sequences)
        videos = find_meta([f'meta_{split}.json', 'meta.json'], root, folder, root.parent)
        for sequence in found:
            objects = videos.get(sequence.name, {}).get('objects', [])
            sequence.meta |= dict(fps=24.0, object_ids=sorted(int(i) for i in objects))
        super().__init__(found, **(dict(dataset_name='mose' if version == 1 else 'mosev2') | options))
