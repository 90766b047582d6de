"""Finds the golden files and makes sure that a test compares everything they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

_REPOSITORY = Path(__file__).resolve().parents[2]


def goldens_dir() -> Path:
    """The folder that ``TRECVIT_GOLDENS`` names, else ``shared/goldens`` beside the repository."""
    return Path(os.environ.get('TRECVIT_GOLDENS') or _REPOSITORY.parent / 'shared' / 'goldens').resolve()


def golden_files(*prefixes: str) -> list:
    """One pytest parameter per ``<prefix>*.npz``, its id the file's stem; a skipped one where there are none."""
    folder = goldens_dir()
    paths = sorted({path for prefix in prefixes for path in folder.glob(f'{prefix}*.npz')})
    if paths:
        return [pytest.param(path, id=path.stem) for path in paths]
    wanted = ' or '.join(f'{prefix}*.npz' for prefix in prefixes)
    reason = f'no {wanted} in {folder}; set TRECVIT_GOLDENS to the folder of reference outputs'
    return [pytest.param(None, id=f'{prefixes[0]}absent', marks=pytest.mark.skip(reason=reason))]


class Golden:
    """One golden file as a dictionary of arrays that remembers which of them were read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with np.load(path, allow_pickle=False) as file:
            self._arrays = {key: file[key] for key in file.files}
        self.read: set[str] = set()

    @property
    def config(self) -> dict:
        return json.loads(str(self['config_json']))

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> np.ndarray:
        self.read.add(key)
        return self._arrays[key]

    def keys(self, prefix: str = '') -> list[str]:
        """Keys that start with ``prefix``."""
        return [key for key in self._arrays if key.startswith(prefix)]

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self[key]))

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays below ``prefix``, without it."""
        return {key[len(prefix) :]: self[key] for key in self.keys(prefix)}

    def assert_all_compared(self, ignore: Iterable[str] = ()) -> None:
        """Fail if an array was never read; ``ignore`` holds glob patterns of keys that are no output."""
        left = [key for key in self._arrays if key not in self.read and not any(fnmatch(key, p) for p in ignore)]
        assert not left, f'{self.path.name}: {len(left)} arrays were not compared: {left[:20]}'


def to_numpy(value: object) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def assert_close_max(actual: object, expected: object, tol: float = 1e-4, name: str = '') -> None:
    """Shapes equal, everything finite where expected, and the largest error below ``tol`` times the largest value."""
    actual, expected = to_numpy(actual), to_numpy(expected)
    assert actual.shape == expected.shape, f'{name}: shape {actual.shape}, wanted {expected.shape}'
    if not expected.size:
        return
    error = np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max()
    scale = np.abs(expected).max()
    assert error <= tol * scale, f'{name}: largest error {error:.3g}, allowed {tol:g} of the largest value {scale:.3g}'
