"""``trecvit demo segment VIDEO --mask first.png --out out.mp4``: objects segmented through a video."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from trecvit_dense.cli.demo_output import (
    Sheet,
    add_video_arguments,
    check_not_input,
    check_positive,
    keep_recording,
    total_frames,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_video_arguments(parser, beside='the masks go beside it')
    parser.add_argument('--mask', metavar='PNG', help='objects as palette or gray png of the size of the video')
    parser.add_argument(
        '--box', nargs='+', action='extend', metavar='X0,Y0,X1,Y1', help='an object in a box, pixels; may be repeated'
    )
    parser.add_argument(
        '--point', nargs='+', action='extend', metavar='X,Y', help='an object under a point, pixels; may be repeated'
    )
    parser.add_argument('--frame', type=int, default=0, metavar='T', help='frame that they belong to (default 0)')
    parser.add_argument(
        '--save-masks', metavar='DIR', help='folder for the masks, 00000.png ... (default: OUT without .mp4)'
    )
    parser.add_argument(
        '--opacity', type=float, default=0.5, metavar='A', help='of the tint in the video, 0 to 1 (default 0.5)'
    )
    parser.set_defaults(run=run_segment)


def parse_numbers(words: Sequence[str] | None, count: int, what: str, example: str) -> list[list[float]]:
    """``a,b,...`` each, to ``count`` numbers each.

    Raises:
        ValueError: a word that is something else.
    """
    rows = []
    for word in words or ():
        try:
            numbers = [float(part) for part in word.split(',')]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            raise ValueError(f"{what} '{word}' is not understood; wanted {count} numbers such as {example}")
        rows.append(numbers)
    return rows


def run_segment(args: argparse.Namespace) -> int:
    """Segment objects in a video of any length and aspect ratio.

    An object is given on one frame as a mask, a box or a point; from a box or point its mask is first cut out by
    colour. Several may be given at once; those of the png keep their ids, boxes and points are numbered behind them.
    OUT.mp4 shows every object in its own colour. Beside it come the masks as palette png, one per frame, in the size of
    the video: the value of a pixel is the id of the object, 0 is background. Ctrl-C ends a camera and keeps what was
    recorded.
    """
    from trecvit_dense.inference import Predictor
    from trecvit_dense.io import FrameSource, MaskWriter, VideoWriter

    out = Path(args.out)
    given = dict(
        boxes=parse_numbers(args.box, 4, 'box', '120,80,320,240'),
        points=parse_numbers(args.point, 2, 'point', '320,240'),
    )
    if not (args.mask or args.box or args.point):
        raise ValueError('no object is given; wanted --mask first.png, --box x0,y0,x1,y1 or --point x,y')
    check_positive(args, 'sheet')
    check_not_input(out, args.video)
    with ExitStack() as stack:
        source = stack.enter_context(FrameSource.open(args.video))
        video = VideoWriter(out, source.fps)
        masks = MaskWriter(args.save_masks or out.with_suffix(''), replace=True)
        predictor = Predictor(args.checkpoint, device=args.device)
        schedule = predictor.make_schedule(source, args.mask, frame=args.frame, max_frames=args.max_frames, **given)
        results = predictor.stream_schedule(source, schedule, max_frames=args.max_frames)
        stack.enter_context(masks)
        stack.enter_context(video)  # closed first: when it fails, the masks go as well
        sheet = _draw_and_write(results, video, masks, args, total_frames(source, args.max_frames))
        sheet.write(out.with_suffix('.png'))
    count = sum(len(objects) for objects in schedule.values())
    print(f'{count} objects on {video.num_frames} frames: {out}, {masks.folder}/')
    return 0


def _draw_and_write(results, video, masks, args: argparse.Namespace, total: int | None) -> Sheet:
    """One frame after another to the outputs; returns small copies of a few for the sheet."""
    from trecvit_dense.engine.progress import track
    from trecvit_dense.visualization import MaskDrawer

    drawer, sheet = MaskDrawer(args.opacity), Sheet(args.sheet, total)
    with keep_recording(args.video):
        for result in track(results, total, 'demo'):
            picture = drawer.draw(result.image, result.masks)
            video.write(picture)
            masks.write(result.masks)
            sheet.add(result.frame, picture)
    return sheet
