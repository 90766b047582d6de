"""XViT's official files there and back, what their training config tells, and ImageNet weights for the backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.checkpoints.official_files import random_arrays
from trecvit_dense.checkpoints import CheckpointError, load_model
from trecvit_dense.checkpoints.io import load_parts
from trecvit_dense.checkpoints.xvit_names import mixing
from trecvit_dense.cli.convert import main
from trecvit_dense.registry import MODELS

WIDTH, DEPTH, CLASSES, SIDE = 192, 2, 5, 32  # heads of 64 channels in the backbone, 12 heads in the head
RECIPE = """DATA:
  NUM_FRAMES: 4
XVIT:
  LOCATIONS_LIST:
  - 0
  - 1
  - 14
  NUM_SEGMENTS: 4
  SHIFT_DIV: 8
"""


def block(name: str, width: int = WIDTH, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    linears = {'attn.qkv': (3 * width, width), 'attn.proj': (width, width)}
    linears |= {'mlp.fc1': (4 * width, width), 'mlp.fc2': (width, 4 * width)}
    shapes = {f'{name}.{norm}.{part}': (width,) for norm in ('norm1', 'norm2') for part in ('weight', 'bias')}
    for linear, shape in linears.items():
        shapes[f'{name}.{linear}.weight'] = shape
        if bias or linear != 'attn.qkv':
            shapes[f'{name}.{linear}.bias'] = shape[:1]
    return shapes


def vit_shapes(prefix: str = '', width: int = WIDTH, side: int = SIDE) -> dict[str, tuple[int, ...]]:
    """timm's vision transformer without its classifier, written out from the published class."""
    shapes = {
        f'{prefix}cls_token': (1, 1, width),
        f'{prefix}pos_embed': (1, 1 + (side // 16) ** 2, width),
        f'{prefix}patch_embed.proj.weight': (width, 3, 16, 16),
        f'{prefix}patch_embed.proj.bias': (width,),
        f'{prefix}norm.weight': (width,),
        f'{prefix}norm.bias': (width,),
    }
    for layer in range(DEPTH):
        shapes |= block(f'{prefix}blocks.{layer}', width)
    return shapes


def xvit_shapes(consensus: str = 'vit') -> dict[str, tuple[int, ...]]:
    """``model_state`` with the temporal aggregation head, or with a classifier of frames: ``head`` or ``new_fc``."""
    shapes = vit_shapes('base_model.') | {'base_model.temp_embed': (1, 8, 1, WIDTH)}
    name = 'base_model.head' if consensus == 'head' else 'new_fc'
    shapes |= {f'{name}.weight': (CLASSES, WIDTH), f'{name}.bias': (CLASSES,)}
    if consensus == 'vit':
        shapes |= {'consensus.cls_token': (1, 1, WIDTH), **block('consensus.temporal_encoder.0', bias=False)}
        shapes |= {'consensus.mlp_head.0.weight': (WIDTH,), 'consensus.mlp_head.0.bias': (WIDTH,)}
        shapes |= {'consensus.mlp_head.1.weight': (24, WIDTH), 'consensus.mlp_head.1.bias': (24,)}
        shapes |= {'consensus.mlp_head.4.weight': (CLASSES, 24), 'consensus.mlp_head.4.bias': (CLASSES,)}
    return shapes


def write(arrays: dict[str, np.ndarray], path, recipe: str | None = None) -> str:
    """A file as the authors' program writes it."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    content = {'epoch': 3, 'model_state': tensors, 'optimizer_state': {'state': {}, 'param_groups': []}}
    torch.save(content if recipe is None else {**content, 'cfg': recipe}, path)
    return str(path)


@pytest.mark.parametrize('consensus', ['vit', 'head'])
def test_there_and_back_bit_for_bit(consensus: str, tmp_path, capsys) -> None:
    arrays = random_arrays(xvit_shapes(consensus))
    source, ours, back = write(arrays, tmp_path / 'xvit.pyth', RECIPE), tmp_path / 'a.safetensors', tmp_path / 'b.pyth'
    assert main([source, str(ours)]) == 0
    printed = capsys.readouterr().out
    idle = ['new_fc.weight', 'new_fc.bias'] if consensus == 'vit' else []
    assert f'loaded {len(arrays) - len(idle)}\nmissing 0\nunexpected 0\nresized 0' in printed
    assert 'optimizer_state' in printed and all(f'{name}: a layer that is' in printed for name in idle)
    assert main(['--to-official', str(ours), str(back)]) == 0
    found = torch.load(back, weights_only=True)['model_state']
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        wanted = np.zeros_like(array) if name in idle else array
        assert found[name].numpy().tobytes() == wanted.tobytes(), name


def test_the_config_is_read_from_shapes_and_from_the_training_config(tmp_path) -> None:
    source = write(random_arrays(xvit_shapes()), tmp_path / 'xvit.pyth', RECIPE)
    assert main([source, str(tmp_path / 'ours.safetensors')]) == 0
    model = load_model(tmp_path / 'ours.safetensors')
    attention = model.backbone.blocks[1].attn
    assert (attention.group, attention.fold, attention.num_heads) == (4, WIDTH // 8, 3)
    assert model.backbone.frame_position.shape == (1, 8, 1, WIDTH) and model.backbone.position.grid == (2, 2)
    head = model.heads['classification']
    assert (head.mode, head.num_classes, head.rep_size) == ('running', CLASSES, 24)
    assert model.data_preprocessor.input_size == (SIDE, SIDE)
    with torch.no_grad():
        outputs, _ = model.step(torch.rand(1, 8, 3, SIDE, SIDE), model.start(1))
    assert outputs['classification'].logits.shape == (1, CLASSES)


def test_without_a_training_config_the_classes_tell_the_data_set() -> None:
    assert mixing('', 400) == mixing('', 600) == dict(num_segments=8, shift_div=8)
    assert mixing('', 174) == dict(num_segments=None, shift_div=4)
    told = mixing('XVIT: \n  SHIFT_DIV: 4\n  NUM_SEGMENTS: 16\n  LOCATIONS_LIST: [0, 1, 14]\n', 400)
    assert told == dict(num_segments=16, shift_div=4, shift_layers=[0, 1, 14])


def test_the_classifier_of_an_average_with_dropout_is_new_fc(tmp_path, capsys) -> None:
    arrays = random_arrays(xvit_shapes('new_fc'))
    assert main([write(arrays, tmp_path / 'xvit.pyth'), str(tmp_path / 'ours.safetensors')]) == 0
    assert f'loaded {len(arrays)}\n' in capsys.readouterr().out
    model = load_model(tmp_path / 'ours.safetensors')
    np.testing.assert_array_equal(model.heads['classification'].classifier.weight.detach(), arrays['new_fc.weight'])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda a: a.pop('base_model.norm.weight'), 'lacks 1 tensors'),
        (lambda a: a.pop('base_model.pos_embed'), 'lacks base_model.pos_embed'),
        (lambda a: a.update({'base_model.pos_embed': np.ones((1, 7, WIDTH), np.float32)}), 'no square'),
        (lambda a: a.pop('consensus.mlp_head.1.bias'), 'consensus.mlp_head.1.bias'),
    ],
)
def test_damaged_files_are_refused_and_nothing_is_written(change, message: str, tmp_path) -> None:
    arrays = random_arrays(xvit_shapes())
    change(arrays)
    with pytest.raises(CheckpointError, match=message) as error:
        main([write(arrays, tmp_path / 'xvit.pyth'), str(tmp_path / 'out.safetensors')])
    assert '\n' not in str(error.value) and len(list(tmp_path.iterdir())) == 1


# ----------------------------------------------------------------------------------------------------- ImageNet


def fresh(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = dict(embed_dim=WIDTH, depth=DEPTH, num_heads=3, image_size=SIDE)
    head = dict(type='TemporalAggregationHead', num_classes=CLASSES)
    backbone = dict(type='XViT', **{**sizes, **options})
    return MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head)))


def image_file(path) -> tuple[str, dict[str, np.ndarray]]:
    shapes = vit_shapes() | {'pre_logits.fc.weight': (WIDTH, WIDTH), 'pre_logits.fc.bias': (WIDTH,)}
    arrays = random_arrays(shapes | {'head.weight': (7, WIDTH), 'head.bias': (7,)})
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return str(path), arrays


def test_imagenet_weights_start_the_backbone(tmp_path) -> None:
    """One line of config, ``pretrained=dict(backbone=FILE)``; the table of frames stays zero, the head as it was."""
    path, arrays = image_file(tmp_path / 'vit.pth')
    model = fresh()
    head = model.heads.state_dict()
    before = {name: value.clone() for name, value in head.items()}
    report = load_parts(model, dict(backbone=path))['backbone']
    own = model.backbone.state_dict()
    assert sorted(report.loaded) == sorted(own) and not report.missing and not report.unexpected
    assert not own['frame_position'].any()
    assert all(torch.equal(head[name], before[name]) for name in head)
    np.testing.assert_array_equal(torch.cat([own['class_position'], own['position.table']], 1), arrays['pos_embed'])
    for name in ('blocks.1.attn.qkv.weight', 'norm.bias', 'patch_embed.proj.weight'):
        np.testing.assert_array_equal(own[name], arrays[name])


def test_imagenet_weights_are_that_image_model_where_nothing_is_exchanged(tmp_path) -> None:
    """Against timm's forward pass, written down from the paper's equations."""
    path, arrays = image_file(tmp_path / 'vit.pth')
    model = fresh(shift_layers=[])
    load_parts(model, dict(backbone=path))
    image = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        found = model.eval().backbone(image[:, None].expand(-1, 3, -1, -1, -1))[0].class_token
        torch.testing.assert_close(found, image_vit(arrays, image)[:, None].expand(-1, 3, -1), rtol=1e-4, atol=1e-4)


def image_vit(arrays: dict[str, np.ndarray], image: torch.Tensor) -> torch.Tensor:
    p = {name: torch.from_numpy(array) for name, array in arrays.items()}
    norm = lambda x, name: torch.nn.functional.layer_norm(x, (WIDTH,), p[f'{name}.weight'], p[f'{name}.bias'], 1e-6)  # noqa: E731
    linear = lambda x, name: x @ p[f'{name}.weight'].T + p[f'{name}.bias']  # noqa: E731
    x = torch.nn.functional.conv2d(image, p['patch_embed.proj.weight'], p['patch_embed.proj.bias'], stride=16)
    x = torch.cat([p['cls_token'], x.flatten(2).mT], dim=1) + p['pos_embed']
    for name in (f'blocks.{layer}' for layer in range(DEPTH)):
        q, k, v = linear(norm(x, f'{name}.norm1'), f'{name}.attn.qkv').view(1, -1, 3, 3, 64).permute(2, 0, 3, 1, 4)
        y = ((q @ k.mT / 8.0).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + linear(y, f'{name}.attn.proj')
        hidden = torch.nn.functional.gelu(linear(norm(x, f'{name}.norm2'), f'{name}.mlp.fc1'))
        x = x + linear(hidden, f'{name}.mlp.fc2')
    return norm(x, 'norm')[:, 0]


def test_positions_of_imagenet_weights_are_resized(tmp_path) -> None:
    path, _ = image_file(tmp_path / 'vit.pth')
    report = load_parts(fresh(image_size=64), dict(backbone=path))['backbone']
    assert report.resized == ['position.table: 2x2 -> 4x4']


def test_image_models_of_another_size_and_other_files_are_refused(tmp_path) -> None:
    path, _ = image_file(tmp_path / 'vit.pth')
    with pytest.raises(CheckpointError, match='does not fit the model'):
        load_parts(fresh(depth=3), dict(backbone=path))
    with pytest.raises(CheckpointError, match='shape'):
        load_parts(fresh(embed_dim=96), dict(backbone=path))
    torch.save({'conv.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='has no backbone'):
        load_parts(fresh(), dict(backbone=tmp_path / 'other.pth'))
    trecvit = dict(type='TRecViT', embed_dim=WIDTH, depth=DEPTH, num_heads=3, image_size=SIDE)
    with pytest.raises(CheckpointError, match='has no backbone'):
        load_parts(MODELS.build(dict(type='VideoPerceiver', backbone=trecvit, heads={})), dict(backbone=path))
