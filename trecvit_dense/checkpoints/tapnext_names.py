"""Names and layouts of the official TAPNext weights, in JAX and in torch, and ours: exact in both directions.

``tapnext_ckpt.npz`` and ``bootstapnext_ckpt.npz`` are flat JAX files; ``tapnextpp_ckpt.pt`` and ``tapnextpp_512.ckpt``
hold torch names, there below a Lightning ``state_dict`` and the prefix ``tapnext.``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .trecvit_names import (
    SPATIAL_BLOCK,
    TEMPORAL_BLOCK,
    Rule,
    dense,
    layer_norm,
    patch_embedding,
    placed,
    same,
)

# A buffer that is computed from the image size: 201 MB of each released torch file.
RECOMPUTED = 'query_pos_embed'
_BACKBONE, _HEAD = 'backbone.', 'heads.points.'
_HEADS = ('visible_head', 'coordinate_head')
_LINEARS, _NORMS = (0, 3, 6), (1, 4)


def jax_rules(depth: int) -> list[Rule]:
    """Every array of the flat JAX file with ``depth`` blocks."""
    rules = placed(patch_embedding('patch_embed.proj', 'embedding'), _BACKBONE, 'backbone/')
    rules.append(same(f'{_BACKBONE}position.table', 'backbone/pos_embedding'))
    rules += placed(_tokens(), _HEAD, 'backbone/')
    for layer in range(depth):
        ours, block = f'{_BACKBONE}blocks.{layer}.', f'backbone/Transformer/encoderblock_{layer}/'
        rules += placed(TEMPORAL_BLOCK, f'{ours}temporal.', f'{block}ssm_block/')
        rules += placed(SPATIAL_BLOCK, f'{ours}spatial.', f'{block}vit_block/')
    rules += layer_norm(f'{_BACKBONE}norm', 'backbone/Transformer/encoder_norm')
    for head in _HEADS:
        for index in _LINEARS:
            rules += dense(f'{_HEAD}{head}.{index}', f'{head}/layers_{index}')
        for index in _NORMS:
            rules += layer_norm(f'{_HEAD}{head}.{index}', f'{head}/layers_{index}')
    return rules


def torch_rules(depth: int) -> list[Rule]:
    """Every tensor of the torch state dict with ``depth`` blocks, but for the recomputed buffer."""
    rules = _same_pairs({f'{_BACKBONE}patch_embed.proj': 'lin_proj', f'{_BACKBONE}norm': 'encoder_norm'})
    rules.append(same(f'{_BACKBONE}position.table', 'image_pos_emb'))
    rules += placed(_tokens(), _HEAD, '')
    for layer in range(depth):
        ours, block = f'{_BACKBONE}blocks.{layer}.', f'blocks.{layer}.'
        rules += placed(_in_torch(TEMPORAL_BLOCK), f'{ours}temporal.', f'{block}ssm_block.')
        rules += placed(_TORCH_SPATIAL, f'{ours}spatial.', f'{block}vit_block.')
    for head in _HEADS:
        for index in (*_LINEARS, *_NORMS):
            rules += _same_pairs({f'{_HEAD}{head}.{index}': f'{head}.{index}'})
    return rules


def _same_pairs(names: dict[str, str]) -> list[Rule]:
    """Weight and bias under other names, in the layout of torch."""
    return [
        same(f'{ours}.{part}', f'{official}.{part}') for ours, official in names.items() for part in ('weight', 'bias')
    ]


def _tokens() -> list[Rule]:
    """The learned tokens: leading ones of the official shapes are left out."""

    def squeezed(name: str, ones: int) -> Rule:
        return Rule(name, (name,), lambda x: x[0].reshape(-1), lambda y, heads: [y.reshape(*(1,) * ones, -1)])

    return [squeezed('mask_token', 3), squeezed('point_query_token', 3), squeezed('unknown_token', 2)]


def _in_torch(rules: Iterable[Rule]) -> list[Rule]:
    """JAX rules of the temporal block with the separator and linear layers of torch; other layouts are equal."""
    found = []
    for rule in rules:
        names = tuple(re.sub(r'\.kernel$', '.weight', name.replace('/', '.')) for name in rule.official)
        kernel = rule.official[0].endswith('/kernel')
        found.append(same(rule.ours, names[0]) if kernel else Rule(rule.ours, names, rule.load, rule.save))
    return found


_TORCH_SPATIAL: list[Rule] = [
    same('attn.qkv.weight', 'self_attention.in_proj_weight'),
    same('attn.qkv.bias', 'self_attention.in_proj_bias'),
    *_same_pairs(
        {
            'norm1': 'ln_1',
            'norm2': 'ln_2',
            'attn.proj': 'self_attention.out_proj',
            'mlp.fc1': 'mlp.0',
            'mlp.fc2': 'mlp.3',
        }
    ),
]


def is_jax(names: Iterable[str]) -> bool:
    """Flat keys of the JAX file."""
    return any(name.startswith('backbone/Transformer/encoderblock_') for name in names)


def is_torch(names: Iterable[str]) -> bool:
    """Torch names, without prefix."""
    return any(re.match(r'blocks\.\d+\.ssm_block\.', name) for name in names)
