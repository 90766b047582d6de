"""Our files: the model comes back from the file alone; bad files give one clear line."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch

from trecvit_dense.checkpoints import CheckpointError, load_model, load_state, read_checkpoint, save_model
from trecvit_dense.checkpoints.io import parse_config_text
from trecvit_dense.checkpoints.official import tapnext_config
from trecvit_dense.registry import MODELS, use_scope

SIZES = dict(embed_dim=16, num_heads=2, mlp_dim=32, lru_width=16, patch_size=8, image_size=(16, 16), num_bins=16)


def config(**changes) -> dict:
    return tapnext_config(**{'depth': 2, **SIZES, **changes})


def build(**changes) -> torch.nn.Module:
    use_scope()
    return MODELS.build(config(**changes))


@pytest.fixture
def saved(tmp_path):
    model = build()
    path = save_model(model, config(), tmp_path / 'model.safetensors', card=dict(hours=1.5))
    return model, path


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_safetensors_round_trip(saved) -> None:
    model, path = saved
    again = load_model(path)
    assert same(model, again) and not again.training
    card = json.loads(path.with_suffix('.json').read_text())
    assert card['hours'] == 1.5 and card['model']['type'] == 'VideoPerceiver'
    assert card['parameters'] == sum(p.numel() for p in model.parameters())
    assert sorted(p.name for p in path.parent.iterdir()) == ['model.json', 'model.safetensors']
    _, info = read_checkpoint(path)
    assert info['card']['hours'] == 1.5 and info['config']['backbone']['depth'] == 2


@pytest.mark.parametrize('meta', ['entry', 'text'])
def test_mmengine_pth(meta, tmp_path) -> None:
    model = build()
    entry = dict(model=config()) if meta == 'entry' else dict(cfg=f'epochs = 3\nmodel = {config()!r}\nx = open("y")\n')
    torch.save(dict(meta=entry, state_dict=model.state_dict(), optimizer={}), tmp_path / 'iter_1.pth')
    assert same(model, load_model(tmp_path / 'iter_1.pth'))


def test_config_text_is_read_and_not_run() -> None:
    text = "a = dict(type='X', sizes=(1, -2), inner={'k': [None, True]})\nb = __import__('os').getcwd()\n"
    assert parse_config_text(text) == {'a': {'type': 'X', 'sizes': [1, -2], 'inner': {'k': [None, True]}}}


class Foreign:
    def __reduce__(self):
        return os.system, ('echo this must not run',)


def _write(path, content) -> None:
    with path.open('wb') as file:
        file.write(content)


@pytest.mark.parametrize(
    ('name', 'make', 'message'),
    [
        ('absent.pth', lambda p: None, 'does not exist'),
        ('empty.pth', lambda p: _write(p, b''), 'empty'),
        ('text.pth', lambda p: _write(p, b'no checkpoint at all'), 'not a torch checkpoint'),
        ('text.safetensors', lambda p: _write(p, b'no checkpoint at all'), 'not a safetensors file'),
        ('list.pth', lambda p: torch.save([1, 2], p), 'holds a list'),
        ('numbers.pth', lambda p: torch.save({'a': 1}, p), 'state_dict'),
        ('foreign.pth', lambda p: torch.save({'state_dict': Foreign()}, p), "global '(posix|nt).system'; refused"),
        ('pickle.pth', lambda p: _write(p, pickle.dumps(Foreign())), 'refused|not a torch checkpoint'),
        ('bare.pth', lambda p: torch.save({'state_dict': {'a': torch.zeros(1)}}, p), 'config of its model'),
        ('official.npz', lambda p: _write(p, b'x'), 'trecvit convert'),
        ('folder', lambda p: p.mkdir(), 'is a folder'),
    ],
)
def test_bad_files_give_one_line(name, make, message, tmp_path) -> None:
    make(tmp_path / name)
    with pytest.raises((CheckpointError, FileNotFoundError), match=message) as error:
        load_model(tmp_path / name)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_truncated_files(suffix, tmp_path) -> None:
    whole = save_model(build(), config(), tmp_path / 'a.safetensors').read_bytes()
    if suffix == '.pth':
        torch.save(dict(state_dict=build().state_dict()), tmp_path / 'a.pth')
        whole = (tmp_path / 'a.pth').read_bytes()
    path = tmp_path / f'cut{suffix}'
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match='truncated') as error:
        load_model(path)
    assert '\n' not in str(error.value)


def test_nan_weights_are_refused_by_name(tmp_path) -> None:
    model = build()
    with torch.no_grad():
        model.backbone.norm.weight[3] = float('nan')
    path = save_model(model, config(), tmp_path / 'nan.safetensors')
    with pytest.raises(CheckpointError, match=r"'backbone.norm.weight' has 1 values that are NaN"):
        load_model(path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(depth=3), 'depth: file has 2, model has 3'),
        (dict(embed_dim=32, lru_width=32), 'embed_dim: file has 16, model has 32'),
        (dict(num_heads=4), 'num_heads: file has 2, model has 4'),
        (dict(num_bins=32), 'num_bins: file has 16, model has 32'),
        (dict(patch_size=4), 'patch_size: file has 8x8, model has 4x4'),
    ],
)
def test_another_architecture_is_named_by_its_field(changes, message, saved) -> None:
    state, _ = read_checkpoint(saved[1])
    with pytest.raises(CheckpointError, match=message):
        load_state(build(**changes), state, name='file')


def test_positions_are_interpolated_on_load(saved) -> None:
    state, _ = read_checkpoint(saved[1])
    report = load_state(build(image_size=(32, 32)), state)
    assert report.resized == ['backbone.position.table: 2x2 -> 4x4'] and not report.missing + report.unexpected
    assert 'resized 1' in str(report)


def test_a_failed_save_leaves_the_old_file(saved) -> None:
    model, path = saved
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_model(model, dict(config(), bad=object()), path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ['model.json', 'model.safetensors']
