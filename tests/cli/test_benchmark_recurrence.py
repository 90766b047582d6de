"""``trecvit benchmark recurrence``: one table, one json, every way of writing the layer with one answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trecvit_dense import cli
from trecvit_dense.cli import benchmark_recurrence

SMALL = ('--shapes', '5x6x24', '3x4x12', '--heads', '3', '--rounds', '1', '--device', 'cpu')


def test_rows(tmp_path: Path, capsys) -> None:
    out = tmp_path / 'rows.json'
    assert cli.run(cli.main, ['benchmark', 'recurrence', *SMALL, '--out', str(out)]) == 0
    told, found = capsys.readouterr(), json.loads(out.read_text())
    names = [row['name'] for row in found['rows'] if row['shape'] == '5x6x24']
    assert {'loop', 'sequential', 'chunked'} <= set(names) and len(found['rows']) == 2 * len(names)
    for name in ('recurrentgemma', 'native', 'triton'):
        assert (name in names) is not (f'without {name}: ' in told.out + told.err)
    for row in found['rows']:
        assert row['ms'] > 0
        assert (row['name'] == 'loop') is (row['difference'] is None)
        assert row['difference'] is None or row['difference'] < 1e-5
        assert (row['times_recurrentgemma'] is None) is ('recurrentgemma' not in names)
    assert '5 x 6 x 24' in told.out and 'CPU time' in told.out


def test_without_the_peer(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(benchmark_recurrence.importlib.util, 'find_spec', lambda name: None)
    words = ['benchmark', 'recurrence', *SMALL, '--only', 'recurrentgemma', 'sequential']
    assert cli.run(cli.main, words) == 0
    told = capsys.readouterr()
    assert 'without recurrentgemma: pip install --no-deps recurrentgemma' in told.out + told.err
    assert 'sequential' in told.out and 'chunked' not in told.out


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--shapes', '3x4'), "shape '3x4'; wanted ROWSxFRAMESxWIDTH"),
        (('--shapes', '3x4x10'), 'width 10 does not divide into 12 heads; set --heads'),
        (('--rounds', '0'), '--rounds 0: wanted at least 1'),
        (('--only', 'quick'), '--only quick: wanted some of recurrentgemma, loop, sequential'),
        (('--out', 'nowhere/rows.json'), 'folder nowhere does not exist'),
    ],
)
def test_mistakes_are_one_line(words, message, capsys) -> None:
    assert cli.run(cli.main, ['benchmark', 'recurrence', *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0]
