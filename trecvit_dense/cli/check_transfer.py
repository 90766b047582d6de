"""``trecvit check-transfer VIDEO``: does a tracker come back to where it started? A check that needs no annotation.

Points of a grid on the first frame are followed to the last frame, and from there, as new queries on the reversed
video, back to the first. Distances are in pixels of the frame scaled to 256 x 256. Only points that the tracker itself
calls visible on the last frame go back, so each tracker is measured on its own points. A tracker that never moves is
perfectly consistent: read the cycle error beside the displacement. A small error shows consistency, not truth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from trecvit_dense.cli.options import check_out, make_parser, write_results

SIDE = 256
CLOSE_PX = 4.0
_COLUMNS = {
    'visible_at_end': 'visible at end',
    'displacement_px': 'mean displacement',
    'cycle_median_px': 'median cycle error',
    'cycle_within_4': 'back within 4 px',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('video', help="video file, folder of images, 'frames/*.png'")
    parser.add_argument('--checkpoint', default='boxed', help='weights (default: those that come with the package)')
    parser.add_argument('--grid', type=int, default=12, metavar='N', help='N x N points (default 12)')
    parser.add_argument('--start', type=int, default=0, metavar='T', help='first frame (default 0)')
    parser.add_argument('--frames', type=int, default=24, metavar='N', help='frames out, and back (default 24)')
    parser.add_argument('--out', metavar='FILE', type=Path, help='write the numbers as flat json')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    return check_transfer(parser.parse_args(argv))


def check_transfer(args: argparse.Namespace) -> int:
    from trecvit_dense.evaluation.lucas_kanade import lucas_kanade
    from trecvit_dense.inference import Predictor
    from trecvit_dense.inference.queries import grid_queries

    check_out(args.out)
    queries = grid_queries(args.grid, (SIDE, SIDE))
    video = read_clip(args.video, args.start, args.frames)
    predictor = Predictor(args.checkpoint, device=args.device)
    trackers = {'model': predictor.points, 'lucas_kanade': lucas_kanade}
    results = {name: round_trip(tracker, video, queries) for name, tracker in trackers.items()}
    if args.out is not None:
        flat = {f'transfer/{name}/{key}': value for name, result in results.items() for key, value in result.items()}
        write_results(flat, args.out)
    print(f'{args.video}: {len(queries)} points over {len(video)} frames and back, px of {SIDE} x {SIDE}')
    print(_table(results))
    print('A tracker that never moves has no cycle error: a small one counts only beside the displacement.')
    return 0


def read_clip(path: str, start: int, count: int) -> np.ndarray:
    """``(T, 256, 256, 3)`` uint8: up to ``count`` frames from frame ``start``.

    Raises:
        ValueError: fewer than two frames there, or numbers out of range.
    """
    from trecvit_dense.datasets.point_clips import stack_frames
    from trecvit_dense.io import FrameSource

    if start < 0 or count < 2:
        raise ValueError(f'--start {start} --frames {count}: wanted a frame from 0 on, and at least 2 frames')
    with FrameSource.open(path) as source:
        # A file without frames there would leave nothing to stack.
        if source.num_frames is not None and source.num_frames < start + 2:
            raise ValueError(f'{path}: has {source.num_frames} frames; wanted at least {start + 2} for --start {start}')
        return stack_frames(islice(source, start, start + count), (SIDE, SIDE))[0]


def round_trip(tracker: Callable, video: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """Cycle consistency of ``tracker(video, query_txy) -> PointTracks`` for queries ``(N, 3)`` on frame 0.

    Returns:
        ``visible_at_end`` (share of points), ``displacement_px`` (mean distance from first to last frame of those),
        ``cycle_median_px`` and ``cycle_within_4`` (share) of the points that went back; NaN when none did.
    """
    there = tracker(video, queries)
    last = np.asarray(there.xy_px[:, -1], np.float64)
    went = np.asarray(there.visible[:, -1], bool) & (last >= 0).all(axis=1) & (last <= SIDE).all(axis=1)
    result = dict.fromkeys(_COLUMNS, float('nan')) | dict(visible_at_end=float(went.mean()))
    if went.any():
        back = np.concatenate([np.zeros((went.sum(), 1)), last[went]], axis=1).astype(np.float32)
        home = tracker(np.ascontiguousarray(video[::-1]), back).xy_px[:, -1]
        error = np.linalg.norm(home - queries[went, 1:], axis=1)
        moved = np.linalg.norm(last[went] - queries[went, 1:], axis=1)
        result.update(
            displacement_px=float(moved.mean()),
            cycle_median_px=float(np.median(error)),
            cycle_within_4=float((error < CLOSE_PX).mean()),
        )
    return result


def _table(results: dict[str, dict[str, float]]) -> str:
    names = {'model': 'model', 'lucas_kanade': 'Lucas-Kanade'}
    rows = [['', *_COLUMNS.values()]]
    for name, result in results.items():
        shown = ['-' if np.isnan(value) else f'{value:.2f}' for value in (result[key] for key in _COLUMNS)]
        rows.append([names[name], *shown])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
