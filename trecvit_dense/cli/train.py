"""``trecvit train CONFIG``: train, then evaluate on held-out data and print the table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trecvit_dense.cli.options import add_config_arguments, make_parser, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir', metavar='D', help='checkpoints, log, curves and results (default: work_dirs/CONFIG)'
    )
    parser.add_argument('--resume', action='store_true', help='go on from the latest checkpoint in the work folder')
    parser.add_argument('--seed', type=int, help='of data, weights and dropout (default: as in the config)')
    parser.add_argument('--amp', action='store_true', help='bfloat16 forward pass, on a GPU or a CPU')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch'), default='none', help='pytorch: this process was started by torchrun'
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)
    parser.add_argument('-v', '--verbose', action='store_true', help="show MMEngine's own log on the console")


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    return train(parser.parse_args(argv))


def train(args: argparse.Namespace) -> int:
    from trecvit_dense.engine import distributed
    from trecvit_dense.engine.check import check_parts
    from trecvit_dense.engine.config import load_config
    from trecvit_dense.registry import RUNNERS, use_scope

    use_scope()
    cfg = load_config(args.config, args.cfg_options)
    check_trainable(cfg)
    check_parts(cfg)
    stem = Path(cfg.filename).stem
    cfg.work_dir = os.path.abspath(args.work_dir or cfg.get('work_dir') or Path('work_dirs') / stem)
    if args.seed is not None:
        cfg.setdefault('randomness', {})['seed'] = args.seed
    if args.amp:
        cfg.optim_wrapper.update(type='AutocastOptimWrapper', dtype='bfloat16')
    cfg.verbose = args.verbose
    if args.resume:
        cfg.load_from = latest_checkpoint(Path(cfg.work_dir))
        cfg.resume = cfg.load_from is not None
        say(
            f'resuming {cfg.load_from}' if cfg.resume else f'nothing to resume in {cfg.work_dir}: starting from scratch'
        )
    if cfg.get('load_from'):
        check_weights(str(cfg.load_from))
    if distributed.setup(args.launcher):
        cfg.launcher = args.launcher
        cfg.setdefault('model_wrapper_cfg', distributed.model_wrapper_cfg())
    runner, before = None, runs(Path(cfg.work_dir))
    try:
        runner = RUNNERS.build(cfg)
        say(header(runner, stem))
        if cfg.get('pretrained') and not cfg.get('resume'):
            start_from(runner, cfg.pretrained)
        runner.train()
        report(final_metrics(runner), runner)
    except BaseException:
        if not getattr(getattr(runner, '_train_loop', None), 'iter', 0):  # nothing was learned: leave nothing behind
            clear(Path(cfg.work_dir), keep=before)
        raise
    finally:
        distributed.teardown()
    return 0


def check_weights(path: str) -> None:
    """Refuse a checkpoint to start from that cannot be read or holds NaN, before anything is built."""
    from trecvit_dense.checkpoints.io import check_finite, read_checkpoint

    check_finite(read_checkpoint(path)[0], path)


def start_from(runner, parts: dict[str, str]) -> None:
    """Load the parts that ``pretrained`` in the config names, e.g. ``dict(backbone='boxed')``, and say what was not."""
    from mmengine.model import is_model_wrapper

    from trecvit_dense.checkpoints.io import load_parts

    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for part, report in load_parts(model, dict(parts)).items():
        taken = [other for other, path in parts.items() if path == parts[part]]
        say(f'{part}: {len(report.loaded)} tensors from {parts[part]}{left_out(report, taken)}')
    fresh = [part for part in ('backbone', *model.heads) if part not in parts]
    if fresh:
        say(f'from scratch: {", ".join(fresh)}')


def left_out(report, taken: Sequence[str]) -> str:
    """What a load did beside loading, in words; parts in ``taken`` come from the same file by themselves."""
    parts: dict[str, int] = {}
    for name in report.dropped:
        part = '.'.join(name.split('.')[:2]) if name.startswith('heads.') else name.split('.')[0]
        if part.removeprefix('heads.') not in taken:
            parts[part] = parts.get(part, 0) + 1
    remarks = [f'{count} of {part} not taken' for part, count in parts.items()]
    remarks += [f'{name} not taken' for name in report.unexpected]
    remarks += [f'{name} from scratch' for name in report.missing]
    remarks += [f'resized {note}' for note in report.resized]
    return ''.join(f'; {remark}' for remark in remarks)


def runs(work_dir: Path) -> set[Path] | None:
    """Log folders of the runs in a work folder; None when there is no such folder.

    Raises:
        NotADirectoryError: a file has that name.
    """
    if work_dir.exists() and not work_dir.is_dir():
        raise NotADirectoryError(f'--work-dir {work_dir} is a file; wanted a folder, or the name of a new one')
    return set(work_dir.glob('[0-9]*_[0-9]*')) if work_dir.is_dir() else None


def clear(work_dir: Path, *, keep: set[Path] | None) -> None:
    """Remove the log folder that was made since :func:`runs` was asked, and the work folder when it is new."""
    from trecvit_dense.io.atomic import remove

    if os.environ.get('RANK', '0') == '0':
        for path in [work_dir] if keep is None else (runs(work_dir) or set()) - keep:
            remove(path)


def check_trainable(cfg) -> None:
    """A recipe for evaluation has no training set."""
    missing = [key for key in ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper') if not cfg.get(key)]
    if missing:
        raise ValueError(f'{cfg.filename} has no {", ".join(missing)}: it is for testing only, use trecvit test')


def latest_checkpoint(work_dir: Path) -> str | None:
    """The newest checkpoint of a run, also when its folder has been moved since; None when there is none."""
    note = work_dir / 'last_checkpoint'
    if not note.is_file():
        return None
    path = work_dir / Path(note.read_text().strip()).name
    if not path.is_file():
        raise FileNotFoundError(f'{note} names {path.name}, which is not in {work_dir}; remove {note} to start again')
    return str(path)


def header(runner, stem: str) -> str:
    from trecvit_dense.engine.runner import versions

    parameters = sum(parameter.numel() for parameter in runner.model.parameters())
    about = versions()
    return (
        f'{stem}: {parameters / 1e6:.2f} M parameters, torch {about["torch"]}, {about["device"]}'
        f'{f", {runner.world_size} processes" if runner.distributed else ""}; results in {runner.work_dir}'
    )


def final_metrics(runner) -> dict:
    """Metrics on held-out data, with what ``reset_state`` and ``baseline`` in the config put beside them."""
    from mmengine.model import is_model_wrapper

    from trecvit_dense.cli.test import build_loader, evaluate

    cfg, metrics = runner.cfg, runner.evaluate()
    extras = {key: cfg.get(key) for key in ('reset_state', 'baseline', 'propagation')}
    if not extras['reset_state'] and not extras['baseline']:
        return metrics
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return evaluate(model, build_loader(cfg), cfg.test_evaluator, **extras)


def report(metrics: dict, runner) -> None:
    """Print the table and keep the numbers (first process only)."""
    from trecvit_dense.cli.options import write_results
    from trecvit_dense.evaluation.table import format_table

    if runner.rank != 0:
        return
    write_results(metrics, Path(runner.work_dir) / 'results.json')
    sys.stderr.flush()
    print(format_table(metrics))
    checkpoint = latest_checkpoint(Path(runner.work_dir))
    print(f'checkpoint: {checkpoint}')
    print(f'curves:     {Path(runner.work_dir) / "curves.png"}')
    print(f'results:    {Path(runner.work_dir) / "results.json"}')


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
