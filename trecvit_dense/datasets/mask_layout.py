"""Folders of frames and masks: listing, pairing by name, lists of sequences."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..io.frame_source import IMAGE_SUFFIXES, natural_key
from ..io.json_file import parse_json
from ..registry import nearest
from .mask_clips import MaskSequence

MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
_SHOWN = 5


def list_images(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES, *, what: str = 'frames') -> list[Path]:
    """Image files of a folder in natural order of their names.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder; wanted the {what} of a video')
    files = [folder / name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in suffixes]
    if not files:
        raise FileNotFoundError(f'{folder}: no {what}; wanted files that end in {" ".join(suffixes)}')
    return sorted(files, key=natural_key)


def list_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, in natural order; empty when it does not exist."""
    if not folder.is_dir():
        return []
    found = [folder / entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith('.')]
    return [path.name for path in sorted(found, key=natural_key)]


def pair_masks(frames: list[Path], folder: Path, *, all_or_first: bool = False) -> list[Path | None]:
    """The mask of each frame, by name without suffix; None for a frame without one.

    Args:
        all_or_first: Every frame must have a mask, or the first alone.

    Raises:
        FileNotFoundError: a mask without a frame, or a frame without a mask where each needs one; the file that is
            missing is named.
    """
    masks = {path.stem: path for path in list_images(folder, MASK_SUFFIXES, what='masks')}
    stems = [path.stem for path in frames]
    missing = sorted(set(masks) - set(stems))
    if missing:
        path = frames[0].with_name(missing[0] + frames[0].suffix)
        raise FileNotFoundError(f'{path}: missing; there is a mask for it, {masks[missing[0]]}')
    paired = [masks.get(stem) for stem in stems]
    holes = [stem for stem, mask in zip(stems, paired, strict=True) if mask is None]
    first_alone = paired[0] is not None and len(holes) == len(stems) - 1
    if all_or_first and holes and not first_alone:
        raise FileNotFoundError(
            f'{folder / holes[0]}.png: missing; wanted a mask for every frame (there are {len(masks)} for '
            f'{len(frames)}), or for the first one alone'
        )
    return paired


def choose(known: Iterable[str], wanted: Sequence[str] | str | None, *, where: Path | str) -> list[str]:
    """The names of ``known`` that are wanted.

    Args:
        wanted: None for all, names, or a text file with one name a line.

    Raises:
        FileNotFoundError: ``wanted`` is no file.
        ValueError: a name that does not exist; the nearest one is given.
    """
    known = list(known)
    if wanted is None:
        return known
    if isinstance(wanted, str) and wanted in known:
        wanted = [wanted]
    names = read_names(Path(wanted).expanduser()) if isinstance(wanted, (str, Path)) else [str(name) for name in wanted]
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: no sequence '{name}'{nearest(name, known) or _examples(known)}")
    return names


def read_names(path: Path) -> list[str]:
    """First word of each line that has one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no name in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such list; wanted a text file with the name of one sequence a line')
    names = [line.split()[0] for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    if not names:
        raise ValueError(f'{path}: an empty list; wanted the name of one sequence a line')
    return names


def read_json(path: Path, key: str) -> dict[str, Any]:
    """A JSON object that has ``key``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not that key.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    content = parse_json(path)
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"{path}: has no '{key}'; wanted a JSON object with it")
    return content


def _examples(names: list[str]) -> str:
    shown = ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')
    return f'; there are: {shown}' if names else '; there are none'


def split_root(root: Path, split: str) -> Path:
    """``root/<split>``, or ``root`` where that is the folder of a split already.

    Raises:
        FileNotFoundError: neither holds ``JPEGImages``.
    """
    for folder in (root / split, root):
        if (folder / 'JPEGImages').is_dir():
            return folder
    known = [name for name in list_folders(root) if (root / name / 'JPEGImages').is_dir()]
    hint = f'; there are the splits {", ".join(known)}' if known else ''
    raise FileNotFoundError(f'{root / split / "JPEGImages"}: no such folder{nearest(split, known) or hint}')


def find_meta(names: Iterable[str], *folders: Path) -> dict[str, Any]:
    """``videos`` of the first meta file that exists: id to what is known about it; empty when none does."""
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return read_json(folder / name, 'videos')['videos']
    return {}


def split_sequences(
    folder: Path,
    split: str,
    wanted: Sequence[str] | str | None,
    *,
    frame_root: Path | None = None,
    mask_format: str = 'index',
) -> list[MaskSequence]:
    """Videos of ``folder/{JPEGImages,Annotations}/<video>/``.

    Outside of ``train``, masks on some of the frames only introduce objects; on all frames they are truth.

    Args:
        wanted: As in :func:`choose`.
        frame_root: Where the frames lie instead of in ``folder/JPEGImages``: the same videos with more frames.
    """
    found = []
    for name in choose(list_folders(folder / 'JPEGImages'), wanted, where=folder / 'JPEGImages'):
        frames = list_images(folder / 'JPEGImages' / name)
        masks = pair_masks(frames, folder / 'Annotations' / name)
        partial = any(mask is None for mask in masks)
        meta = dict(output_names=[frame.stem for frame in frames]) if frame_root else {}
        if frame_root is not None:
            frames = list_images(frame_root / name)
            masks = pair_masks(frames, folder / 'Annotations' / name)
        sequence = MaskSequence(name, frames, masks, mask_format, split != 'train' and partial, meta=meta)
        found.append(sequence)
    return found
