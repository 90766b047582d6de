"""A pre-trained backbone goes into any task; what is not taken, and what starts from scratch, is said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trecvit_dense.checkpoints import CheckpointError, save_model
from trecvit_dense.checkpoints.io import load_parts
from trecvit_dense.cli.train import start_from
from trecvit_dense.engine import load_config
from trecvit_dense.registry import MODELS, use_scope

BACKBONE = dict(type='TRecViT', embed_dim=16, depth=2, num_heads=2, mlp_dim=32, patch_size=8, image_size=32)
MAE = dict(type='MaskedAutoencoderHead', decoder_dim=16, decoder_depth=1, decoder_heads=2)
PROBE = dict(type='AttentiveProbe', num_classes=3, num_heads=2)
DEPTH = dict(type='DPTDepthHead', scales=(8, 16), widths=8)


def build(heads: dict, **backbone: object):
    use_scope()
    return MODELS.build(dict(type='VideoPerceiver', backbone=BACKBONE | backbone, heads=heads))


@pytest.fixture(params=['pth', 'safetensors'])
def pretrained(request, tmp_path):
    """A masked autoencoder as a training leaves it, and as it is shared."""
    torch.manual_seed(1)
    model = build(dict(reconstruction=MAE))
    path = tmp_path / f'mae.{request.param}'
    if request.param == 'pth':
        torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    else:
        save_model(model, dict(type='VideoPerceiver', backbone=BACKBONE, heads=dict(reconstruction=MAE)), path)
    return path, model


def test_backbone_goes_into_other_tasks(pretrained, capsys) -> None:
    path, source = pretrained
    model = build(dict(depth=DEPTH, classification=PROBE))
    start_from(SimpleNamespace(model=model), dict(backbone=str(path)))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, source.backbone.state_dict()[name]), name
    said = capsys.readouterr().err.splitlines()
    heads = len(source.heads['reconstruction'].state_dict())
    count = len(source.backbone.state_dict())
    assert said == [
        f'backbone: {count} tensors from {path}; {heads} of heads.reconstruction not taken',
        'from scratch: depth, classification',
    ]


def test_class_token_and_frame_size_may_differ(pretrained, capsys) -> None:
    path, source = pretrained
    model = build(dict(classification=PROBE), class_token=True, image_size=48)
    report = load_parts(model, dict(backbone=path))['backbone']
    assert report.missing == ['class_token'] and report.resized == ['position.table: 4x4 -> 6x6']
    assert report.dropped == sorted(key for key in source.state_dict() if key.startswith('heads.'))
    start_from(SimpleNamespace(model=model), dict(backbone=str(path)))
    assert '; class_token from scratch; resized position.table: 4x4 -> 6x6' in capsys.readouterr().err


def test_token_that_no_one_wants_is_left_out(tmp_path) -> None:
    source = build(dict(reconstruction=MAE), class_token=True)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'token.pth')
    report = load_parts(build(dict(depth=DEPTH)), dict(backbone=tmp_path / 'token.pth'))['backbone']
    assert report.unexpected == ['class_token']


@pytest.mark.parametrize('backbone', [dict(depth=3), dict(embed_dim=32), dict(temporal_mlp=True)])
def test_another_architecture_is_refused(pretrained, backbone: dict) -> None:
    with pytest.raises(CheckpointError, match='mae.*, backbone'):
        load_parts(build(dict(depth=DEPTH), **backbone), dict(backbone=pretrained[0]))


@pytest.mark.parametrize('recipe', ['vos_trecvit', 'depth_trecvit', 'point_track_trecvit', 'multitask_trecvit'])
def test_recipes_fit_the_pretraining_recipe(recipe: str) -> None:
    """One line starts them from its weights: the backbones have the same tensors."""
    use_scope()
    models = []
    for name in ('pretrain_mae_trecvit', recipe):
        cfg = load_config(name, ['+pretrained.backbone=mae.pth'])
        assert cfg.pretrained.backbone == 'mae.pth'
        with torch.device('meta'):
            models.append(MODELS.build(cfg.model.backbone))
    shapes = [{key: tuple(value.shape) for key, value in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]
