"""Names of the official XViT weights, and ours; and ImageNet weights of timm's vision transformers for the backbone.

The authors' backbone is timm's vision transformer below ``base_model.`` with one more table, ``temp_embed``. Nothing is
reshaped; only ``pos_embed (1, 1 + S, C)`` is cut into the entry of the class token and the grid of the patches, because
only the grid is resized for other inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from .trecvit_names import Arrays, Rule, load_rules, our_depth, same, save_rules

LAYOUT = 'xvit'
_POSITIONS = 'base_model.pos_embed'
_BLOCK = ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')  # the same names on both sides
# Heads of timm's ImageNet models, which the backbone has no place for; XViT's authors leave them out as well.
_IMAGENET_HEADS = ('pre_logits.', 'head.', 'head_dist.', 'fc_norm.')


def is_xvit(names: Iterable[str]) -> bool:
    """The official XViT, and not an image model."""
    return 'base_model.temp_embed' in set(names)


def affine(ours: str, official: str) -> list[Rule]:
    """Weight and bias in the same layout; where one has no bias, its rule finds nothing."""
    return [same(f'{ours}.{part}', f'{official}.{part}') for part in ('weight', 'bias')]


def backbone_rules(depth: int, prefix: str = 'backbone.') -> list[Rule]:
    """Every array of the backbone but the positions of the patches' grid and of the class token."""
    rules = [
        same(f'{prefix}class_token', 'base_model.cls_token'),
        same(f'{prefix}frame_position', 'base_model.temp_embed'),
        *affine(f'{prefix}patch_embed.proj', 'base_model.patch_embed.proj'),
        *affine(f'{prefix}norm', 'base_model.norm'),
    ]
    for layer in range(depth):
        for name in _BLOCK:
            rules += affine(f'{prefix}blocks.{layer}.{name}', f'base_model.blocks.{layer}.{name}')
    return rules


def position_rules(prefix: str = 'backbone.') -> list[Rule]:
    """The two parts of the position table. To save them they are joined, see :func:`xvit_to_official`."""
    parts = {'class_position': slice(0, 1), 'position.table': slice(1, None)}
    return [
        Rule(f'{prefix}{ours}', (_POSITIONS,), lambda arrays, part=part: arrays[0][:, part], _not_alone)
        for ours, part in parts.items()
    ]


def _not_alone(array: np.ndarray, heads: int) -> list[np.ndarray]:
    raise TypeError('the parts of the position table are saved together, by xvit_to_official')


def head_rules(classifier: str, depth: int, prefix: str = 'heads.classification.') -> list[Rule]:
    """The temporal aggregation head, or the classifier of single frames below ``classifier``."""
    if classifier:
        return affine(f'{prefix}classifier', classifier)
    rules = [same(f'{prefix}class_token', 'consensus.cls_token')]
    for layer in range(depth):
        ours, official = f'{prefix}blocks.{layer}', f'consensus.temporal_encoder.{layer}'
        for name in _BLOCK:
            rules += affine(f'{ours}.{name}', f'{official}.{name}')
    rules = [rule for rule in rules if not rule.ours.endswith('.qkv.bias')]  # unlike the backbone's blocks
    rules += affine(f'{prefix}norm', 'consensus.mlp_head.0')
    rules += affine(f'{prefix}pre_logits', 'consensus.mlp_head.1')
    return rules + affine(f'{prefix}classifier', 'consensus.mlp_head.4')


def xvit_rules(arrays: Arrays) -> list[Rule]:
    """How our parameters are made of the arrays of one official file."""
    return [*backbone_rules(our_depth(_below(arrays, 'base_model.'))), *position_rules(), *_head_rules_of(arrays)]


def _head_rules_of(arrays: Arrays) -> list[Rule]:
    depths = [int(m[1]) + 1 for name in arrays if (m := re.match(r'consensus\.temporal_encoder\.(\d+)\.', name))]
    return head_rules(_frame_classifier(arrays), max(depths, default=0))


def _frame_classifier(arrays: Arrays) -> str:
    """Where the average consensus keeps its classifier; an empty string with the temporal aggregation head."""
    if 'consensus.cls_token' in arrays:
        return ''
    return 'base_model.head' if 'base_model.head.weight' in arrays else 'new_fc'


def _below(arrays: Iterable[str], prefix: str) -> list[str]:
    return [name for name in arrays if name.startswith(prefix)]


def unused(arrays: Arrays) -> dict[str, str]:
    """Official arrays that the official forward pass never reads, and why."""
    reason = 'the authors build it and never call it: the classifier is ' + (
        'that of the temporal aggregation head' if 'consensus.cls_token' in arrays else 'base_model.head'
    )
    return {} if _frame_classifier(arrays) == 'new_fc' else {name: reason for name in _below(arrays, 'new_fc.')}


def xvit_from_official(arrays: Arrays) -> dict[str, Tensor]:
    """State dict of a VideoPerceiver with an XViT and a temporal aggregation head.

    Raises:
        ValueError: an array that has no place and is not among those of :func:`unused`.
    """
    rules, idle = xvit_rules(arrays), unused(arrays)
    known = {name for rule in rules for name in rule.official}
    foreign = sorted(set(arrays) - known - set(idle))
    if foreign:
        raise ValueError(f"XViT has no place for {len(foreign)} arrays of the file, e.g. '{foreign[0]}'")
    return load_rules(rules, arrays)


def xvit_to_official(state_dict: Mapping[str, Tensor], *, classifier: str = 'base_model.head') -> dict[str, np.ndarray]:
    """Official arrays from our state dict, or from gradients under its names.

    The layer ``new_fc`` that official models have beside the temporal aggregation head, and never use, is written as
    zeros, so that their program finds all names that it asks for.

    Args:
        classifier: Where to keep the classifier of the average consensus: ``'base_model.head'`` (the authors' models
            without dropout) or ``'new_fc'`` (with).
    """
    head = 'heads.classification.'
    aggregates = f'{head}class_token' in state_dict
    depth = our_depth(_below(state_dict, f'{head}blocks.'))
    rules = backbone_rules(our_depth(_below(state_dict, 'backbone.')))
    rules += head_rules('' if aggregates else classifier, depth)
    arrays = save_rules(rules, state_dict, num_heads=1)
    parts = [state_dict[rule.ours].detach().cpu().numpy() for rule in position_rules() if rule.ours in state_dict]
    if len(parts) == 2:
        arrays[_POSITIONS] = np.concatenate(parts, axis=1)
    if aggregates:
        classes, width = len(arrays['consensus.mlp_head.4.bias']), arrays['base_model.cls_token'].shape[-1]
        arrays['new_fc.weight'] = np.zeros((classes, width), dtype=arrays['base_model.cls_token'].dtype)
        arrays['new_fc.bias'] = np.zeros(classes, dtype=arrays['base_model.cls_token'].dtype)
    return arrays
