"""BURST (arXiv 2209.12118): masks as run lengths in one JSON, images in the layout of TAO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..io.mask_file import decode_run_lengths
from ..registry import DATASETS
from .mask_clips import MaskSequence, MaskVideoDataset
from .mask_layout import choose, read_json

_MOST = 254


@dataclass
class RunLengthSequence(MaskSequence):
    """A video whose masks are run lengths instead of files.

    Args:
        size: ``(H, W)`` of the masks.
        segments: Frame number to ``{label: compressed run lengths}``.
        ann_file: What messages name.
    """

    size: tuple[int, int] = (0, 0)
    segments: dict[int, dict[int, str]] = field(default_factory=dict)
    ann_file: str = ''

    @property
    def annotated(self) -> np.ndarray:
        return np.array([t in self.segments for t in range(len(self.frames))])

    def mask_name(self, t: int) -> str:
        return f'{self.ann_file}, {self.name}, frame {self.frames[t].name}'

    def mask(self, t: int) -> np.ndarray:
        return decode_segments(self.segments[t], self.size, where=self.mask_name(t))


@DATASETS.register_module()
class BURSTDataset(MaskVideoDataset):
    """``all_classes.json`` or ``first_frame_annotations.json`` and ``<image_root>/<dataset>/<seq_name>/*.jpg``.

    Labels are 1, 2, ... in the order of the track numbers; ``meta['track_ids']`` maps them to BURST's, and
    ``meta['categories']`` to category ids. With the first-frame file the masks only introduce objects.

    Args:
        ann_file: The JSON.
        image_root: Folder of the split's images.
        all_frames: Read all images of a video instead of the annotated ones.
        sequences: Only these: ``<dataset>/<seq_name>``, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.mask_clips.MaskVideoDataset`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: not such a JSON, more than 254 tracks in a video, or (on reading) a mask that cannot be decoded.
    """

    def __init__(
        self,
        ann_file: str,
        image_root: str,
        *,
        all_frames: bool = False,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        path, root = Path(ann_file).expanduser(), Path(image_root).expanduser()
        videos = read_json(path, 'sequences')['sequences']
        listed = {f'{video["dataset"]}/{video["seq_name"]}': video for video in videos}
        prompts_only = path.stem.startswith('first_frame')
        found = []
        for name in choose(listed, sequences, where=path):
            sequence = _sequence(name, listed[name], root, path, all_frames)
            sequence.prompts_only = prompts_only
            if sequence.segments:
                found.append(sequence)
        super().__init__(found, **(dict(dataset_name='burst') | options))


def decode_segments(segments: dict[int, str], size: tuple[int, int], *, where: str) -> np.ndarray:
    """``(H, W)`` uint8 labels from compressed run lengths; where objects overlap, the later label wins.

    Raises:
        ValueError: run lengths that are damaged or of another size.
    """
    labels = np.zeros(size, np.uint8)
    for label, counts in segments.items():
        coded = dict(size=list(size), counts=counts)
        labels[decode_run_lengths(coded, size, where=f'{where}, object {label}').astype(bool)] = label
    return labels


def _sequence(name: str, video: dict[str, Any], root: Path, path: Path, all_frames: bool) -> RunLengthSequence:
    """One entry of the JSON."""
    masks, named = len(video['segmentations']), len(video['annotated_image_paths'])
    if masks != named:
        raise ValueError(f'{path}, {name}: {masks} segmentations for {named} annotated images; wanted one each')
    tracks = sorted({int(track) for frame in video['segmentations'] for track in frame})
    if len(tracks) > _MOST:
        raise ValueError(f'{path}, {name}: {len(tracks)} tracks; wanted at most {_MOST}')
    label_of = {track: number for number, track in enumerate(tracks, start=1)}
    images = video['all_image_paths'] if all_frames else video['annotated_image_paths']
    place = {image: t for t, image in enumerate(images)}
    segments = {}
    for image, frame in zip(video['annotated_image_paths'], video['segmentations'], strict=True):
        if image not in place:
            raise ValueError(f'{path}, {name}: annotated image {image} is not among all_image_paths')
        segments[place[image]] = {
            label_of[int(track)]: entry['rle'] for track, entry in frame.items() if entry.get('rle')
        }
    categories = {int(track): kind for track, kind in video.get('track_category_ids', {}).items()}
    meta = dict(
        fps=float(video.get('fps', 1.0)),
        track_ids={label: track for track, label in label_of.items()},
        categories={label: categories[track] for track, label in label_of.items() if track in categories},
    )
    return RunLengthSequence(
        name,
        [root / name / image for image in images],
        [None] * len(images),
        meta=meta,
        size=(int(video['height']), int(video['width'])),
        segments=segments,
        ann_file=str(path),
    )
