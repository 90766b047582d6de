"""Checkpoints of our own: safetensors with a json card, and MMEngine ``.pth``. Both rebuild their model by themselves.

Nothing is ever unpickled beyond tensors and plain containers, and nothing in a file is executed.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trecvit_dense.io.atomic import atomic_path, write_json

from .architecture import describe, first_difference, square_grid

BOXED = Path(__file__).resolve().parent.parent / 'weights' / 'boxed.safetensors'
_METADATA_KEY = 'trecvit_dense'
_POSITIONS = 'position.table'
_OPTIONAL = ('class_token',)  # of a backbone: a task may want one that pre-training did without, or the other way round


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message is one line for the user."""


@dataclass
class LoadReport:
    """What a load or a conversion did, by tensor name.

    Args:
        loaded: Tensors taken from the file, resized ones included.
        missing: Tensors of the model that the file does not have.
        unexpected: Tensors of the file that the model has no place for.
        resized: ``'name: from -> to'`` for position tables that were interpolated to another grid.
        dropped: Entries that are left out on purpose (recomputable buffers, optimiser state).
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'loaded {len(self.loaded)}']
        for title in ('missing', 'unexpected', 'resized', 'dropped'):
            names = getattr(self, title)
            lines.append(f'{title} {len(names)}' + ''.join(f'\n  {name}' for name in names))
        return '\n'.join(lines)


def resolve(path: str | Path) -> Path:
    """``'boxed'`` or a path, checked to be a file with content.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: a folder or an empty file.
    """
    if str(path) == 'boxed':
        if not BOXED.is_file():
            raise FileNotFoundError(
                f"'boxed' weights are not in this installation (no {BOXED.name} in trecvit_dense/weights); "
                f'name a checkpoint file'
            )
        return BOXED
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f'{path} is a folder; name a checkpoint file (.safetensors or .pth) in it')
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint {path} does not exist; name a file, or 'boxed' for the weights in the package"
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f'{path} is empty; write or download it again')
    return path


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of one of our files.

    Returns:
        ``(state_dict, info)``; ``info`` has ``path``, ``format``, ``config`` (of the model, or None) and ``card``.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, truncated, or a pickle that asks for more than tensors.
    """
    path = resolve(path)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    if path.suffix == '.npz':
        raise CheckpointError(
            f'{path} is an npz file; convert official weights first: trecvit convert {path} OUT.safetensors'
        )
    content = load_torch(path)
    state = content.get('state_dict', content)
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no 'state_dict' with tensors; it is not a checkpoint of a model")
    meta = content.get('meta') if isinstance(content.get('meta'), dict) else {}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {'path': str(path), 'format': 'pth', 'config': _config_of(meta), 'card': {}}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f'{path} is not a safetensors file or is truncated: {_first_line(error)}') from None
    try:
        described = json.loads(metadata.get(_METADATA_KEY, '{}'))
    except json.JSONDecodeError:
        raise CheckpointError(f'{path}: the description in its header is not json; convert the weights again') from None
    return tensors, {
        'path': str(path),
        'format': 'safetensors',
        'config': described.get('config'),
        'card': described.get('card', {}),
    }


def load_torch(path: Path) -> dict[str, Any]:
    """``torch.load`` of tensors and plain containers only.

    Raises:
        CheckpointError: another kind of file, a truncated one, or one that names a foreign global (which is not run).
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError ... for bad files
        match = re.search(r'(?:GLOBAL|global|type) ([\w.]+(?:\.[\w]+)+)', str(error))
        if match:
            raise CheckpointError(f"{path} asks for the global '{match.group(1)}'; refused, nothing was run: "
                                  'only tensors and plain containers are read') from None  # fmt: skip
        raise CheckpointError(f'{path} is not a torch checkpoint or is truncated: {_why_not_torch(path)}') from None
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}; wanted a dictionary with the weights')
    return content


def _why_not_torch(path: Path) -> str:
    """What torch's own message about a broken file does not say."""
    with path.open('rb') as file:
        start = file.read(2)
    if start == b'PK':
        return 'its end is missing or damaged; copy or download it again'
    return 'the pickle in it is damaged' if start[:1] == b'\x80' else 'it begins like another kind of file'


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _config_of(meta: dict[str, Any]) -> dict[str, Any] | None:
    """The model's config from MMEngine's ``meta``: the entry ``model``, else ``model = ...`` of the text in ``cfg``."""
    model = meta.get('model')
    if isinstance(model, str):
        return json.loads(model)
    if isinstance(model, dict):
        return model
    text = meta.get('cfg')
    return parse_config_text(text).get('model') if isinstance(text, str) else None


def parse_config_text(text: str) -> dict[str, Any]:
    """Assignments of literals and ``dict(...)`` in MMEngine's ``Config.pretty_text``, read without running it."""
    values: dict[str, Any] = {}
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        return values
    for node in statements:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                values[node.targets[0].id] = _literal(node.value)
    return values


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    return ast.literal_eval(node)


def save_model(
    model: nn.Module, model_cfg: dict[str, Any], path: str | Path, card: dict[str, Any] | None = None
) -> Path:
    """Write ``path`` (safetensors, config and card in its header) and the card beside it as ``<stem>.json``.

    Args:
        model_cfg: What ``MODELS.build`` takes; plain values only.
        card: Anything a reader should know: data, commands, hours, hardware, scores, limits.
    """
    return save_weights(model.state_dict(), model_cfg, path, card)


