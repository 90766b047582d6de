"""Configs by path or by name, with overrides that are checked.

A config is Python and is run when it is loaded: treat one from a stranger as you would any program.

Beside MMEngine's keys, three top-level keys have a meaning here:

- ``overrides = dict(ann_file='test_dataloader.dataset.ann_file', ...)`` gives short names to deep settings. The
  top-level value of each name, unless it is None, is copied to its dotted path (or list of paths) after merging.
- ``presets = dict(gpu={'model.backbone.depth': 12, ...})`` are named sets of changes; ``preset = 'gpu'`` selects one,
  ``'auto'`` takes ``gpu`` or ``cpu`` by what the machine has. They are applied before ``--cfg-options``.
- ``work_dir`` is relative to the current directory.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction

import trecvit_dense
from trecvit_dense.registry import nearest

_PACKAGE = Path(trecvit_dense.__file__).resolve().parent
# A checkout keeps the recipes beside the package, a wheel inside it.
CONFIG_FOLDERS = (_PACKAGE.parent / 'configs', _PACKAGE / 'configs')
_WORDS = {'true': True, 'false': False, 'none': None}


def config_names() -> list[str]:
    """Names of the recipes that come with the project."""
    folder = next((folder for folder in CONFIG_FOLDERS if (folder / '_base_').is_dir()), CONFIG_FOLDERS[0])
    return sorted(path.stem for path in folder.glob('*.py') if path.stem != '__init__')


def find_config(name: str | Path) -> Path:
    """A path as it is, else a recipe by name: ``point_track_trecvit``, with or without ``configs/`` and ``.py``.

    Raises:
        FileNotFoundError: neither a file nor the name of a recipe.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    if path.parent == Path('.') or path.parent == Path('configs'):
        file = path.name if path.suffix == '.py' else f'{path.name}.py'
        for folder in CONFIG_FOLDERS:
            if (folder / file).is_file():
                return folder / file
    known = config_names()
    hint = nearest(path.stem, known) or f'; recipes: {", ".join(known)}'
    raise FileNotFoundError(f"config '{name}' is neither a file nor the name of a recipe{hint}")


def load_config(name: str | Path, options: Iterable[str] | dict[str, Any] | None = None) -> Config:
    """Load a config, apply ``presets``, ``options`` and ``overrides``, and import its ``custom_imports``.

    Args:
        name: Path, or name of a recipe.
        options: ``key=value`` strings with dotted keys, or a dictionary. ``+key`` adds a key that the config lacks.

    Raises:
        FileNotFoundError: no such config.
        KeyError: an option names a key that does not exist; the nearest one is given.
        ValueError: the config cannot be run, or a value is of another kind than the one it replaces.
    """
    path = find_config(name)
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:  # a config is a program: it can fail in any way
        raise ValueError(f'{path} cannot be loaded: {type(error).__name__}: {error}') from error
    options = options if isinstance(options, dict) else parse_options(options or [])
    apply_preset(cfg, options.pop('preset', cfg.get('preset')))
    set_options(cfg, options)
    apply_overrides(cfg)
    if cfg.get('compile'):
        raise ValueError(
            'compile=True compiles the optimiser too, which torch cannot do here; '
            "use custom_hooks=[dict(type='CompileHook', modules=['backbone'])]"
        )
    _import_custom(cfg, path.parent)
    return cfg


def parse_options(options: Iterable[str]) -> dict[str, Any]:
    """``['a.b=1', 'c=[1,2]', 'd=text']`` to ``{'a.b': 1, 'c': [1, 2], 'd': 'text'}``."""
    parsed = {}
    for option in options:
        key, separator, value = option.partition('=')
        if not separator or not key.strip('+ '):
            raise ValueError(f"--cfg-options got '{option}'; wanted key=value, e.g. train_dataloader.batch_size=4")
        parsed[key.strip()] = parse_value(value)
    return parsed


def parse_value(text: str) -> Any:
    """A Python literal, ``true/false/none``, a list written with commas, or the text itself."""
    if text.strip().lower() in _WORDS:
        return _WORDS[text.strip().lower()]
    try:
        value = ast.literal_eval(text.strip())
        return list(value) if isinstance(value, tuple) and not text.strip().startswith('(') else value
    except (ValueError, SyntaxError):
        pass
    if text[:1] + text[-1:] in ('[]', '()'):
        try:
            return DictAction._parse_iterable(text)
        except AssertionError:
            return text
    return [parse_value(part) for part in text.split(',')] if ',' in text and '/' not in text else text


