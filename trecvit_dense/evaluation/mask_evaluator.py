"""Scores folders of PNG masks against folders of PNG masks, a sequence per task, in parallel.

Nothing is cached and nothing is written: what is printed was computed from the files that are there now. Frames are
read when their turn comes, those that do not count not at all.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..io.png import read_index_png
from .functional.vos import ObjectScores
from .mask_protocols import MaskProtocol, SequenceFacts, find_protocol

_SHOWN = 3


@dataclass
class SequenceFiles:
    """One sequence on disk: what is known of it, and a truth and a prediction for every annotated frame."""

    facts: SequenceFacts
    truth: list[Path]
    prediction: list[Path]


class MaskFiles:
    """Index maps of a sequence, read when asked for.

    Args:
        paths: One file a frame.
        binary: Colour files are masks, too: anything but black is object 1.
    """

    def __init__(self, paths: Sequence[Path], *, binary: bool = False) -> None:
        self.paths, self.binary = paths, binary
        self.names = [path.stem for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, t: int) -> np.ndarray:
        if self.binary:
            from ..io.mask_file import read_mask

            return read_mask(self.paths[t], binary=True)
        return read_index_png(self.paths[t])


def find_sequences(
    truth_root: Path,
    prediction_root: Path,
    protocol: str,
    *,
    split: str = 'val',
    sequences: Path | None = None,
    meta: Path | None = None,
    only_scored: bool = False,
) -> list[SequenceFiles]:
    """Pair the files of every sequence; see ``trecvit eval-masks --help`` for the layouts.

    Args:
        split: List of ``ImageSets`` where there are such.
        sequences: Text file with the names of the sequences to score.
        meta: JSON of YouTube-VOS, MOSE v2 or LVOS. None: one that lies with the truth.
        only_scored: Do not ask for predictions of frames before they are needed.

    Raises:
        FileNotFoundError: a folder, list, sequence or frame is missing; it is named.
        ValueError: frames that the truth does not have, or an empty list.
    """
    rules = find_protocol(protocol)
    annotations = _annotation_folder(truth_root, rules)
    names = _sequence_names(truth_root, annotations, rules, split, sequences)
    predictions = _prediction_folder(prediction_root, names)
    videos = _read_meta(meta, truth_root, annotations, names, required=protocol == 'lvos')
    found = []
    for name in names:
        paths = [folder / name if name else folder for folder in (annotations, predictions)]
        title = name or annotations.name
        truth = _list_masks(paths[0], title, 'truth')
        prediction = _pair(title, truth, _list_masks(paths[1], title, 'prediction'), rules, only_scored)
        found.append(SequenceFiles(_facts(title, truth, videos.get(name)), truth, prediction))
    return found


def score_files(
    files: Sequence[SequenceFiles], protocol: str, *, workers: int | None = None
) -> Iterator[tuple[str, list[ObjectScores]]]:
    """Name and rows of each sequence, as they become ready.

    Args:
        workers: Processes; 1 stays in this one. None: one for each core that this process may use.

    Raises:
        ValueError, FileNotFoundError: a file does not fit; sequence and frame are named.
    """
    keep_memory()
    count = min(workers or _cores(), len(files))
    score = partial(score_sequence, protocol=protocol)
    if count <= 1:
        for one in files:
            yield one.facts.name, score(one)
        return
    # A forked child has everything imported already. Nothing here starts a thread that could not be forked.
    context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
    with ProcessPoolExecutor(count, mp_context=context, initializer=keep_memory) as pool:
        # The longest first, so that none is left over for one process at the end.
        tasks = {pool.submit(score, one): one.facts.name for one in sorted(files, key=lambda one: -len(one.truth))}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def score_sequence(files: SequenceFiles, protocol: str) -> list[ObjectScores]:
    """Rows of one sequence; an error names it."""
    rules = find_protocol(protocol)
    truth, prediction = MaskFiles(files.truth, binary=rules.binary), MaskFiles(files.prediction)
    try:
        return rules.score(truth, prediction, files.facts)
    except ValueError as error:
        message = str(error)
        joint = ', ' if message.startswith('frame ') else ': '
        raise ValueError(f'sequence {files.facts.name}{joint}{message}') from None


def keep_memory() -> None:
    """Have the C library keep what is freed instead of returning it to the system after every frame.

    glibc does so from the moment that a larger block has been freed; the block itself is never touched. Otherwise a
    fifth of the time goes into pages that are handed out, cleared and taken back, four hundred kilobytes at a time.
    """
    bytes(1 << 24)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith('.'))


def _annotation_folder(root: Path, rules: MaskProtocol) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder; wanted the truth')
    folder = next((root / name for name in (rules.annotations, 'Annotations') if (root / name).is_dir()), root)
    return next((folder / name for name in ('480p', 'Full-Resolution') if (folder / name).is_dir()), folder)


def _sequence_names(
    root: Path, annotations: Path, rules: MaskProtocol, split: str, sequences: Path | None
) -> list[str]:
    """Names of the sequences; one empty name where the folder itself is the sequence."""
    if sequences is not None:
        return _read_list(sequences)
    lists = root / 'ImageSets'
    if rules.image_set is not None and lists.is_dir():
        years = [rules.image_set, *(('480p',) if rules.image_set == '2016' else ('2019',))]
        places = [lists / year / f'{split}.txt' for year in years]
        if not any((lists / year).is_dir() for year in years):  # made for another year, or by hand
            places += sorted(lists.rglob(f'{split}.txt'))
        place = next((path for path in places if path.is_file()), None)
        if place is None:
            known = sorted(str(path.relative_to(lists)) for path in lists.rglob('*.txt'))
            raise FileNotFoundError(
                f'{places[0]}: no such list; there are {", ".join(known) or "none"} (--split, or --sequences FILE)'
            )
        return _read_list(place)
    names = _folders(annotations)
    if not names and any(path.suffix.lower() == '.png' for path in annotations.iterdir()):
        return ['']
    if not names:
        raise FileNotFoundError(f'{annotations}: no sequence in it; wanted a folder of PNGs for each')
    return names


def _read_list(path: Path) -> list[str]:
    """One name a line; of the pairs of paths of DAVIS 2016 the folder of the first."""
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such list; wanted a text file with the name of one sequence a line')
    words = [line.split()[0].strip('/') for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    names = dict.fromkeys(word.split('/')[-2] if word.endswith(('.jpg', '.png')) else word for word in words)
    if not names:
        raise ValueError(f'{path}: an empty list; wanted the name of one sequence a line')
    return list(names)


def _prediction_folder(root: Path, names: list[str]) -> Path:
    """The folder that holds the sequences, or ``root``."""
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder; wanted the predictions')
    if names == ['']:
        return root
    inner = ('.', '480p', 'Annotations', 'Annotations/480p')
    return next((root / place for place in inner if any((root / place / name).is_dir() for name in names)), root)


def _list_masks(folder: Path, name: str, kind: str) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: missing; wanted a folder with the {kind} of sequence {name}')
    paths = sorted(folder / entry for entry in os.listdir(folder) if entry.lower().endswith('.png'))
    if not paths:
        raise FileNotFoundError(f'{folder}: no PNG in it; wanted the {kind} of sequence {name}')
    return paths


def _pair(name: str, truth: list[Path], prediction: list[Path], rules: MaskProtocol, only_scored: bool) -> list[Path]:
    """The prediction of each frame of the truth."""
    by_stem = {path.stem: path for path in prediction}
    folder = prediction[0].parent
    missing = [path.stem for path in truth if path.stem not in by_stem]
    if missing and not only_scored:
        raise FileNotFoundError(
            f'sequence {name}: {len(missing)} of {len(truth)} frames have no prediction: {_few(missing)} (in {folder})'
        )
    stems = {path.stem for path in truth}
    extra = [path.stem for path in prediction if path.stem not in stems]
    if extra and not rules.some_frames:
        raise ValueError(
            f'sequence {name}: {len(extra)} predictions are of frames that the truth does not have: {_few(extra)} '
            f'(in {folder})'
        )
    return [by_stem.get(path.stem, folder / path.name) for path in truth]


def _few(names: Sequence[str]) -> str:
    return ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')


def _read_meta(path: Path | None, root: Path, annotations: Path, names: list[str], *, required: bool) -> dict[str, Any]:
    """The videos of the meta file, or nothing where there is none and none is needed."""
    places = dict.fromkeys((annotations.parent, root, root.parent))
    found = [p for place in places for p in sorted(place.glob('*meta*.json')) if 'expression' not in p.name]
    for candidate in found if path is None else [path]:
        try:
            videos = json.loads(candidate.read_text(encoding='utf-8'))['videos']
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise ValueError(f"{candidate}: not a JSON file with 'videos'") from None
        if path is not None or set(names) <= set(videos):
            return videos
    if required:
        raise FileNotFoundError(f'{root}: no meta file that has these sequences; give it with --meta FILE')
    return {}


def _facts(name: str, truth: list[Path], video: dict[str, Any] | None) -> SequenceFacts:
    facts = SequenceFacts(name, [path.stem for path in truth])
    objects = (video or {}).get('objects') or {}
    if isinstance(objects, list):
        facts.ids = sorted(int(i) for i in objects)
        return facts
    facts.ids = sorted(int(i) for i in objects) or None
    facts.categories = {int(i): about['category'] for i, about in objects.items() if 'category' in about}
    spans = {int(i): about['frame_range'] for i, about in objects.items() if 'frame_range' in about}
    if spans:
        facts.frame_range = {
            i: (int(s['start']), int(s['end']), int(s.get('frame_nums', 10**9))) for i, s in spans.items()
        }
    return facts
