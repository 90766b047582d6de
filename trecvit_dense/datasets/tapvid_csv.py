"""The csv layouts of TAP-Vid: one row per point, video files beside it.

``video_id, (x, y, occluded) * frames`` (RoboTAP and others) with videos ``<video_id>.mp4``, and the Kinetics list
``youtube_id, start_s, end_s, (x, y, occluded) * 250`` with clips ``<youtube_id>_<start:06d>_<end:06d>.mp4``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..io import FrameSource
from .point_clips import check_annotation, shift_kinetics_points

KINETICS_FPS = 25.0
_SUFFIXES = ('.mp4', '.webm', '.mkv', '.avi', '.mov')


@dataclass
class CsvVideo:
    """The annotation of one video.

    Args:
        name: ``video_id``, or ``youtube_id_start_end``.
        points: ``(N, T, 2)`` x, y in 0..1.
        occluded: ``(N, T)`` bool.
        kinetics: From the Kinetics list: 25 frames per second, and the half-pixel shift of the published pickles.
    """

    name: str
    points: np.ndarray
    occluded: np.ndarray
    kinetics: bool = False

    def at_size(self, size: tuple[int, int]) -> np.ndarray:
        """Points for a video of ``(H, W)`` px, ``(N, T, 2)``."""
        return shift_kinetics_points(self.points, size) if self.kinetics else self.points


def read_csv(path: str | Path) -> list[CsvVideo]:
    """All videos of the file, in order of first mention.

    Raises:
        ValueError: a row is not ``id, (x, y, occluded) * frames``; the message gives its number.
    """
    rows: dict[str, list[np.ndarray]] = {}
    kinetics = False
    with open(path, newline='', encoding='utf-8') as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row:
                continue
            kinetics = len(row) % 3 == 0
            name, values = _parse_row(row, where=f'{path}, row {number}')
            rows.setdefault(name, []).append(values)
    if not rows:
        raise ValueError(f'{path}: no rows; wanted video_id,(x,y,occluded)... per point')
    return [_video(name, tracks, kinetics, where=f'{path}, {name}') for name, tracks in rows.items()]


def _parse_row(row: list[str], *, where: str) -> tuple[str, np.ndarray]:
    leading = {1: 1, 0: 3}.get(len(row) % 3)
    if leading is None or len(row) <= leading:
        raise ValueError(f'{where}: {len(row)} columns; wanted an id and (x, y, occluded) per frame')
    try:
        values = np.array([_number(text) for text in row[leading:]]).reshape(-1, 3)
        name = row[0] if leading == 1 else f'{row[0]}_{int(float(row[1])):06d}_{int(float(row[2])):06d}'
    except ValueError as error:
        raise ValueError(f'{where}: {error}; wanted numbers (the file has no header)') from None
    return name, values


def _number(text: str) -> float:
    words = {'True': 1.0, 'False': 0.0}
    return words[text.strip()] if text.strip() in words else float(text)


def _video(name: str, tracks: list[np.ndarray], kinetics: bool, *, where: str) -> CsvVideo:
    lengths = {len(track) for track in tracks}
    if len(lengths) > 1:
        raise ValueError(f'{where}: its rows have {sorted(lengths)} frames; wanted the same number in all')
    table = np.stack(tracks)  # (N, T, 3)
    points, occluded = check_annotation(table[..., :2], table[..., 2], None, where=where)
    return CsvVideo(name, points, occluded, kinetics)


def find_video(root: Path, name: str) -> Path:
    """``<root>/<name>`` with a video suffix, or a folder of frames of that name.

    Raises:
        FileNotFoundError: neither exists.
    """
    for candidate in [root / f'{name}{suffix}' for suffix in _SUFFIXES] + [root / name]:
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f'{root / name}.mp4: no such video; put the videos there or set video_root')


def frame_numbers(source: FrameSource, video: CsvVideo) -> np.ndarray:
    """``(T,)`` frames of the file that the annotation covers, cut to the shorter of the two."""
    total = source.num_frames
    if not video.kinetics or abs(source.fps - KINETICS_FPS) < 0.1:
        return np.arange(min(total, video.points.shape[1]))
    times = np.arange(int(total * KINETICS_FPS / source.fps)) / KINETICS_FPS
    numbers = np.minimum(np.floor(times * source.fps + 0.5).astype(int), total - 1)
    return numbers[: video.points.shape[1]]


def read_frames(source: FrameSource, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """The frames ``numbers`` (ascending, may repeat), decoded once from the start."""
    wanted = iter(numbers.tolist())
    number = next(wanted, None)
    for index, frame in enumerate(islice(iter(source), int(numbers[-1]) + 1)):
        while index == number:
            yield frame
            number = next(wanted, None)


def chunks(num_frames: int, max_frames: int) -> list[tuple[int, int]]:
    """Near-equal parts ``[start, stop)`` of at most ``max_frames``, each a sample of its own."""
    count = max(1, -(-num_frames // max_frames))
    return [(i * num_frames // count, (i + 1) * num_frames // count) for i in range(count)]
