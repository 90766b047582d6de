"""``trecvit memorisation``: how well are frames of the past remembered? Error against distance, TRecViT and ViViT.

Small models are trained on synthetic video, each for the same number of steps on the same clips, and asked on videos
twice as long: for the frame N frames ago (every frame, N of --distances), and for the first frame of the video. Writes
OUT.json and OUT.png. Some eight minutes on one core.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import check_out, make_parser, say

MODELS, QUESTIONS = ('trecvit', 'vivit'), ('ago', 'first')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--out', metavar='OUT', type=Path, default=Path('memorisation.json'), help='.json file')
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS), help='default: both')
    parser.add_argument('--questions', nargs='+', choices=QUESTIONS, default=list(QUESTIONS), help='default: both')
    parser.add_argument('--steps', type=int, default=300, help='of the optimiser, for each (default: %(default)s)')
    parser.add_argument('--seconds', type=float, help='train each for so long instead')
    parser.add_argument('--frames', type=int, default=20, help='of training clips (default: %(default)s)')
    parser.add_argument('--distances', type=int, nargs='+', default=[0, 1, 2, 4, 8, 16], metavar='N', help='frames ago')
    parser.add_argument('--window', type=int, default=8, help='frames that ViViT sees at a time (default: %(default)s)')
    parser.add_argument('--size', type=int, default=32, help='of frames, pixels (default: %(default)s)')
    parser.add_argument('--clips', type=int, default=64, help='to train on (default: %(default)s)')
    parser.add_argument('--test-clips', type=int, default=16, help='to test on (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=4, help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='of weights and clips')


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    return memorisation(parser.parse_args(argv))


def memorisation(args: argparse.Namespace) -> int:
    from trecvit_dense.engine.memorisation import Study, plot_study, run_study
    from trecvit_dense.io.atomic import atomic_path, write_json

    if args.out.suffix != '.json':
        raise ValueError(f'--out {args.out}: wanted a name ending in .json')
    picture = args.out.with_suffix('.png')
    for path in (args.out, picture):
        check_out(path)
    study = Study(
        steps=args.steps,
        seconds=args.seconds,
        num_frames=args.frames,
        size=args.size,
        distances=tuple(sorted(set(args.distances))),
        window=args.window,
        batch_size=args.batch_size,
        train_clips=args.clips,
        test_clips=args.test_clips,
        seed=args.seed,
    )
    result = run_study(study, models=tuple(args.models), questions=tuple(args.questions))
    write_json(args.out, plain(result))
    with atomic_path(picture) as partial:
        plot_study(result).savefig(partial, format='png', dpi=100)
    print('\n\n'.join(table(curve) for curve in result['curves']))
    say(f'written: {args.out}, {picture}')
    return 0


def plain(value: Any) -> Any:
    """What json can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(curve: dict[str, Any]) -> str:
    """One model and question as text."""
    asked = 'frame N ago' if curve['question'] == 'ago' else 'first frame, N frames later'
    lines = [
        f'{curve["model"]}, {asked}: {curve["parameters"] / 1e6:.2f} M parameters, {curve["steps"]} steps, '
        f'{curve["seconds"]:.0f} s, state {curve["state_bytes"] / 1024:.0f} KiB',
        f'{"N":>4} {"PSNR":>7} {"mean frame":>11} {"present":>9} {"over mean":>10} {"over present":>13}',
    ]
    keys = (('PSNR', 7), ('mean_frame/PSNR', 11), ('copy_current/PSNR', 9))
    for distance, scores in curve['scores'].items():
        numbers = ' '.join(f'{scores[key]:{width}.1f}' for key, width in keys)
        lines.append(f'{distance:>4} {numbers} {scores["over_mean"]:10.2f} {scores["over_copy"]:13.2f}')
    return '\n'.join(lines)


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
