"""``trecvit benchmark masks-evaluator``: CPU time of ``trecvit eval-masks`` for a data set the size of DAVIS val.

Writes moving, deforming objects and a noisy prediction of them as palette PNGs into a temporary folder, and scores them
in a process of its own. CPU time is that of the process and its children, start-up and reading included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trecvit_dense.cli.options import check_out, make_parser, say

NAME = 'masks-evaluator'
_POINTS = 180  # of an outline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--videos', type=int, default=30)
    parser.add_argument('--frames', type=int, default=70, help='of a video')
    parser.add_argument('--objects', type=int, default=2, help='in a video')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), default=(480, 854))
    parser.add_argument('--workers', type=int, default=1, help='processes of the evaluator')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the numbers as json')


def main(argv: Sequence[str] | None = None) -> int:
    from trecvit_dense.io.atomic import write_json

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    least = dict(videos=1, frames=3, objects=1, size=32, workers=1, repeats=1)
    for name, wanted in least.items():
        value = getattr(args, name)
        if np.min(value) < wanted:
            raise ValueError(f'--{name} {value}: wanted at least {wanted}')
    check_out(args.out)
    with tempfile.TemporaryDirectory() as folder:
        say(f'writing {2 * args.videos * args.frames} masks')
        write_load(Path(folder), args)
        rows = [measure(Path(folder), args.workers) for _ in range(args.repeats)]
    best = min(rows, key=lambda row: row['cpu_s'])
    what = f'{args.videos} videos x {args.frames} frames x {args.objects} objects, {args.size[0]} x {args.size[1]}'
    times = f'{best["cpu_s"]:.2f} s of CPU, {best["wall_s"]:.2f} s by the clock'
    print(f'{what}: {times}, {args.workers} processes, best of {len(rows)}')
    if args.out is not None:
        write_json(args.out, dict(load=what, workers=args.workers, rows=rows))
    return 0


def measure(folder: Path, workers: int) -> dict[str, float]:
    """Seconds of CPU (user and system, children included) and of the clock for one evaluation."""
    program = 'import sys; from trecvit_dense import cli; sys.exit(cli.run(cli.main, sys.argv[1:]))'
    command = [sys.executable, '-c', program, 'eval-masks', folder / 'truth', folder / 'prediction']
    root = str(Path(__file__).resolve().parents[2])  # the package as it is here, installed or not
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, '--workers', str(workers)], cwd=root, check=True, capture_output=True)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return dict(cpu_s=cpu, wall_s=end - begin)


def write_load(folder: Path, args: argparse.Namespace) -> None:
    """``truth/<video>/*.png`` and ``prediction/<video>/*.png``."""
    from trecvit_dense.progress import track

    for video in track(range(args.videos), description='masks'):
        rng = np.random.default_rng([0, video])
        shapes = [Outline(args.size, rng) for _ in range(args.objects)]
        for t in range(args.frames):
            outlines = [shape.at(t) for shape in shapes]
            noisy = [outline + wobble(rng) for outline in outlines]
            for kind, polygons in (('truth', outlines), ('prediction', noisy)):
                save(folder / kind / f'video{video:02d}' / f'{t:05d}.png', polygons, args.size)


class Outline:
    """A closed curve that drifts and changes its form, about a quarter of the frame wide."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size
        self.centre = rng.uniform(0.3, 0.7, 2) * (width, height)
        self.velocity = rng.uniform(-0.003, 0.003, 2) * (width, height)
        self.radius = rng.uniform(0.1, 0.25) * height
        self.amplitudes, self.phases = rng.uniform(0, 0.12, 5), rng.uniform(0, 2 * np.pi, 5)

    def at(self, t: int) -> np.ndarray:
        """``(P, 2)`` x, y in pixels on frame ``t``."""
        angle = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
        waves = [a * np.sin((k + 2) * angle + p + 0.05 * t * (k + 1)) for k, (a, p) in enumerate(self._waves())]
        radius = self.radius * (1 + sum(waves))
        return self.centre + self.velocity * t + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def _waves(self) -> list[tuple[float, float]]:
        return list(zip(self.amplitudes, self.phases, strict=True))


def wobble(rng: np.random.Generator) -> np.ndarray:
    """``(P, 2)`` px: a random walk along the outline that ends where it began; a few pixels, sometimes ten."""
    walk = np.cumsum(rng.normal(0, 0.6, (_POINTS, 2)), axis=0)
    return walk - np.linspace(0, 1, _POINTS)[:, None] * walk[-1]


def save(path: Path, polygons: list[np.ndarray], size: tuple[int, int]) -> None:
    import cv2

    from trecvit_dense.io.mask_file import write_mask

    labels = np.zeros(size, np.uint8)
    for number, polygon in enumerate(polygons, 1):
        cv2.fillPoly(labels, [np.round(polygon).astype(np.int32)], number)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, labels)
