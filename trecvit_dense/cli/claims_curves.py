"""The picture of ``trecvit benchmark claims --plot``: TRecViT-B and ViViT-L against the frames of a clip.

Operations and memory are counted as in the table (trecvit_dense/engine/costs.py), for one clip in float32. Where a
curve leaves the memory of a machine it goes on: nothing is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.engine.costs import count_classifier

FRAMES = (8, 16, 32, 64)
_STYLES = {  # name: colour, line
    'TRecViT-B': ('tab:blue', '-'),
    'ViViT-L, weights kept': ('tab:red', '-'),
    'ViViT-L, fused attention': ('tab:red', '--'),
}
_PANELS = (('operations', 'TFLOP', 1e12), ('forward', 'GB', 1e9), ('train', 'GB', 1e9))
_TITLES = dict(operations='operations', forward='peak memory, forward', train='peak memory, training step')
_PAPER = dict(operations='paper: 5x at 32 frames, 8x at 64', forward='', train='paper, memory: 12x at 32, 24x at 64')
_BESIDE = dict(textcoords='offset points', ha='right', fontsize=9)


def count_curves(models: tuple[dict, dict], frames: Sequence[int], size: int) -> dict[str, list[dict[str, Any]]]:
    """Costs of TRecViT and ViViT (configs in this order) for clips of ``frames`` of ``size`` px, by name of curve."""
    from trecvit_dense.engine import track

    trecvit, kept = models
    fused = dict(kept, backbone=dict(kept['backbone'], fused=True))
    names = dict(zip(_STYLES, ((trecvit, False), (kept, False), (fused, True)), strict=True))
    curves: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for length in track(frames, description='curves'):
        for name, (config, is_fused) in names.items():
            clip = (length, size, size)
            call = count_classifier(config, clip, fused=is_fused or name == 'TRecViT-B')
            step = count_classifier(config, clip, train=True, fused=is_fused or name == 'TRecViT-B')
            costs = dict(operations=call.flops, forward=call.peak_bytes, train=step.peak_bytes)
            curves[name].append(dict(frames=length, **costs))
    return curves


def plot_curves(curves: dict[str, list[dict[str, Any]]], path: Path, size: int) -> None:
    """Three panels, logarithmic both ways; at the last points stands how many times TRecViT's cost they are."""
    from trecvit_dense.cli.benchmark_sweep import save_figure

    def draw(panels: Sequence[Any]) -> None:
        for axes, (key, unit, factor) in zip(panels, _PANELS, strict=True):
            for name, (colour, line) in _STYLES.items():
                x, y = [row['frames'] for row in curves[name]], [row[key] / factor for row in curves[name]]
                axes.plot(x, y, line, color=colour, marker='o', markersize=4, label=name)
                if name != 'TRecViT-B' and not (key == 'operations' and line == '--'):  # there both are the same
                    for place in (-2, -1):
                        times = curves[name][place][key] / curves['TRecViT-B'][place][key]
                        axes.annotate(f'{times:.3g}x', (x[place], y[place]), (-5, 5), **_BESIDE)
            axes.set(title=_TITLES[key], ylabel=unit, xlabel='frames', xscale='log', yscale='log')
            axes.text(0.97, 0.04, _PAPER[key], transform=axes.transAxes, ha='right', fontsize=9)
            axes.set_xticks(x, [str(value) for value in x])
            axes.yaxis.set_major_formatter('{x:g}')
            axes.set_ylim(top=1.6 * axes.get_ylim()[1])
            axes.minorticks_off()
        panels[0].legend(fontsize=8)

    title = f'TRecViT-B (state_multiplier=1) and ViViT-L: one clip of {size} x {size} px, float32, counted'
    save_figure(path, draw, title, panels=len(_PANELS))