def set_options(cfg: Config, options: dict[str, Any]) -> None:
    """Set dotted keys that exist; ``+key`` may be new."""
    for key, value in options.items():
        set_option(cfg, key.lstrip('+'), value, new=key.startswith('+'))


def set_option(cfg: Config, key: str, value: Any, *, new: bool = False) -> None:
    """Set one dotted key; parts that are numbers index lists.

    Raises:
        KeyError: a part of the key does not exist; the message gives the nearest one.
        ValueError: text where a number was, or a number where a switch was.
    """
    node, parts = cfg._cfg_dict, key.split('.')
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        place = _place(node, part, key, '.'.join(parts[:depth]), new=new)
        if last:
            old = node[place] if not new or _has(node, place) else None
            node[place] = _like(old, value, key)
        elif new and not _has(node, place):
            node[place] = ConfigDict()
        node = node[place]


def _has(node: Any, place: Any) -> bool:
    return place in node if isinstance(node, dict) else True


def _place(node: Any, part: str, key: str, before: str, *, new: bool) -> Any:
    """The key or index that ``part`` means in ``node``."""
    if isinstance(node, list):
        if part.lstrip('-').isdigit() and -len(node) <= int(part) < len(node):
            return int(part)
        raise KeyError(f"option '{key}': '{before}' is a list of {len(node)}; wanted an index, got '{part}'")
    if not isinstance(node, dict):
        raise KeyError(f"option '{key}': '{before}' is {node!r}, which has no '{part}'")
    if part in node or new:
        return part
    inside = f" in '{before}'" if before else ''
    raise KeyError(
        f"option '{key}': no key '{part}'{inside}{nearest(part, sorted(map(str, node)))} (to add a new key: +{key}=...)"
    )


def _like(old: Any, value: Any, key: str) -> Any:
    """``value``, checked against the kind of the value that it replaces."""
    if isinstance(old, bool):
        if value in (0, 1) or value is None:
            return value if value is None else bool(value)
        raise ValueError(f'option {key}={value!r}: wanted true or false (now {old})')
    if isinstance(old, (int, float)) and isinstance(value, str):
        raise ValueError(f'option {key}={value!r}: wanted a number (now {old})')
    if isinstance(old, str) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return ConfigDict(value) if isinstance(value, dict) else value


def apply_preset(cfg: Config, name: str | None) -> None:
    """Apply ``cfg.presets[name]``."""
    presets = cfg.get('presets') or {}
    if name is None:
        return
    if name == 'auto':
        name = 'gpu' if torch.cuda.is_available() else 'cpu'
    if name not in presets:
        known = sorted(presets)
        raise KeyError(f"preset '{name}' does not exist{nearest(name, known)}; presets: {', '.join(known) or 'none'}")
    set_options(cfg, dict(presets[name]))
    cfg.preset = name


def apply_overrides(cfg: Config) -> None:
    """Copy the top-level short names of ``cfg.overrides`` to their places."""
    for name, paths in (cfg.get('overrides') or {}).items():
        value = cfg.get(name)
        if value is None:
            continue
        for path in [paths] if isinstance(paths, str) else paths:
            parent, _, leaf = path.rpartition('.')
            known = _get(cfg, parent)
            set_option(cfg, path, value, new=isinstance(known, dict) and leaf not in known)


def _get(cfg: Config, path: str) -> Any:
    node = cfg._cfg_dict
    for part in path.split('.') if path else []:
        node = node[int(part)] if isinstance(node, list) else node.get(part, {})
    return node


def _import_custom(cfg: Config, folder: Path) -> None:
    """Import the user's own modules; they are found in the current directory and beside the config."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    for name in [imports] if isinstance(imports, str) else imports:
        for place in (str(Path.cwd()), str(folder)):
            if place not in sys.path:
                sys.path.append(place)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.split('.')[0] and error.name != name:
                raise
            raise ModuleNotFoundError(
                f"custom_imports: no module '{name}' in {Path.cwd()}, beside the config ({folder}) or installed"
            ) from None
