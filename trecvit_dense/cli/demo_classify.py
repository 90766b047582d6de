"""``trecvit demo classify VIDEO``: what a video shows, printed over time, or drawn on it and saved as a table."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trecvit_dense.cli.demo_output import (
    Layer,
    add_video_arguments,
    check_positive,
    keep_recording,
    make_predictor,
    record,
    total_frames,
)

if TYPE_CHECKING:
    from trecvit_dense.inference import FrameResult, Predictor
    from trecvit_dense.io import FrameSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_video_arguments(parser, beside='a csv goes beside it (default: answers are printed)', out_required=False)
    parser.add_argument('--top', type=int, default=5, metavar='K', help='classes to show (default 5)')
    parser.add_argument(
        '--clip',
        type=int,
        metavar='N',
        help='frames that the model reads for one answer (default: all so far; a model that looks both ways: '
        'clips of its own length)',
    )
    parser.add_argument(
        '--every', type=int, default=1, metavar='N', help='the model reads every N-th frame: the stride of its training'
    )
    parser.set_defaults(run=run_classify)


class ClassTable:
    """Context manager that writes ``frame, time_s, rank, class, probability``; the csv is complete or absent."""

    def __init__(self, path: Path, fps: float) -> None:
        from trecvit_dense.io.atomic import temporary_path

        self.path, self._fps, self._part = path, fps, temporary_path(path)

    def __enter__(self) -> ClassTable:
        self._file = self._part.open('w', newline='', encoding='utf-8')
        self._rows = csv.writer(self._file)
        self._rows.writerow(['frame', 'time_s', 'rank', 'class', 'probability'])
        return self

    def write(self, frame: int, top: list[tuple[str, float]]) -> None:
        for rank, (name, probability) in enumerate(top, 1):
            self._rows.writerow([frame, f'{frame / self._fps:.3f}', rank, name, f'{probability:.4f}'])

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        from trecvit_dense.io.atomic import remove

        self._file.close()
        if kind is None:
            os.replace(self._part, self.path)
        remove(self._part)


class ClassLayer(Layer):
    """The likeliest classes over the picture; OUT.csv."""

    def __init__(self, args: argparse.Namespace, source: FrameSource, predictor: Predictor) -> None:
        self._top, self._classes, self._table = args.top, predictor.classes, None
        self._sum, self._best = np.float64(0), ''
        self._running = predictor.answers_for_all_so_far(args.clip, args.every)
        if args.out:
            self._table = ClassTable(Path(args.out).with_suffix('.csv'), source.fps)
            self.writers = [self._table]

    def top(self, probs: np.ndarray) -> list[tuple[str, float]]:
        from trecvit_dense.inference import ClassPrediction

        return ClassPrediction(probs, self._classes).top(self._top)

    def draw(self, picture: np.ndarray, result: FrameResult) -> np.ndarray:
        from trecvit_dense.visualization import draw_classes

        return draw_classes(picture, self.top(result.class_probs))

    def save(self, result: FrameResult) -> None:
        probs = result.class_probs.astype(np.float64)
        self._sum = probs if self._running else self._sum + probs
        if self._table is not None:
            self._table.write(result.frame, self.top(result.class_probs))

    @property
    def answer(self) -> list[tuple[str, float]]:
        """For the whole video: of all frames so far, or the mean over the clips."""
        return self.top(self._sum / self._sum.sum())

    @property
    def name(self) -> str:
        return listed(self.answer)

    @property
    def files(self) -> list[str]:
        return [] if self._table is None else [str(self._table.path)]


def listed(top: list[tuple[str, float]]) -> str:
    return ', '.join(f'{name} {probability:.2f}' for name, probability in top)


def run_classify(args: argparse.Namespace) -> int:
    """Name what a video of any length and aspect ratio shows.

    A causal model answers on every frame for all frames so far, or with --clip for clips of so many frames. Without
    --out the likeliest classes are printed about once a second, and at the end those of the whole video; with it they
    are drawn on OUT.mp4, and OUT.csv has them for every frame. Ctrl-C ends a camera and keeps what was recorded.
    """
    check_positive(args, 'top', 'clip', 'every')

    def prepare(source: FrameSource, predictor: Predictor) -> tuple[Iterator[FrameResult], list[Layer]]:
        options = dict(clip=args.clip, every=args.every)
        results = predictor.stream_classes(source, max_frames=args.max_frames, **options)
        return results, [ClassLayer(args, source, predictor)]

    return record(args, prepare) if args.out else print_classes(args, prepare)


def print_classes(args: argparse.Namespace, prepare) -> int:
    """A line a second, and one for the whole video."""
    from trecvit_dense.engine.progress import track
    from trecvit_dense.io import FrameSource

    if args.sheet is not None:
        raise ValueError('--sheet saves pictures beside --out; wanted --out OUT.mp4, too')
    with FrameSource.open(args.video) as source:
        results, (layer,) = prepare(source, make_predictor(args))
        step, count = max(1, round(source.fps)), 0
        with keep_recording(args.video):
            for result in track(results, total_frames(source, args.max_frames), 'demo'):
                layer.save(result)
                count += 1
                if count % step == 0:
                    print(f'{result.frame / source.fps:8.1f} s  {listed(layer.top(result.class_probs))}')
    print(f'{count} frames: {layer.name}')
    return 0
