"""Files of depth or disparity as numbers, whatever program wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..io.depth_file import read_dpt, read_png16

SUFFIXES = ('.npz', '.npy', '.png', '.dpt')
KEYS = ('depth', 'disparity', 'disp', 'values', 'depth_m', 'arr_0')  # of npz files, in this order


def read_maps(path: Path, units: float | None, *, floats: bool = False) -> np.ndarray:
    """``(T, H, W)`` or ``(H, W)`` numbers of a file: 16-bit PNG over ``units``, ``.npy``, ``.npz`` or ``.dpt``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or whole numbers without ``units``.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    suffix = path.suffix.lower()
    if suffix == '.png':
        values: np.ndarray = read_png16(path)
    elif suffix == '.dpt':
        values = read_dpt(path)
    else:
        values = _load(path)
    values = values[..., 0] if values.ndim == 4 and values.shape[-1] == 1 else values
    values = values[:, 0] if values.ndim == 4 and values.shape[1] == 1 else values
    if values.ndim not in (2, 3) or values.dtype.kind not in 'fui' or not values.size:
        raise ValueError(f'{path}: {values.dtype} of shape {values.shape}; wanted numbers (H, W) or (T, H, W)')
    if values.dtype.kind == 'f':
        return values if values.dtype == np.float64 else values.astype(np.float32)
    if units is None:
        raise ValueError(f'{path}: whole numbers; say what they count with --prediction-units')
    return values / units if not floats else (values / units).astype(np.float32)


def is_video(path: Path) -> bool:
    """Whether a file holds several frames."""
    values = _load(path)
    return values.ndim >= 3 and len(values) > 1


def _load(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            key = next((key for key in KEYS if key in loaded.files), None)
            if key is None and len(loaded.files) == 1:
                key = loaded.files[0]
            if key is None:
                raise ValueError(f'holds {", ".join(loaded.files)}; wanted one of {", ".join(KEYS)}')
            return loaded[key]
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f'{path}: cannot be read ({" ".join(str(error).split())})') from None


def stack_maps(paths: Sequence[Path], maps: list[np.ndarray], name: str, what: str) -> np.ndarray:
    """``(T, H, W)`` of a file for each frame, or of one for all."""
    if len(maps) == 1 and maps[0].ndim == 3:
        return maps[0]
    maps = [one[0] if one.ndim == 3 and len(one) == 1 else one for one in maps]
    for path, one in zip(paths, maps, strict=True):
        if one.ndim != 2 or one.shape != maps[0].shape:
            raise ValueError(
                f'clip {name}: {what} {path.name} is {one.shape}, {paths[0].name} {maps[0].shape}; wanted one size'
            )
    return np.stack(maps)
