"""Looks a config's parts up before anything is built, so that a typo is an error of a second, not of an hour.

MMEngine's Runner builds through its own registries, whose errors name no nearest match.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from trecvit_dense import registry
from trecvit_dense.registry import Registry

_RUNNERS_OWN = {'priority'}  # taken by the Runner before the hook is built


def check_parts(cfg: Config) -> None:
    """Check type and argument names of what the Runner will build. Parts of parts are checked when they are built.

    Raises:
        KeyError: a ``type`` is not registered; the nearest name is given.
        TypeError: one of our classes has no such argument.
    """
    for family, part in _parts(cfg):
        if isinstance(part, dict) and isinstance(part.get('type'), str):
            family.check({key: value for key, value in part.items() if key not in _RUNNERS_OWN})


def _parts(cfg: Config) -> Iterator[tuple[Registry, Any]]:
    """Registry and config of each part."""
    yield registry.MODELS, cfg.get('model')
    for stage in ('train', 'val', 'test'):
        loader = cfg.get(f'{stage}_dataloader') or {}
        yield registry.DATASETS, loader.get('dataset')
        yield registry.DATA_SAMPLERS, loader.get('sampler')
        yield registry.LOOPS, cfg.get(f'{stage}_cfg')
        for metric in _as_list(cfg.get(f'{stage}_evaluator')):
            yield registry.METRICS, metric
    for hook in [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]:
        yield registry.HOOKS, hook
    for scheduler in _as_list(cfg.get('param_scheduler')):
        yield registry.PARAM_SCHEDULERS, scheduler
    wrapper = cfg.get('optim_wrapper') or {}
    yield registry.OPTIM_WRAPPERS, wrapper
    yield registry.OPTIMIZERS, wrapper.get('optimizer')


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else [value]
