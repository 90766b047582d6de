"""A plain folder of frames and masks: somebody's own videos."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..io.frame_source import IMAGE_SUFFIXES
from ..registry import DATASETS
from .mask_clips import MASK_FORMATS, MaskSequence, MaskVideoDataset
from .mask_layout import MASK_SUFFIXES, choose, list_folders, list_images, pair_masks

_LAYOUTS = (
    '<root>/<video>/{images,masks}/, <root>/{images,masks}/<video>/, <root>/{images,masks}/ for one video, or '
    'mask_root=DIR with masks beside data_root'
)


@DATASETS.register_module()
class MaskFolderDataset(MaskVideoDataset):
    """Frames and masks in any of four layouts, paired by name.

    ``<root>/<video>/{images,masks}/``; ``<root>/{images,masks}/<video>/``; ``<root>/{images,masks}/`` for one video;
    or two roots, ``data_root`` with frames and ``mask_root`` with masks, for one video or with a folder for each. Names
    pair up without their suffix, or by the last number in them (``frame_0001.jpg``, ``mask_0001.png``). A frame
    may lack a mask, and masks may have another size of the same shape.

    Args:
        data_root: See above.
        mask_root: See above.
        images, masks: Names of the two folders.
        mask_format: ``'index'``: the pixel value is the id; ``'binary'``: anything but black is object 1; ``'rgb'``:
            ``id = r + 256 g + 65536 b``.
        sequences: Only these: names, or a text file with one a line.
        fps: Frames per second of the videos.
        options: See :class:`~trecvit_dense.datasets.mask_clips.MaskVideoDataset`.

    Raises:
        FileNotFoundError: none of the layouts, or a frame is missing.
        ValueError: the parts do not fit together; the file is named.
    """

    def __init__(
        self,
        data_root: str,
        *,
        mask_root: str | None = None,
        images: str = 'images',
        masks: str = 'masks',
        mask_format: str = 'index',
        sequences: Sequence[str] | str | None = None,
        fps: float = 25.0,
        **options: Any,
    ) -> None:
        if mask_format not in MASK_FORMATS:
            raise ValueError(f"mask_format is '{mask_format}'; wanted one of {', '.join(MASK_FORMATS)}")
        root = Path(data_root).expanduser()
        second = Path(mask_root).expanduser() if mask_root else None
        folders = _find_videos(root, second, images, masks)
        found = []
        for name in choose(folders, sequences, where=root):
            frames, paired = pair_files(*folders[name])
            found.append(MaskSequence(name, frames, paired, mask_format, meta=dict(fps=float(fps))))
        super().__init__(found, **(dict(dataset_name=root.resolve().name) | options))


def pair_files(image_folder: Path, mask_folder: Path) -> tuple[list[Path], list[Path | None]]:
    """Frames in order, and the mask of each or None.

    Raises:
        FileNotFoundError: a mask without a frame; the file that is missing is named.
        ValueError: names that cannot be paired.
    """
    frames = list_images(image_folder)
    masks = list_images(mask_folder, MASK_SUFFIXES, what='masks')
    if {path.stem for path in frames} & {path.stem for path in masks}:
        return frames, pair_masks(frames, mask_folder)
    numbered = {_number(path): path for path in masks}
    numbers = [_number(path) for path in frames]
    if None in numbered or len(numbered) < len(masks) or not set(numbered) <= set(numbers):
        raise ValueError(
            f'{masks[0]}: fits no frame of {image_folder} ({frames[0].name}, ...); wanted masks with the names of '
            f'their frames, or with the same number in them'
        )
    return frames, [numbered.get(number) for number in numbers]


def _number(path: Path) -> int | None:
    digits = re.findall(r'\d+', path.stem)
    return int(digits[-1]) if digits else None


def _find_videos(root: Path, second: Path | None, images: str, masks: str) -> dict[str, tuple[Path, Path]]:
    """Folder of frames and folder of masks of each video."""
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder; wanted {_LAYOUTS}')
    one, two = (root, second) if second is not None else (root / images, root / masks)
    if second is not None or one.is_dir():
        if not two.is_dir():
            raise FileNotFoundError(f'{two}: no such folder; wanted the masks of {one}')
        if _holds_files(one):
            return {root.resolve().name: (one, two)}
        videos = {name: (one / name, two / name) for name in list_folders(one)}
    else:
        names = [name for name in list_folders(root) if (root / name / images).is_dir()]
        videos = {name: (root / name / images, root / name / masks) for name in names}
    if not videos:
        raise FileNotFoundError(f'{root}: no video with frames and masks; wanted {_LAYOUTS}')
    return videos


def _holds_files(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir() if path.is_file())
