"""Progress of long jobs: one line that redraws itself on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from trecvit_dense.registry import HOOKS

Item = TypeVar('Item')

_WIDTH = 20
_DETAIL = {'per_video', 'occluded', 'reappear', 'reset'}
_REDRAW_S = 0.1  # terminal
_REPORT_S = 30.0  # anything else


def number(value: Any) -> float:
    """A logged value as a float; a loss still hangs on its graph."""
    return value.detach().item() if hasattr(value, 'detach') else float(value)


def headline(metrics: dict[str, Any], endings: tuple[str, ...]) -> dict[str, float]:
    """The metrics worth a glance during training: without single videos, subsets and ablations."""
    names = [key for key in metrics if key.endswith(endings) and not _DETAIL & set(key.split('/'))]
    return {key: float(metrics[key]) for key in names if isinstance(metrics[key], (int, float))}


def clock(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, second = divmod(int(seconds + 0.5), 60)
    hour, minute = divmod(minutes, 60)
    return f'{hour}:{minute:02d}:{second:02d}'


class ProgressBar:
    """Counts steps of a job and says when it will be done.

    Args:
        total: Steps in all; None when unknown: then no bar and no ETA.
        description: What is being done.
        done: Steps that were done before (a resumed run); they do not enter the ETA.
        stream: Where to write; standard error by default, so that results on standard output stay clean.
    """

    def __init__(
        self, total: int | None, description: str = '', *, done: int = 0, stream: TextIO | None = None
    ) -> None:
        self.total, self.description = total, description
        self.count = self.first = done
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.started = self.shown = time.monotonic()
        self.length = 0
        self.note = ''

    def update(self, steps: int = 1, note: str = '') -> None:
        """``steps`` more are done; ``note`` (the loss, say) is shown at the end of the line."""
        self.count += steps
        self.note = note or self.note
        if time.monotonic() - self.shown >= (_REDRAW_S if self.live else _REPORT_S):
            self.show()

    def show(self) -> None:
        """Write the line now."""
        self.shown = time.monotonic()
        line = self.line()
        if self.live:
            self.stream.write('\r' + line.ljust(self.length))
            self.length = len(line)
        else:
            self.stream.write(line + '\n')
        self.stream.flush()

    def close(self) -> None:
        """Show the final count and leave the line."""
        self.show()
        if self.live:
            self.stream.write('\n')
            self.stream.flush()

    def line(self) -> str:
        elapsed = time.monotonic() - self.started
        done = self.count - self.first
        rate = done / elapsed if elapsed > 0 else 0.0
        speed = f'{rate:.1f} it/s' if rate >= 1 or done == 0 else f'{elapsed / done:.1f} s/it'
        if self.total:
            share = min(self.count / self.total, 1.0)
            bar = ('#' * int(share * _WIDTH)).ljust(_WIDTH, '.')
            left = self.total - self.count
            timing = f'ETA {clock(left / rate)}' if left > 0 and rate > 0 else f'took {clock(elapsed)}'
            parts = [f'[{bar}] {self.count}/{self.total}', f'{share:4.0%}', speed, timing]
        else:
            parts = [f'{self.count}', speed, clock(elapsed)]
        return '  '.join(part for part in (self.description, *parts, self.note) if part)


def track(
    iterable: Iterable[Item], total: int | None = None, description: str = '', *, stream: TextIO | None = None
) -> Iterator[Item]:
    """Yield from ``iterable`` with a progress bar; ``total`` is its length where it has one."""
    if total is None and hasattr(iterable, '__len__'):
        total = len(iterable)
    bar = ProgressBar(total, description, stream=stream)
    try:
        for item in iterable:
            yield item
            bar.update()
    finally:
        bar.close()


@HOOKS.register_module()
class ProgressHook(Hook):
    """One line for training (smoothed loss, learning rate, ETA) and one for each evaluation; first process only.

    Args:
        metrics: Endings of the metric names that are shown after an evaluation.
    """

    priority = 'VERY_LOW'

    def __init__(self, metrics: tuple[str, ...] = ('AJ', 'delta_avg', 'OA')) -> None:
        self.metrics = tuple(metrics)
        self.bars: dict[str, ProgressBar] = {}
        self.loss: float | None = None

    def before_train(self, runner: Any) -> None:
        self._open('train', runner.max_iters, done=runner.iter)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        loss = number(outputs['loss'])
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        rate = runner.optim_wrapper.get_lr()['lr'][0]
        self._update('train', note=f'loss {self.loss:.4f}  lr {rate:.2e}')

    def after_train(self, runner: Any) -> None:
        self._close('train')

    def before_val_epoch(self, runner: Any) -> None:
        self._open('val', len(runner.val_dataloader))

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._update('val')

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._close('val')
        shown = [f'{key} {value:.3f}' for key, value in headline(metrics or {}, self.metrics).items()]
        if shown and is_main_process():
            sys.stderr.write('  ' + '  '.join(shown) + '\n')

    def before_test_epoch(self, runner: Any) -> None:
        self._open('test', len(runner.test_dataloader))

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._update('test')

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._close('test')

    def _open(self, stage: str, total: int, done: int = 0) -> None:
        if not is_main_process():
            return
        training = self.bars.get('train')
        if training is not None and training.live and training.length:
            training.stream.write('\n')  # the evaluation gets a line of its own
        self.bars[stage] = ProgressBar(total, stage, done=done)

    def _update(self, stage: str, note: str = '') -> None:
        if stage in self.bars:
            self.bars[stage].update(note=note)

    def _close(self, stage: str) -> None:
        if stage in self.bars:
            self.bars.pop(stage).close()
