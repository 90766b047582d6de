"""Names and layouts of the official TRecViT arrays, and ours: exact in both directions.

Official files are flat dictionaries of numpy arrays with ``/`` in their keys (flax). Dense kernels are ``(in, out)``,
attention kernels are split by head, and the two halves of a gated MLP are stacked. A :class:`Rule` says how one of our
parameters is made of official arrays and back. No arithmetic is done, only reshapes and transposes, so a round trip
keeps every bit. The block rules also serve the TAPNext trunk, whose blocks have the same inner names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Rule:
    """One of our parameters and the official arrays it is made of.

    Args:
        ours: Name below our prefix.
        official: Names below the official prefix.
        load: Official arrays, in that order, to ours.
        save: Ours and the number of heads to the official arrays.
    """

    ours: str
    official: tuple[str, ...]
    load: Callable[[list[np.ndarray]], np.ndarray]
    save: Callable[[np.ndarray, int], list[np.ndarray]]


def same(ours: str, official: str) -> Rule:
    """The same layout under another name."""
    return Rule(ours, (official,), lambda arrays: arrays[0], lambda array, heads: [array])


def dense(ours: str, official: str) -> list[Rule]:
    """A flax Dense: kernel ``(in, out)`` and bias."""
    kernel = Rule(f'{ours}.weight', (f'{official}/kernel',), lambda arrays: arrays[0].T, lambda array, heads: [array.T])
    return [kernel, same(f'{ours}.bias', f'{official}/bias')]


def layer_norm(ours: str, official: str) -> list[Rule]:
    """A flax LayerNorm: scale and bias."""
    return [same(f'{ours}.weight', f'{official}/scale'), same(f'{ours}.bias', f'{official}/bias')]


def patch_embedding(ours: str, official: str) -> list[Rule]:
    """A patch convolution, kernel ``(1, ph, pw, 3, D)`` to ``(D, 3, ph, pw)``."""
    kernel = Rule(
        f'{ours}.weight',
        (f'{official}/kernel',),
        lambda arrays: arrays[0][0].transpose(3, 2, 0, 1),
        lambda array, heads: [array.transpose(2, 3, 1, 0)[None]],
    )
    return [kernel, same(f'{ours}.bias', f'{official}/bias')]


def _load_qkv(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([kernel.reshape(kernel.shape[0], -1).T for kernel in arrays])


def _save_qkv(array: np.ndarray, heads: int) -> list[np.ndarray]:
    width = array.shape[1]
    return [part.T.reshape(width, heads, width // heads) for part in np.split(array, 3)]


def attention(ours: str, official: str) -> list[Rule]:
    """Multi-head attention: q, k, v kernels ``(D, H, dh)`` to one matrix with rows q, k, v; out ``(H, dh, D)``."""
    parts = [f'{official}/{name}' for name in ('query', 'key', 'value')]
    return [
        Rule(f'{ours}.qkv.weight', tuple(f'{part}/kernel' for part in parts), _load_qkv, _save_qkv),
        Rule(
            f'{ours}.qkv.bias',
            tuple(f'{part}/bias' for part in parts),
            lambda arrays: np.concatenate([bias.reshape(-1) for bias in arrays]),
            lambda array, heads: [part.reshape(heads, -1) for part in np.split(array, 3)],
        ),
        Rule(
            f'{ours}.proj.weight',
            (f'{official}/out/kernel',),
            lambda arrays: arrays[0].reshape(-1, arrays[0].shape[-1]).T,
            lambda array, heads: [array.T.reshape(heads, -1, array.shape[0])],
        ),
        same(f'{ours}.proj.bias', f'{official}/out/bias'),
    ]


def gated_mlp(ours: str, official: str) -> list[Rule]:
    """Griffin's MLP: ``ffw_up/w (2, D, M)`` to one matrix whose first half is the gate."""
    return [
        Rule(
            f'{ours}.up.weight',
            (f'{official}/ffw_up/w',),
            lambda arrays: arrays[0].transpose(0, 2, 1).reshape(-1, arrays[0].shape[1]),
            lambda array, heads: [array.reshape(2, -1, array.shape[1]).transpose(0, 2, 1)],
        ),
        Rule(
            f'{ours}.up.bias',
            (f'{official}/ffw_up/b',),
            lambda arrays: arrays[0].reshape(-1),
            lambda array, heads: [array.reshape(2, 1, 1, -1)],
        ),
        *dense(f'{ours}.down', f'{official}/ffw_down'),
    ]


# Below `residualblock_{l:02d}/` in TRecViT and `encoderblock_{l}/ssm_block/` in TAPNext; ours is a RecurrentBlock.
TEMPORAL_BLOCK: list[Rule] = [
    same('norm.scale', 'temporal_pre_norm/scale'),
    *dense('linear_x', 'recurrent_block/linear_x'),
    *dense('linear_y', 'recurrent_block/linear_y'),
    *dense('linear_out', 'recurrent_block/linear_out'),
    same('conv.weight', 'recurrent_block/conv_1d/w'),
    same('conv.bias', 'recurrent_block/conv_1d/b'),
    same('rg_lru.a_param', 'recurrent_block/rg_lru/a_param'),
    same('rg_lru.input_gate.weight', 'recurrent_block/rg_lru/input_gate/w'),
    same('rg_lru.input_gate.bias', 'recurrent_block/rg_lru/input_gate/b'),
    same('rg_lru.a_gate.weight', 'recurrent_block/rg_lru/a_gate/w'),
    same('rg_lru.a_gate.bias', 'recurrent_block/rg_lru/a_gate/b'),
    same('mlp_norm.scale', 'channel_pre_norm/scale'),
    *gated_mlp('mlp', 'mlp_block'),
]

