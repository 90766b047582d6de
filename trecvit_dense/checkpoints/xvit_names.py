"""Names of the official XViT weights, and ours; and ImageNet weights of timm's vision transformers for the backbone.

The authors' backbone is timm's vision transformer below ``base_model.``, with one more table, ``temp_embed``. Nothing
is reshaped; only ``pos_embed (1, 1 + S, C)`` is cut into the entry of the class token and the grid of the patches,
because only the grid is resized for other inputs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from .architecture import square_grid
from .io import CheckpointError
from .layout import Arrays, Layout
from .trecvit_names import Rule, load_rules, our_depth, same, save_rules

_BACKBONE, _HEAD = 'backbone.', 'heads.classification.'
_POSITIONS = 'base_model.pos_embed'
_PARTS = {f'{_BACKBONE}class_position': f'{_POSITIONS}/class', f'{_BACKBONE}position.table': f'{_POSITIONS}/grid'}
_BLOCK = ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')  # the same names on both sides
_FRAME_CLASSIFIERS = ('base_model.head', 'new_fc')  # of the average consensus, without dropout and with
_HEAD_WIDTH = 64  # channels of an attention head in every published model
# Classifiers of timm's models, for which the backbone has no place; XViT's authors leave them out as well.
_IMAGENET_HEADS = ('pre_logits.', 'head.', 'head_dist.', 'fc_norm.')


# -------------------------------------------------------------------------------------------------------- names


def affine(ours: str, official: str) -> list[Rule]:
    """Weight and bias in the same layout."""
    return [same(f'{ours}.{part}', f'{official}.{part}') for part in ('weight', 'bias')]


def backbone_rules(depth: int) -> list[Rule]:
    """Every array of the backbone but ``pos_embed``."""
    rules = [
        same(f'{_BACKBONE}class_token', 'base_model.cls_token'),
        same(f'{_BACKBONE}frame_position', 'base_model.temp_embed'),
        *affine(f'{_BACKBONE}patch_embed.proj', 'base_model.patch_embed.proj'),
        *affine(f'{_BACKBONE}norm', 'base_model.norm'),
    ]
    for layer in range(depth):
        for name in _BLOCK:
            rules += affine(f'{_BACKBONE}blocks.{layer}.{name}', f'base_model.blocks.{layer}.{name}')
    return rules


def position_rules() -> list[Rule]:
    """The two parts of ``pos_embed``, to be read."""
    places = (slice(0, 1), slice(1, None))
    return [
        Rule(ours, (_POSITIONS,), lambda arrays, place=place: arrays[0][:, place], _in_parts)
        for ours, place in zip(_PARTS, places, strict=True)
    ]


def _in_parts(array: np.ndarray, heads: int) -> list[np.ndarray]:
    raise TypeError(f'{_POSITIONS} is written in two parts, which XViTLayout.finish joins')


def aggregation_rules(depth: int) -> list[Rule]:
    """The temporal aggregation head with ``depth`` blocks."""
    rules = [same(f'{_HEAD}class_token', 'consensus.cls_token')]
    for layer in range(depth):
        for name in _BLOCK:
            rules += affine(f'{_HEAD}blocks.{layer}.{name}', f'consensus.temporal_encoder.{layer}.{name}')
    rules = [rule for rule in rules if not rule.ours.endswith('.qkv.bias')]  # unlike the backbone's blocks
    for ours, place in (('norm', 0), ('pre_logits', 1), ('classifier', 4)):
        rules += affine(_HEAD + ours, f'consensus.mlp_head.{place}')
    return rules


def frame_classifier(names: Collection[str]) -> str:
    """Where an official file keeps the classifier that is used on single frames, or an empty string."""
    if 'consensus.cls_token' in names:
        return ''
    return next((name for name in _FRAME_CLASSIFIERS if f'{name}.weight' in names), '')


def xvit_rules(names: Collection[str]) -> list[Rule]:
    """Every array that is read from a file with these official names."""
    rules = [*backbone_rules(our_depth(_below(names, 'base_model.'))), *position_rules()]
    if 'consensus.cls_token' in names:
        layers = [re.match(r'consensus\.temporal_encoder\.(\d+)\.', name) for name in names]
        return rules + aggregation_rules(max((int(match[1]) + 1 for match in layers if match), default=0))
    classifier = frame_classifier(names)
    return rules + (affine(f'{_HEAD}classifier', classifier) if classifier else [])


def xvit_rules_back(names: Collection[str]) -> list[Rule]:
    """Every array that is written from one of our state dicts, ``pos_embed`` in parts."""
    rules = backbone_rules(our_depth(_below(names, _BACKBONE)))
    rules += [same(ours, part) for ours, part in _PARTS.items()]
    if f'{_HEAD}class_token' in names:
        return rules + aggregation_rules(our_depth(_below(names, _HEAD)))
    return rules + affine(f'{_HEAD}classifier', _FRAME_CLASSIFIERS[0])


def _below(names: Iterable[str], prefix: str) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


class XViTLayout(Layout):
    """What the names alone do not settle: an unused layer, and a table in two parts."""

    def drop(self, arrays: dict[str, np.ndarray]) -> list[str]:
        """Take out the layer that the authors build and, with another classifier in place, never call."""
        if frame_classifier(arrays) == 'new_fc':
            return []
        dropped = _below(arrays, 'new_fc.')
        for name in dropped:
            del arrays[name]
        return [f'{name}: a layer that is built and never called' for name in dropped]

    def finish(self, arrays: dict[str, np.ndarray]) -> None:
        """Join the position table; give the authors' program the unused layer that it asks for, as zeros."""
        arrays[_POSITIONS] = np.concatenate([arrays.pop(part) for part in _PARTS.values()], axis=1)
        if 'consensus.cls_token' in arrays:
            token, classifier = arrays['consensus.cls_token'], arrays['consensus.mlp_head.4.bias']
            arrays['new_fc.weight'] = np.zeros((len(classifier), token.shape[-1]), dtype=token.dtype)
            arrays['new_fc.bias'] = np.zeros_like(classifier)


