"""``trecvit demo points VIDEO --out out.mp4``: points followed through a video, drawn and saved as numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from trecvit_dense.cli.demo_output import (
    Sheet,
    add_video_arguments,
    check_not_input,
    check_positive,
    keep_recording,
    total_frames,
)


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
    parser.add_argument(
        '--trail', type=int, default=16, metavar='N', help='frames that a trail reaches back (default 16)'
    )
    parser.add_argument('--show-every', type=int, default=1, metavar='K', help='draw every K-th point; all are saved')
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
    if args.points and args.grid is not None:
        raise ValueError('both --points and --grid are given; wanted one of them')
    check_positive(args, 'show_every', 'trail', 'sheet')
    check_not_input(out, args.video)
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
        sheet = _draw_and_write(results, video, tracks, args, total_frames(source, args.max_frames))
        sheet.write(out.with_suffix('.png'))
    print(f'{len(queries)} points on {video.num_frames} frames: {out}, {tracks.npz_path}, {tracks.csv_path}')
    return 0


def _draw_and_write(results, video, tracks, args: argparse.Namespace, total: int | None) -> Sheet:
    """One frame after another to the outputs; returns small copies of a few for the sheet."""
    from trecvit_dense.engine.progress import track
    from trecvit_dense.visualization import TrackDrawer

    drawer, sheet = TrackDrawer(args.trail), Sheet(args.sheet, total)
    with keep_recording(args.video):
        for result in track(results, total, 'demo'):
            shown = slice(None, None, args.show_every)
            picture = drawer.draw(result.image, result.xy_px[shown], result.visible[shown], result.ids[shown])
            video.write(picture)
            tracks.write(result.xy_px, result.visible)
            sheet.add(result.frame, picture)
    return sheet
