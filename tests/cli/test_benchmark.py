"""``trecvit benchmark MODEL``: cases, columns, json and picture; words for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.inference.tiny import tiny_config, tiny_model
from trecvit_dense import cli
from trecvit_dense.cli.benchmark_rows import Case, in_precision, ratios, set_path, table
from trecvit_dense.cli.benchmark_sweep import curves, growth, parse, spread
from trecvit_dense.engine.limits import find_products


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'tiny.py'
    path.write_text(f'model = {tiny_config("tokens", (32, 32))!r}\n')
    return path


def run(*words: object) -> int:
    return cli.run(cli.main, ['benchmark', *map(str, words), '--device', 'cpu', '--threads', '1'])


def test_every_row_says_what_it_costs(config: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'rows.json'
    assert run(config, '--queries', 3, '--clip', 4, '--steps', 2, '--batch', 2, '--path', 'plain', '--out', out) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    rows = found['rows']
    assert [(row['attention'], row['points']) for row in rows] == [('full', 3), ('read_only', 3)]
    for row in rows:
        assert row['batch'] == 2 and row['threads'] == 1 and row['size'] == [32, 32]
        assert 0 < row['step_ms'] <= row['step_p95_ms'] and row['device_mb'] is None
        assert row['clip_fps'] == pytest.approx(2 * 4 / row['clip_ms'] * 1000)
        assert row['clip_gflop'] > 3 * row['step_gflop'] > 0
        speed = row['step_gflops_per_s'] / row['step_limit_gflops_per_s']
        assert row['step_of_limit'] == pytest.approx(speed)
    parts = found['limit_of_last_row']['clip']['products']
    assert sum(part['share'] for part in parts) == pytest.approx(1)
    assert all(word in printed for word in ('step %', 'p95 ms', 'read_only / full at 3 points', 'limit of a clip'))


def test_a_sweep_and_its_picture(config: Path, tmp_path: Path, capsys) -> None:
    out, picture = tmp_path / 'rows.json', tmp_path / 'rows.png'
    words = ('--attention', 'read_only', '--queries', 2, '--steps', 1, '--no-limit', '--out', out, '--plot', picture)
    assert run(config, *words, '--sweep', 'frames', 2, 4) == 0
    rows = json.loads(out.read_text())['rows']
    assert [(row['path'], row['frames']) for row in rows] == [('plain', 2), ('plain', 4), ('fast', 2), ('fast', 4)]
    assert 'clip_of_limit' not in rows[0]
    printed = capsys.readouterr().out
    assert 'frames' in printed and 'time of a clip ~ frames^' in printed and 'step %' not in printed
    assert picture.read_bytes().startswith(b'\x89PNG')


def test_half_precision_has_a_limit_of_its_own() -> None:
    layer = torch.nn.Linear(8, 5)
    for precision, dtype in ((None, torch.float32), ('int8', torch.float32), ('bf16', torch.bfloat16)):
        ((product, count),) = in_precision(find_products(lambda: layer(torch.rand(6, 8))), precision).items()
        assert (product.dtype, product.sizes, count) == (dtype, (6, 8, 5), 1)


def test_a_path_is_taken_back() -> None:
    model = tiny_model()
    set_path(model, 'fast')
    assert any('forward' in vars(module) for module in model.modules())
    set_path(model, 'plain')
    assert not any('forward' in vars(module) for module in model.modules())


CASE = Case('full', 4, 8, (32, 32))


def test_what_a_sweep_spreads() -> None:
    assert parse(None) == (None, []) and parse(['points', '0', '16']) == ('points', [0, 16])
    assert spread([CASE], None, []) == [CASE]
    assert [case.size for case in spread([CASE], 'size', [16, 32])] == [(16, 16), (32, 32)]
    other = Case('full', 9, 8, (32, 32))
    assert [case.points for case in spread([CASE, other], 'points', [1, 2])] == [1, 2]
    assert [(case.points, case.batch) for case in spread([CASE, other], 'batch', [2])] == [(4, 2), (9, 2)]


def row(**changes: object) -> dict:
    figures = dict(step_ms=1.0, step_p95_ms=2.0, step_cpu_ms=1.0, clip_ms=8.0, clip_fps=1000.0, process_mb=10.0)
    return dict(vars(CASE), **figures, device_mb=None, state_kb=3.0) | changes


def test_curves_and_their_powers() -> None:
    rows = [
        row(attention=mode, points=n, step_ms=c * n**2) for mode, c in (('full', 1), ('read_only', 3)) for n in (2, 8)
    ]
    assert list(curves(rows, 'points')) == ['full', 'read_only']
    assert growth(rows, 'points') == [f'{mode}: time of a step ~ points^2.00' for mode in ('full', 'read_only')]
    pixels = [row(size=(side, side), step_ms=side**3) for side in (16, 32)]
    assert growth(pixels, 'size') == ['time of a step ~ size^3.00']
    assert ratios(rows) == [f'read_only / full at {n} points: step time x3.00' for n in (2, 8)]


def test_the_table_shows_what_differs() -> None:
    head, *lines = table([row(threads=1), row(threads=2)]).splitlines()
    assert 'threads' in head and 'batch' not in head and 'device' not in head and len(lines) == 2
    assert 'device MB' in table([row(device_mb=5.0)])


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--sweep', 'frame', '8'), '--sweep frame: wanted one of frames, points, size, batch, threads'),
        (('--sweep', 'frames'), 'wanted numbers from 1 behind frames'),
        (('--sweep', 'frames', '0'), 'wanted numbers from 1 behind frames'),
        (('--plot', 'rows.png'), '--plot rows.png draws a sweep'),
        (('--sweep', 'frames', '2', '--plot', 'nowhere/rows.png'), 'folder nowhere does not exist'),
        (('--batch', '0'), '--batch 0: wanted at least 1'),
    ],
)
def test_mistakes_are_one_line(config: Path, words, message, capsys) -> None:
    assert run(config, *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0]