# Below `encoderblock_{l}/` in TRecViT and `encoderblock_{l}/vit_block/` in TAPNext; ours is a SpatialBlock.
SPATIAL_BLOCK: list[Rule] = [
    *layer_norm('norm1', 'LayerNorm_0'),
    *attention('attn', 'MultiHeadDotProductAttention_0'),
    *layer_norm('norm2', 'LayerNorm_1'),
    *dense('mlp.fc1', 'MlpBlock_0/Dense_0'),
    *dense('mlp.fc2', 'MlpBlock_0/Dense_1'),
]


def placed(rules: Iterable[Rule], ours: str, official: str) -> list[Rule]:
    """``rules`` below the prefixes ``ours`` (with its dot) and ``official`` (with its slash)."""
    return [Rule(ours + r.ours, tuple(official + name for name in r.official), r.load, r.save) for r in rules]


def trecvit_rules(
    depth: int, *, backbone: str = 'backbone.', head: str = 'heads.classification.', official: str = ''
) -> list[Rule]:
    """Every array of an official TRecViT with ``depth`` blocks, tokenizer to decoder."""
    rules = placed(patch_embedding('proj', 'embedding'), f'{backbone}patch_embed.', f'{official}tokenizer/')
    rules.append(same(f'{backbone}position.table', f'{official}tokenizer/pos_embedding'))
    rules.append(same(f'{backbone}class_token', f'{official}tokenizer/cls'))
    for layer in range(depth):
        ours, encoder = f'{backbone}blocks.{layer}.', f'{official}encoder/'
        rules += placed(TEMPORAL_BLOCK, f'{ours}temporal.', f'{encoder}residualblock_{layer:02d}/')
        rules += placed(SPATIAL_BLOCK, f'{ours}spatial.', f'{encoder}encoderblock_{layer}/')
    rules += layer_norm(f'{backbone}norm', f'{official}encoder/encoder_norm')
    rules += dense(f'{head}pre_logits', f'{official}decoder/pre_logits')
    return rules + dense(f'{head}classifier', f'{official}decoder/cls_head')


def load_rules(rules: Iterable[Rule], arrays: Arrays) -> dict[str, Tensor]:
    """Our state dict from official arrays; rules whose arrays are not all there are left out.

    What is left out shows as a missing key when the state dict is loaded, and in :func:`unmatched`.
    """
    found = {}
    for rule in rules:
        if all(name in arrays for name in rule.official):
            array = rule.load([np.asarray(arrays[name]) for name in rule.official])
            found[rule.ours] = torch.from_numpy(np.array(array, order='C'))  # a copy: files may be read-only maps
    return found


def save_rules(rules: Iterable[Rule], state_dict: Mapping[str, Tensor], num_heads: int) -> dict[str, np.ndarray]:
    """Official arrays from our state dict; rules whose parameter is not there are left out."""
    arrays = {}
    for rule in rules:
        if rule.ours in state_dict:
            ours = state_dict[rule.ours].detach().cpu().numpy()
            parts = rule.save(ours, num_heads)
            arrays.update({name: np.array(part, order='C') for name, part in zip(rule.official, parts, strict=True)})
    return arrays


def unmatched(rules: Iterable[Rule], arrays: Arrays) -> list[str]:
    """Official keys that no complete rule reads, sorted."""
    used = {name for rule in rules if all(n in arrays for n in rule.official) for name in rule.official}
    return sorted(set(arrays) - used)


def official_depth(names: Iterable[str]) -> int:
    """Number of blocks named in an official file."""
    layers = [int(match.group(1)) for name in names if (match := re.search(r'(?:encoder|residual)block_(\d+)/', name))]
    return max(layers, default=-1) + 1


def our_depth(names: Iterable[str]) -> int:
    """Number of blocks named in one of our state dicts."""
    layers = [int(match.group(1)) for name in names if (match := re.search(r'(?:^|\.)blocks\.(\d+)\.', name))]
    return max(layers, default=-1) + 1


def trecvit_from_official(arrays: Arrays, **prefixes: str) -> dict[str, Tensor]:
    """State dict of a VideoPerceiver with a TRecViT backbone and a classification head.

    Args:
        arrays: Official flat key to array.
        **prefixes: ``backbone``, ``head`` and ``official`` as :func:`trecvit_rules` takes them.
    """
    return load_rules(trecvit_rules(official_depth(arrays), **prefixes), arrays)


def trecvit_to_official(
    state_dict: Mapping[str, Tensor], num_heads: int | None = None, **prefixes: str
) -> dict[str, np.ndarray]:
    """Official arrays from our state dict, bit for bit.

    Args:
        num_heads: Attention heads; None reads them from the recurrent gates, which have one block per head.

    Raises:
        ValueError: the state dict has no blocks.
    """
    gates = [value for name, value in state_dict.items() if name.endswith('rg_lru.input_gate.weight')]
    if not gates:
        raise ValueError('the state dict has no recurrent blocks; wanted the weights of a TRecViT')
    return save_rules(trecvit_rules(our_depth(state_dict), **prefixes), state_dict, num_heads or gates[0].shape[0])
