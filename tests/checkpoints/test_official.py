"""Official files there and back: nothing missing, nothing unexpected, not one bit changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.checkpoints.official_files import (
    random_arrays,
    tapnext_jax_shapes,
    tapnext_torch_shapes,
    trecvit_shapes,
    write_lightning,
)
from trecvit_dense.checkpoints import CheckpointError, load_model
from trecvit_dense.checkpoints.official import infer_config, read_official
from trecvit_dense.cli import run
from trecvit_dense.cli.convert import main

# The same key sets as B at a width that a test can afford; B itself is marked slow.
SIZES = [pytest.param(48, id='narrow'), pytest.param(768, id='B', marks=pytest.mark.slow)]


def trecvit(width: int) -> dict:
    small = dict(classes=10, rep=64) if width < 768 else {}
    return trecvit_shapes(width, **small)


def assert_equal(found: dict, wanted: dict) -> None:
    assert sorted(found) == sorted(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert np.asarray(found[name]).tobytes() == array.tobytes(), name


@pytest.mark.parametrize('width', SIZES)
@pytest.mark.parametrize('shapes', [trecvit, tapnext_jax_shapes])
def test_npz_round_trip(shapes, width, tmp_path, capsys) -> None:
    arrays = random_arrays(shapes(width))
    np.savez(tmp_path / 'official.npz', **arrays)
    assert main([str(tmp_path / 'official.npz'), str(tmp_path / 'ours.safetensors')]) == 0
    printed = capsys.readouterr().out
    assert f'loaded {len(arrays)}\nmissing 0\nunexpected 0\nresized 0' in printed
    assert main([str(tmp_path / 'ours.safetensors'), str(tmp_path / 'back.npz'), '--to-official']) == 0
    with np.load(tmp_path / 'back.npz', allow_pickle=False) as file:
        assert_equal({name: file[name] for name in file.files}, arrays)
    assert sum(p.numel() for p in load_model(tmp_path / 'ours.safetensors').parameters()) == sum(
        array.size for array in arrays.values()
    )


@pytest.mark.parametrize('width', SIZES)
def test_lightning_round_trip(width, tmp_path, capsys) -> None:
    arrays = random_arrays(tapnext_torch_shapes(width))
    write_lightning(arrays, tmp_path / 'tapnextpp_512.ckpt', width=width)
    assert main([str(tmp_path / 'tapnextpp_512.ckpt'), str(tmp_path / 'ours.safetensors')]) == 0
    printed = capsys.readouterr().out
    assert f'loaded {len(arrays)}\nmissing 0\nunexpected 0' in printed
    assert 'query_pos_embed' in printed and 'optimizer_states' in printed and '512x512' in printed
    model = load_model(tmp_path / 'ours.safetensors')
    assert model.data_preprocessor.input_size == (512, 512)
    assert model.heads['points'].border == 'zero' and model.backbone.norm.eps == 1e-5
    assert main([str(tmp_path / 'ours.safetensors'), str(tmp_path / 'back.pt'), '--to-official']) == 0
    back = torch.load(tmp_path / 'back.pt', weights_only=True)['state_dict']
    assert_equal({name.removeprefix('tapnext.'): value.numpy() for name, value in back.items()}, arrays)
    assert all(name.startswith('tapnext.') for name in back)


def test_b_has_the_published_numbers_of_arrays_and_parameters() -> None:
    for shapes, arrays, parameters in (
        (trecvit_shapes(), 370, 136_778_128),
        (tapnext_jax_shapes(), 448, 194_202_881),
        (tapnext_torch_shapes(), 400, 194_202_881),
    ):
        assert len(shapes) == arrays
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters


def test_mae_loads_tokenizer_and_encoder_and_reports_the_rest(tmp_path, capsys) -> None:
    arrays = random_arrays(trecvit(48))
    arrays = {name: array for name, array in arrays.items() if not name.startswith('decoder/')}
    arrays['decoder/unknown/kernel'] = np.ones((3, 4), dtype=np.float32)
    np.savez(tmp_path / 'trecvit_B_mae.npz', **arrays)
    assert main([str(tmp_path / 'trecvit_B_mae.npz'), str(tmp_path / 'mae.safetensors')]) == 0
    printed = capsys.readouterr().out
    assert 'missing 0\nunexpected 1\n  decoder/unknown/kernel' in printed
    assert len(load_model(tmp_path / 'mae.safetensors').heads) == 0


def damaged(tmp_path, change) -> str:
    arrays = random_arrays(tapnext_jax_shapes(48, depth=2))
    change(arrays)
    np.savez(tmp_path / 'damaged.npz', **arrays)
    return str(tmp_path / 'damaged.npz')


BLOCK = 'backbone/Transformer/encoderblock_1/vit_block'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda a: a.pop(f'{BLOCK}/LayerNorm_0/scale'), 'lacks 1 tensors'),
        (lambda a: a.update({f'{BLOCK}/LayerNorm_0/scale': np.ones(7, np.float32)}), 'norm1.weight'),
        (lambda a: a.update({f'{BLOCK}/LayerNorm_0/scale': np.full(48, np.nan, np.float32)}), 'NaN'),
        (lambda a: a.pop('backbone/embedding/kernel'), 'patch_size'),
        (lambda a: a.update({'backbone/mask_token': np.array([object()])}), 'pickled'),
        (lambda a: [a.pop(name) for name in list(a)], 'no TRecViT or TAPNext'),
    ],
)
def test_damaged_files_are_refused_and_nothing_is_written(change, message, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        main([damaged(tmp_path, change), str(tmp_path / 'out.safetensors')])
    assert '\n' not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ['damaged.npz']


def test_another_architecture_is_named(tmp_path) -> None:
    source = damaged(tmp_path, lambda arrays: None)
    with pytest.raises(CheckpointError, match='arch: file has tapnext, wanted trecvit'):
        main([source, str(tmp_path / 'out.safetensors'), '--arch', 'trecvit'])
    config = infer_config(read_official(source))
    config['backbone']['depth'] = 6
    (tmp_path / 'config.py').write_text(f'model = {config!r}\n')
    with pytest.raises(CheckpointError, match='depth: file has 2, model has 6'):
        main([source, str(tmp_path / 'out.safetensors'), '--config', str(tmp_path / 'config.py')])


def test_positions_are_resized_to_the_grid_of_a_config(tmp_path, capsys) -> None:
    source = damaged(tmp_path, lambda arrays: None)
    config = infer_config(read_official(source))
    config['backbone']['image_size'] = [512, 512]
    (tmp_path / 'config.py').write_text(f'model = {config!r}\n')
    assert main([source, str(tmp_path / 'out.safetensors'), '--config', str(tmp_path / 'config.py')]) == 0
    assert 'resized 1\n  backbone.position.table: 32x32 -> 64x64' in capsys.readouterr().out


def test_target_is_checked_before_any_work(tmp_path) -> None:
    with pytest.raises(ValueError, match='.safetensors'):
        main(['absent.npz', str(tmp_path / 'out.npz')])
    with pytest.raises(FileNotFoundError, match='does not exist'):
        main(['absent.npz', str(tmp_path / 'folder' / 'out.safetensors')])
    with pytest.raises(FileNotFoundError, match='absent.npz'):
        main(['absent.npz', str(tmp_path / 'out.safetensors')])


@pytest.mark.parametrize('source', ['absent.npz', 'cut.npz', 'foreign.pt', 'other.pt'])
def test_the_command_says_one_line_and_leaves_nothing(source, tmp_path, capsys) -> None:
    np.savez(tmp_path / 'whole.npz', **random_arrays(tapnext_jax_shapes(48, depth=1)))
    (tmp_path / 'cut.npz').write_bytes((tmp_path / 'whole.npz').read_bytes()[:5000])
    torch.save({'state_dict': {'lin_proj.weight': Path('x')}}, tmp_path / 'foreign.pt')
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, tmp_path / 'other.pt')
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run(main, [str(tmp_path / source), str(tmp_path / 'out.safetensors')]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and source in lines[0] and lines[0].startswith('error: ')
    assert sorted(path.name for path in tmp_path.iterdir()) == before
