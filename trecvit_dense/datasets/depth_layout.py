"""Folders of frames and depth: finding them and pairing them by number or by time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..registry import nearest
from .mask_layout import list_folders


def number_of(path: Path) -> int | None:
    """The last number in the name of a file: 12 of ``depth_00012.png``."""
    digits = re.findall(r'\d+', path.stem)
    return int(digits[-1]) if digits else None


def pair_by_number(frames: Iterable[Path], truth: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Frames that have a depth map of the same number, in order, and these.

    Raises:
        FileNotFoundError: a depth map without a frame; its file is named.
    """
    by_number = {number_of(path): path for path in frames}
    paired = [(by_number.get(number_of(path)), path) for path in truth]
    alone = next((path for frame, path in paired if frame is None), None)
    if alone is not None:
        raise FileNotFoundError(f'{alone}: there is no frame of this number, {number_of(alone)}; is a part missing?')
    paired.sort(key=lambda pair: number_of(pair[1]))
    return [frame for frame, _ in paired], [path for _, path in paired]


def nearest_in_time(times_s: np.ndarray, others_s: np.ndarray, limit_s: float) -> np.ndarray:
    """``(N,)`` index into ``others_s`` (sorted) of the entry nearest to each time, -1 where none is near enough."""
    if not len(others_s):
        return np.full(len(times_s), -1)
    right = np.clip(np.searchsorted(others_s, times_s), 1, max(1, len(others_s) - 1))
    right = np.minimum(right, len(others_s) - 1)
    left = np.maximum(right - 1, 0)
    index = np.where(np.abs(others_s[left] - times_s) <= np.abs(others_s[right] - times_s), left, right)
    return np.where(np.abs(others_s[index] - times_s) <= limit_s, index, -1)


def first_folder(*candidates: Path, holds: str, what: str) -> Path:
    """The first folder that holds something that matches the pattern ``holds``.

    Raises:
        FileNotFoundError: none does.
    """
    for folder in candidates:
        if folder.is_dir() and next(folder.glob(holds), None) is not None:
            return folder
    raise FileNotFoundError(f'{candidates[0]}: no {what} here; wanted {candidates[0] / holds}')


def split_folder(root: Path, split: str) -> Path:
    """``root/<split>``.

    Raises:
        FileNotFoundError: no such split; those that exist are named.
    """
    if (root / split).is_dir():
        return root / split
    known = list_folders(root)
    hint = nearest(split, known) or (f'; there are {", ".join(known)}' if known else '')
    raise FileNotFoundError(f'{root / split}: no such folder{hint}')
