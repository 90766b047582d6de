"""``trecvit demo segment VIDEO --mask first.png --out out.mp4``: objects segmented through a video."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trecvit_dense.cli.demo_output import Layer, add_video_arguments, parse_numbers, record

if TYPE_CHECKING:
    from trecvit_dense.inference import FrameResult, Predictor
    from trecvit_dense.io import FrameSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_video_arguments(parser, beside='the masks go beside it')
    add_object_arguments(parser, folder='OUT without .mp4')
    parser.add_argument('--frame', type=int, default=0, metavar='T', help='frame that they belong to (default 0)')
    parser.set_defaults(run=run_segment)


def add_object_arguments(parser: argparse.ArgumentParser, *, folder: str) -> None:
    """``folder``: where masks go when nobody says, for the help."""
    parser.add_argument('--mask', metavar='PNG', help='objects as palette or gray png of the size of the video')
    parser.add_argument(
        '--box', nargs='+', action='extend', metavar='X0,Y0,X1,Y1', help='an object in a box, pixels; may be repeated'
    )
    parser.add_argument(
        '--point', nargs='+', action='extend', metavar='X,Y', help='an object under a point, pixels; may be repeated'
    )
    parser.add_argument('--save-masks', metavar='DIR', help=f'folder for the masks, 00000.png ... (default: {folder})')
    parser.add_argument(
        '--opacity', type=float, default=0.5, metavar='A', help='of the tint in the video, 0 to 1 (default 0.5)'
    )


def parse_objects(args: argparse.Namespace) -> dict[str, Any]:
    """What is asked for, as :meth:`Predictor.stream_masks` takes it; empty when nothing is.

    Raises:
        ValueError: a word that is no box or point.
    """
    boxes = parse_numbers(args.box, 4, 'box', '120,80,320,240')
    points = parse_numbers(args.point, 2, 'point', '320,240')
    given = dict(masks=args.mask, boxes=boxes or None, points=points or None)
    return {key: value for key, value in given.items() if value is not None}


class MaskLayer(Layer):
    """A tint on every object; one palette PNG per frame.

    Args:
        folder: Where they go when ``--save-masks`` does not say.
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        from trecvit_dense.io import MaskWriter
        from trecvit_dense.visualization import MaskDrawer

        self._drawer = MaskDrawer(args.opacity)
        self._masks, self._count = MaskWriter(args.save_masks or folder, replace=True), 0
        self.writers = [self._masks]

    def draw(self, picture: np.ndarray, result: FrameResult) -> np.ndarray:
        return self._drawer.draw(picture, result.masks)

    def save(self, result: FrameResult) -> None:
        self._masks.write(result.masks)
        self._count = len(result.object_ids)

    @property
    def name(self) -> str:
        return f'{self._count} objects'

    @property
    def files(self) -> list[str]:
        return [f'{self._masks.folder}/']


def run_segment(args: argparse.Namespace) -> int:
    """Segment objects in a video of any length and aspect ratio.

    An object is given on one frame as a mask, a box or a point; from a box or point its mask is first cut out by
    colour. Several may be given at once; those of the png keep their ids, boxes and points are numbered behind them.
    OUT.mp4 shows every object in its own colour. Beside it come the masks as palette png, one per frame, in the size of
    the video: the value of a pixel is the id of the object, 0 is background. Ctrl-C ends a camera and keeps what was
    recorded.
    """
    objects = parse_objects(args)
    if not objects:
        raise ValueError('no object is given; wanted --mask first.png, --box x0,y0,x1,y1 or --point x,y')

    def prepare(source: FrameSource, predictor: Predictor) -> tuple[Iterator[FrameResult], list[Layer]]:
        results = predictor.stream_masks(source, frame=args.frame, max_frames=args.max_frames, **objects)
        return results, [MaskLayer(args, Path(args.out).with_suffix(''))]

    return record(args, prepare)
