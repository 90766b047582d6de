"""Where the videos of a list lie, and which classes there are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..io.frame_source import IMAGE_SUFFIXES
from ..io.json_file import parse_json
from ..registry import nearest

VIDEO_SUFFIXES = ('.mp4', '.webm', '.mkv', '.avi', '.mov', '.m4v', '.mpg', '.mpeg')


class VideoFolder:
    """Videos below a folder by the stem of their names: files, or folders of frames.

    The folder is walked once: half a million files, in folders of classes or in none, are found without half a million
    questions to the disk.

    Raises:
        FileNotFoundError: no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f'{root}: no such folder; wanted the one that holds the videos')
        self.root = root
        self._found: dict[str, list[Path]] = {}
        for folder, folders, files in os.walk(root, followlinks=True):
            folders.sort()
            if any(name.lower().endswith(IMAGE_SUFFIXES) for name in files):
                self._found.setdefault(os.path.basename(folder), []).append(Path(folder))
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in VIDEO_SUFFIXES:
                    self._found.setdefault(stem, []).append(Path(folder, name))

    def find(self, stem: str, *, beside: str | None = None) -> Path:
        """The video of that name; where there are several, the one below a folder named ``beside``.

        A video that is not there is given the place at which it was looked for.
        """
        found = self._found.get(stem, ())
        for path in found:
            if beside in path.relative_to(self.root).parts[:-1]:
                return path
        return found[0] if found else self.root / f'{stem}.mp4'


def list_class_folders(root: Path) -> dict[str, list[Path]]:
    """Class name to its videos, both in alphabetical order; a video is a file or a folder of frames.

    Raises:
        FileNotFoundError: no such folder, or no folder in it.
    """
    names = (
        sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != '.')
        if root.is_dir()
        else []
    )
    if not names:
        raise FileNotFoundError(f'{root}: no folder of a class in it; wanted {root}/<class>/<video>.mp4')
    return {name: sorted(path for path in (root / name).iterdir() if _is_video(path)) for name in names}


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and path.name[0] != '.')


def read_class_list(path: str | Path) -> list[str]:
    """Names of classes, one a line; the line is the label, counted from 0.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no name in it, or one twice.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such class list; wanted a text file with the name of a class a line')
    names = [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if not names or twice:
        reason = f"names '{twice}' twice" if twice else 'an empty class list'
        raise ValueError(f'{path}: {reason}; wanted the name of a class a line')
    return names


def class_numbers(classes: Sequence[str]) -> dict[str, int]:
    """Name to label."""
    return {name: label for label, name in enumerate(classes)}


def label_of(name: str, numbers: dict[str, int], *, where: str) -> int:
    """The label of a class.

    Raises:
        ValueError: no such class; the nearest one is given.
    """
    if name not in numbers:
        raise ValueError(f"{where}: no class '{name}' among {len(numbers)}{nearest(name, list(numbers))}")
    return numbers[name]


def read_text_lines(path: Path, *, wanted: str) -> list[tuple[int, str]]:
    """Numbers, from 1, and text of the lines that are not empty.

    Raises:
        FileNotFoundError: no such file. ValueError: nothing in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; wanted {wanted}')
    lines = path.read_text(encoding='utf-8-sig').splitlines()
    lines = [(number, line.strip('\r\n')) for number, line in enumerate(lines, start=1) if line.strip()]
    if not lines:
        raise ValueError(f'{path}: an empty file; wanted {wanted}')
    return lines


def read_json_file(path: Path, kind: type, *, wanted: str) -> Any:
    """The content of a JSON file that holds a ``kind``.

    Raises:
        FileNotFoundError: no such file. ValueError: not JSON, or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; wanted {wanted}')
    content = parse_json(path)
    if not isinstance(content, kind):
        raise ValueError(f'{path}: holds a {type(content).__name__}; wanted {wanted}')
    return content


def first_file(folder: Path, names: Iterable[str], *, wanted: str) -> Path:
    """The first of ``names`` that is a file or folder below ``folder``.

    Raises:
        FileNotFoundError: none is.
    """
    names = list(names)
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(
        f'{folder / names[0]}: missing (or {", ".join(names[1:]) or "nothing else"}); wanted {wanted}'
    )
