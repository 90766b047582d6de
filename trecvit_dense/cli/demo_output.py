"""What the tasks of ``trecvit demo`` share: arguments, the loop over the frames, and outputs that are whole or absent.

A task is made of layers: each draws one kind of result into the picture and saves it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trecvit_dense.inference import FrameResult, Predictor
    from trecvit_dense.io import FrameSource

SHEET_WIDTH, SHEET_HEIGHT = 480, 270  # of a frame: at least one of them, where it is that large


class Layer:
    """One kind of result in a demo.

    Attributes:
        writers: Opened before the first frame and closed behind the video: when that fails, they leave nothing.
    """

    writers: Sequence[AbstractContextManager] = ()

    def draw(self, picture: np.ndarray, result: FrameResult) -> np.ndarray:
        """The picture, ``(H, W, 3)`` uint8, with the result of its frame on it."""
        return picture

    def save(self, result: FrameResult) -> None:
        """Give one frame to the writers."""

    def check_all_came(self) -> None:
        """Raises ValueError when the video has ended before something that was asked for."""

    @property
    def name(self) -> str:
        """What was found, for the last line: ``9 points``."""
        raise NotImplementedError

    @property
    def files(self) -> list[str]:
        """What was written."""
        return []


def add_video_arguments(parser: argparse.ArgumentParser, *, beside: str, out_required: bool = True) -> None:
    """``beside``: what is written beside the video, for the help."""
    parser.add_argument('video', help="video file, image, folder of images, 'frames/*.png', or camera:0")
    parser.add_argument('--checkpoint', default='boxed', help='weights (default: those that come with the package)')
    parser.add_argument('--out', required=out_required, help=f'video to write, .mp4; {beside}')
    parser.add_argument('--max-frames', type=int, metavar='N', help='stop after N frames')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument(
        '--precision',
        choices=('auto', 'fp32', 'bf16', 'int8'),
        default='auto',
        help='auto: float32 by the fastest way here; bf16, int8: layers that are faster so, less exact',
    )
    parser.add_argument('--sheet', type=int, metavar='N', help='also save N frames side by side as a png')


def make_predictor(args: argparse.Namespace) -> Predictor:
    from trecvit_dense.inference import Predictor

    return Predictor(args.checkpoint, device=args.device, precision=args.precision)


def check_positive(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name.replace("_", "-")} is {value}; wanted 1 or more')


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


def record(
    args: argparse.Namespace,
    prepare: Callable[[FrameSource, Predictor], tuple[Iterator[FrameResult], Sequence[Layer]]],
) -> int:
    """Run a demo from the video to the last line.

    Args:
        args: With those of :func:`add_video_arguments`.
        prepare: Makes the results and the layers, drawn in this order. It refuses what cannot be before the first
            frame; nothing has been written then.

    Returns:
        The exit code.
    """
    from trecvit_dense.engine.progress import track
    from trecvit_dense.io import FrameSource, VideoWriter

    out = Path(args.out)
    check_positive(args, 'sheet')
    check_not_input(out, args.video)
    with ExitStack() as stack:
        source = stack.enter_context(FrameSource.open(args.video))
        video = VideoWriter(out, source.fps)
        results, layers = prepare(source, make_predictor(args))
        for writer in (*(writer for layer in layers for writer in layer.writers), video):
            stack.enter_context(writer)
        total = total_frames(source, args.max_frames)
        sheet = Sheet(args.sheet, total)
        with keep_recording(args.video):
            for result in track(results, total, 'demo'):
                picture = result.image
                for layer in layers:
                    picture = layer.draw(picture, result)
                    layer.save(result)
                video.write(picture)
                sheet.add(result.frame, picture)
            for layer in layers:
                layer.check_all_came()
        sheet.write(out.with_suffix('.png'))
    names, files = [layer.name for layer in layers], [str(out), *(file for layer in layers for file in layer.files)]
    print(f'{", ".join(names)} on {video.num_frames} frames: {", ".join(files)}')
    return 0


def check_not_input(out: Path, video: str) -> None:
    if out.exists() and Path(video).exists() and out.samefile(video):
        raise ValueError(f'{out} is the video that is read; give --out another name')


def total_frames(source, max_frames: int | None) -> int | None:
    return min((count for count in (source.num_frames, max_frames) if count is not None), default=None)


@contextmanager
def keep_recording(video: str) -> Iterator[None]:
    """Ctrl-C is how a camera is stopped; everything else it aborts."""
    try:
        yield
    except KeyboardInterrupt:
        if not video.startswith('camera:'):
            raise


class Sheet:
    """Collects a few of the drawn frames, evenly spread, for one picture.

    Args:
        count: Frames to collect; None: none.
        total: Frames that will come, None when that is not known (then the first ones are taken).
    """

    def __init__(self, count: int | None, total: int | None) -> None:
        self.count = count or 0
        self.every = math.ceil(total / count) if count and total else 1
        self.frames: list[np.ndarray] = []

    def add(self, index: int, picture: np.ndarray) -> None:
        if len(self.frames) < self.count and (index + 1) % self.every == 0:
            self.frames.append(picture)

    def write(self, path: Path) -> None:
        """Nothing is written when nothing was asked for."""
        import cv2

        from trecvit_dense.io import atomic_path
        from trecvit_dense.visualization import contact_sheet

        if not self.count:
            return
        columns = math.ceil(math.sqrt(len(self.frames)))
        height, width = self.frames[0].shape[:2]
        wanted = max(SHEET_WIDTH, round(width * SHEET_HEIGHT / height))
        picture = contact_sheet(self.frames, columns, width=min(wanted, width))
        with atomic_path(path) as temporary:
            cv2.imwrite(str(temporary), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
