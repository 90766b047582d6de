"""``trecvit benchmark data-wait``: a short training that leaves nothing behind, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trecvit_dense import cli
from trecvit_dense.cli.benchmark_data_wait import row, table

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=['tests.engine.toy'])
model = dict(type='ToyModel')
train_dataloader = dict(
    dataset=dict(type='ToyDataset'), batch_size=3, num_workers=0, collate_fn=dict(type='default_collate'),
    sampler=dict(type='DrawSampler'),
)
val_dataloader = dict(**train_dataloader)
train_cfg = dict(type='FastResumeIterLoop', max_iters=400, val_interval=2)
val_cfg = dict()
val_evaluator = dict(type='ToyMetric')
optim_wrapper = dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=0.01), dtype='float32')
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'toy_recipe.py'
    path.write_text(CONFIG.format(base=str(ROOT / 'configs/_base_/default_runtime.py')))
    return path


def test_rows_by_workers(config: Path, tmp_path: Path, capsys) -> None:
    words = ['benchmark', 'data-wait', str(config), '--workers', '0', '1', '--iterations', '3', '--warmup', '1']
    assert cli.run(cli.main, [*words, '--out', 'wait.json']) == 0
    rows = json.loads((tmp_path / 'wait.json').read_text())['rows']
    assert [entry['workers'] for entry in rows] == [0, 1]
    for entry in rows:
        assert len(entry['steps']) == len(entry['waits']) == 3
        assert all(0 <= wait <= step for wait, step in zip(entry['waits'], entry['steps'], strict=True))
        assert 0 <= entry['part'] <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ['toy_recipe.py', 'wait.json']
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_part_that_waits() -> None:
    entry = row([0.1, 0.3, 0.2], [1.0, 1.0, 4.0], 2)
    assert entry['part'] == pytest.approx(0.1) and entry['wait_s'] == 0.2 and entry['longest_wait_s'] == 0.3
    assert table([entry]).splitlines()[1].split() == ['2', '1000.0', '200.0', '300.0', '10.0%']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--iterations', '0'), '--iterations 0: wanted at least 1'),
        (('--workers', '-1'), 'wanted at least 0'),
        (('--cfg-options', 'train_cfg=None'), 'it is for testing only'),
        (('--out', 'nowhere/w.json'), 'folder nowhere does not exist'),
    ],
)
def test_mistakes_are_one_line(config: Path, words, message, capsys) -> None:
    assert cli.run(cli.main, ['benchmark', 'data-wait', str(config), *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0]
