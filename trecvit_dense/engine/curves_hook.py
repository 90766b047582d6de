"""Loss and metric curves as a picture in the work folder, redrawn at every validation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from trecvit_dense.io.atomic import atomic_path
from trecvit_dense.registry import HOOKS

from .progress import headline, number

Curve = list[tuple[int, float]]


@HOOKS.register_module()
class CurvesHook(Hook):
    """Collects every ``loss*`` value and every metric, and draws them against the iteration.

    The points travel in the checkpoint: the picture of a resumed run is whole.

    Args:
        filename: In the work folder.
        interval: Iterations averaged into one point of a loss curve.
        metrics: Endings of the metric names that are drawn; a key with ``zero_motion`` in it is dashed.
    """

    priority = 'LOW'

    def __init__(
        self,
        filename: str = 'curves.png',
        *,
        interval: int = 20,
        metrics: tuple[str, ...] = ('AJ', 'delta_avg', 'OA', 'top1'),
    ) -> None:
        self.filename, self.interval, self.metrics = filename, interval, tuple(metrics)
        self.losses: dict[str, Curve] = {}
        self.scores: dict[str, Curve] = {}
        self._sums: dict[str, float] = {}
        self._count = 0

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        for key, value in (outputs or {}).items():
            if 'loss' in key:
                self._sums[key] = self._sums.get(key, 0.0) + number(value)
        self._count += 1
        if (runner.iter + 1) % self.interval == 0:
            for key, total in self._sums.items():
                self.losses.setdefault(key, []).append((runner.iter + 1, total / self._count))
            self._sums, self._count = {}, 0

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        for key, value in headline(metrics or {}, self.metrics).items():
            self.scores.setdefault(key, []).append((runner.iter, value))
        self.draw(runner)

    def after_train(self, runner: Any) -> None:
        self.draw(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint['curves'] = dict(losses=self.losses, scores=self.scores, sums=self._sums, count=self._count)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        curves = checkpoint.get('curves')
        if curves and runner._resume:
            self.losses, self.scores = dict(curves['losses']), dict(curves['scores'])
            self._sums, self._count = dict(curves['sums']), curves['count']

    def draw(self, runner: Any) -> None:
        """Write the picture; it is a report, so a failure to draw never ends a training."""
        if not is_main_process() or not (self.losses or self.scores):
            return
        try:
            figure = plot_curves(self.losses, self.scores)
            with atomic_path(Path(runner.work_dir) / self.filename) as path:
                figure.savefig(path, format='png', dpi=100)
        except Exception as error:
            runner.logger.log(logging.WARNING, f'curves were not drawn: {error}')


def plot_curves(losses: dict[str, Curve], scores: dict[str, Curve]) -> Figure:
    """Losses on the left (logarithmic where all are positive), metrics in [0, 1] on the right."""
    figure = Figure(figsize=(11, 4), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for key, curve in sorted(losses.items()):
        left.plot(*zip(*curve, strict=True), label=key, linewidth=2.0 if key == 'loss' else 1.0)
    if losses and all(value > 0 for curve in losses.values() for _, value in curve):
        left.set_yscale('log')
    for key, curve in sorted(scores.items()):
        style = '--' if 'zero_motion' in key else '-'
        right.plot(*zip(*curve, strict=True), style, marker='.', label=key)
    left.set_title('training loss')
    right.set_title('held-out videos')
    for axes, drawn in ((left, losses), (right, scores)):
        axes.set_xlabel('iteration')
        axes.grid(alpha=0.3)
        if drawn:
            axes.legend(fontsize=7)
    return figure
