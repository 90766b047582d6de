"""A picture of what masked pre-training paints, in the work folder, redrawn at every validation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from PIL import Image

from trecvit_dense.io.atomic import atomic_path
from trecvit_dense.registry import HOOKS
from trecvit_dense.visualization import contact_sheet, draw_reconstruction


@HOOKS.register_module()
class ReconstructionHook(Hook):
    """Draws the first validation videos: shown, painted, true.

    Args:
        filename: In the work folder.
        task: Name of the head.
        videos: How many, one below the other.
        num_frames: Frames of each.
    """

    priority = 'LOW'

    def __init__(
        self,
        filename: str = 'reconstruction.png',
        *,
        task: str = 'reconstruction',
        videos: int = 3,
        num_frames: int = 6,
    ) -> None:
        self.filename, self.task, self.videos, self.num_frames = filename, task, videos, num_frames
        self._drawn: list = []

    def before_val_epoch(self, runner: Any) -> None:
        self._drawn = []

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        value_range = model.data_preprocessor.value_range
        for sample in list(outputs or [])[: self.videos - len(self._drawn)]:
            found = sample.predictions[self.task]
            self._drawn.append(draw_reconstruction(found, num_frames=self.num_frames, value_range=value_range))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write the picture; it is a report, so a failure to draw never ends a training."""
        if not self._drawn:
            return
        try:
            with atomic_path(Path(runner.work_dir) / self.filename) as path:
                Image.fromarray(contact_sheet(self._drawn, columns=1, gap=12)).save(path, format='PNG')
        except Exception as error:
            runner.logger.log(logging.WARNING, f'{self.filename} was not drawn: {error}')
