"""Names of the official Mobile-Former weights and ours, and image weights in the video model.

The authors' names are those of torch; only kernels over space have one more dimension with us, of length 1 in an image
model. No weights of the video model are public.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from .io import CheckpointError, LoadReport, load_state
from .layout import Arrays, Layout
from .trecvit_names import Rule, load_rules, our_depth, same, save_rules

_BACKBONE, _HEAD = 'backbone.', 'heads.classification.'
_NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
_TO_FORMER = {'gate.0': 'alpha.0', 'query': 'q', 'proj': 'proj', 'norm': 'layer_norm'}
_BRIDGES = {
    **{f'to_former.{ours}': f'local_global.{official}' for ours, official in _TO_FORMER.items()},
    'former.query': 'global_block.q',
    'former.proj': 'global_block.channel_mlp',
    'former.norm': 'global_block.layer_norm',
    'former.mlp.0': 'global_block.ffn.0',
    'former.mlp.2': 'global_block.ffn.2',
    'former.mlp_norm': 'global_block.ffn_norm',
    'to_mobile.key': 'global_local.k',
    'to_mobile.value': 'global_local.proj',
}
# kind of block: convolutions with their norms (name, place in a Sequential for both), then the slopes of dynamic ReLUs
_CONVOLUTIONS = {
    'first': {'depthwise': ('conv.0', 'conv.1'), 'project': ('conv.4', 'conv.5')},
    'lite': {
        'depthwise1': ('conv1.0', 'conv1.1'),
        'project1': ('conv2.0', 'conv2.1'),
        'depthwise2': ('conv3.0', 'conv3.1'),
        'project2': ('conv4.0', 'conv4.1'),
    },
    'dna': {
        'expand': ('conv1.0', 'conv1.1'),
        'depthwise': ('conv2.0', 'conv2.1'),
        'project': ('conv3.0', 'conv3.1'),
    },
}
_SLOPES = {
    'first': {},
    'lite': {'relu1': 'hyper1', 'relu2': 'hyper3'},
    'dna': {'relu1': 'hyper1', 'relu2': 'hyper2'},
}


# -------------------------------------------------------------------------------------------------------- names


def mobile_former_rules(kinds: Iterable[str]) -> list[Rule]:
    """Every array of a Mobile-Former with blocks of these kinds (``'first'``, ``'lite'``, ``'dna'``)."""
    rules = [same(f'{_BACKBONE}tokens', 'tokens.weight'), *_convolution(f'{_BACKBONE}stem', 'stem.0', 'stem.1')]
    for index, kind in enumerate(kinds):
        ours, official = f'{_BACKBONE}blocks.{index}.', f'features.{index}.'
        for name, (kernel, norm) in _CONVOLUTIONS[kind].items():
            make = _convolution if name.startswith('depthwise') else _pointwise
            rules += make(ours + name, official + kernel, official + norm)
        for name, slopes in _SLOPES[kind].items():
            for layer in (0, 2):
                rules += _affine(f'{ours}{name}.hyper.{layer}', f'{official}{slopes}.hyper.{layer}')
        for name, other in _BRIDGES.items() if kind != 'first' else ():
            rules += _affine(ours + name, official + other)
    for name, other in _TO_FORMER.items():
        rules += _affine(f'{_BACKBONE}to_former.{name}', f'local_global.{other}')
    rules += _pointwise(f'{_HEAD}expand', 'classifier.conv.1', 'classifier.conv.2')
    rules += _affine(f'{_HEAD}pre_logits', 'classifier.fc.0')
    rules += _norm(f'{_HEAD}norm', 'classifier.fc.1')
    return rules + _affine(f'{_HEAD}classifier', 'classifier.classifier.1')


def _affine(ours: str, official: str) -> list[Rule]:
    return [same(f'{ours}.{part}', f'{official}.{part}') for part in ('weight', 'bias')]


def _norm(ours: str, official: str) -> list[Rule]:
    return [same(f'{ours}.{part}', f'{official}.{part}') for part in _NORM]


def _pointwise(ours: str, kernel: str, norm: str) -> list[Rule]:
    return [same(f'{ours}.conv.weight', f'{kernel}.weight'), *_norm(f'{ours}.norm', norm)]


def _convolution(ours: str, kernel: str, norm: str) -> list[Rule]:
    """A kernel ``(O, I, 3, 3)`` to ``(O, I, 1, 3, 3)``, and its norm."""
    rule = Rule(
        f'{ours}.conv.weight',
        (f'{kernel}.weight',),
        lambda arrays: arrays[0][:, :, None],
        lambda array, heads: [_flat(array, f'{ours}.conv.weight')],
    )
    return [rule, *_norm(f'{ours}.norm', norm)]


def _flat(kernel: np.ndarray, name: str) -> np.ndarray:
    if kernel.shape[2] != 1:
        raise CheckpointError(
            f"'{name}' spans {kernel.shape[2]} frames; only weights of an image model (temporal kernels of 1) have an "
            f'official form'
        )
    return kernel[:, :, 0]


def official_kinds(names: Collection[str]) -> list[str]:
    """Kind of each block in an official file."""
    found = [int(match[1]) for name in names if (match := re.match(r'features\.(\d+)\.', name))]
    starts = [f'features.{i}.' for i in range(max(found, default=-1) + 1)]
    return [
        'first' if f'{s}conv.0.weight' in names else 'lite' if f'{s}conv4.0.weight' in names else 'dna' for s in starts
    ]


def our_kinds(names: Collection[str]) -> list[str]:
    """Kind of each block in one of our state dicts."""
    starts = [f'{_BACKBONE}blocks.{i}.' for i in range(our_depth(names))]
    return [
        'lite' if f'{s}depthwise1.conv.weight' in names else 'dna' if f'{s}expand.conv.weight' in names else 'first'
        for s in starts
    ]


def mobile_former_from_official(arrays: Arrays) -> dict[str, Tensor]:
    """State dict of a perceiver with a MobileFormer and its classifier."""
    return load_rules(mobile_former_rules(official_kinds(arrays)), arrays)


def mobile_former_to_official(state_dict: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Official arrays from our state dict, bit for bit.

    Raises:
        CheckpointError: temporal kernels above 1.
    """
    return save_rules(mobile_former_rules(our_kinds(state_dict)), state_dict, num_heads=0)


