"""Names of the authors' ViS4mer decoder (md-mohaiminul/ViS4mer), and ours: exact in both directions.

An official file holds the decoder alone, whose input are features of a frozen encoder; the model that it becomes reads
stored features (``encoder=None``). What the file does not tell: how many tokens a frame has.

Nodes of the kernels follow from the kernel's length; they become ``l_max`` and are made again on the way back. The
input projection is in every file, but where widths are equal the authors' program never reads it: then it is left out,
and on the way back the identity stands in its place. Everything else is equal bit for bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from .io import CheckpointError
from .layout import Arrays, Layout
from .trecvit_names import Rule, same

_BACKBONE = 'backbone.'
_HEADS = ('heads.classification.classifier', 'heads.regression.classifier')  # a model has one of them
_PROJECTION = ('encoder.weight', 'encoder.bias')


def vis4mer_rules(n_layers: int) -> list[Rule]:
    """Every array of an official file with ``n_layers`` stages."""
    rules = _pair(f'{_BACKBONE}input_proj', 'encoder')
    for head in _HEADS:
        rules += _pair(head, 'decoder')
    for layer in range(n_layers):
        ours, official = f'{_BACKBONE}stages.{layer}.', f's4_layers.{layer}.'
        kernel = f'{official}kernel.krylov.'
        rules += [same(f'{ours}s4.kernel.{name}', kernel + name) for name in ('log_dt', 'w', 'B', 'C')]
        rules += [
            Rule(f'{ours}s4.kernel.l_max', (f'{kernel}nodes', f'{kernel}z'), _length_of, _nodes_of),
            same(f'{ours}s4.D', f'{official}D'),
            same(f'{ours}s4.output_linear.weight', f'{official}output_linear.weight'),
            Rule(f'{ours}s4.output_linear.bias', (f'{official}output_linear.bias',), _without_axis, _with_axis),
            *_pair(f'{ours}norm', f'norms.{layer}'),
            *_pair(f'{ours}linear', f'linears.{layer}'),
        ]
    return rules


def _pair(ours: str, official: str) -> list[Rule]:
    return [same(f'{ours}.{part}', f'{official}.{part}') for part in ('weight', 'bias')]


def _without_axis(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0][:, 0]  # a convolution's bias, (H, 1)


def _with_axis(array: np.ndarray, heads: int) -> list[np.ndarray]:
    return [array[:, None]]


def _length_of(arrays: list[np.ndarray]) -> np.ndarray:
    """L of a kernel: the second of its L // 2 + 1 nodes is ``exp(-2 pi i / L)``."""
    nodes = np.asarray(arrays[0], np.float64)
    if len(nodes) < 2:
        return np.array(1)
    return np.array(round(2 * math.pi / math.atan2(-nodes[1, 1], nodes[1, 0])))


def _nodes_of(array: np.ndarray, heads: int) -> list[np.ndarray]:
    from trecvit_dense.models.layers.s4_kernel import official_roots

    return [torch.view_as_real(roots).numpy() for roots in official_roots(int(array))]


def _layers(names: Collection[str]) -> int:
    found = [re.match(r'(?:s4_layers|backbone\.stages)\.(\d+)\.', name) for name in names]
    return max((int(match[1]) for match in found if match), default=-1) + 1


def _config(arrays: Arrays, options: dict[str, Any]) -> dict[str, Any]:
    """Config of a perceiver that reads stored features."""
    start = 's4_layers.0.kernel.krylov.'
    absent = [name for name in (f'{start}w', f'{start}nodes', 's4_layers.0.D', 'decoder.weight') if name not in arrays]
    if absent:
        raise CheckpointError(f'the file lacks {absent[0]}, which tells a size; it is damaged or of another model')
    width = len(arrays['s4_layers.0.D'])
    backbone = dict(
        type='ViS4mer',
        d_input=arrays['encoder.weight'].shape[1] if 'encoder.weight' in arrays else width,
        d_model=width,
        n_layers=_layers(arrays),
        d_state=2 * len(arrays[f'{start}w']),
        l_max=int(_length_of([arrays[f'{start}nodes']])),
    )
    classes, last = arrays['decoder.weight'].shape
    readout = dict(pool='last', rep_size=None, token_dim=last)
    if classes == 1:
        heads = dict(regression=dict(type='RegressionHead', **readout))
    else:
        heads = dict(classification=dict(type='ClassificationHead', num_classes=classes, **readout))
    preprocessor = dict(type='FeaturePreprocessor')
    return dict(type='VideoPerceiver', data_preprocessor=preprocessor, backbone=backbone, heads=heads)


class _ViS4merLayout(Layout):
    def drop(self, arrays: dict[str, np.ndarray]) -> list[str]:
        weight = arrays.get('encoder.weight')
        if weight is None or weight.shape[0] != weight.shape[1]:
            return []
        for name in _PROJECTION:
            arrays.pop(name, None)
        return [f'{name}: never read, as d_input and d_model are equal' for name in _PROJECTION]

    def finish(self, arrays: dict[str, np.ndarray]) -> None:
        if 'encoder.weight' not in arrays and 's4_layers.0.D' in arrays:
            width = len(arrays['s4_layers.0.D'])
            arrays.update(zip(_PROJECTION, (np.eye(width, dtype=np.float32), np.zeros(width, np.float32)), strict=True))


LAYOUT = _ViS4merLayout(
    name='vis4mer',
    matches=lambda names: 's4_layers.0.kernel.krylov.w' in names,
    rules=lambda names: vis4mer_rules(_layers(names)),
    rules_back=lambda names: vis4mer_rules(_layers(names)),
    ours=lambda names: f'{_BACKBONE}stages.0.s4.kernel.w' in names,
    config=_config,
)
