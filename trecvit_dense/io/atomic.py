"""Outputs that are complete or absent: write beside the target, rename when all went well."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def temporary_path(path: Path) -> Path:
    """A hidden name in the folder of ``path``, with its suffix, so that renaming is atomic; raises as check_target."""
    check_target(path)
    return path.with_name(f'.{path.stem}.{os.getpid()}.partial{path.suffix}')


def check_target(path: Path) -> None:
    """See whether a file can be written, before any work is done for it.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: a folder has that name.
        PermissionError: the folder, or the file that is there, is read-only.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path}: the folder {path.parent} does not exist; create it first')
    if path.is_dir():
        raise IsADirectoryError(f'{path}: is a folder; wanted the name of a file to write')
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f'{path}: the folder {path.parent} is read-only; wanted one that can be written')
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f'{path}: the file is read-only; remove it or choose another name')


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


class FolderWriter:
    """Context manager for a folder that appears, whole, when all went well; until then its files go to ``self.part``.

    Args:
        folder: Must not exist, or be empty.
        replaces: Regular expression: files that an earlier run may have left there, which are replaced; one other file
            and the folder is refused.
        what: What the folder is for, in messages.

    Raises:
        FileNotFoundError: the folder above does not exist.
        ValueError: ``folder`` exists and holds something.
    """

    def __init__(self, folder: str | Path, *, replaces: str | None = None, what: str = 'files') -> None:
        self.folder = Path(folder)
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        if replaces and all(re.fullmatch(replaces, name) for name in names):
            names = []
        if self.folder.is_file() or names:
            raise ValueError(f'{self.folder}: exists and is not empty; wanted the name of a new folder for the {what}')
        if not self.folder.absolute().parent.is_dir():
            raise FileNotFoundError(f'{self.folder}: the folder above it does not exist; create it first')
        self.part = self.folder.absolute().with_name(f'.{self.folder.name}.{os.getpid()}.partial')

    def __enter__(self) -> FolderWriter:
        self.part.mkdir()
        return self

    def finish(self) -> None:
        """What is left to write when the block has ended well."""

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            if kind is None:
                self.finish()
                remove(self.folder)
                os.replace(self.part, self.folder)
        finally:
            remove(self.part)


def write_json(path: str | Path, content: Any) -> None:
    """Indented json; the file is complete or absent."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + '\n')


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
