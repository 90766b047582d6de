"""``trecvit make-synthetic OUT``: write the embedded synthetic data to disk, in the layouts of public datasets.

    OUT/tapvid/tapvid_synthetic.pkl     TAP-Vid pickle: {name: {video, points, occluded}}
    OUT/davis/...                       JPEGImages/480p, Annotations/480p (palette PNG), ImageSets/2017/val.txt
    OUT/depth/NAME/...                  images, depth (16 bit, mm), poses.txt, K.txt

The same clips are written in every layout. By default surfaces are flat layers, so depth is exact but simpler than the
world's; with the depth layout their focal length is kept constant within a clip, since that layout holds one matrix of
intrinsics. --scenes writes ray-cast rooms and open ground instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trecvit_dense.cli.options import make_parser, say

if TYPE_CHECKING:
    from trecvit_dense.datasets.procedural_base import ProceduralDataset

LAYOUTS = ('tapvid', 'davis', 'depth')
STRENGTHS = ('motion', 'camera', 'nonrigid', 'photometric')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('out', metavar='OUT', type=Path, help='folder to make; must not exist, or be empty')
    parser.add_argument('--clips', type=int, default=10, metavar='N', help='number of clips (default 10)')
    parser.add_argument('--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'), help='pixels')
    parser.add_argument('--frames', type=int, default=24, metavar='T', help='frames per clip (default 24)')
    parser.add_argument('--points', type=int, default=64, metavar='P', help='tracks per clip (default 64)')
    parser.add_argument('--seed', type=int, default=0, help='another seed gives other clips')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='val', help='default: val')
    parser.add_argument('--scenes', action='store_true', help='3-D scenes instead of flat layers')
    parser.add_argument('--layouts', nargs='+', choices=LAYOUTS, default=LAYOUTS, help='default: all')
    for name in STRENGTHS:
        parser.add_argument(f'--{name}', type=float, default=1.0, metavar='X', help=f'strength of {name}, 0 for none')


def make_dataset(args: argparse.Namespace) -> ProceduralDataset:
    """The clips that the arguments ask for."""
    from trecvit_dense.datasets.synthetic import SyntheticVideoDataset
    from trecvit_dense.datasets.synthetic_scenes import SyntheticSceneDataset

    options = dict(num_frames=args.frames, num_points=args.points, seed=args.seed, split=args.split, query_mode='first')
    options |= {name: getattr(args, name) for name in STRENGTHS}
    if not args.scenes:
        return SyntheticVideoDataset(args.clips, tuple(args.size), zoom='depth' not in args.layouts, **options)
    if options.pop('nonrigid') != 1:
        raise ValueError(f'--nonrigid {args.nonrigid:g} with --scenes, whose bodies are rigid; wanted one of the two')
    return SyntheticSceneDataset(args.clips, tuple(args.size), **options)


def write(args: argparse.Namespace, out: Path) -> None:
    """Render ``args.clips`` clips and write them below ``out``."""
    from trecvit_dense.datasets import writers
    from trecvit_dense.engine.progress import track

    dataset = make_dataset(args)
    entries = {}
    for index in track(range(len(dataset)), description='clips'):
        sample = dataset.sample(index)
        if 'tapvid' in args.layouts:
            entries[sample.name] = writers.tapvid_entry(sample)
        if 'davis' in args.layouts:
            writers.write_davis(out / 'davis', sample)
        if 'depth' in args.layouts:
            writers.write_depth(out / 'depth' / sample.name, sample)
    if 'tapvid' in args.layouts:
        (out / 'tapvid').mkdir()
        writers.write_tapvid(out / 'tapvid/tapvid_synthetic.pkl', entries)
    if 'davis' in args.layouts:
        names = sorted(path.name for path in (out / 'davis/JPEGImages/480p').iterdir())
        writers.write_davis_list(out / 'davis', names)


def main(argv: Sequence[str] | None = None) -> int:
    from trecvit_dense.io.atomic import atomic_path

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.out.is_dir() and not any(args.out.iterdir()):
        args.out.rmdir()
    if args.out.exists():
        raise ValueError(f'{args.out} exists; wanted the name of a new folder')
    args.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.out.absolute()) as folder:
        folder.mkdir()
        write(args, folder)
    say(f'wrote {args.clips} clips to {args.out}')
    return 0


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
