"""``trecvit benchmark kernels``: both ways run, over the same parameters, and agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.inference.tiny import tiny_config, tiny_model
from trecvit_dense.checkpoints import save_model
from trecvit_dense.cli.benchmark import main
from trecvit_dense.cli.benchmark_kernels import shared


@pytest.mark.parametrize(('head', 'clip'), [('tokens', 1), ('volume', 3)])
def test_rows(head: str, clip: int, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint, out = tmp_path / 'tiny.safetensors', tmp_path / 'rows.json'
    save_model(tiny_model(head), tiny_config(head), checkpoint, {})
    options = [
        '--queries',
        '4',
        '--clip',
        str(clip),
        '--rounds',
        '2',
        '--threads',
        '1',
        '--device',
        'cpu',
        '--no-limit',
    ]
    assert main(['kernels', str(checkpoint), *options, '--out', str(out), '--verbose']) == 0
    plain, fast = json.loads(out.read_text())['rows']
    assert (plain['path'], plain['gain'], plain['difference']) == ('plain', 1.0, 0.0)
    assert fast['path'] == 'fast fp32'
    assert 0 < fast['ms'] <= fast['first_ms'] * 10
    assert fast['difference'] < 1e-3
    assert 'x 32 x 96: ' in capsys.readouterr().out, 'the layer for queries, keys and values'


def test_no_parameter_is_copied() -> None:
    model = tiny_model('tokens')
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in shared(model).parameters()} == own


def test_numbers_that_cannot_be(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match='--clip 0: wanted at least 1'):
        main(['kernels', 'boxed', '--clip', '0'])