# ------------------------------------------------------------------------------------------------------- config


def xvit_config(arrays: Arrays, options: dict[str, Any]) -> dict[str, Any]:
    """Config of a perceiver with an XViT, and with its head where the file has one.

    Shapes do not tell which channels are exchanged between which frames. The training config that the authors' program
    puts beside the weights (``options['recipe']``) does; without it, models of 400 and 600 classes get the settings of
    Kinetics (8 frames a group, an eighth of the channels from each side) and others those of Something-Something (the
    whole clip, a quarter).

    Raises:
        CheckpointError: an array from which a size is read is missing, or the grid is not square.
    """
    tables = ('temp_embed', 'pos_embed', 'patch_embed.proj.weight', 'blocks.0.mlp.fc1.weight')
    absent = [name for name in tables if f'base_model.{name}' not in arrays]
    if absent:
        raise CheckpointError(f'the file lacks base_model.{absent[0]}, which tells a size; it is damaged')
    frames, positions, patches, hidden = (arrays[f'base_model.{name}'].shape for name in tables)
    image_size = options.get('image_size') or _image_size(positions[1] - 1, patches[2:])
    backbone = dict(
        type='XViT',
        embed_dim=patches[0],
        depth=our_depth(_below(arrays, 'base_model.')),
        num_heads=max(patches[0] // _HEAD_WIDTH, 1),
        mlp_dim=hidden[0],
        patch_size=list(patches[2:]),
        image_size=list(image_size),
        frame_positions=frames[1],
    )
    head = _head_config(arrays)
    backbone.update(mixing(options.get('recipe', ''), head.get('num_classes', 0)))
    size = list(options.get('input_size') or image_size)
    preprocessor = dict(type='VideoPreprocessor', input_size=size, value_range='signed')
    heads = dict(classification=head) if head else {}
    return dict(type='VideoPerceiver', data_preprocessor=preprocessor, backbone=backbone, heads=heads)


def _image_size(places: int, patch: tuple[int, ...]) -> tuple[int, int]:
    grid = square_grid(places)
    if grid is None:
        raise CheckpointError(f'the position table has {places} entries, no square; say --image-size H W')
    return grid[0] * patch[0], grid[1] * patch[1]


def _head_config(arrays: Arrays) -> dict[str, Any]:
    kind = 'TemporalAggregationHead'
    if 'consensus.cls_token' not in arrays:
        name = frame_classifier(arrays)
        return dict(type=kind, consensus='average', num_classes=len(arrays[f'{name}.weight'])) if name else {}
    classes, rep_size = arrays['consensus.mlp_head.4.weight'].shape
    layers = {name.split('.')[2] for name in _below(arrays, 'consensus.temporal_encoder.')}
    return dict(type=kind, num_classes=classes, rep_size=rep_size, depth=len(layers), num_heads=12)


def mixing(recipe: str, num_classes: int) -> dict[str, Any]:
    """``num_segments``, ``shift_div`` and ``shift_layers`` from the text of an official config, else by the classes."""
    kinetics = num_classes in (400, 600)
    found: dict[str, Any] = dict(num_segments=8 if kinetics else None, shift_div=8 if kinetics else 4)
    for field, name in (('num_segments', 'NUM_SEGMENTS'), ('shift_div', 'SHIFT_DIV')):
        match = re.search(rf'^\s*{name}:\s*(\d+)\s*$', recipe, re.M)
        if match:
            found[field] = int(match[1])
    layers = re.search(r'^\s*LOCATIONS_LIST:\s*(\[[\d,\s]*\]|(?:\s*-\s*\d+)+)', recipe, re.M)
    if layers:
        found['shift_layers'] = [int(index) for index in re.findall(r'\d+', layers[1])]
    return found


LAYOUT = XViTLayout(
    name='xvit',
    matches=lambda names: 'base_model.temp_embed' in names,
    rules=xvit_rules,
    rules_back=xvit_rules_back,
    ours=lambda names: f'{_BACKBONE}frame_position' in names,
    config=xvit_config,
    container='model_state',
)


# --------------------------------------------------------------------------------------------------- state dicts


def xvit_from_official(arrays: Arrays) -> dict[str, Tensor]:
    """State dict of a VideoPerceiver with an XViT and a temporal aggregation head.

    Raises:
        ValueError: an array that has no place, and is not the one that is never used.
    """
    arrays = dict(arrays)
    LAYOUT.drop(arrays)
    rules = xvit_rules(arrays)
    foreign = sorted(set(arrays) - {name for rule in rules for name in rule.official})
    if foreign:
        raise ValueError(f"XViT has no place for {len(foreign)} arrays of the file, e.g. '{foreign[0]}'")
    return load_rules(rules, arrays)


def xvit_to_official(state_dict: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Official arrays from our state dict, or from gradients under its names, bit for bit.

    The classifier of the average consensus goes to ``base_model.head``, where the authors' models without dropout keep
    it.
    """
    arrays = save_rules(xvit_rules_back(state_dict), state_dict, num_heads=0)
    LAYOUT.finish(arrays)
    return arrays


def from_imagenet(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """State dict of an XViT backbone that starts from a vision transformer of timm, or an empty one for other weights.

    The temporal positions stay as they are, which at the start is zero: the backbone then sees in each frame what the
    image model saw, but for the channels that it borrows. Classifiers are left out.

    Args:
        state: Tensors of a timm ``vit_*`` file, e.g. ``jx_vit_base_patch16_224_in21k``.
    """
    own = backbone.state_dict()
    if 'frame_position' not in own or not {'cls_token', 'pos_embed', 'patch_embed.proj.weight'} <= set(state):
        return {}
    kept = {name: value for name, value in state.items() if not name.startswith(_IMAGENET_HEADS)}
    renamed = {'class_token': kept.pop('cls_token'), 'frame_position': own['frame_position']}
    positions = kept.pop('pos_embed')
    return {**kept, **renamed, 'class_position': positions[:, :1], 'position.table': positions[:, 1:]}
