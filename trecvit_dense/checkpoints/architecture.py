"""What a set of weights says about the model that it belongs to, in the words of the config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .trecvit_names import our_depth

_BLOCK = 'backbone.blocks.0.'
_POINTS, _CLASSES = 'heads.points.', 'heads.classification.'


def describe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Config fields that the shapes of one of our state dicts give away; few for other models than TRecViT."""
    sizes = {
        'embed_dim': (f'{_BLOCK}temporal.linear_x.weight', 1),
        'num_heads': (f'{_BLOCK}temporal.rg_lru.input_gate.weight', 0),
        'mlp_dim': (f'{_BLOCK}spatial.mlp.fc1.weight', 0),
        'lru_width': (f'{_BLOCK}temporal.linear_x.weight', 0),
        'conv_width': (f'{_BLOCK}temporal.conv.weight', 0),
        'hidden_dim': (f'{_POINTS}coordinate_head.6.weight', 1),
        'num_classes': (f'{_CLASSES}classifier.weight', 0),
        'rep_size': (f'{_CLASSES}classifier.weight', 1),
    }
    fields: dict[str, Any] = {field: state[name].shape[axis] for field, (name, axis) in sizes.items() if name in state}
    if 'embed_dim' in fields:
        fields['depth'] = our_depth(state)
        fields['temporal_mlp'] = f'{_BLOCK}temporal.mlp.up.weight' in state
        fields['class_token'] = 'backbone.class_token' in state
    patch = state.get('backbone.patch_embed.proj.weight')
    if patch is not None and patch.shape[1] == 3:
        fields['patch_size'] = tuple(patch.shape[2:])
    if f'{_POINTS}coordinate_head.6.weight' in state:
        fields['num_bins'] = state[f'{_POINTS}coordinate_head.6.weight'].shape[0] // 2
    return fields


def first_difference(file: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """``'depth: file has 12, model has 6'`` for the first field that differs, or an empty string."""
    for field, value in file.items():
        if field in model and model[field] != value:
            return f'{field}: file has {_shown(value)}, model has {_shown(model[field])}'
    return ''


def _shown(value: Any) -> str:
    return 'x'.join(map(str, value)) if isinstance(value, tuple) else str(value)


def square_grid(tokens: int) -> tuple[int, int] | None:
    """``(h, w)`` of a square grid with so many tokens, or None."""
    side = round(tokens**0.5)
    return (side, side) if side * side == tokens else None


def looks_like(names: Mapping[str, Any], pattern: str) -> bool:
    """Some name matches the regular expression from its start."""
    return any(re.match(pattern, name) for name in names)
