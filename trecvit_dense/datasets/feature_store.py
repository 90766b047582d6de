"""Features of a frozen encoder on disk: written once, frame by frame, and read as memory maps.

::

    FOLDER/store.json             what made the features (the key), and how a frame's tokens lie
    FOLDER/000007.npy             (T, n, C) float16 or float32 of item 7: class token first, then patches by rows
    FOLDER/000007.json            its name, label and meta; written last, so an item without it is not complete

Points, masks and depth are not kept: features serve tasks that have one answer for a video.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io.atomic import atomic_path, write_json
from ..structures import VideoSample

_INDEX, _FORMAT = 'store.json', 1
DTYPES = ('float16', 'float32')


class FeatureStoreError(ValueError):
    """A folder that is no feature store, or is stale or damaged; the message is one line for the user."""


def feature_key(config: dict[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What features depend on: the config of encoder and preprocessing, and a digest of the encoder's weights."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return {**json.loads(json.dumps(config)), 'weights': digest.hexdigest()}


class FeatureStore:
    """A folder of features.

    Args:
        folder: An existing store; :meth:`create` makes one.

    Attributes:
        key: From :func:`feature_key`.
        layout: ``embed_dim``, ``grid``, ``stride``, ``class_token``: arguments of :class:`.StoredFeatures`.
        dtype: ``'float16'`` or ``'float32'``.

    Raises:
        FileNotFoundError: no such folder, or no store in it.
        FeatureStoreError: a store of another version, or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / _INDEX
        if not path.is_file():
            raise FileNotFoundError(f'{self.folder}: no {_INDEX} in it; wanted a folder of trecvit extract-features')
        index = _read_json(path)
        if index.get('format') != _FORMAT:
            raise FeatureStoreError(f'{path} has format {index.get("format")}; wanted {_FORMAT}: extract again')
        self.key, self.layout, self.dtype = index['key'], index['layout'], index['dtype']

    @classmethod
    def resume(cls, folder: str | Path, *, key: dict[str, Any], dtype: str = 'float16') -> FeatureStore | None:
        """The store that was begun in ``folder`` with the same key; None where there is none yet.

        Raises:
            FeatureStoreError: the folder holds features of another encoder or of other data, or something else.
        """
        folder = Path(folder)
        if dtype not in DTYPES:
            raise ValueError(f"dtype is '{dtype}'; wanted {' or '.join(DTYPES)}")
        if (folder / _INDEX).is_file():
            store = cls(folder)
            store.check(key)
            if store.dtype != dtype:
                raise FeatureStoreError(f'{folder} holds {store.dtype}, not {dtype}; choose another folder')
            return store
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FeatureStoreError(f'{folder} is no feature store and not empty; wanted the name of a new folder')
        return None

    @classmethod
    def create(cls, folder: str | Path, *, key: dict[str, Any], layout: dict[str, Any], dtype: str) -> FeatureStore:
        """An empty store."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _INDEX, dict(format=_FORMAT, key=key, layout=layout, dtype=dtype))
        return cls(folder)

    def check(self, key: dict[str, Any]) -> None:
        """Refuse another encoder than that of the features; keys that only one side has are not compared.

        Raises:
            FeatureStoreError: stale; the message says what has changed.
        """
        changed = [name for name in self.key.keys() & key.keys() if self.key[name] != key[name]]
        if changed:
            name = sorted(changed)[0]
            was, now = (
                _shown(value, other) for value, other in ((self.key[name], key[name]), (key[name], self.key[name]))
            )
            raise FeatureStoreError(
                f'{self.folder} is stale: its features were made with {name} {was}, now it is {now}; extract again, '
                f'into another folder'
            )

    # ---- items

    def __len__(self) -> int:
        """Complete items, counted from 0 up to the first that lacks."""
        count = 0
        while self._path(count, '.json').is_file():
            count += 1
        return count

    def __contains__(self, index: int) -> bool:
        return self._path(index, '.json').is_file()

    def write(self, index: int, sample: VideoSample, frames: Iterable[np.ndarray], num_frames: int) -> None:
        """Keep the features of one video.

        Args:
            frames: Consecutive parts ``(t, n, C)``; only one of them is in memory at a time.
            num_frames: T, of all parts.

        Raises:
            FeatureStoreError: values that the store's type cannot hold, or another number of frames.
        """
        path, first, array, shape = self._path(index, '.npy'), 0, None, None
        with atomic_path(path) as temporary:
            for part in frames:
                part = part.astype(self.dtype)
                if not np.isfinite(part).all():
                    raise FeatureStoreError(
                        f"features of '{sample.name}' do not fit into {self.dtype}, or are NaN; use dtype='float32'"
                    )
                if array is None:
                    shape = (num_frames, *part.shape[1:])
                    array = np.lib.format.open_memmap(temporary, 'w+', self.dtype, shape)
                array[first : first + len(part)] = part
                first += len(part)
            if first != num_frames:
                raise FeatureStoreError(f"'{sample.name}' has {first} frames of features; wanted {num_frames}")
            array.flush()
            del array
        facts = dict(name=sample.name, label=sample.label, shape=list(shape), bytes=path.stat().st_size)
        write_json(self._path(index, '.json'), dict(facts, meta=_plain(sample.meta)))

    def facts(self, index: int) -> dict[str, Any]:
        """``name``, ``label``, ``meta`` and ``shape`` of an item, whose file is looked at.

        Raises:
            FeatureStoreError: its features are missing, or cut short.
        """
        facts = _read_json(self._path(index, '.json'))
        path = self._path(index, '.npy')
        found = path.stat().st_size if path.is_file() else 0
        if found != facts['bytes']:
            raise FeatureStoreError(
                f"{path} has {found} bytes, wanted {facts['bytes']}: features of '{facts['name']}' are "
                f'{"truncated" if found else "missing"}; delete {path.with_suffix(".json").name} and extract again'
            )
        return facts

    def read(self, index: int) -> np.ndarray:
        """``(T, n, C)``, a read-only memory map.

        Raises:
            FeatureStoreError: not an array of this store.
        """
        path = self._path(index, '.npy')
        try:
            return np.load(path, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise FeatureStoreError(f'{path} cannot be read ({str(error).splitlines()[0]}); extract again') from None

    def _path(self, index: int, suffix: str) -> Path:
        return self.folder / f'{index:06d}{suffix}'


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise FeatureStoreError(f'{path} cannot be read ({error}); extract again') from None


def _shown(value: Any, other: Any) -> str:
    """Of two configs what is not the same in both."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {name: entry for name, entry in value.items() if other.get(name) != entry}
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + '...'


def _plain(meta: dict[str, Any]) -> dict[str, Any]:
    """The entries that json can hold."""
    kept = {}
    for name, value in meta.items():
        with suppress(TypeError):
            kept[name] = json.loads(json.dumps(value.item() if isinstance(value, np.generic) else value))
    return kept