# ------------------------------------------------------------------------------------------------------- config


def _config(arrays: Arrays, options: dict[str, Any]) -> dict[str, Any]:
    """Config of the image model with its classifier, where the file has one."""
    from trecvit_dense.models.backbones.mobile_former_sizes import SIZES

    name = _size_of(arrays)
    size = SIZES[name]
    heads = {}
    if 'classifier.classifier.1.weight' in arrays:
        classes, rep_size = arrays['classifier.classifier.1.weight'].shape
        fields = dict(num_classes=classes, rep_size=rep_size, token_dim=size.token_dim, groups=size.groups)
        heads['classification'] = dict(type='MobileFormerClassifier', **fields)
    input_size = list(options.get('input_size') or options.get('image_size') or (224, 224))
    preprocessor = dict(type='VideoPreprocessor', input_size=input_size, value_range='imagenet')
    backbone = dict(type='MobileFormer', size=name)
    return dict(type='VideoPerceiver', data_preprocessor=preprocessor, backbone=backbone, heads=heads)


def _size_of(arrays: Arrays) -> str:
    """Name of the size. Strides leave no trace in the shapes of weights, so it has to be one of the authors' own."""
    from trecvit_dense.models.backbones.mobile_former_sizes import SIZES

    shape, stem = arrays['tokens.weight'].shape, arrays['stem.0.weight'].shape[0]
    kinds, channels = official_kinds(arrays), _channels(arrays)
    head = arrays.get('classifier.conv.1.weight')
    groups = 1 if head is None else channels[-1] // head.shape[1]
    for name, size in SIZES.items():
        rows = [(kind, width) for kind, _, width, _, _ in size.rows]
        fields = size.stem_channels, size.num_tokens, size.token_dim, size.groups
        if rows == list(zip(kinds, channels, strict=True)) and fields == (stem, *shape, groups):
            return name
    raise CheckpointError(
        f'{len(kinds)} blocks, {shape[0]} tokens of width {shape[1]} and {groups} groups are none of the sizes '
        f'{", ".join(SIZES)}; say --config for another one'
    )


def _channels(arrays: Arrays) -> list[int]:
    """Channels behind each block."""
    last = {kind: list(names.values())[-1][0] for kind, names in _CONVOLUTIONS.items()}
    return [arrays[f'features.{i}.{last[kind]}.weight'].shape[0] for i, kind in enumerate(official_kinds(arrays))]


LAYOUT = Layout(
    name='mobile_former',
    matches=lambda names: 'tokens.weight' in names and 'features.0.conv.0.weight' in names,
    rules=lambda names: mobile_former_rules(official_kinds(names)),
    rules_back=lambda names: mobile_former_rules(our_kinds(names)),
    ours=lambda names: f'{_BACKBONE}to_former.gate.0.weight' in names,
    config=_config,
    container='state_dict',
)


# ---------------------------------------------------------------------------------------------------- inflation


def inflate_mobile_former(model: nn.Module, state: Mapping[str, Tensor], *, slices: str = 'centre') -> LoadReport:
    """Load weights of the image model into a perceiver with a :class:`.VideoMobileFormer`.

    How the backbone takes them is said at :meth:`.VideoMobileFormer.fit_weights`. A classifier for other classes
    stays as it is in ``model``.

    Args:
        state: Weights of our names, see :func:`mobile_former_from_official`.
        slices: ``'centre'`` or ``'mean'``.

    Returns:
        What was loaded; ``resized`` says what was changed on the way, ``dropped`` names the classifier, and ``missing``
        what was not there.

    Raises:
        ValueError: another word for ``slices``.
        CheckpointError: weights of another size, or not finite.
    """
    own = model.state_dict()
    backbone = {name.removeprefix(_BACKBONE): value for name, value in state.items() if name.startswith(_BACKBONE)}
    backbone, notes = model.backbone.fit_weights(backbone, slices=slices)
    fitted = {**state, **{f'{_BACKBONE}{name}': value for name, value in backbone.items()}}
    report = LoadReport(resized=notes)
    for name in (f'{_HEAD}classifier.weight', f'{_HEAD}classifier.bias'):
        if name in fitted and name in own and len(fitted[name]) != len(own[name]):
            classes = f'{len(fitted.pop(name))} classes, the model has {len(own[name])}'
            report.dropped.append(f'{name}: {classes}; it starts afresh')
    found = load_state(model, fitted, name='the image model', strict=False)
    report.loaded, report.unexpected = found.loaded, found.unexpected
    afresh = {line.split(':')[0] for line in report.dropped}
    report.missing = [name for name in found.missing if name not in afresh and not name.endswith('num_batches_tracked')]
    return report
