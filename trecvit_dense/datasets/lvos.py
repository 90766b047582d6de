"""LVOS v1 (arXiv 2211.10181) and v2 (arXiv 2404.19326): long videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..registry import DATASETS
from .mask_clips import MASK_FORMATS, MaskSequence, MaskVideoDataset
from .mask_layout import find_meta, read_names, split_root, split_sequences


@DATASETS.register_module()
class LVOSDataset(MaskVideoDataset):
    """``<split>/{JPEGImages,Annotations}/<video>/00000001.{jpg,png}`` and ``<split>_meta.json``.

    ``val`` holds the masks of every annotated frame. A model is given each object's first one and nothing else; the
    rest is truth. ``meta['frame_range']`` is ``{id: (start, end, frame_nums)}`` as numbers, in which the benchmark
    scores the object, and ``meta['unseen']`` whether the video is of the unseen half (None: no ``unseen_videos.txt``).

    Args:
        data_root: The folder with the splits, or a split.
        split: ``'train'``, ``'val'`` or ``'test'``.
        mask_format: ``'index'``, or ``'rgb'`` for files with ``id = r + 256 g + 65536 b``.
        sequences: Only these: names, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.mask_clips.MaskVideoDataset`; ``max_side`` matters for memory.

    Raises:
        FileNotFoundError: a folder, frame or mask is missing.
        ValueError: the parts do not fit together; the file is named.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'val',
        *,
        mask_format: str = 'index',
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        if mask_format not in MASK_FORMATS:
            raise ValueError(f"mask_format is '{mask_format}'; wanted one of {', '.join(MASK_FORMATS)}")
        root = Path(data_root).expanduser()
        folder = split_root(root, split)
        found = split_sequences(folder, split, sequences, mask_format=mask_format)
        videos = find_meta([f'{split}_meta.json', 'meta.json'], folder, root, root.parent)
        lists = [path / 'unseen_videos.txt' for path in (folder, root, root.parent)]
        unseen = next((set(read_names(path)) for path in lists if path.is_file()), None)
        for sequence in found:
            ranges = _frame_ranges(videos.get(sequence.name, {}).get('objects', {}))
            # Truth is known on every fifth frame or so; prompts alone are one mask an object.
            sequence.prompts_only = split == 'test' or _is_stripped(sequence, len(ranges))
            sequence.meta |= dict(
                fps=6.0, frame_range=ranges, unseen=None if unseen is None else sequence.name in unseen
            )
        super().__init__(found, **(dict(dataset_name='lvos') | options))


def _frame_ranges(objects: dict[str, Any]) -> dict[int, tuple[int, int, int]]:
    ranges = {}
    for i, known in objects.items():
        span = known.get('frame_range')
        if span is not None:
            start, end = int(span['start']), int(span['end'])
            ranges[int(i)] = (start, end, int(span.get('frame_nums', len(range(start, end, 5)))))
    return ranges


def _is_stripped(sequence: MaskSequence, num_objects: int) -> bool:
    masks = int(sequence.annotated.sum())
    return masks < len(sequence.frames) and masks <= max(1, num_objects)
