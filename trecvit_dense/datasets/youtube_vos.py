"""YouTube-VOS 2018 and 2019 (arXiv 1809.03327)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..registry import DATASETS
from .mask_clips import MaskVideoDataset
from .mask_layout import find_meta, split_root, split_sequences


@DATASETS.register_module()
class YouTubeVOSDataset(MaskVideoDataset):
    """``<split>/{JPEGImages,Annotations}/<video>/00000.{jpg,png}`` and ``<split>/meta.json``; every fifth frame.

    In ``valid`` and ``test`` a mask file introduces the objects that appear on its frame; it is no truth, so nothing
    can be scored there (``masks.annotated`` is False everywhere). ``meta['categories']`` holds the category of each
    object where ``meta.json`` says it.

    Args:
        data_root: The folder with the splits, or a split.
        split: ``'train'``, ``'valid'`` or ``'test'``.
        all_frames: Read the frames at 30 a second from ``<split>_all_frames/JPEGImages``; results are wanted for the
            names in ``meta['output_names']``.
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
        all_frames: bool = False,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        root = Path(data_root).expanduser()
        folder = split_root(root, split)
        more = root / f'{split}_all_frames' / 'JPEGImages' if all_frames else None
        if more is not None and not more.is_dir():
            raise FileNotFoundError(f'{more}: no such folder; wanted the frames at 30 a second (all_frames=True)')
        found = split_sequences(folder, split, sequences, frame_root=more)
        videos = find_meta(['meta.json'], folder, root)
        for sequence in found:
            objects = videos.get(sequence.name, {}).get('objects', {})
            categories = {int(i): kind['category'] for i, kind in objects.items() if 'category' in kind}
            sequence.meta |= dict(fps=30.0 if all_frames else 6.0, categories=categories)
        super().__init__(found, **(dict(dataset_name='youtubevos') | options))
