"""``trecvit benchmark constant [MODEL]``: whether frame 10,000 costs what frame 10 does.

A stream is fed frame by frame. Its state at the young and at the old frame are kept, and then one step from the young
and one from the old state take turns, so that a busy machine slows both alike. Compared are the bytes of the state, the
peak of memory during a step (of tensors, counted; of the process; of the device on CUDA) and the median time.

Then the powers of T and of the number of points that fit the cost of a clip over a decade. For points, that is what the
points beyond the first one add; operations are counted, times are the shortest of several turns. The process keeps the
memory that it frees (:func:`trecvit_dense.inference.keep_freed_memory`), as a program that follows many points should:
the larger its tensors are, the more of them the C library hands back, and fetching that again is what would grow faster
than the points.

Without MODEL (a config or a checkpoint) the weights in the box follow 16 points on frames of 32 px: about three minutes
of one core for 10,000 frames. ``--tasks`` and ``--size`` run other heads and sizes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import add_cfg_options, check_out, make_parser, pick_device, say

NAME = 'constant'
_BANK = 64  # different frames, shown in turn
_DECADE = (1, 2, 5, 10)


@dataclass
class Bar:
    """One comparison.

    Attributes:
        what: Is compared.
        young, old: Its values.
        ratio: Old over young; the fitted power for growth, where there is no young and old.
        wanted: In words.
        holds: Whether it is so.
    """

    what: str
    young: float | None
    old: float | None
    ratio: float | None
    wanted: str
    holds: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', nargs='?', default='boxed', metavar='MODEL', help='config or checkpoint')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), default=(32, 32), help='pixels of the input')
    parser.add_argument('--tasks', nargs='+', metavar='TASK', help='heads that run (default: points, or else all)')
    parser.add_argument('--points', type=int, default=16)
    parser.add_argument('--objects', type=int, default=2)
    parser.add_argument('--young', type=int, default=10, metavar='FRAME')
    parser.add_argument('--old', type=int, default=10_000, metavar='FRAME')
    parser.add_argument('--rounds', type=int, default=200, help='timed steps of each')
    parser.add_argument('--frames', type=int, default=4, help='growth is fitted from these to ten times as many')
    parser.add_argument('--many-points', type=int, default=64, help='likewise')
    parser.add_argument('--repeats', type=int, default=20, help='the shortest of these counts as the time of a clip')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads; with one, times are CPU time')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the lines as json')
    parser.add_argument(
        '--system-malloc', action='store_true', help='let the C library hand freed memory back, as it does by itself'
    )
    add_cfg_options(parser)


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    from trecvit_dense.cli import benchmark
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.inference import keep_freed_memory
    from trecvit_dense.io.atomic import write_json

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    check(args)
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    model = benchmark.load(args, device)
    model.tasks = choose(args.tasks, list(model.heads))
    stream = Stream(model, args, device)
    about = versions()
    say(f'{args.model}: {", ".join(model.tasks)}, {stream.size[0]}x{stream.size[1]} input, {args.points} points')
    kept = not args.system_malloc and keep_freed_memory()
    memory_is = 'kept' if kept else 'handed back'
    say(f'torch {about["torch"]}, {about["device"]}, running on {device}; freed memory is {memory_is}')
    with torch.inference_mode():
        bars = compare(stream, args) + growth(stream, args)
    if args.out is not None:
        what = dict(model=args.model, tasks=list(model.tasks), size=stream.size, points=args.points, kept=kept)
        write_json(args.out, dict(about, **what, young=args.young, old=args.old, bars=[asdict(bar) for bar in bars]))
    print(table(bars, args.young, args.old))
    return 0


def check(args: argparse.Namespace) -> None:
    least = dict(points=1, objects=1, young=1, rounds=1, repeats=1, frames=1, many_points=2, threads=1, size=1)
    for name, wanted in least.items():
        value = getattr(args, name)
        if min(value if isinstance(value, (list, tuple)) else [value]) < wanted:
            raise ValueError(f'--{name.replace("_", "-")} {value}: wanted at least {wanted}')
    if args.old <= args.young:
        raise ValueError(f'--old {args.old}: wanted a frame after --young {args.young}')
    check_out(args.out)


def choose(wanted: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    from trecvit_dense.registry import nearest

    for task in wanted or ():
        if task not in known:
            raise ValueError(f'--tasks {task}: the model has {", ".join(known)}{nearest(task, list(known))}')
    return list(wanted or (['points'] if 'points' in known else known))


# ------------------------------------------------------------------------------------------------------- a stream


class Stream:
    """Random frames that are shown in turn, and the steps of a model over them."""

    def __init__(self, model: Any, args: argparse.Namespace, device: str) -> None:
        import torch

        self.model, self.args, self.device, self.size = model, args, device, tuple(args.size)
        generator = torch.Generator().manual_seed(0)
        self.frames = torch.rand(1, _BANK, 3, *self.size, generator=generator).to(device)

    def start(self, points: int | None = None) -> Any:
        import torch

        from trecvit_dense.cli.benchmark_heads import queries

        args = argparse.Namespace(points=points or self.args.points, objects=self.args.objects)
        given = queries(args, self.size, self.device, torch.Generator().manual_seed(1))
        return self.model.start(1, self.device, **{task: given[task] for task in self.model.tasks if task in given})

    def step(self, state: Any, number: int, length: int = 1) -> Any:
        """The state after frame ``number``, or after ``length`` frames from there."""
        if length == 1:
            return self.model.step(self.frames[:, number % _BANK][:, None], state)[1]
        repeats = -(-length // _BANK)
        return self.model.step(self.frames.repeat(1, repeats, 1, 1, 1)[:, :length], state)[1]

    def advance(self, state: Any, first: int, last: int) -> Any:
        from trecvit_dense.engine import track

        for number in track(range(first, last), description=f'to frame {last}'):
            state = self.step(state, number)
        return state


def compare(stream: Stream, args: argparse.Namespace) -> list[Bar]:
    """The step after the young frame against the one after the old."""
    young = stream.advance(stream.start(), 0, args.young)
    memory_young = memory(stream, young, args.rounds)
    old = stream.advance(young, args.young, args.old)
    memory_old = memory(stream, old, args.rounds)
    bars = [equal('bytes of state', young.nbytes, old.nbytes)]
    bars += [
        within(f'peak memory of a step, {name}, MB', memory_young[name] / 2**20, memory_old[name] / 2**20, 0.02)
        for name in memory_young
    ]
    times = interleave(
        [lambda: stream.step(young, args.young), lambda: stream.step(old, args.young)], args.rounds, stream.device
    )
    medians = [1000 * statistics.median(values) for values in times]
    bars.append(within(f'median time of {args.rounds} interleaved steps, ms', *medians, 0.05))
    finite = all(bool(value.isfinite().all()) for value in old.values() if value.is_floating_point())
    bars.append(Bar('every number of the old state is finite', None, None, None, 'yes', finite))
    return bars


def memory(stream: Stream, state: Any, rounds: int) -> dict[str, int]:
    """Bytes at the worst moment of a step: of tensors, of the process, and of the device if that is a GPU."""
    import torch

    from trecvit_dense.engine.costs import PeakMemory
    from trecvit_dense.engine.measuring import ProcessPeak

    with PeakMemory() as tensors:
        tensors.add([*stream.model.parameters(), *state.values()])
        stream.step(state, 0)
    on_gpu = stream.device.startswith('cuda')
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(stream.device)
    process = ProcessPeak()
    for number in range(rounds):
        stream.step(state, number)
    found = dict(tensors=tensors.peak, process=process.nbytes)
    return found | (dict(device=torch.cuda.max_memory_allocated(stream.device)) if on_gpu else {})


def interleave(
    calls: Sequence[Callable[[], Any]], rounds: int, device: str, *, settle: bool = False
) -> list[list[float]]:
    """Seconds of each call in every round; who begins changes from round to round.

    With ``settle`` each call is made once before it is timed: for calls whose tensors differ in size.
    """
    from trecvit_dense.engine.measuring import seconds_of

    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds):
        order = list(range(len(calls)))
        for index in order if number % 2 else order[::-1]:
            if settle:
                calls[index]()
            times[index].append(seconds_of(calls[index], device))
    return times


# --------------------------------------------------------------------------------------------------------- growth


def growth(stream: Stream, args: argparse.Namespace) -> list[Bar]:
    """Operations and time of a clip against its frames, and of a step against its points."""
    lengths = [args.frames * part for part in _DECADE]
    bars = powers('frames', lengths, costs_of(stream, [(length, args.points) for length in lengths], args.repeats))
    if 'points' not in stream.model.tasks:
        return bars
    counts = [args.many_points * part for part in _DECADE]
    first, *costs = costs_of(stream, [(1, count) for count in (1, *counts)], args.repeats)
    added = [(flops - first[0], seconds - first[1]) for flops, seconds in costs]
    return bars + powers('points', [count - 1 for count in counts], added)


def costs_of(stream: Stream, clips: Sequence[tuple[int, int]], repeats: int) -> list[tuple[int, float]]:
    """Operations and seconds of steps of so many frames with so many points.

    They take turns, so that what disturbs for a while disturbs all of them; the shortest of each counts. They settle,
    since a stream follows the same number of points from frame to frame.
    """
    from trecvit_dense.engine.limits import find_products

    runs = [partial(stream.step, stream.start(points), 0, length) for length, points in clips]
    operations = [sum(count * product.flops for product, count in find_products(run).items()) for run in runs]
    times = interleave(runs, repeats, stream.device, settle=True)
    return list(zip(operations, map(min, times), strict=True))


def powers(name: str, sizes: Sequence[int], costs: Sequence[tuple[float, float]]) -> list[Bar]:
    """Lines about the fitted powers of operations and of time."""
    from trecvit_dense.engine.measuring import exponent

    bars, what = [], f'{sizes[0]} to {sizes[-1]}'
    for index, kind in enumerate(('operations', 'time')):
        values = [cost[index] for cost in costs]
        power = exponent(sizes, values) if min(values) > 0 else None  # too little to tell from noise
        holds = power is not None and power <= 1.05
        bars.append(Bar(f'power of {name} in {kind}, {what} {name}', None, None, power, 'at most 1.05', holds))
    return bars


# ------------------------------------------------------------------------------------------------------- printing


def equal(what: str, young: int, old: int) -> Bar:
    return Bar(what, young, old, old / young, 'equal', young == old)


def within(what: str, young: float, old: float, part: float) -> Bar:
    return Bar(what, young, old, old / young, f'within {part:.0%}', abs(old / young - 1) <= part)


def table(bars: Sequence[Bar], young: int, old: int) -> str:
    width = max(len(bar.what) for bar in bars) + 2
    lines = [f'{"":<{width}}{f"frame {young}":>14}{f"frame {old}":>14}{"ratio":>9}  {"wanted":<14}holds']
    for bar in bars:
        cells = ['' if value is None else f'{value:.7g}' for value in (bar.young, bar.old)]
        ratio = '' if bar.ratio is None else f'{bar.ratio:.4f}'
        end = 'yes' if bar.holds else 'no'
        lines.append(f'{bar.what:<{width}}{cells[0]:>14}{cells[1]:>14}{ratio:>9}  {bar.wanted:<14}{end}')
    return '\n'.join(lines)
