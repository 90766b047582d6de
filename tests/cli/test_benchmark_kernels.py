"""``trecvit benchmark kernels``: both ways run, over the same parameters, and agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.inference.tiny import tiny_config, tiny_model
from trecvit_dense.checkpoints import save_model
from trecvit_dense.cli.benchmark import main
from trecvit_dense.cli.benchmark_kernels import shared
from trecvit_dense.inference.fast_kernels import why_not


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


def test_every_precision_has_its_limit(tmp_path: Path) -> None:
    checkpoint, out = tmp_path / 'tiny.safetensors', tmp_path / 'rows.json'
    save_model(tiny_model('tokens'), tiny_config('tokens'), checkpoint, {})
    precisions = ['fp32', 'bf16'] if why_not('bf16') is None else ['fp32']
    options = ['--queries', '4', '--rounds', '1', '--threads', '1', '--device', 'cpu', '--precision', *precisions]
    assert main(['kernels', str(checkpoint), *options, '--out', str(out)]) == 0
    plain, fast, *half = json.loads(out.read_text())['rows']
    assert plain['limit_gflops_per_s'] == fast['limit_gflops_per_s'], 'the same products'
    for row in (plain, fast, *half):
        assert row['of_limit'] == pytest.approx(row['gflops_per_s'] / row['limit_gflops_per_s'])
    assert all(row['limit_gflops_per_s'] != fast['limit_gflops_per_s'] for row in half)


def test_no_parameter_is_copied() -> None:
    model = tiny_model('tokens')
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in shared(model).parameters()} == own


def test_numbers_that_cannot_be(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match='--clip 0: wanted at least 1'):
        main(['kernels', 'boxed', '--clip', '0'])
