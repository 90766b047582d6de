"""``trecvit benchmark --sweep NAME V V ...``: the same rows against one size, and their curves as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trecvit_dense.cli.benchmark_rows import Case
from trecvit_dense.engine.measuring import exponent

AXES = ('frames', 'points', 'size', 'batch', 'threads')
_PANELS = (  # title, label of the axis, series: (key, name, factor)
    ('one frame', 'ms', (('step_ms', 'median', 1), ('step_p95_ms', '95th percentile', 1), ('step_cpu_ms', 'CPU', 1))),
    ('whole clips', 'frames/s', (('clip_fps', 'clip', 1),)),
    ('memory', 'MB', (('process_mb', 'process, peak', 1), ('device_mb', 'device, peak', 1), ('state_mb', 'state', 1))),
    ('part of the limit', '%', (('step_of_limit', 'step', 100), ('clip_of_limit', 'clip', 100))),
)


def parse(words: Sequence[str] | None) -> tuple[str | None, list[int]]:
    """``--sweep``: the name of an axis, and its values.

    Raises:
        ValueError: an unknown name, no values, or values that are no numbers from 1 (points: from 0).
    """
    from trecvit_dense.registry import nearest

    if not words:
        return None, []
    name, *values = words
    if name not in AXES:
        raise ValueError(f'--sweep {name}: wanted one of {", ".join(AXES)}{nearest(name, list(AXES))}')
    least = 0 if name == 'points' else 1
    if not values or not all(value.isdigit() and int(value) >= least for value in values):
        raise ValueError(f'--sweep {" ".join(words)}: wanted numbers from {least} behind {name}, e.g. {name} 8 16 32')
    return name, [int(value) for value in values]


def spread(cases: Sequence[Case], name: str | None, values: Sequence[int]) -> list[Case]:
    """Every case with each of the values; without a name, the cases as they are."""
    if name is None:
        return list(cases)
    chosen = [(value, value) for value in values] if name == 'size' else list(values)
    spread_out = [replace(case, **{name: value}) for case in cases for value in chosen]
    return list(dict.fromkeys(spread_out))  # sweeping points, cases differ in nothing else


def growth(rows: Sequence[dict[str, Any]], name: str, key: str = 'step_ms') -> list[str]:
    """The power of the swept size that fits the times of each curve; ``key`` is the time of a step."""
    lines = []
    key = 'clip_ms' if name == 'frames' else key
    for label, curve in curves(rows, name).items():
        x = [place(row, name) for row in curve]
        if len(set(x)) > 1 and min(x) > 0:
            power = exponent(x, [row[key] for row in curve])
            what = 'time of a clip' if name == 'frames' else 'time of a step'
            lines.append(f'{label}: {what} ~ {name}^{power:.2f}'.removeprefix(': '))
    return lines


def curves(rows: Sequence[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    """Rows that differ in the swept size alone, by what sets them apart from the others."""
    other = [key for key in ('attention', 'points', 'dtype', 'path') if key != name]
    told = [key for key in other if len({row[key] for row in rows}) > 1]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(', '.join(f'{row[key]}{" points" * (key == "points")}' for key in told), []).append(row)
    return found


def place(row: dict[str, Any], name: str) -> float:
    """Where a row is on the axis: the pixels of a side for ``size``."""
    return (row['size'][0] * row['size'][1]) ** 0.5 if name == 'size' else row[name]


def plot(rows: Sequence[dict[str, Any]], name: str, title: str, path: Path) -> None:
    """Latency, throughput, memory and part of the limit against the swept size."""
    rows = [dict(row, state_mb=row['state_kb'] / 1024) for row in rows]

    def draw(panels: Sequence[Any]) -> None:
        for axes, (heading, unit, series) in zip(panels, _PANELS, strict=True):
            for label, curve in curves(rows, name).items():
                for key, kind, factor in series:
                    points = [(place(row, name), factor * row[key]) for row in curve if row.get(key) is not None]
                    if points:
                        told = f'{kind}, {label}' if label else kind
                        axes.plot(*zip(*points, strict=True), marker='.', label=told)
            axes.set(title=heading, ylabel=unit, xlabel='px of a side' if name == 'size' else name)
            axes.set_ylim(bottom=0)
            if axes.lines:
                axes.legend(fontsize=7)

    save_figure(path, draw, title, panels=len(_PANELS))


def save_figure(path: Path, draw: Callable[[Sequence[Any]], None], title: str, *, panels: int, dpi: int = 100) -> None:
    """A row of ``panels`` axes that ``draw`` fills, as a PNG that is complete or absent."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from trecvit_dense.io.atomic import atomic_path

    figure = Figure(figsize=(3.6 * panels, 3.4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    draw(axes)
    for part in axes:
        part.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    with atomic_path(path) as partial:
        figure.savefig(partial, format='png', dpi=dpi)
