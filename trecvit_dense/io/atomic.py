"""Outputs that are complete or absent: write beside the target, rename when all went well."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_path(path: Path) -> Path:
    """A hidden name in the folder of ``path``, with its suffix, so that renaming is atomic.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path}: the folder {path.parent} does not exist; create it first')
    if path.is_dir():
        raise IsADirectoryError(f'{path}: is a folder; wanted the name of a file to write')
    return path.with_name(f'.{path.stem}.{os.getpid()}.partial{path.suffix}')


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing happens when it is not there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes ``path``, on an exception it is removed."""
    path = Path(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        if temporary.is_file():
            temporary.chmod(0o666 & ~_umask())  # safetensors makes private files
        os.replace(temporary, path)
    finally:
        remove(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
