"""torch.compile for parts of a model."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from trecvit_dense.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles sub-modules in place before training; names in the checkpoint stay as they are.

    MMEngine's ``compile=True`` compiles the whole ``train_step``, optimiser included, which today's torch cannot do.

    Args:
        modules: Dotted names of sub-modules, e.g. ``['backbone']``.
        options: Passed to :meth:`torch.nn.Module.compile`, e.g. ``dict(mode='max-autotune')``.
    """

    def __init__(self, modules: list[str], *, options: dict | None = None) -> None:
        self.modules = modules
        self.options = options or {}

    def before_run(self, runner: Any) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name in self.modules:
            try:
                part = model.get_submodule(name)
            except AttributeError:
                known = ', '.join(child for child, _ in model.named_children())
                raise ValueError(f"CompileHook: the model has no part '{name}'; its parts are {known}") from None
            part.compile(**self.options)
