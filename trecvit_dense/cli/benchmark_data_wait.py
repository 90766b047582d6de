"""``trecvit benchmark data-wait CONFIG``: how much of a training step waits for data.

Trains as ``trecvit train`` does, for a few iterations, without evaluation, and keeps nothing. A step is the time from
one step's end to the next one's; its wait is the part before the batch is there. Both are by the clock, for the data
are made in other processes: take them from a machine that does nothing else. A row for every number of ``--workers``;
0 makes the data between the steps, and its wait is what there is to hide.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import add_config_arguments, check_out, make_parser, say

NAME = 'data-wait'
_HOOKS_OF_OUTPUT = ('plain_checkpoint', 'curves', 'progress')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument('--workers', type=int, nargs='+', help='processes that make data (default: as in the config)')
    parser.add_argument('--iterations', type=int, default=20, help='timed steps of each row')
    parser.add_argument(
        '--warmup', type=int, default=3, help='steps before; the first waits for the processes to start'
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the rows as json')


def main(argv: Sequence[str] | None = None) -> int:
    from trecvit_dense.cli.train import check_trainable
    from trecvit_dense.engine.check import check_parts
    from trecvit_dense.engine.config import load_config
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.io.atomic import write_json
    from trecvit_dense.registry import use_scope

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    for name, wanted in dict(workers=0, iterations=1, warmup=0).items():
        value = getattr(args, name)
        if value is not None and min(value if isinstance(value, list) else [value]) < wanted:
            raise ValueError(f'--{name} {value}: wanted at least {wanted}')
    check_out(args.out)
    use_scope()
    cfg = load_config(args.config, args.cfg_options)
    check_trainable(cfg)
    check_parts(cfg)
    about = versions()
    workers = args.workers or [cfg.train_dataloader.get('num_workers', 0)]
    say(f'{args.config}, batches of {cfg.train_dataloader.batch_size}, torch {about["torch"]}, {about["device"]}')
    rows = [measure(args.config, args.cfg_options, count, args.iterations, args.warmup) for count in workers]
    if args.out is not None:
        write_json(args.out, dict(about, config=args.config, rows=rows))
    print(table(rows))
    return 0


def measure(config: str, options: Sequence[str], workers: int, iterations: int, warmup: int) -> dict[str, Any]:
    """Train with so many worker processes."""
    from trecvit_dense.engine.config import load_config
    from trecvit_dense.registry import RUNNERS

    cfg = load_config(config, options)
    with tempfile.TemporaryDirectory() as folder:
        shorten(cfg, workers, iterations + warmup, folder)
        runner = RUNNERS.build(cfg)
        clock = make_clock()
        runner.register_hook(clock, priority='LOWEST')
        runner.train()
    return row(clock.waits[warmup:], clock.steps[warmup:], workers)


def shorten(cfg: Any, workers: int, iterations: int, folder: str) -> None:
    """So many iterations of the training that ``cfg`` describes, nothing else, in ``folder``."""
    cfg.work_dir = folder
    cfg.train_dataloader.num_workers = workers
    cfg.train_dataloader.persistent_workers = workers > 0
    if not workers:
        cfg.train_dataloader.pop('prefetch_factor', None)
    for stage in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{stage}_{part}'] = None
    cfg.train_cfg.max_iters = iterations
    cfg.train_cfg.val_interval = iterations + 1
    hooks = {name: hook for name, hook in (cfg.get('default_hooks') or {}).items() if name not in _HOOKS_OF_OUTPUT}
    cfg.default_hooks = dict(hooks, checkpoint=None)  # None: not MMEngine's own one either
    cfg.custom_hooks = []
    cfg.load_from, cfg.resume = None, False


def make_clock() -> Any:
    """A hook that notes the seconds of every step and of its wait."""
    from mmengine.hooks import Hook

    class StepClock(Hook):
        def __init__(self) -> None:
            self.waits: list[float] = []
            self.steps: list[float] = []

        def before_train_epoch(self, runner: Any) -> None:
            self.end = time.perf_counter()

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            self.waits.append(time.perf_counter() - self.end)

        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            now = time.perf_counter()
            self.steps.append(now - self.end)
            self.end = now

    return StepClock()


def row(waits: Sequence[float], steps: Sequence[float], workers: int) -> dict[str, Any]:
    return dict(
        workers=workers,
        step_s=statistics.median(steps),
        wait_s=statistics.median(waits),
        longest_wait_s=max(waits),
        part=sum(waits) / sum(steps),
        steps=list(steps),
        waits=list(waits),
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f'{"workers":>7}{"step ms":>12}{"wait ms":>12}{"longest ms":>12}{"waits":>9}']
    for entry in rows:
        times = ''.join(f'{1000 * entry[key]:>12.1f}' for key in ('step_s', 'wait_s', 'longest_wait_s'))
        lines.append(f'{entry["workers"]:>7}{times}{entry["part"]:>9.1%}')
    return '\n'.join(lines)
