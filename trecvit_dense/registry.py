"""Every registry of the project, scope ``trecvit_dense``: each a child of MMEngine's, filled on first use.

A name that is not registered is answered with the nearest one. The package's own modules are imported through
``locations``; a user's modules through ``custom_imports = dict(imports=['my_module'])`` in the config.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from mmengine import registry as parents
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.registry import Registry as MMEngineRegistry

SCOPE = 'trecvit_dense'

_LOCATIONS = {
    'MODELS': ['trecvit_dense.models', 'trecvit_dense.engine'],
    'DATASETS': ['trecvit_dense.datasets'],
    'DATA_SAMPLERS': ['trecvit_dense.datasets'],
    'TRANSFORMS': ['trecvit_dense.datasets.transforms'],
    'METRICS': ['trecvit_dense.evaluation.metrics'],
    'EVALUATOR': ['trecvit_dense.evaluation.metrics'],
    'VISUALIZERS': ['trecvit_dense.visualization'],
}


def nearest(name: str, known: list[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest known name, or an empty string."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ''


class Registry(MMEngineRegistry):
    """MMEngine's registry with errors that a user can act on."""

    def _known(self) -> list[str]:
        self.import_from_location()
        names = list(self.module_dict)
        if self.parent is not None:
            names += list(self.parent.module_dict)
        return sorted(names)

    def build(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """Build ``cfg``.

        Raises:
            KeyError: ``type`` is not registered; the nearest name is given.
            TypeError: an argument does not exist in the class's signature; the nearest one is given.
        """
        if isinstance(cfg, (dict, ConfigDict, Config)):
            if isinstance(cfg.get('type'), str):
                self.check(cfg)
        return super().build(cfg, *args, **kwargs)

    def check(self, cfg: dict) -> None:
        """Look up the type and the argument names of ``cfg`` without building it; raises as :meth:`build`."""
        kind = cfg['type']
        cls = self.get(kind)
        if cls is None:
            known = self._known()
            raise KeyError(
                f"'{kind}' is not registered as {self.name}{nearest(kind, known)} "
                f'(a class of your own needs custom_imports=dict(imports=[...]) in the config)'
            )
        if not inspect.isclass(cls) or not cls.__module__.startswith(SCOPE):
            return
        known = _arguments(cls)
        for key in cfg if known is not None else ():
            if key not in known and key not in ('type', '_scope_'):
                raise TypeError(f"{kind} has no argument '{key}'{nearest(key, known)}")


def _arguments(cls: type) -> list[str] | None:
    """Names that the constructor takes, those of our bases included where it passes ``**options`` on; None: any."""
    known: list[str] = []
    for base in cls.__mro__:
        if not base.__module__.startswith(SCOPE):
            break
        if '__init__' in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
            known += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return known
    return None


def _child(name: str) -> Registry:
    parent = getattr(parents, name)
    locations = _LOCATIONS.get(name, ['trecvit_dense.engine'])
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=locations, build_func=parent.build_func)


# A child for every parent: MMEngine warns once per registry that a scope leaves out.
_NAMES = [name for name, value in vars(parents).items() if isinstance(value, MMEngineRegistry) and name.isupper()]
_CHILDREN = {name: _child(name) for name in _NAMES}
MODELS = _CHILDREN['MODELS']
DATASETS = _CHILDREN['DATASETS']
DATA_SAMPLERS = _CHILDREN['DATA_SAMPLERS']
TRANSFORMS = _CHILDREN['TRANSFORMS']
METRICS = _CHILDREN['METRICS']
EVALUATOR = _CHILDREN['EVALUATOR']
HOOKS = _CHILDREN['HOOKS']
LOOPS = _CHILDREN['LOOPS']
OPTIM_WRAPPERS = _CHILDREN['OPTIM_WRAPPERS']
OPTIMIZERS = _CHILDREN['OPTIMIZERS']
PARAM_SCHEDULERS = _CHILDREN['PARAM_SCHEDULERS']
RUNNERS = _CHILDREN['RUNNERS']
VISUALIZERS = _CHILDREN['VISUALIZERS']
VISBACKENDS = _CHILDREN['VISBACKENDS']


def use_scope() -> None:
    """Make ``trecvit_dense`` the scope in which configs are resolved."""
    if not DefaultScope.check_instance_created(SCOPE):
        DefaultScope.get_instance(SCOPE, scope_name=SCOPE)
