"""Official ViS4mer files there and back, and what they become."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.checkpoints import CheckpointError, load_model
from trecvit_dense.checkpoints.official import read_official
from trecvit_dense.cli.convert import main
from trecvit_dense.models.layers.s4_kernel import official_roots


def official_arrays(d_input: int, d_model: int, l_max: int, outputs: int) -> dict[str, np.ndarray]:
    """Random arrays under the names and in the shapes of the authors' decoder with three stages and N = 8."""
    rng = np.random.default_rng(0)
    shapes = {'encoder.weight': (d_model, d_input), 'encoder.bias': (d_model,)}
    arrays = {}
    for layer in range(3):
        width, start = d_model >> layer, f's4_layers.{layer}.'
        kernel = f'{start}kernel.krylov.'
        shapes |= {f'{start}D': (width,), f'{kernel}log_dt': (width,), f'{kernel}w': (4, 2)}
        shapes |= {f'{kernel}B': (width, 2, 4, 2), f'{kernel}C': (width, 2, 4, 2)}
        shapes |= {f'{start}output_linear.weight': (width, width), f'{start}output_linear.bias': (width, 1)}
        shapes |= {f'norms.{layer}.weight': (width,), f'norms.{layer}.bias': (width,)}
        shapes |= {f'linears.{layer}.weight': (width // 2, width), f'linears.{layer}.bias': (width // 2,)}
        nodes, z = official_roots(l_max >> layer)
        arrays |= {f'{kernel}nodes': torch.view_as_real(nodes).numpy(), f'{kernel}z': torch.view_as_real(z).numpy()}
    shapes |= {'decoder.weight': (outputs, d_model >> 3), 'decoder.bias': (outputs,)}
    return arrays | {name: rng.standard_normal(shape).astype(np.float32) * 0.1 for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ('d_input', 'd_model', 'l_max', 'outputs'),
    [(12, 16, 47, 5), (16, 16, 11820, 1)],
    ids=['projection', 'equal widths'],
)
def test_round_trip(d_input, d_model, l_max, outputs, tmp_path, capsys) -> None:
    arrays = official_arrays(d_input, d_model, l_max, outputs)
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / 'official.pt')
    assert main([str(tmp_path / 'official.pt'), str(tmp_path / 'ours.safetensors')]) == 0
    printed = capsys.readouterr().out
    assert 'missing 0\nunexpected 0' in printed
    assert ('encoder.weight: never read' in printed) == (d_input == d_model)
    assert main([str(tmp_path / 'ours.safetensors'), str(tmp_path / 'back.pt'), '--to-official']) == 0
    back = read_back(tmp_path / 'back.pt')
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        if name.startswith('encoder.') and d_input == d_model:
            continue  # nobody reads it
        assert back[name].dtype == array.dtype, name
        np.testing.assert_array_equal(back[name], array, err_msg=name)
    model = load_model(tmp_path / 'ours.safetensors')
    assert [stage.s4.kernel.length for stage in model.backbone.stages] == [l_max, l_max // 2, l_max // 4]
    assert set(model.heads) == ({'regression'} if outputs == 1 else {'classification'})


def read_back(path) -> dict[str, np.ndarray]:
    content = torch.load(path, weights_only=True)
    return {name: value.numpy() for name, value in content.items()}


def test_weights_bring_the_length_of_their_kernel(tmp_path) -> None:
    """Loaded where another l_max is configured they are the same function, for shorter and for longer input."""
    from trecvit_dense.registry import MODELS

    config = dict(type='ViS4mer', d_input=8, d_state=8, n_layers=1)
    torch.manual_seed(0)
    first, second = (MODELS.build(dict(config, l_max=length)).eval() for length in (20, 33))
    second.load_state_dict(first.state_dict())
    tokens = torch.randn(1, 26, 1, 8)
    torch.testing.assert_close(second(tokens)[0].class_token, first(tokens)[0].class_token)
    assert second.stages[0].s4.kernel.length == 20


def test_files_that_do_not_fit(tmp_path) -> None:
    arrays = official_arrays(16, 16, 64, 3)
    del arrays['s4_layers.0.kernel.krylov.nodes']
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / 'cut.pt')
    file = read_official(tmp_path / 'cut.pt')
    assert file.layout == 'vis4mer'
    with pytest.raises(CheckpointError, match='nodes'):
        main([str(tmp_path / 'cut.pt'), str(tmp_path / 'ours.safetensors')])
