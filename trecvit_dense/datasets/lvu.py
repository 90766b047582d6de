"""Long-form Video Understanding (arXiv 2106.11310): nine tasks on film clips of one to three minutes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.functional.classification import lvu_like_target, lvu_view_target
from ..io import FrameSource
from ..registry import DATASETS, nearest
from .labelled_files import VideoFolder, first_file, read_text_lines
from .labelled_videos import BLACK, LabelledVideo, LabelledVideosDataset

CLASS_COUNTS = {
    'relationship': 4,
    'way_speaking': 5,
    'scene': 6,
    'director': 10,
    'writer': 10,
    'year': 9,
    'genre': 4,
}
REGRESSION = {'like_ratio': ('like_count', 'dislike_count'), 'view_count': ('view_count',)}
LVU_TASKS = (*CLASS_COUNTS, *REGRESSION)
_UNNAMED = '\\N'


@DATASETS.register_module()
class LVUDataset(LabelledVideosDataset):
    """One frame per second of windows of 60 s, as ViS4mer's program takes them.

    ``<data_root>/<task>/{train,val,test}.csv`` are separated by blanks and have a header: ``class_id class_name
    youtube_id imdb_id`` (names may hold blanks, or be ``\\N``), ``like_count dislike_count youtube_id imdb_id``, or
    ``view_count youtube_id imdb_id``. The two tasks of numbers have no label but ``meta['target']``: ten times the
    share of likes, and the logarithm of the views, each less its mean over the data set.

    Training draws one window per video and pass, starting at any whole second; otherwise every window of every video
    is an item, ``meta['video']`` says of which one, and metrics put them together with ``windows=True``. A shorter
    video is one window with black frames at its end; ``meta['seen_frames']`` counts the others.

    Args:
        data_root: Folder of the tasks' folders.
        task: One of ``relationship``, ``way_speaking``, ``scene``, ``director``, ``writer``, ``year``, ``genre``,
            ``like_ratio``, ``view_count``.
        split: ``'train'``, ``'val'`` or ``'test'``.
        video_root: Folder of ``<youtube_id>.mp4``; default: ``<data_root>/videos``, or ``data_root``.
        durations: Csv ``videoid,duration`` in seconds; default: ``durations.csv`` in ``data_root``, and where that is
            not there the videos are opened and asked.
        window: Seconds; None: the whole video is one item, however long.
        stride: Seconds from one window to the next, but for training.
        size: The official features are of frames squeezed to 224 x 224; their pixels are only divided by 255
            (``range='unit'`` of the preprocessor).
        options: Of :class:`~trecvit_dense.datasets.labelled_videos.LabelledVideosDataset`.

    Raises:
        FileNotFoundError: csv or video is missing.
        ValueError: unknown task, or a line of another form; the message gives its number.
    """

    def __init__(
        self,
        data_root: str,
        task: str,
        split: str = 'train',
        *,
        video_root: str | None = None,
        durations: str | None = None,
        window: int | None = 60,
        stride: int = 1,
        size: tuple[int, int] | None = (224, 224),
        dataset_name: str | None = None,
        **options: Any,
    ) -> None:
        if task not in LVU_TASKS:
            raise ValueError(f"task is '{task}'; wanted one of {', '.join(LVU_TASKS)}{nearest(task, [*LVU_TASKS])}")
        if (window is not None and window < 1) or stride < 1:
            raise ValueError(f'window is {window}, stride {stride}; wanted seconds from 1')
        super().__init__(dataset_name or f'lvu_{task}', split=split, size=size, **options)
        root = Path(data_root).expanduser()
        self.task, self.window, self.stride = task, window, stride
        path = root / task / f'{split}.csv'
        default = first_file(root, ('videos', '.'), wanted='the videos of LVU')
        folder = VideoFolder(Path(video_root).expanduser() if video_root else default)
        videos, names = [], _class_names(root / task)
        for line, fields in _rows(path, task):
            label, target = _truth(task, fields, where=f'{path}, line {line}')
            meta = {} if target is None else dict(target=target)
            videos.append(LabelledVideo(folder.find(fields[-2]), label, fields[-2], meta))
        self.take(videos, names if task in CLASS_COUNTS else None, where=path)
        table = Path(durations).expanduser() if durations else root / 'durations.csv'
        known = _read_durations(table) if durations or table.is_file() else {}
        self.durations = [known.get(video.name) for video in self.videos]
        self.windows = [] if split == 'train' else self._all_windows()

    def _all_windows(self) -> list[tuple[int, int]]:
        """Video and first second of every window."""
        found = []
        for place, video in enumerate(self.videos):
            if self.durations[place] is None:
                with FrameSource.open(video.path) as source:
                    self.durations[place] = _whole_seconds(source)
            last = 0 if self.window is None else max(self.durations[place] - self.window, 0)
            found += [(place, start) for start in range(0, last + 1, self.stride)]
        return found

    def __len__(self) -> int:
        return len(self.videos) if self.split == 'train' else len(self.windows)

    def video_of(self, place: int) -> LabelledVideo:
        return self.videos[place if self.split == 'train' else self.windows[place][0]]

    def frames_of(
        self, place: int, source: FrameSource, rng: np.random.Generator
    ) -> tuple[np.ndarray | None, dict[str, Any]]:
        """Frames of the window, one per second, and where it starts."""
        video, start = (place, None) if self.split == 'train' else self.windows[place]
        seconds = self.durations[video] or _whole_seconds(source)
        frames = frames_per_second(source.num_frames, seconds)
        if start is None:
            start = int(rng.integers(max(seconds - (self.window or seconds), 0) + 1))
        if self.window is not None:
            frames = frames[start : start + self.window]
            frames = np.pad(frames, (0, self.window - len(frames)), constant_values=BLACK)
        return frames, dict(window_start_s=start, seen_frames=int((frames != BLACK).sum()))


def frames_per_second(total: int, duration_s: int) -> np.ndarray:
    """``(duration_s + 1,)`` numbers of frames, out of ``total``: one for each whole second, and the last one."""
    frames = (total / duration_s * np.arange(duration_s)).astype(np.int64)
    return np.append(np.minimum(frames, total - 1), total - 1)


def _whole_seconds(source: FrameSource) -> int:
    return max(int(source.num_frames / source.fps), 1)


def _rows(path: Path, task: str) -> list[tuple[int, list[str]]]:
    """Line numbers and fields, without the header."""
    wanted = ' '.join([*REGRESSION.get(task, ('class_id', 'class_name')), 'youtube_id', 'imdb_id'])
    lines = [(number, text.split()) for number, text in read_text_lines(path, wanted=wanted)]
    if lines[0][1][-2:] != ['youtube_id', 'imdb_id']:
        raise ValueError(f"{path}, line 1: '{' '.join(lines[0][1])}'; wanted the header {wanted}")
    least = len(REGRESSION.get(task, ('class_id',))) + 2
    for number, fields in lines:
        if len(fields) < least:
            raise ValueError(f"{path}, line {number}: '{' '.join(fields)}'; wanted {wanted}")
    return lines[1:]


def _truth(task: str, fields: list[str], *, where: str) -> tuple[int | None, float | None]:
    """Label and target, of which one is None."""
    columns = REGRESSION.get(task, ('class_id',))
    for name, field in zip(columns, fields, strict=False):
        if not field.removesuffix('.0').isdecimal():
            raise ValueError(f"{where}: {name} '{field}'; wanted a number from 0")
    numbers = [int(float(field)) for field in fields[: len(columns)]]
    try:
        if task == 'like_ratio':
            return None, lvu_like_target(*numbers)
        if task == 'view_count':
            return None, lvu_view_target(*numbers)
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from None
    if not 0 <= numbers[0] < CLASS_COUNTS[task]:
        raise ValueError(f'{where}: class_id {numbers[0]}; {task} has {CLASS_COUNTS[task]} classes, counted from 0')
    return numbers[0], None


def _class_names(folder: Path) -> list[str]:
    """Names of the classes as far as the csv files of the task give them."""
    names = {label: f'{folder.name} {label}' for label in range(CLASS_COUNTS.get(folder.name, 0))}
    for path in sorted(folder.glob('*.csv')) if names else ():
        for _, fields in _rows(path, folder.name):
            name = ' '.join(fields[1:-2])
            if name and name != _UNNAMED and fields[0].isdecimal():
                names[int(fields[0])] = name
    return [names[label] for label in range(CLASS_COUNTS.get(folder.name, 0))]


def _read_durations(path: Path) -> dict[str, int]:
    """Whole seconds by video.

    Raises:
        FileNotFoundError: no such file. ValueError: other columns, or no number.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; wanted a csv with videoid,duration')
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.DictReader(file)
        if not {'videoid', 'duration'} <= set(reader.fieldnames or ()):
            raise ValueError(f'{path}: its first row is {reader.fieldnames}; wanted videoid,duration')
        try:
            return {row['videoid']: max(int(float(row['duration'])), 1) for row in reader}
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path}, row {reader.line_num}: {error}; wanted seconds') from None
