"""What the tasks of ``trecvit demo`` share: arguments, checks of the output, the recording that Ctrl-C ends."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SHEET_WIDTH = 480


def add_video_arguments(parser: argparse.ArgumentParser, *, beside: str) -> None:
    """``beside``: what is written beside the video, for the help."""
    parser.add_argument('video', help="video file, image, folder of images, 'frames/*.png', or camera:0")
    parser.add_argument('--checkpoint', default='boxed', help='weights (default: those that come with the package)')
    parser.add_argument('--out', required=True, help=f'video to write, .mp4; {beside}')
    parser.add_argument('--max-frames', type=int, metavar='N', help='stop after N frames')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument('--sheet', type=int, metavar='N', help='also save N frames side by side as a png')


def check_positive(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name.replace("_", "-")} is {value}; wanted 1 or more')


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
        picture = contact_sheet(self.frames, columns, width=min(SHEET_WIDTH, self.frames[0].shape[1]))
        with atomic_path(path) as temporary:
            cv2.imwrite(str(temporary), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
