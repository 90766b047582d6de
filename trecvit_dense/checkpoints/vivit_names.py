"""Names of the ViViT weights as Hugging Face has them (``google/vivit-b-16x2``), and ours: exact in both directions.

The classes ``VivitForVideoClassification`` (names below ``vivit.``, and ``classifier``) and ``VivitModel`` (no prefix)
both hold model 1 of the paper. Layouts are those of torch; only query, key and value are one matrix with us.

What the files do not tell: the number of heads (all released models have heads of 64 channels) and how the position
table divides into time and space (they have 224 x 224 px, or ``--image-size`` says it).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from .io import CheckpointError
from .layout import Arrays, Layout
from .trecvit_names import Rule, our_depth, same

_PREFIX, _BACKBONE, _HEAD = 'vivit.', 'backbone.', 'heads.classification.'
_HEAD_WIDTH = 64
_BLOCK = {
    'norm1': 'layernorm_before',
    'norm2': 'layernorm_after',
    'attn.proj': 'attention.output.dense',
    'mlp.fc1': 'intermediate.dense',
    'mlp.fc2': 'output.dense',
}


def vivit_rules(depth: int, *, prefix: str = _PREFIX) -> list[Rule]:
    """Every array of ``VivitForVideoClassification`` with ``depth`` layers; ``prefix=''`` for ``VivitModel``."""
    rules = [
        same(f'{_BACKBONE}class_token', f'{prefix}embeddings.cls_token'),
        same(f'{_BACKBONE}positions.table', f'{prefix}embeddings.position_embeddings'),
        *_pair(f'{_BACKBONE}tubelet_embed.proj', f'{prefix}embeddings.patch_embeddings.projection'),
    ]
    for layer in range(depth):
        ours, official = f'{_BACKBONE}blocks.{layer}.', f'{prefix}encoder.layer.{layer}.'
        for part in ('weight', 'bias'):
            names = tuple(f'{official}attention.attention.{name}.{part}' for name in ('query', 'key', 'value'))
            rules.append(Rule(f'{ours}attn.qkv.{part}', names, np.concatenate, lambda array, heads: np.split(array, 3)))
        for name, other in _BLOCK.items():
            rules += _pair(ours + name, official + other)
    rules += _pair(f'{_BACKBONE}norm', f'{prefix}layernorm')
    return rules + _pair(f'{_HEAD}classifier', 'classifier')


def _pair(ours: str, official: str) -> list[Rule]:
    return [same(f'{ours}.{part}', f'{official}.{part}') for part in ('weight', 'bias')]


def _prefix(names: Collection[str]) -> str:
    return _PREFIX if f'{_PREFIX}embeddings.cls_token' in names else ''


def _depth(names: Collection[str]) -> int:
    start = _prefix(names) + 'encoder.layer.'
    return max((int(name[len(start) :].split('.')[0]) for name in names if name.startswith(start)), default=-1) + 1


def _matches(names: Collection[str]) -> bool:
    # ViT of the same library has the same names but for the shape of the projection; its classifier is below `vit.`.
    start = _prefix(names)
    return f'{start}embeddings.patch_embeddings.projection.weight' in names and f'{start}layernorm.weight' in names


def _config(arrays: Arrays, options: dict[str, Any]) -> dict[str, Any]:
    """Config of a perceiver with a ViViT, and with its classifier where the file has one."""
    start = _prefix(arrays)
    kernel = arrays[f'{start}embeddings.patch_embeddings.projection.weight']
    if kernel.ndim != 5:
        raise CheckpointError(f'the patch projection has {kernel.ndim} dimensions; wanted the 5 of a video model')
    width, tubelet = kernel.shape[0], kernel.shape[2:]
    image_size = tuple(options.get('image_size') or (224, 224))
    cells = (image_size[0] // tubelet[1]) * (image_size[1] // tubelet[2])
    places = arrays[f'{start}embeddings.position_embeddings'].shape[1] - 1
    if not cells or places % cells:
        size = 'x'.join(map(str, image_size))
        raise CheckpointError(f'{places} positions are no whole number of frames of {size} px; say --image-size H W')
    backbone = dict(
        type='ViViT',
        embed_dim=width,
        depth=_depth(arrays),
        num_heads=max(width // _HEAD_WIDTH, 1),
        mlp_dim=arrays[f'{start}encoder.layer.0.intermediate.dense.weight'].shape[0],
        tubelet_size=list(tubelet),
        num_frames=places // cells * tubelet[0],
        image_size=list(image_size),
    )
    heads = {}
    if 'classifier.weight' in arrays:
        classes = arrays['classifier.weight'].shape[0]
        heads['classification'] = dict(type='ClassificationHead', num_classes=classes, rep_size=None, pool='tok')
    size = list(options.get('input_size') or image_size)
    preprocessor = dict(type='VideoPreprocessor', input_size=size, value_range='signed')
    return dict(type='VideoPerceiver', data_preprocessor=preprocessor, backbone=backbone, heads=heads)


LAYOUT = Layout(
    name='vivit',
    matches=_matches,
    rules=lambda names: vivit_rules(_depth(names), prefix=_prefix(names)),
    rules_back=lambda names: vivit_rules(
        our_depth(names), prefix=_PREFIX if f'{_HEAD}classifier.weight' in names else ''
    ),
    ours=lambda names: f'{_BACKBONE}tubelet_embed.proj.weight' in names,
    config=_config,
    unused={r'(vivit\.)?pooler\.dense\.(weight|bias)': 'a layer that Hugging Face adds and does not train'},
)
