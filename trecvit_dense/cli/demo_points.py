"""``trecvit demo points VIDEO --out out.mp4``: points followed through a video, drawn and saved as numbers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trecvit_dense.cli.demo_output import Layer, add_video_arguments, check_positive, record

if TYPE_CHECKING:
    from trecvit_dense.inference import FrameResult, Predictor
    from trecvit_dense.io import FrameSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_video_arguments(parser, beside='the npz and csv go beside it')
    parser.add_argument(
        '--points',
        nargs='+',
        metavar='X,Y',
        help='points to follow, pixels of the video; T,X,Y gives each its own frame',
    )
    parser.add_argument('--grid', type=int, metavar='N', help='follow a grid of N x N points (default 16)')
    parser.add_argument('--frame', type=int, default=0, metavar='T', help='frame on which the points lie (default 0)')
    add_drawing_arguments(parser)
    parser.set_defaults(run=run_points)


def add_drawing_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--trail', type=int, default=16, metavar='N', help='frames that a trail reaches back (default 16)'
    )
    parser.add_argument('--show-every', type=int, default=1, metavar='K', help='draw every K-th point; all are saved')


def parse_points(words: Sequence[str], frame: int) -> np.ndarray:
    """``x,y`` or ``t,x,y`` each, to ``(N, 3)`` frame, x, y.

    Raises:
        ValueError: a word that is neither.
    """
    queries = []
    for word in words:
        try:
            numbers = [float(part) for part in word.split(',')]
        except ValueError:
            numbers = []
        if len(numbers) not in (2, 3):
            raise ValueError(f"point '{word}' is not understood; wanted x,y or t,x,y such as 320,240")
        queries.append([frame, *numbers] if len(numbers) == 2 else numbers)
    return np.array(queries, dtype=np.float32)


class PointLayer(Layer):
    """Trails over the picture; OUT.npz and OUT.csv."""

    def __init__(self, args: argparse.Namespace, source: FrameSource, queries: np.ndarray) -> None:
        from trecvit_dense.io import TrackWriter
        from trecvit_dense.visualization import TrackDrawer

        check_positive(args, 'show_every', 'trail')
        self._drawer, self._shown, self._count = (
            TrackDrawer(args.trail),
            slice(None, None, args.show_every),
            len(queries),
        )
        self._tracks = TrackWriter(Path(args.out).with_suffix(''), queries, fps=source.fps, size=source.size)
        self.writers = [self._tracks]

    def draw(self, picture: np.ndarray, result: FrameResult) -> np.ndarray:
        shown = self._shown
        return self._drawer.draw(picture, result.xy_px[shown], result.visible[shown], result.ids[shown])

    def save(self, result: FrameResult) -> None:
        self._tracks.write(result.xy_px, result.visible)

    @property
    def name(self) -> str:
        return f'{self._count} points'

    @property
    def files(self) -> list[str]:
        return [str(self._tracks.npz_path), str(self._tracks.csv_path)]


def run_points(args: argparse.Namespace) -> int:
    """Follow points through a video of any length and aspect ratio.

    Results are in pixels of the video. Trails have the colour of the place where a point began; a ring marks an
    occluded point. Beside OUT.mp4 come OUT.npz (tracks (N, T, 2), visible (N, T), query_txy, fps, size) and OUT.csv
    (frame, id, x, y, visible). Ctrl-C ends a camera and keeps what was recorded.
    """
    if args.points and args.grid is not None:
        raise ValueError('both --points and --grid are given; wanted one of them')
    points = parse_points(args.points, args.frame) if args.points else None

    def prepare(source: FrameSource, predictor: Predictor) -> tuple[Iterator[FrameResult], list[Layer]]:
        limit = dict(max_frames=args.max_frames)
        queries = predictor.make_queries(source, points, grid=args.grid, frame=args.frame, **limit)
        return predictor.stream_points(source, queries, **limit), [PointLayer(args, source, queries)]

    return record(args, prepare)
