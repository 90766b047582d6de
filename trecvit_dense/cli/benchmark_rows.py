"""One row of ``trecvit benchmark``: what a model costs for one number of frames, points, pixels, videos and threads."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trecvit_dense.engine.limits import Limit, Product, Rate, find_products, limit_of, measure_limit
from trecvit_dense.engine.measuring import ProcessPeak, counts_cpu_time, seconds_of
from trecvit_dense.inference.fast_linear import restore, speed_up

_WARMUP = 3  # steps
PATHS = {  # name: precision of speed_up; None: every layer as torch does it by itself
    'plain': None,
    'fast': 'fp32',
    'fast-bf16': 'bf16',
    'fast-int8': 'int8',
}


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes:
        attention: Mode of the point head; None where it has no choice.
        points: Queries of every video.
        frames: Of the clip; a step has one.
        size: ``(H, W)`` px of the model input.
        batch: Videos at once.
        threads: Of the CPU.
        dtype: ``'float32'``, or ``'bfloat16'``: autocast.
        path: How layers are computed, one of :data:`PATHS`.
    """

    attention: str | None
    points: int
    frames: int
    size: tuple[int, int]
    batch: int = 1
    threads: int = 1
    dtype: str = 'float32'
    path: str = 'plain'


class Load:
    """Random video and queries for a case, and the calls that are timed."""

    def __init__(self, model: Any, case: Case, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model, self.case, self.device = model, case, device
        self.clip = torch.rand(case.batch, case.frames, 3, *case.size, generator=generator).to(device)
        corner = torch.tensor([0.0, case.size[1], case.size[0]])
        query = torch.rand(case.batch, case.points, 3, generator=generator) * corner
        self.queries = dict(points=dict(query_txy=query.to(device))) if case.points else {}
        if case.attention:
            model.heads['points'].attention = case.attention

    def start(self) -> Any:
        return self.model.start(self.case.batch, self.device, **self.queries)

    def advance(self, video: Tensor, state: Any) -> Any:
        """The state after ``video``."""
        with self.precision():
            return self.model.step(video, state)[1]

    def step(self, state: Any) -> Any:
        return self.advance(self.clip[:, :1], state)

    def whole(self) -> Any:
        return self.advance(self.clip, self.start())

    def precision(self) -> contextlib.AbstractContextManager:
        if self.case.dtype == 'float32':
            return contextlib.nullcontext()
        return torch.autocast(self.device.partition(':')[0], getattr(torch, self.case.dtype))


@dataclass
class Timing:
    """Seconds of the shortest call, and its matrix products."""

    seconds: float
    products: Counter[Product]


def measure(
    model: Any, case: Case, device: str, *, steps: int, rates: dict[Product, Rate] | None = None
) -> tuple[dict[str, Any], dict[str, Timing]]:
    """The row, and what :func:`add_limits` needs to know of its step and its clip.

    Args:
        model: A perceiver, in eval mode on ``device``.
        case: What is run.
        device: Where.
        steps: Timed steps.
        rates: Of matrix products, measured before, which this row's are measured into. None: without a limit.
    """
    torch.set_num_threads(case.threads)
    set_path(model, case.path)
    load = Load(model, case, device)
    process, on_gpu = ProcessPeak(), device.startswith('cuda')
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        times, cpu_times, state = time_steps(load, steps)
        clips = [seconds_of(load.whole, device) for _ in range(max(3, steps // case.frames))]
    device_bytes = torch.cuda.max_memory_allocated(device) if on_gpu else None
    process_bytes = process.nbytes
    row = dict(
        vars(case),
        size=list(case.size),
        attention=case.attention or '-',
        step_ms=1000 * statistics.median(times),
        step_p95_ms=1000 * sorted(times)[math.ceil(0.95 * len(times)) - 1],
        step_cpu_ms=1000 * statistics.median(cpu_times),
        clip_ms=1000 * min(clips),
        clip_fps=case.batch * case.frames / min(clips),
        peak_mb=(device_bytes if on_gpu else process_bytes) / 2**20,
        process_mb=process_bytes / 2**20,
        device_mb=device_bytes / 2**20 if on_gpu else None,
        state_kb=state.nbytes / 2**10,
    )
    if rates is None:
        return row, {}
    shortest_step = min(cpu_times if counts_cpu_time(device) else times)
    calls = dict(step=(shortest_step, lambda: load.step(load.start())), clip=(min(clips), load.whole))
    timings = {
        name: Timing(seconds, in_precision(find_products(call), PATHS[case.path]))
        for name, (seconds, call) in calls.items()
    }
    for timing in timings.values():
        measure_limit(timing.products, device, known=rates)
    return row, timings


def add_limits(row: dict[str, Any], timings: dict[str, Timing], rates: dict[Product, Rate]) -> dict[str, Limit]:
    """Operations and the part of the limit, by the best rates that any row of the same threads has seen."""
    limits = {}
    for name, timing in timings.items():
        limit = limits[name] = limit_of(timing.products, rates)
        rate = limit.flops / timing.seconds / 1e9
        row |= {
            f'{name}_gflop': limit.flops / 1e9,
            f'{name}_gflops_per_s': rate,
            f'{name}_limit_gflops_per_s': limit.gflops_per_s,
            f'{name}_of_limit': limit.fraction(timing.seconds),
            f'{name}_of_best': rate / limit.best_gflops_per_s,
        }
    return limits


def set_path(model: Any, path: str) -> None:
    """Let ``model`` compute its layers in the way of this name, if it does not yet."""
    if getattr(model, 'benchmark_path', 'plain') != path:
        restore(model)
        if PATHS[path] is not None:
            speed_up(model, PATHS[path])
        model.benchmark_path = path


def time_steps(load: Load, steps: int) -> tuple[list[float], list[float], Any]:
    """Seconds by the clock and of CPU time of each step, and the state after them."""
    state = load.start()
    for _ in range(min(_WARMUP, steps)):
        state = load.step(state)
    times, cpu_times = [], []
    for _ in range(steps):
        worked = time.process_time()
        seconds, state = timed(lambda state=state: load.step(state), load.device)
        times.append(seconds)
        cpu_times.append(time.process_time() - worked)
    return times, cpu_times, state


def in_precision(products: Counter[Product], precision: str | None) -> Counter[Product]:
    """The same matrix products in a precision of :func:`speed_up`; 8 bits are held against float32."""
    if precision != 'bf16':
        return products
    return Counter({replace(product, dtype=torch.bfloat16): count for product, count in products.items()})


def timed(function: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds by the clock, and the result."""
    wait = torch.cuda.synchronize if device.startswith('cuda') else (lambda: None)
    wait()
    begin = time.perf_counter()
    result = function()
    wait()
    return time.perf_counter() - begin, result


# --------------------------------------------------------------------------------------------------------- table

_COLUMNS = (  # title, key, format, factor
    ('step ms', 'step_ms', '.2f', 1),
    ('p95 ms', 'step_p95_ms', '.2f', 1),
    ('cpu ms', 'step_cpu_ms', '.2f', 1),
    ('clip f/s', 'clip_fps', '.1f', 1),
    ('process MB', 'process_mb', '.0f', 1),
    ('device MB', 'device_mb', '.0f', 1),
    ('state kB', 'state_kb', '.0f', 1),
    ('GFLOP', 'step_gflop', '.2f', 1),
    ('step %', 'step_of_limit', '.0f', 100),
    ('clip %', 'clip_of_limit', '.0f', 100),
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows, with what is the same in all of them left out; the last two columns are parts of the limit."""
    names = [name for name in ('frames', 'size', 'batch', 'threads', 'dtype', 'path') if _differs(rows, name)]
    columns = [column for column in _COLUMNS if any(row.get(column[1]) is not None for row in rows)]
    head = f'{"attention":<10}{"points":>7}' + ''.join(f'{name:>10}' for name in names)
    lines = [head + ''.join(f'{title:>11}' for title, *_ in columns)]
    for row in rows:
        cells = [f'{row["attention"]:<10}{row["points"]:>7}', *(f'{_word(row[name]):>10}' for name in names)]
        cells += [f'{factor * row[key]:>11{form}}' for _, key, form, factor in columns]
        lines.append(''.join(cells))
    return '\n'.join(lines)


def _differs(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return any(row[name] != rows[0][name] for row in rows)


def _word(value: Any) -> str:
    return 'x'.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def ratios(rows: list[dict], key: str = 'step_ms') -> list[str]:
    """How much faster read-only prompts are than full attention, for each number of points; ``key`` is a time."""
    full = {_place(row): row for row in rows if row['attention'] == 'full'}
    return [
        f'read_only / full at {row["points"]} points: step time x{row[key] / full[_place(row)][key]:.2f}'
        for row in rows
        if row['attention'] == 'read_only' and _place(row) in full
    ]


def _place(row: dict[str, Any]) -> tuple:
    return tuple(_word(row[name]) for name in ('points', 'frames', 'size', 'batch', 'threads', 'dtype', 'path'))
