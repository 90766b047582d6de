"""``trecvit demo all VIDEO --grid 12 --mask first.png --out out.mp4``: points, objects and depth from one pass."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trecvit_dense.cli.demo_depth import DepthLayer, add_depth_arguments, check_depth_arguments, read_camera
from trecvit_dense.cli.demo_output import Layer, add_video_arguments, record
from trecvit_dense.cli.demo_points import PointLayer, add_drawing_arguments
from trecvit_dense.cli.demo_segment import MaskLayer, add_object_arguments, parse_objects

if TYPE_CHECKING:
    from trecvit_dense.inference import FrameResult, Predictor
    from trecvit_dense.io import FrameSource

DEFAULT_GRID = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_video_arguments(parser, beside='tracks, masks and depth go beside it')
    parser.add_argument(
        '--grid', type=int, default=DEFAULT_GRID, metavar='N', help=f'N x N points (default {DEFAULT_GRID})'
    )
    parser.add_argument('--frame', type=int, default=0, metavar='T', help='frame of points and objects (default 0)')
    add_drawing_arguments(parser)
    add_object_arguments(parser, folder='OUT_masks')
    add_depth_arguments(parser, name='OUT_depth')
    parser.set_defaults(run=run_all)


def run_all(args: argparse.Namespace) -> int:
    """Points, objects and depth of a video from one pass of the backbone and one state per frame.

    OUT.mp4 shows the video with points and objects, and depth at its right; with no object given the head for objects
    does not run. Beside it come OUT.npz and OUT.csv with the tracks, the masks in OUT_masks/, and what is asked for of
    depth, OUT_depth... All is as in the demos of one task. Ctrl-C ends a camera and keeps what was recorded.
    """
    check_depth_arguments(args)
    objects = parse_objects(args)

    def prepare(source: FrameSource, predictor: Predictor) -> tuple[Iterator[FrameResult], list[Layer]]:
        predictor.check('points', 'depth', *(['masks'] if objects else []))
        camera = read_camera(args, source, predictor)
        limit = dict(frame=args.frame, max_frames=args.max_frames)
        queries = predictor.make_queries(source, grid=args.grid, **limit)
        results = predictor.stream_all(source, queries, intrinsics=camera, **objects, **limit)
        stem = Path(args.out).with_suffix('')
        layers: list[Layer] = [MaskLayer(args, stem.with_name(f'{stem.name}_masks'))] if objects else []
        layers.append(PointLayer(args, source, queries))
        layers.append(DepthLayer(args, source, predictor, stem.with_name(f'{stem.name}_depth'), camera))
        return results, layers

    return record(args, prepare)
