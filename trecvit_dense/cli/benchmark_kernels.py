"""``trecvit benchmark kernels MODEL``: plain layers against the fastest kernels, in turns, and what was chosen.

The two are the same model over the same parameters and are run alternately, so that a machine that others use disturbs
both alike; of each the shortest time counts. Behind them stand the rate of the limit (see ``trecvit benchmark --help``)
and the part of it that they reach, measured in the same run: bf16 against products in bf16, all else against float32.
``first ms`` is the first call, in which kernels are measured and weights packed. ``--clip 1`` is a streaming step with
its state; longer clips are fed from the start.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import add_cfg_options, check_out, make_parser, pick_device, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'model', metavar='MODEL', help="checkpoint (.pth, .safetensors, 'boxed'), or a config: random weights"
    )
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='pixels of the model input')
    parser.add_argument('--queries', type=int, default=256, help='number of points')
    parser.add_argument('--attention', choices=('full', 'read_only'), help='of the point head (default: its own)')
    parser.add_argument('--clip', type=int, default=1, metavar='T', help='frames of a call')
    parser.add_argument('--precision', choices=('fp32', 'bf16', 'int8'), nargs='+', default=['fp32'])
    parser.add_argument('--rounds', type=int, default=5, help='timed calls of each')
    parser.add_argument('--no-limit', action='store_true', help='do not measure matrix products')
    parser.add_argument('--verbose', action='store_true', help='print what was chosen for each shape, and the times')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='CPU threads (default: as torch chooses)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the rows as json')
    add_cfg_options(parser)


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    return compare(parser.parse_args(argv))


def compare(args: argparse.Namespace) -> int:
    import torch

    from trecvit_dense.cli.benchmark import has_points, input_size, load
    from trecvit_dense.cli.benchmark_rows import Case, Load
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.inference import speed_up
    from trecvit_dense.io.atomic import write_json

    for name in ('clip', 'rounds', 'threads'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name} {value}: wanted at least 1')
    check_out(args.out)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    model = load(args, device)
    size, points = input_size(model, args.size), args.queries if has_points(model) else 0
    case = Case(args.attention, points, args.clip, size, threads=torch.get_num_threads())
    say(f'{args.model}, {size[0]}x{size[1]}, {args.clip} frames a call, {points} points, {case.threads} threads')
    loads, tunings = {None: Load(model, case, device)}, {}
    for precision in args.precision:
        twin = shared(model)
        tunings[precision] = speed_up(twin, precision)
        loads[precision] = Load(twin, case, device)
    rows = measure(loads, args.rounds, device, limit=not args.no_limit)
    if args.out:
        write_json(args.out, dict(versions(), size=size, clip=args.clip, points=points, rows=rows))
    print(table(rows))
    if args.verbose:
        for precision, tuning in tunings.items():
            print(f'{precision}:\n{tuning}')
    return 0


def shared(model: Any) -> Any:
    """Another model over the same parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def measure(loads: dict[str | None, Any], rounds: int, device: str, *, limit: bool) -> list[dict[str, Any]]:
    """One row per load, by precision, plain first: first call, shortest later one, difference from plain outputs."""
    import torch

    from trecvit_dense.cli.benchmark_rows import in_precision
    from trecvit_dense.engine.limits import find_products, limit_of, measure_limit
    from trecvit_dense.engine.measuring import seconds_of

    first, times, states = {}, {name: [] for name in loads}, {}
    with torch.inference_mode():
        calls = {name: call_of(load, states, name) for name, load in loads.items()}
        for name, call in calls.items():
            first[name] = seconds_of(call, device)
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(seconds_of(call, device))
    rows = [
        dict(
            path='plain' if name is None else f'fast {name}',
            first_ms=1000 * first[name],
            ms=1000 * min(times[name]),
            gain=min(times[None]) / min(times[name]),
            difference=largest_difference(states[name], states[None]),
        )
        for name in loads
    ]
    if limit:
        plain, rates = find_products(calls[None]), {}
        products = [in_precision(plain, name) for name in loads]
        for found in products:
            measure_limit(found, device, known=rates)
        for row, found in zip(rows, products, strict=True):
            most = limit_of(found, rates)
            row |= dict(
                gflops_per_s=most.flops / row['ms'] / 1e6,
                limit_gflops_per_s=most.gflops_per_s,
                of_limit=most.fraction(row['ms'] / 1000),
            )
    return rows


def call_of(load: Any, states: dict[str | None, Any], name: str | None) -> Any:
    """A step that goes on from the state, or a clip from the start; ``states`` has the last one."""

    def step() -> None:
        states[name] = load.step(states[name])

    def clip() -> None:
        states[name] = load.whole()

    if load.case.frames > 1:
        return clip
    states[name] = load.start()
    return step


def largest_difference(state: Any, reference: Any) -> float:
    """Of the states, in units of the largest number of each entry."""
    differences = [
        float((state[key] - value).abs().max() / value.abs().max().clamp(min=1e-6))
        for key, value in reference.items()
        if value.is_floating_point() and value.numel()
    ]
    return max(differences, default=0.0)


def table(rows: Sequence[dict[str, Any]]) -> str:
    titles = dict(
        first_ms='first ms',
        ms='ms',
        gain='times',
        gflops_per_s='GFLOP/s',
        limit_gflops_per_s='limit',
        of_limit='limit %',
    )
    factors, there = dict(of_limit=100), [key for key in titles if key in rows[0]]
    lines = [f'{"":<12}' + ''.join(f'{titles[key]:>11}' for key in there) + f'{"difference":>12}']
    for row in rows:
        cells = ''.join(f'{factors.get(key, 1) * row[key]:>11.2f}' for key in there)
        lines.append(f'{row["path"]:<12}{cells}{row["difference"]:>12.1e}')
    return '\n'.join(lines)


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
