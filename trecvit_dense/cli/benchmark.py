"""``trecvit benchmark MODEL``: latency of a streaming step, throughput of clips, memory, operations, part of the limit.

Measured on random pixels: speed does not depend on what is seen. Times are medians (and the 95th percentile) of steps
after a warm-up. CPU time is what this process itself worked, summed over its threads: with one thread on a CPU it is
the step's time whatever else the machine is busy with, and the time of a clip is CPU time, too. Memory is the peak of
the whole process in the row, libraries and weights included (where the system cannot forget a peak, that of its life so
far), and of the device on CUDA.

The last two columns are parts of the limit, of a step and of a clip: the time that the model's matrix products and
convolutions take here when each is run alone by the fastest library, over the time of the model. Both are the shortest
of several, the former of all rows. ``--no-limit`` saves the half minute that it takes; the json has the rate of every
product by every library.

    trecvit benchmark point_track_tapnext_tiny --threads 1 --out rows.json
    trecvit benchmark boxed --sweep points 16 64 256 1024 --plot points.png    # frames, points, size, batch or threads

``trecvit benchmark NAME --help`` says more about the other measurements: ``heads``: what several heads on one pass
cost; ``constant``: frame 10,000 against frame 10; ``peers``: other people's models and plainer ones in the same run;
``kernels``: plain layers against the fastest kernels, in turns;
``recurrence``: the RG-LRU layer by every back end, beside its authors' torch layer;
``training-memory`` and ``data-wait``: what a training step holds, and how long it waits for data; ``claims``: what the
papers say about cost; ``masks-evaluator``: the program ``trecvit eval-masks``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import add_cfg_options, check_out, make_parser, pick_device, say

_MODES = ('full', 'read_only')
_QUERIES = (16, 64, 256)
_OTHERS = {  # first word of the command line: module of this package
    'claims': 'benchmark_claims',
    'constant': 'benchmark_constant',
    'data-wait': 'benchmark_data_wait',
    'heads': 'benchmark_heads',
    'kernels': 'benchmark_kernels',
    'masks-evaluator': 'benchmark_masks',
    'peers': 'benchmark_peers',
    'recurrence': 'benchmark_recurrence',
    'training-memory': 'benchmark_training',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'model', metavar='MODEL', help="checkpoint (.pth, .safetensors, 'boxed'), or a config: random weights"
    )
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='pixels of the model input')
    parser.add_argument('--queries', type=int, nargs='+', help='numbers of points, one row each (default: 16 64 256)')
    parser.add_argument('--attention', choices=_MODES, help='this mode only (default: all)')
    parser.add_argument('--clip', type=int, default=16, metavar='T', help='frames of the clip for the throughput')
    parser.add_argument('--batch', type=int, default=1, help='videos at once')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), nargs='+', default=['float32'], help='autocast')
    parser.add_argument(
        '--path',
        choices=('plain', 'fast', 'fast-bf16', 'fast-int8'),
        nargs='+',
        default=['plain', 'fast'],
        help='layers as torch computes them by itself, or by the kernels that are fastest here, as in demo and Session',
    )
    parser.add_argument(
        '--sweep', nargs='+', metavar=('NAME', 'V'), help='rows for frames, points, size, batch or threads: frames 8 16'
    )
    parser.add_argument('--plot', type=Path, metavar='FILE.png', help='draw the curves of --sweep')
    parser.add_argument('--steps', type=int, default=20, help='timed steps')
    parser.add_argument('--no-limit', action='store_true', help='do not measure matrix products')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='CPU threads (default: as torch chooses)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the rows as json')
    add_cfg_options(parser)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _OTHERS:
        return import_module(f'trecvit_dense.cli.{_OTHERS[arguments[0]]}').main(arguments[1:])
    parser = make_parser(__doc__)
    add_arguments(parser)
    return benchmark(parser.parse_args(arguments))


def benchmark(args: argparse.Namespace) -> int:
    import torch

    from trecvit_dense.cli import benchmark_rows, benchmark_sweep
    from trecvit_dense.engine import track
    from trecvit_dense.engine.measuring import counts_cpu_time
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.io.atomic import write_json

    check_numbers(args)
    axis, values = benchmark_sweep.parse(args.sweep)
    check_outputs(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    model = load(args, device)
    about = versions()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    cases = benchmark_sweep.spread(plan(model, args), axis, values)
    size = cases[0].size
    say(f'{args.model}: {parameters / 1e6:.2f} M parameters, {size[0]}x{size[1]} input')
    say(f'torch {about["torch"]}, {about["device"]}, running on {device}')
    rates: dict[int, dict] = {}  # by threads: what one thread can do is no limit for two
    found = []
    for case in track(cases, description='benchmark'):
        known = None if args.no_limit else rates.setdefault(case.threads, {})
        found.append(benchmark_rows.measure(model, case, device, steps=args.steps, rates=known))
    limits = {}
    for row, timings in found:
        limits = benchmark_rows.add_limits(row, timings, rates.get(row['threads'], {}))
    rows = [row for row, _ in found]
    if args.out:
        last = {name: limit.as_dict() for name, limit in limits.items()}
        write_json(args.out, dict(about, parameters=parameters, size=size, rows=rows, limit_of_last_row=last))
    print(benchmark_rows.table(rows))
    key = 'step_cpu_ms' if counts_cpu_time(device) else 'step_ms'
    grown = benchmark_sweep.growth(rows, axis, key) if axis else []
    for line in (*benchmark_rows.ratios(rows, key), *told(limits), *grown):
        print(line)
    if args.plot:
        benchmark_sweep.plot(rows, axis, f'{args.model}, {device}', args.plot)
    return 0


def check_outputs(args: argparse.Namespace) -> None:
    check_out(args.out)
    check_out(args.plot)
    if args.plot and not args.sweep:
        raise ValueError(f'--plot {args.plot} draws a sweep; add e.g. --sweep frames 8 16 32')


def plan(model: Any, args: argparse.Namespace) -> list[Any]:
    """The cases without the sweep."""
    import torch

    from trecvit_dense.cli.benchmark_rows import Case

    default = _QUERIES if not args.sweep else _QUERIES[1:2]
    counts = (args.queries or default) if has_points(model) else [0]
    common = dict(size=input_size(model, args.size), frames=args.clip, batch=args.batch)
    threads = torch.get_num_threads()
    return [
        Case(mode, count, threads=threads, dtype=dtype, path=path, **common)
        for path in args.path
        for mode in modes(model, args.attention)
        for count in counts
        for dtype in args.dtype
    ]


def told(limits: dict[str, Any]) -> list[str]:
    """The limits of the last row in words."""
    return [
        f'limit of a {name}: {limit.flops / 1e9:.2f} GFLOP in {1000 * limit.seconds:.2f} ms, '
        f'{limit.gflops_per_s:.0f} GFLOP/s; the fastest of its products reaches {limit.best_gflops_per_s:.0f}'
        for name, limit in limits.items()
    ]


def check_numbers(args: argparse.Namespace) -> None:
    least = dict(clip=1, steps=1, threads=1, size=1, queries=0, batch=1)
    for name, wanted in least.items():
        value = getattr(args, name)
        if value is not None and min(value if isinstance(value, (list, tuple)) else [value]) < wanted:
            raise ValueError(f'--{name} {value}: wanted at least {wanted}')


def load(args: argparse.Namespace, device: str) -> Any:
    """A checkpoint, or the model of a config with random weights."""
    from trecvit_dense.checkpoints import load_model
    from trecvit_dense.engine.config import load_config
    from trecvit_dense.registry import MODELS, use_scope

    use_scope()
    if args.model == 'boxed' or Path(args.model).suffix in ('.pth', '.pt', '.safetensors', '.npz', '.ckpt'):
        return load_model(args.model, device)
    cfg = load_config(args.model, args.cfg_options)
    if not cfg.get('model'):
        raise ValueError(f'{args.model} has no model; name a checkpoint instead')
    return MODELS.build(cfg.model).to(device).eval()


def input_size(model: Any, wanted: Sequence[int] | None) -> tuple[int, int]:
    size = wanted or getattr(model.data_preprocessor, 'input_size', None) or (128, 128)
    return tuple(size)


def has_points(model: Any) -> bool:
    return 'points' in model.heads


def modes(model: Any, wanted: str | None = None) -> tuple[str | None, ...]:
    """Attention modes of the point head, when it has a choice: the one wanted, or all."""
    if not has_points(model) or not hasattr(model.heads['points'], 'attention'):
        return (None,)
    return (wanted,) if wanted else _MODES


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
