"""MMEngine's Runner with its rough edges off: quiet on the console, files that are never half written."""

from __future__ import annotations

import logging
import platform
from pathlib import Path
from typing import Any, ClassVar

import mmengine
import torch
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from trecvit_dense import __version__
from trecvit_dense.checkpoints import load_state, read_checkpoint
from trecvit_dense.io.atomic import atomic_path
from trecvit_dense.registry import RUNNERS

_NOISE = (
    'has no metainfo',
    'Failed to search registry',
    'Did not find last_checkpoint',
    '`save_param_scheduler` is True but',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


class _Console(logging.Filter):
    """Keeps remarks that no user can act on out of the terminal; the log file has them all."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(text in message for text in _NOISE)


def versions() -> dict[str, str]:
    """The environment in a few words: what a bug report needs first."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} threads'
    return {
        'trecvit_dense': __version__,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'mmengine': mmengine.__version__,
        'platform': platform.platform(),
        'device': device,
    }


@RUNNERS.register_module()
class TrecvitRunner(Runner):
    """Runner whose console shows warnings only (the progress hook speaks instead) and whose log file has everything.

    ``cfg.verbose = True`` brings MMEngine's console output back.
    """

    _starts: ClassVar[dict[str, int]] = {}  # runs of this process by the second in which they began

    def setup_env(self, env_cfg: dict) -> None:
        """MMEngine names the log and message hub of a run by the second: two in one second would share them."""
        super().setup_env(env_cfg)
        earlier = self._starts.get(self._timestamp, 0)
        self._starts[self._timestamp] = earlier + 1
        if earlier:
            self._timestamp += f'_{earlier}'

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(log_level, log_file, **kwargs)
        console = logger.handlers[0]
        if not self.cfg.get('verbose', False):
            console.setLevel(max(console.level, logging.WARNING))
            console.addFilter(_Console())
        return logger

    def _log_env(self, env_cfg: dict) -> None:
        lines = [f'{key}: {value}' for key, value in {**versions(), 'seed': self.seed}.items()]
        self.logger.info('Environment:\n    ' + '\n    '.join(lines))
        self.logger.info(f'Config:\n{self.cfg.pretty_text}')

    def evaluate(self) -> dict[str, float]:
        """Metrics of the weights as they are after :meth:`train`, on the test set or, without one, the validation set.

        MMEngine's own ``val`` and ``test`` call ``before_run`` again, which makes EMAHook forget its average. A
        validation that has just been made on the same data is not repeated.
        """
        done = getattr(self._train_loop, 'validated', None)
        if done and done[0] == self.iter and (self._test_loop is None or self._tests_are_validations()):
            return done[1]
        if self._test_loop is not None:
            self._test_loop = self.build_test_loop(self._test_loop)
            return self.test_loop.run()
        if self._val_loop is None:
            raise ValueError('the config has neither a test nor a val set (test_evaluator, val_evaluator)')
        return self.val_loop.run()

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Also ``load_from`` a ``.safetensors``, for fine-tuning of converted weights; what does not fit is refused."""
        if not str(filename).endswith('.safetensors'):
            return super().load_checkpoint(filename, *args, **kwargs)
        state, info = read_checkpoint(filename)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        report = load_state(model, state, name=info['path'])
        self.logger.info(f'{filename}: {report}')
        self.call_hook('after_load_checkpoint', checkpoint=dict(state_dict=model.state_dict()))  # EMA starts here
        self._has_loaded = True
        return info

    def _tests_are_validations(self) -> bool:
        return all(self.cfg.get(f'val_{key}') == self.cfg.get(f'test_{key}') for key in ('dataloader', 'evaluator'))

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Written under another name first: a killed run leaves the old file or the new one."""
        if self.rank != 0:
            return super().save_checkpoint(out_dir, filename, *args, **kwargs)
        with atomic_path(Path(out_dir) / filename) as partial:
            super().save_checkpoint(out_dir, partial.name, *args, **kwargs)
        return None
