"""``trecvit eval-masks GT PRED``: score anybody's masks, PNG against PNG, by the rules of a benchmark.

GT is a DAVIS folder (Annotations/480p and ImageSets), a folder with Annotations (YouTube-VOS, MOSE, LVOS), a folder of
sequence folders, or one sequence. PRED holds a folder for each sequence, with a PNG for each frame of the truth. A
pixel's value is the id of its object: palette or grey PNGs. Nothing is cached. Masks that do not fit (size, ids,
frames) are refused, with the sequence and the frame, and nothing is scored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trecvit_dense.cli.options import check_out, make_parser, say, write_results

PROTOCOLS = ('davis2017-semi', 'davis2016', 'davis2017-unsupervised', 'youtubevos', 'mose', 'mosev2', 'lvos')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('truth', metavar='GT', type=Path, help='folder with the true masks')
    parser.add_argument('predictions', metavar='PRED', type=Path, help='folder with the masks to score')
    parser.add_argument('--protocol', choices=PROTOCOLS, default=PROTOCOLS[0], help='rules (default: %(default)s)')
    parser.add_argument('--split', default='val', help='list of ImageSets, where GT has them (default: %(default)s)')
    parser.add_argument('--sequences', metavar='FILE', type=Path, help='names of the sequences to score, one a line')
    parser.add_argument('--meta', metavar='FILE', type=Path, help='meta JSON (default: one that lies with GT)')
    for name in ('seen', 'unseen'):
        text = f'{name} categories (youtubevos) or videos (lvos), one a line'
        parser.add_argument(f'--{name}', metavar='FILE', type=Path, help=text)
    parser.add_argument('--workers', metavar='N', type=int, help='processes (default: one a core)')
    parser.add_argument('--per-sequence', action='store_true', help='also print each sequence')
    parser.add_argument(
        '--decay',
        choices=('sound', 'official', 'official_numpy1'),
        default='sound',
        help='official: the decay of the DAVIS program, which is wrong from 256 frames on',
    )
    parser.add_argument(
        '--only-scored', action='store_true', help='do not ask for frames that do not count, such as first and last'
    )
    parser.add_argument('--out', metavar='FILE', type=Path, help='also write the numbers as flat json')


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    return eval_masks(parser.parse_args(argv))


def eval_masks(args: argparse.Namespace) -> int:
    from trecvit_dense.evaluation.mask_evaluator import find_sequences
    from trecvit_dense.evaluation.mask_protocols import Groups, find_protocol, report
    from trecvit_dense.evaluation.table import format_table

    if args.workers is not None and args.workers < 1:
        raise ValueError(f'--workers {args.workers}: wanted at least 1')
    check_out(args.out)
    groups = Groups(*(read_names(path) for path in (args.seen, args.unseen)))
    options = dict(split=args.split, sequences=args.sequences, meta=args.meta, only_scored=args.only_scored)
    files = find_sequences(args.truth, args.predictions, args.protocol, **options)
    warn_about_others(args.predictions, [one.facts.name for one in files])
    scores = score_all(files, args.protocol, args.workers)
    rules = find_protocol(args.protocol)
    prefix = '/'.join(part for part in (rules.dataset, rules.key) if part)
    metrics = {
        f'{prefix}/{key}': value
        for key, value in report(rules, scores, groups, decay=args.decay, per_sequence=True).items()
    }
    if args.out is not None:
        write_results(metrics, args.out)
    shown = {k: v for k, v in metrics.items() if args.per_sequence or f'{prefix}/per_sequence/' not in k}
    print(format_table(shown))
    return 0


def read_names(path: Path | None) -> set[str] | None:
    """The lines of a file, without blanks around them; None for no file."""
    if path is None:
        return None
    names = {line.strip() for line in path.read_text(encoding='utf-8').splitlines()} - {''}
    if not names:
        raise ValueError(f'{path}: an empty list; wanted one name a line')
    return names


def warn_about_others(predictions: Path, names: Sequence[str]) -> None:
    """Predictions that are not scored are no mistake, but may be a surprise."""
    others = {path.name for path in predictions.iterdir() if path.is_dir()} - set(names)
    if others and set(names) & {path.name for path in predictions.iterdir()}:
        shown = ', '.join(sorted(others)[:3]) + (', ...' if len(others) > 3 else '')
        say(f'not scored, because the list of sequences has no such name: {shown}')


def score_all(files: Sequence, protocol: str, workers: int | None) -> dict[str, list]:
    """Rows of every sequence, in the order of ``files``."""
    from trecvit_dense.evaluation.mask_evaluator import score_files
    from trecvit_dense.progress import track

    ready = dict(track(score_files(files, protocol, workers=workers), len(files), 'eval-masks'))
    return {one.facts.name: ready[one.facts.name] for one in files}


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
