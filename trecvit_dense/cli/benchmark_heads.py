"""``trecvit benchmark heads [MODEL]``: what several heads on one backbone pass cost beside the backbone alone.

Steps of the backbone alone, with each head and with all heads take turns, with a warm state and one set of weights, so
that a busy machine slows all of them alike; times are medians. The last lines say what one pass saves against one model
for every head, and how far the answers of all heads together are from those of each head alone: with read-only prompts
not at all.

Without MODEL (a config or a checkpoint with several heads) a TRecViT of full size with random weights is measured:
points by cost volume, object tokens with the objects' masks given on the first frame, and depth at stride 4.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import add_cfg_options, check_out, make_parser, pick_device, say

NAME = 'heads'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', nargs='?', metavar='MODEL', help='config or checkpoint; default: --variant')
    parser.add_argument('--variant', default='B/8', help='TRecViT of the default model, with its patch size')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='pixels of the input (default: 256 256)')
    parser.add_argument('--points', type=int, default=64)
    parser.add_argument('--objects', type=int, default=3)
    parser.add_argument('--frames', type=int, default=1, metavar='T', help='of a step')
    parser.add_argument('--rounds', type=int, default=5, help='timed steps of each row')
    parser.add_argument('--warmup', type=int, default=5, help='steps before; the memory of the masks takes 4 to fill')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='CPU threads (default: as torch chooses)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the rows as json')
    add_cfg_options(parser)


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    from trecvit_dense.engine.runner import versions
    from trecvit_dense.io.atomic import write_json

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    model, size = load(args, device)
    # Of one thread on a CPU only the work counts, whatever else the machine is busy with.
    key = 'cpu_ms' if device == 'cpu' and torch.get_num_threads() == 1 else 'ms'
    about = versions()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = args.model or f'TRecViT {args.variant}'
    what = f'{size[0]}x{size[1]} input, {args.frames} frames a step, {args.points} points, {args.objects} objects'
    say(f'{name}: {parameters / 1e6:.2f} M parameters, {what}')
    say(f'torch {about["torch"]}, {about["device"]}, running on {device}, {torch.get_num_threads()} threads')
    runs = measure(model, size, args, device)
    rows, differences = [row(run, runs[0], key) for run in runs], compare(runs)
    if args.out is not None:
        load_of = dict(model=name, load=what, parameters=parameters, ratio_of=key)
        write_json(args.out, dict(about, **load_of, rows=rows, differences=differences))
    print(table(rows))
    clock = 'CPU time' if key == 'cpu_ms' else 'clock time'
    print(f'ratios are of {clock}, to the backbone alone; medians of {args.rounds} rounds')
    for line in (*saving(rows, key), *(f'{task}: {told(found)}' for task, found in differences.items())):
        print(line)
    return 0


def check(args: argparse.Namespace) -> None:
    """Numbers that make no sense, before anything is built."""
    least = dict(size=1, points=1, objects=1, frames=1, rounds=1, warmup=1, threads=1)
    for name, wanted in least.items():
        value = getattr(args, name)
        if value is not None and min(value if isinstance(value, (list, tuple)) else [value]) < wanted:
            raise ValueError(f'--{name} {value}: wanted at least {wanted}')
    if args.cfg_options and args.model is None:
        raise ValueError('--cfg-options change a config; name one as MODEL')
    check_out(args.out)


def load(args: argparse.Namespace, device: str) -> tuple[Any, tuple[int, int]]:
    """A perceiver and the size of its input."""
    from trecvit_dense.cli import benchmark
    from trecvit_dense.registry import MODELS, use_scope

    if args.model is not None:
        model = benchmark.load(args, device)
        return model, benchmark.input_size(model, args.size)
    use_scope()
    size = tuple(args.size or (256, 256))
    return MODELS.build(full_size(args.variant, size)).to(device).eval(), size


def full_size(variant: str, size: tuple[int, int]) -> dict[str, Any]:
    """Config of a TRecViT with three heads; four blocks, evenly spaced, are levels, as in DPT."""
    from trecvit_dense.models.backbones.vit_family import VARIANTS

    depth = VARIANTS.get(variant.partition('/')[0], (0, 4, 0, 0))[1]  # an unknown name is refused where it is built
    levels = tuple(sorted({max((part * depth) // 4 - 1, 0) for part in (1, 2, 3, 4)}))
    return dict(
        type='VideoPerceiver',
        backbone=dict(type='TRecViT', variant=variant, image_size=size, out_indices=levels),
        heads=dict(
            points=dict(type='CostVolumePointHead'),
            masks=dict(type='ObjectTokenHead'),
            depth=dict(type='DPTDepthHead', scales=(4, 8, 16, 32), widths=128),
        ),
    )


# ------------------------------------------------------------------------------------------------------ measuring


@dataclass
class Run:
    """A stream with some of the heads: its state, the answers of its last step, and what the steps cost."""

    tasks: tuple[str, ...]
    state: Any
    outputs: dict[str, Any] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    cpu_times: list[float] = field(default_factory=list)
    flops: int = 0
    peak_state: int = 0

    def step(self, model: Any, video: Any) -> None:
        model.tasks = self.tasks
        self.outputs, self.state = model.step(video, self.state)
        self.peak_state = max(self.peak_state, self.state.nbytes)


def measure(model: Any, size: tuple[int, int], args: argparse.Namespace, device: str) -> list[Run]:
    """Streams of the backbone alone, of each head and of all heads, which take turns."""
    import torch

    from trecvit_dense.cli.benchmark_rows import timed
    from trecvit_dense.engine import track
    from trecvit_dense.engine.costs import count_flops

    generator = torch.Generator().manual_seed(0)
    asked, tasks = queries(args, size, device, generator), tuple(model.heads)
    cases = [(), *((task,) for task in tasks), *([tasks] if len(tasks) > 1 else [])]
    runs = []
    for case in cases:
        model.tasks = case
        runs.append(Run(case, model.start(1, device, **{task: asked[task] for task in case if task in asked})))
    with torch.no_grad():
        for index in track(range(args.warmup + args.rounds), description='rounds'):
            video = torch.rand(1, args.frames, 3, *size, generator=generator).to(device)
            turn = index % len(runs)
            for run in (*runs[turn:], *runs[:turn]):
                if index == args.warmup - 1:  # counting slows a step
                    run.flops = count_flops(lambda run=run, video=video: run.step(model, video))
                    continue
                worked = time.process_time()
                seconds, _ = timed(lambda run=run, video=video: run.step(model, video), device)
                if index >= args.warmup:
                    run.times.append(seconds)
                    run.cpu_times.append(time.process_time() - worked)
    return runs


def queries(args: argparse.Namespace, size: tuple[int, int], device: str, generator: Any) -> dict[str, dict]:
    """Points anywhere on the first frame, and stripes as masks of objects."""
    import torch

    points = torch.rand(1, args.points, 3, generator=generator) * torch.tensor([0.0, size[1], size[0]])
    stripe = torch.arange(size[1]) * 2 * args.objects // size[1]  # every other one is background
    masks = (stripe == 2 * torch.arange(args.objects)[:, None])[None, :, None].expand(-1, -1, size[0], -1).float()
    return dict(points=dict(query_txy=points.to(device)), masks=dict(masks=masks.to(device)))


def row(run: Run, alone: Run, key: str) -> dict[str, Any]:
    """Medians of one stream; the ratio is to the step of the backbone in the same round."""
    pairs = zip(*((run.cpu_times, alone.cpu_times) if key == 'cpu_ms' else (run.times, alone.times)), strict=True)
    return dict(
        heads=list(run.tasks),
        ms=1000 * statistics.median(run.times),
        cpu_ms=1000 * statistics.median(run.cpu_times),
        ratio=statistics.median(mine / its for mine, its in pairs),
        gflop=run.flops / 1e9,
        peak_state_bytes=run.peak_state,
    )


def compare(runs: Sequence[Run]) -> dict[str, float]:
    """Per head, the largest difference between its answers beside the others and alone, in parts of the largest."""
    together = runs[-1]
    if len(together.tasks) < 2:
        return {}
    return {
        run.tasks[0]: max(
            ((one.float() - other.float()).abs().max() / one.float().abs().max().clamp(min=1e-6)).item()
            for one, other in zip(
                numbers(run.outputs[run.tasks[0]]), numbers(together.outputs[run.tasks[0]]), strict=True
            )
        )
        for run in runs[1:-1]
    }


def numbers(output: Any) -> list[Any]:
    """The tensors of a head's answer."""
    from torch import Tensor

    values = [getattr(output, part.name) for part in fields(output)] if is_dataclass(output) else [output]
    return [value for value in values if isinstance(value, Tensor) and value.numel()]


