"""Predictions drawn over a video, and saved as numbers: ``trecvit demo points VIDEO --out out.mp4``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from trecvit_dense.cli.options import Parser

DESCRIPTION = 'Draw predictions over a video, folder of images or camera, and save them as npz and csv.'
SHEET_WIDTH = 480


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every task is a subcommand."""
    tasks = parser.add_subparsers(dest='task', required=True, metavar='TASK')
    _add_points(tasks.add_parser('points', help='follow points', description=run_points.__doc__))


def _add_points(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('video', help="video file, image, folder of images, 'frames/*.png', or camera:0")
    parser.add_argument(
        '--points',
        nargs='+',
        metavar='X,Y',
        help='points to follow, pixels of the video; T,X,Y gives each its own frame',
    )
    parser.add_argument('--grid', type=int, metavar='N', help='follow a grid of N x N points (default 16)')
    parser.add_argument('--frame', type=int, default=0, metavar='T', help='frame on which the points lie (default 0)')
    parser.add_argument('--checkpoint', default='boxed', help='weights (default: those that come with the package)')
    parser.add_argument('--out', required=True, help='video to write, .mp4; the npz and csv go beside it')
    parser.add_argument('--max-frames', type=int, metavar='N', help='stop after N frames')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument(
        '--trail', type=int, default=16, metavar='N', help='frames that a trail reaches back (default 16)'
    )
    parser.add_argument('--show-every', type=int, default=1, metavar='K', help='draw every K-th point; all are saved')
    parser.add_argument('--sheet', type=int, metavar='N', help='also save N frames side by side as a png')
    parser.set_defaults(run=run_points)


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


def run_points(args: argparse.Namespace) -> int:
    """Follow points through a video of any length and aspect ratio.

    Results are in pixels of the video. Trails have the colour of the place where a point began; a ring marks an
    occluded point. Beside OUT.mp4 come OUT.npz (tracks (N, T, 2), visible (N, T), query_txy, fps, size) and OUT.csv
    (frame, id, x, y, visible). Ctrl-C ends a camera and keeps what was recorded.
    """
    from trecvit_dense.inference import Predictor
    from trecvit_dense.io import FrameSource, TrackWriter, VideoWriter

    out = Path(args.out)
    _check_options(args, out)
    with ExitStack() as stack:
        source = stack.enter_context(FrameSource.open(args.video))
        video = VideoWriter(out, source.fps)
        predictor = Predictor(args.checkpoint, device=args.device)
        queries = predictor.make_queries(
            source,
            parse_points(args.points, args.frame) if args.points else None,
            grid=args.grid,
            frame=args.frame,
            max_frames=args.max_frames,
        )
        results = predictor.stream_points(source, queries, max_frames=args.max_frames)
        tracks = stack.enter_context(TrackWriter(out.with_suffix(''), queries, fps=source.fps, size=source.size))
        stack.enter_context(video)  # closed first: when it fails, the tracks go as well
        sheet = _draw_and_write(results, video, tracks, args, _total(source, args.max_frames))
        if args.sheet:
            _write_sheet(sheet, out.with_suffix('.png'))
    print(f'{len(queries)} points on {video.num_frames} frames: {out}, {tracks.npz_path}, {tracks.csv_path}')
    return 0


def _check_options(args: argparse.Namespace, out: Path) -> None:
    if args.points and args.grid is not None:
        raise ValueError('both --points and --grid are given; wanted one of them')
    for name in ('show_every', 'trail', 'sheet'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name.replace("_", "-")} is {value}; wanted 1 or more')
    if out.exists() and Path(args.video).exists() and out.samefile(args.video):
        raise ValueError(f'{out} is the video that is read; give --out another name')


def _total(source, max_frames: int | None) -> int | None:
    return min((count for count in (source.num_frames, max_frames) if count is not None), default=None)


def _draw_and_write(results, video, tracks, args: argparse.Namespace, total: int | None) -> list[np.ndarray]:
    """One frame after another to the outputs; returns small copies of a few for the sheet."""
    from trecvit_dense.engine.progress import track
    from trecvit_dense.visualization import TrackDrawer

    drawer, sheet = TrackDrawer(args.trail), []
    every = math.ceil(total / args.sheet) if args.sheet and total else 1
    with _keep_recording(args.video):
        for result in track(results, total, 'demo'):
            shown = slice(None, None, args.show_every)
            picture = drawer.draw(result.image, result.xy_px[shown], result.visible[shown], result.ids[shown])
            video.write(picture)
            tracks.write(result.xy_px, result.visible)
            if args.sheet and len(sheet) < args.sheet and (result.frame + 1) % every == 0:
                sheet.append(picture)
    return sheet


@contextmanager
def _keep_recording(video: str) -> Iterator[None]:
    """Ctrl-C is how a camera is stopped; everything else it aborts."""
    try:
        yield
    except KeyboardInterrupt:
        if not video.startswith('camera:'):
            raise


def _write_sheet(frames: list[np.ndarray], path: Path) -> None:
    import cv2

    from trecvit_dense.io import atomic_path
    from trecvit_dense.visualization import contact_sheet

    columns = math.ceil(math.sqrt(len(frames)))
    picture = contact_sheet(frames, columns, width=min(SHEET_WIDTH, frames[0].shape[1]))
    with atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog='trecvit demo', description=DESCRIPTION)
    add_arguments(parser)
    args = parser.parse_args(argv)
    return args.run(args)
