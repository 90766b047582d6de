"""``trecvit benchmark MODEL``: latency of one streaming step, throughput of clips, memory and parameters.

Measured on random pixels: speed does not depend on what is seen. Times are medians (and the 95th percentile) of steps
after a warm-up. CPU time is what this process itself worked, summed over its threads: with one thread on a CPU it is
the step's time whatever else the machine is busy with. Memory is the peak of the device on CUDA, and of the whole
process so far, libraries and earlier rows included, on a CPU.

``trecvit benchmark heads`` measures what several heads on one pass cost, ``trecvit benchmark claims`` what the papers
say about the cost of the backbones, and ``trecvit benchmark masks-evaluator`` the program ``trecvit eval-masks``; their
``--help`` says more.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import add_cfg_options, check_out, make_parser, pick_device, say

_MODES = ('full', 'read_only')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'model', metavar='MODEL', help="checkpoint (.pth, .safetensors, 'boxed'), or a config: random weights"
    )
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='pixels of the model input')
    parser.add_argument('--queries', type=int, nargs='+', default=[16, 64, 256], help='numbers of points, one row each')
    parser.add_argument('--attention', choices=_MODES, help='this mode only (default: all)')
    parser.add_argument('--clip', type=int, default=16, metavar='T', help='frames of the clip for the throughput')
    parser.add_argument('--steps', type=int, default=20, help='timed steps')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='CPU threads (default: as torch chooses)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the rows as json')
    add_cfg_options(parser)


def main(argv: Sequence[str] | None = None) -> int:
    from trecvit_dense.cli import benchmark_claims, benchmark_heads, benchmark_masks

    arguments = list(sys.argv[1:] if argv is None else argv)
    for other in (benchmark_claims, benchmark_heads, benchmark_masks):
        if arguments[:1] == [other.NAME]:
            return other.main(arguments[1:])
    parser = make_parser(__doc__)
    add_arguments(parser)
    return benchmark(parser.parse_args(arguments))


def benchmark(args: argparse.Namespace) -> int:
    import torch

    from trecvit_dense.engine import track
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.io.atomic import write_json

    check_numbers(args)
    check_out(args.out)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    model = load(args, device)
    size = input_size(model, args.size)
    about = versions()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(f'{args.model}: {parameters / 1e6:.2f} M parameters, {size[0]}x{size[1]} input')
    say(f'torch {about["torch"]}, {about["device"]}, running on {device}')
    counts = args.queries if has_points(model) else [0]
    cases = [(mode, queries) for mode in modes(model, args.attention) for queries in counts]
    rows = []
    for mode, queries in track(cases, description='benchmark'):
        if mode:
            model.heads['points'].attention = mode
        rows.append(dict(attention=mode or '-', points=queries, **measure(model, size, queries, args, device)))
    if args.out:
        write_json(args.out, dict(about, parameters=parameters, size=size, rows=rows))
    print(table(rows))
    for line in ratios(rows, 'step_cpu_ms' if device == 'cpu' else 'step_ms'):
        print(line)
    return 0


def check_numbers(args: argparse.Namespace) -> None:
    least = dict(clip=1, steps=1, threads=1, size=1, queries=0)
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


def measure(model: Any, size: tuple[int, int], queries: int, args: argparse.Namespace, device: str) -> dict[str, float]:
    """Latency of a step of one frame, frames per second of a whole clip, peak memory and bytes of state."""
    import torch

    generator = torch.Generator().manual_seed(0)
    clip = torch.rand(1, args.clip, 3, *size, generator=generator).to(device)
    query = torch.rand(1, queries, 3, generator=generator) * torch.tensor([0.0, size[1], size[0]])
    start = dict(points=dict(query_txy=query.to(device))) if queries else {}
    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        state = model.start(1, device, **start)
        for _ in range(min(3, args.steps)):
            _, state = model.step(clip[:, :1], state)
        times, cpu_times = [], []
        for _ in range(args.steps):
            worked = time.process_time()
            seconds, (_, state) = timed(lambda state=state: model.step(clip[:, :1], state), device)
            times.append(seconds)
            cpu_times.append(time.process_time() - worked)
        repeats = max(1, args.steps // args.clip)
        clip_times = [
            timed(lambda: model.step(clip, model.start(1, device, **start)), device)[0] for _ in range(repeats)
        ]
    return dict(
        step_ms=1000 * statistics.median(times),
        step_p95_ms=1000 * sorted(times)[int(0.95 * (len(times) - 1))],
        step_cpu_ms=1000 * statistics.median(cpu_times),
        clip_fps=args.clip / min(clip_times),
        peak_mb=peak_bytes(device) / 2**20,
        state_kb=state.nbytes / 2**10,
    )


def timed(function: Callable[[], Any], device: str) -> tuple[float, Any]:
    import torch

    wait = torch.cuda.synchronize if device.startswith('cuda') else (lambda: None)
    wait()
    begin = time.perf_counter()
    result = function()
    wait()
    return time.perf_counter() - begin, result


def peak_bytes(device: str) -> int:
    import torch

    if device.startswith('cuda'):
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def table(rows: list[dict]) -> str:
    titles = ('step ms', 'p95 ms', 'cpu ms', 'clip f/s', 'peak MB', 'state kB')
    head = f'{"attention":<10}{"points":>7}' + ''.join(f'{title:>10}' for title in titles)
    lines = [
        f'{row["attention"]:<10}{row["points"]:>7}{row["step_ms"]:>10.2f}{row["step_p95_ms"]:>10.2f}'
        f'{row["step_cpu_ms"]:>10.2f}{row["clip_fps"]:>10.1f}{row["peak_mb"]:>10.0f}{row["state_kb"]:>10.0f}'
        for row in rows
    ]
    return '\n'.join([head, *lines])


def ratios(rows: list[dict], key: str = 'step_ms') -> list[str]:
    """How much faster read-only prompts are than full attention, for each number of points; ``key`` is a time."""
    full = {row['points']: row for row in rows if row['attention'] == 'full'}
    return [
        f'read_only / full at {row["points"]} points: step time x{row[key] / full[row["points"]][key]:.2f}'
        for row in rows
        if row['attention'] == 'read_only' and row['points'] in full
    ]


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