# ------------------------------------------------------------------------------------------------------- printing


def title(tasks: Sequence[str]) -> str:
    return ' + '.join(tasks) or 'backbone alone'


def table(rows: list[dict[str, Any]]) -> str:
    width = max(len(title(entry['heads'])) for entry in rows) + 2
    titles = ('ms', 'cpu ms', 'ratio', 'GFLOP', 'state MB')
    lines = [
        f'{title(entry["heads"]):<{width}}{entry["ms"]:>10.1f}{entry["cpu_ms"]:>10.1f}{entry["ratio"]:>10.3f}'
        f'{entry["gflop"]:>10.1f}{entry["peak_state_bytes"] / 2**20:>10.1f}'
        for entry in rows
    ]
    return '\n'.join([f'{"heads":<{width}}' + ''.join(f'{name:>10}' for name in titles), *lines])


def saving(rows: list[dict[str, Any]], key: str) -> list[str]:
    """One pass against a model for every head."""
    if len(rows) < 4:
        return []
    apart, together = sum(entry[key] for entry in rows[1:-1]), rows[-1][key]
    return [f'one pass: {together:.1f} ms against {apart:.1f} ms of {len(rows) - 2} models, x{together / apart:.2f}']


def told(difference: float) -> str:
    if difference == 0:
        return 'the same beside the others as alone, to the last bit'
    return f'beside the others at most {difference:.1e} of its largest value away from alone'
