"""Progress of training and evaluation in MMEngine's loops; the bar itself is :mod:`trecvit_dense.progress`."""

from __future__ import annotations

import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from trecvit_dense.progress import ProgressBar, clock, track
from trecvit_dense.registry import HOOKS

__all__ = ['ProgressBar', 'ProgressHook', 'clock', 'headline', 'number', 'track']

_DETAIL = set(
    'per_video per_sequence per_class occluded reappear reset copy_first label_propagation chance majority'.split()
)


def number(value: Any) -> float:
    """A logged value as a float; a loss still hangs on its graph."""
    return value.detach().item() if hasattr(value, 'detach') else float(value)


def headline(metrics: dict[str, Any], endings: tuple[str, ...]) -> dict[str, float]:
    """The metrics worth a glance during training: without single videos, subsets and ablations."""
    names = [key for key in metrics if key.endswith(endings) and not _DETAIL & set(key.split('/'))]
    return {key: float(metrics[key]) for key in names if isinstance(metrics[key], (int, float))}


@HOOKS.register_module()
class ProgressHook(Hook):
    """One line for training (smoothed loss, learning rate, ETA) and one for each evaluation; first process only.

    Args:
        metrics: Endings of the metric names that are shown after an evaluation.
    """

    priority = 'VERY_LOW'

    def __init__(self, metrics: tuple[str, ...] = ('AJ', 'delta_avg', 'OA', 'J&F', 'top1')) -> None:
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