def save_weights(
    state: dict[str, Tensor], model_cfg: dict[str, Any], path: str | Path, card: dict[str, Any] | None = None
) -> Path:
    """:func:`save_model` for a state dict."""
    path = Path(path)
    if path.suffix != '.safetensors':
        raise ValueError(f"weights are written as safetensors: got '{path.name}', wanted a name ending in .safetensors")
    described = {'config': json.loads(json.dumps(model_cfg)), 'card': card or {}}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={'format': 'pt', _METADATA_KEY: json.dumps(described)})
    numbers = sum(value.numel() for value in tensors.values() if value.is_floating_point())  # counters are none
    write_json(path.with_suffix('.json'), {**described['card'], 'parameters': numbers, 'model': described['config']})
    return path


def load_model(path: str | Path, device: torch.device | str = 'cpu') -> nn.Module:
    """Rebuild a model from its file alone, in eval mode.

    Args:
        path: A file of :func:`save_model`, an MMEngine ``.pth``, or ``'boxed'``: the weights in the package.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, without a config, with NaN, or with other tensors than its config asks for.
    """
    from trecvit_dense.registry import MODELS, use_scope

    state, info = read_checkpoint(path)
    if not isinstance(info['config'], dict):
        raise CheckpointError(f'{info["path"]} does not carry the config of its model; official files: trecvit convert')
    use_scope()
    model = MODELS.build(dict(info['config']))
    load_state(model, state, name=info['path'])
    return model.to(device).eval()


def check_finite(state: dict[str, Tensor], name: str) -> None:
    """Refuse weights with NaN or infinity, naming the tensor."""
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise CheckpointError(f"{name}: tensor '{key}' has {bad} values that are NaN or infinite; not usable")


def load_state(
    model: nn.Module,
    state: dict[str, Tensor],
    *,
    name: str = 'checkpoint',
    strict: bool = True,
    optional: tuple[str, ...] = (),
) -> LoadReport:
    """Load weights of our names into ``model``; position tables of another grid are interpolated.

    Args:
        name: What to call the file in messages.
        strict: Refuse missing and unexpected tensors.
        optional: Those that may be missing or unexpected all the same.

    Raises:
        CheckpointError: NaN; another architecture, named by the config field that differs; other tensors (strict).
    """
    check_finite(state, name)
    own = model.state_dict()
    difference = first_difference(describe(state), describe(own))
    if difference:
        raise CheckpointError(f'{name} holds another architecture: {difference}')
    report = LoadReport(missing=sorted(own.keys() - state.keys()), unexpected=sorted(state.keys() - own.keys()))
    missing, unexpected = ([key for key in keys if key not in optional] for keys in (report.missing, report.unexpected))
    if strict and (missing or unexpected):
        raise CheckpointError(f'{name} does not fit the model: {len(missing)} tensors missing and '
                              f"{len(unexpected)} unexpected, e.g. '{(missing or unexpected)[0]}'")  # fmt: skip
    fitted = {}
    for key in own.keys() & state.keys():
        fitted[key] = fit_positions(state[key], own[key], key, report)
        if fitted[key].shape != own[key].shape:
            raise CheckpointError(f"{name}: tensor '{key}' has shape {tuple(state[key].shape)}; "
                                  f'the model wants {tuple(own[key].shape)}')  # fmt: skip
    report.loaded = sorted(fitted)
    model.load_state_dict({**own, **fitted})
    return report


def load_parts(model: nn.Module, parts: dict[str, str | Path]) -> dict[str, LoadReport]:
    """Start parts of a model from other files: ``{'backbone': FILE, 'points': FILE}``, heads by their task.

    The backbone of an XViT also starts from an image model, a ViT file of timm.

    Returns:
        Part to report. ``dropped`` has what is in the file beside the part, under its whole name: heads of another
        task, say. A backbone's class token may be ``missing``, and then starts afresh, or ``unexpected``.

    Raises:
        FileNotFoundError, CheckpointError: a file that cannot be used, or that lacks the part.
        ValueError: the model has no such part.
    """
    from .xvit_names import from_imagenet

    reports = {}
    for part, path in parts.items():
        module = model.backbone if part == 'backbone' else dict(model.heads.items()).get(part)
        if module is None:
            known = ['backbone', *model.heads]
            raise ValueError(f"pretrained names '{part}'; wanted some of {', '.join(known)}")
        prefix = 'backbone.' if part == 'backbone' else f'heads.{part}.'
        state, info = read_checkpoint(path)
        own = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        beside = sorted(state.keys() - {prefix + key for key in own}) if own else []
        if not own and part == 'backbone':
            own = from_imagenet(state, module)
        if not own:
            raise CheckpointError(f'{info["path"]} has no {part}: no tensor in it begins with {prefix}')
        fit = getattr(module, 'fit_weights', None)  # a video model that can start from those of an image model
        own, notes = fit(own) if fit else (own, [])
        optional = _OPTIONAL if part == 'backbone' else ()
        reports[part] = load_state(module, own, name=f'{info["path"]}, {part}', optional=optional)
        reports[part].resized += notes
        reports[part].dropped += beside
    return reports


def fit_positions(table: Tensor, wanted: Tensor, key: str, report: LoadReport) -> Tensor:
    """Interpolate a learned ``(1, h * w, C)`` position table to the wanted number of tokens, and report it.

    Other tensors, and tables of grids that are not square, are returned as they are.
    """
    from trecvit_dense.models.layers.embedding import interpolate_table

    if not key.endswith(_POSITIONS) or table.shape == wanted.shape or table.shape[-1] != wanted.shape[-1]:
        return table
    old, new = square_grid(table.shape[1]), square_grid(wanted.shape[1])
    if old is None or new is None:
        return table
    report.resized.append(f'{key}: {old[0]}x{old[1]} -> {new[0]}x{new[1]}')
    return interpolate_table(table, old, new).to(table.dtype)
