"""Official weight files into ours and back: which file it is, which model it needs, what was left over.

========================================  =========================================================================
``trecvit_B_k400.npz``                    TRecViT with its classifier
``trecvit_B_mae.npz``                     TRecViT encoder; what the decoder is called is not public, it is reported
``tapnext_ckpt.npz``, ``bootstapnext_``   TAPNext, JAX names and numerics
``tapnextpp_ckpt.pt``, ``_512.ckpt``      TAPNext++, torch names and numerics, in a Lightning file
those of :data:`OTHERS`                   the backbones beside TRecViT, see ``<name>_names.py``
========================================  =========================================================================

No number is changed on the way, so a file converted there and back is equal bit for bit.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trecvit_dense.io.atomic import atomic_path

from . import mobile_former_names, tapnext_names, vis4mer_names, vivit_names, xvit_names
from .architecture import describe, first_difference, looks_like, square_grid
from .io import CheckpointError, LoadReport, check_finite, fit_positions, load_torch, read_checkpoint, resolve
from .trecvit_names import Rule, load_rules, official_depth, our_depth, save_rules, trecvit_rules, unmatched

_LIGHTNING_PREFIX = 'tapnext.'
_CONTAINERS = ('state_dict', 'model_state')  # Lightning and others; SlowFast
OTHERS = {
    layout.name: layout
    for layout in (vivit_names.LAYOUT, xvit_names.LAYOUT, vis4mer_names.LAYOUT, mobile_former_names.LAYOUT)
}


@dataclass
class OfficialFile:
    """Arrays of an official file under their official names, without container and prefix.

    Args:
        layout: ``'trecvit'``, ``'tapnext-jax'``, ``'tapnext-torch'`` or a name in :data:`OTHERS`.
        arrays: Name to array.
        prefix: What was taken off every name.
        container: Key under which a torch file keeps the weights, or an empty string.
        dropped: What was left out on purpose.
        recipe: Text of the training config beside the weights, or an empty string.
    """

    layout: str
    arrays: dict[str, np.ndarray]
    prefix: str = ''
    container: str = ''
    dropped: list[str] = field(default_factory=list)
    recipe: str = ''

    @property
    def arch(self) -> str:
        """``'trecvit'``, ``'tapnext'`` or a name in :data:`OTHERS`."""
        return self.layout.partition('-')[0]

    @property
    def rules(self) -> list[Rule]:
        if self.layout in OTHERS:
            return OTHERS[self.layout].rules(self.arrays)
        return rules_of(self.layout, self.depth)

    @property
    def depth(self) -> int:
        if self.layout == 'tapnext-torch':
            return our_depth(self.arrays)
        return official_depth(self.arrays)


def rules_of(layout: str, depth: int) -> list[Rule]:
    """The names of one kind of official file."""
    makers = {
        'trecvit': trecvit_rules,
        'tapnext-jax': tapnext_names.jax_rules,
        'tapnext-torch': tapnext_names.torch_rules,
    }
    return makers[layout](depth)


# ------------------------------------------------------------------------------------------------------ reading


def read_official(path: str | Path) -> OfficialFile:
    """Read an official file without unpickling anything.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: truncated, pickled, or none of the known files.
    """
    path = resolve(path)
    if path.suffix == '.npz':
        return _recognise(path, _read_npz(path))
    if path.suffix == '.safetensors':
        tensors, _ = read_checkpoint(path)
        return _recognise(path, {name: value.numpy() for name, value in tensors.items()})
    content = load_torch(path)
    container = next((name for name in _CONTAINERS if isinstance(content.get(name), dict)), '')
    weights = content[container] if container else content
    dropped = [name for name in content if name != container] if container else []
    arrays = {name: value.detach().numpy() for name, value in weights.items() if isinstance(value, Tensor)}
    file = _recognise(path, arrays, container=container, dropped=dropped)
    file.recipe = content['cfg'] if container and isinstance(content.get('cfg'), str) else ''
    return file


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f'{path} is not an npz file or is truncated; download it again')
    try:
        with path.open('rb') as handle, np.load(handle, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        reason = 'it holds pickled objects, which are not read' if 'pickle' in str(error).lower() else str(error)
        raise CheckpointError(f'{path} is not an npz file of plain arrays or is truncated: {reason}') from None


def _recognise(
    path: Path, arrays: dict[str, np.ndarray], container: str = '', dropped: list[str] | None = None
) -> OfficialFile:
    dropped = list(dropped or [])
    for prefix in ('', _LIGHTNING_PREFIX, 'params/'):
        named = {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
        layout = _layout(named)
        if layout:
            break
    else:
        example = next(iter(arrays), 'nothing')
        raise CheckpointError(
            f'{path} is no TRecViT or TAPNext file, and not of {", ".join(OTHERS)}: '
            f"none of its {len(arrays)} names is known, e.g. '{example}'"
        )
    if layout == 'tapnext-torch' and named.pop(tapnext_names.RECOMPUTED, None) is not None:
        dropped.append(tapnext_names.RECOMPUTED)
    if layout in OTHERS:
        dropped += OTHERS[layout].drop(named)
    others = {name: value for name, value in arrays.items() if not name.startswith(prefix)}
    return OfficialFile(layout, {**named, **others}, prefix, container, dropped)


def _layout(names: Mapping[str, Any]) -> str:
    if tapnext_names.is_torch(names):
        return 'tapnext-torch'
    if tapnext_names.is_jax(names):
        return 'tapnext-jax'
    if looks_like(names, r'encoder/residualblock_\d+/'):
        return 'trecvit'
    return next((name for name, layout in OTHERS.items() if layout.matches(names)), '')


# ------------------------------------------------------------------------------------------------------ configs


def tapnext_config(
    *,
    image_size: tuple[int, int] = (256, 256),
    input_size: tuple[int, int] | None = None,
    num_bins: int = 256,
    hidden_dim: int = 256,
    numerics: str = 'jax',
    head: dict[str, Any] | None = None,
    **sizes: Any,
) -> dict[str, Any]:
    """Model config of a TAPNext.

    Args:
        image_size: Native size, of the position tables.
        input_size: Size to which frames are resized; None is ``image_size``. TAPNext++ at 512 px: ``(512, 512)``.
        numerics: ``'jax'`` or ``'torch'``, what the weights were trained in.
        head: More arguments of :class:`TAPNextHead`.
        **sizes: Arguments of :class:`TRecViT`: ``embed_dim``, ``depth``, ``num_heads`` ...
    """
    in_torch = numerics == 'torch'
    backbone = dict(
        type='TRecViT',
        image_size=list(image_size),
        temporal_mlp=True,
        min_rad=0.9,
        gelu='erf' if in_torch else 'tanh',
        encoder_norm_eps=1e-5 if in_torch else 1e-6,
        **sizes,
    )
    # The border rule belongs to the weights, as the numerics do: TAPNext++ learnt with the fading one.
    border = 'zero' if in_torch else 'clamp'
    points = dict(type='TAPNextHead', image_size=list(image_size), num_bins=num_bins, hidden_dim=hidden_dim)
    points = {**points, 'numerics': numerics, 'border': border, **(head or {})}
    size = list(input_size or image_size)
    preprocessor = dict(type='VideoPreprocessor', input_size=size, value_range='signed')
    return dict(type='VideoPerceiver', data_preprocessor=preprocessor, backbone=backbone, heads=dict(points=points))


def infer_config(file: OfficialFile, **options: Any) -> dict[str, Any]:
    """Model config from the shapes of a file's arrays.

    Args:
        **options: ``image_size`` (when the position table is not square), ``input_size``, ``numerics``.

    Raises:
        CheckpointError: an array from which a size is read is missing, or the grid is not square.
    """
    if file.layout in OTHERS:
        return OTHERS[file.layout].config(file.arrays, dict(options, recipe=file.recipe))
    state = load_rules(file.rules, file.arrays)
    fields = describe(state)
    needed = ('embed_dim', 'depth', 'num_heads', 'mlp_dim', 'conv_width', 'patch_size')
    absent = [name for name in needed if name not in fields]
    if absent:
        raise CheckpointError(f'the file lacks the arrays that tell its {absent[0]}; it is damaged or of another model')
    table = state.get('backbone.position.table')
    image_size = options.pop('image_size', None) or _image_size(table, fields['patch_size'])
    fields['patch_size'] = list(fields['patch_size'])
    names = ('num_bins', 'hidden_dim', 'num_classes', 'rep_size')
    head = {name: fields.pop(name) for name in names if name in fields}
    if file.arch == 'tapnext':
        del fields['temporal_mlp'], fields['class_token']
        options.setdefault('numerics', 'torch' if file.layout == 'tapnext-torch' else 'jax')
        return tapnext_config(image_size=image_size, **head, **fields, **options)
    return trecvit_config(image_size, fields, head, options, position='learned' if table is not None else 'sincos2d')


def trecvit_config(
    image_size: tuple[int, int], fields: dict[str, Any], head: dict[str, Any], options: dict[str, Any], position: str
) -> dict[str, Any]:
    """Model config of a TRecViT, with its classifier when ``head`` has ``num_classes``."""
    backbone = dict(type='TRecViT', image_size=list(image_size), position=position, **fields)
    if options.get('numerics') == 'torch':
        backbone.update(gelu='erf')
    pool = 'tok' if fields['class_token'] else 'gap'
    heads = dict(classification=dict(type='ClassificationHead', pool=pool, **head)) if 'num_classes' in head else {}
    size = list(options.get('input_size') or image_size)
    preprocessor = dict(type='VideoPreprocessor', input_size=size, value_range='unit')
    return dict(type='VideoPerceiver', data_preprocessor=preprocessor, backbone=backbone, heads=heads)


def _image_size(table: Tensor | None, patch_size: tuple[int, int]) -> tuple[int, int]:
    if table is None:
        return 224, 224
    grid = square_grid(table.shape[1])
    if grid is None:
        raise CheckpointError(f'the position table has {table.shape[1]} entries, no square; say --image-size H W')
    return grid[0] * patch_size[0], grid[1] * patch_size[1]


# --------------------------------------------------------------------------------------------------- converting


def from_official(file: OfficialFile, model_cfg: dict[str, Any]) -> tuple[dict[str, Tensor], LoadReport]:
    """State dict for ``model_cfg`` and the report, names of the report official ones.

    Raises:
        CheckpointError: another architecture than the config's, named by its field; a shape that does not fit; NaN.
    """
    wanted = _empty_state(model_cfg)
    rules = [rule for rule in file.rules if rule.ours in wanted]
    state = load_rules(rules, file.arrays)
    difference = first_difference(describe(state) if rules else {}, describe(wanted))
    if difference:
        raise CheckpointError(f'wrong architecture: {difference}')
    report = LoadReport(dropped=file.dropped, unexpected=unmatched(rules, file.arrays))
    report.missing = [
        name for rule in rules if rule.ours not in state for name in rule.official if name not in file.arrays
    ]
    covered = {rule.ours for rule in rules}
    report.missing += sorted(name for name in wanted if name not in covered)
    fit(state, wanted, report)
    report.loaded = sorted(set(file.arrays) - set(report.unexpected))
    check_finite(state, 'the file')
    return state, report


def fit(state: dict[str, Tensor], wanted: Mapping[str, Tensor], report: LoadReport) -> None:
    """Interpolate position tables to the wanted grid, in place, and check every shape."""
    for name, value in state.items():
        state[name] = fit_positions(value, wanted[name], name, report)
        if state[name].shape != wanted[name].shape:
            raise CheckpointError(
                f"tensor '{name}' has shape {tuple(value.shape)}; the rest of it wants {tuple(wanted[name].shape)}"
            )


def to_official(state: Mapping[str, Tensor], layout: str) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Official arrays from our state dict, and the report, its names ours.

    Raises:
        CheckpointError: the weights are of another model.
    """
    fields = describe(state)
    if layout in OTHERS:
        rules = OTHERS[layout].rules_back(state)
    elif 'num_heads' not in fields:
        raise CheckpointError('these weights have no TRecViT blocks; no official form of them is known')
    else:
        rules = rules_of(layout, fields['depth'])
    arrays = save_rules(rules, state, fields.get('num_heads', 0))
    if layout in OTHERS:
        OTHERS[layout].finish(arrays)
    known = {rule.ours for rule in rules}
    loaded = sorted(known & set(state))
    return arrays, LoadReport(loaded=loaded, unexpected=sorted(set(state) - known))


def write_official(
    arrays: Mapping[str, np.ndarray], path: str | Path, *, prefix: str = '', container: str = 'state_dict'
) -> None:
    """Write ``.npz``, or a torch file with the weights below ``container``."""
    path = Path(path)
    named = {prefix + name: array for name, array in arrays.items()}
    with atomic_path(path) as temporary:
        if path.suffix == '.npz':
            with temporary.open('wb') as file:
                np.savez(file, **named)
            return
        tensors = {name: torch.from_numpy(array) for name, array in named.items()}
        torch.save({container: tensors} if container else tensors, temporary)


def _empty_state(model_cfg: dict[str, Any]) -> dict[str, Tensor]:
    """Names and shapes of a model, without allocating it."""
    from trecvit_dense.registry import MODELS, use_scope

    use_scope()
    with torch.device('meta'):
        return dict(MODELS.build(dict(model_cfg)).state_dict())
