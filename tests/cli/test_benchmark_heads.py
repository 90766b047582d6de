"""``trecvit benchmark heads``: one table, one json, and words for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trecvit_dense import cli

SMALL = ('--variant', 'mu/8', '--size', '64', '64', '--points', '3', '--objects', '2', '--rounds', '1', '--warmup', '2')


def test_three_heads_beside_the_backbone(tmp_path: Path, capsys) -> None:
    out = tmp_path / 'heads.json'
    assert cli.run(cli.main, ['benchmark', 'heads', *SMALL, '--device', 'cpu', '--out', str(out)]) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    names = [row['heads'] for row in found['rows']]
    assert names == [[], ['points'], ['masks'], ['depth'], ['points', 'masks', 'depth']]
    alone, together = found['rows'][0], found['rows'][-1]
    assert alone['ratio'] == 1 < together['ratio']
    assert 0 < alone['gflop'] < together['gflop']
    assert 0 < alone['peak_state_bytes'] < together['peak_state_bytes']
    assert found['differences'] == dict(points=0, masks=0, depth=0)
    assert 'points + masks + depth' in printed and printed.count('to the last bit') == 3 and 'one pass: ' in printed


def test_heads_of_a_config(tmp_path: Path, capsys) -> None:
    config = tmp_path / 'two_heads.py'
    config.write_text(
        "model = dict(type='VideoPerceiver', data_preprocessor=dict(type='VideoPreprocessor', pad_multiple=16),\n"
        "    backbone=dict(type='TRecViT', variant='mu/16', image_size=48),\n"
        "    heads=dict(points=dict(type='CostVolumePointHead'), depth=dict(type='DPTDepthHead', widths=8)))\n"
    )
    words = ['benchmark', 'heads', str(config), '--size', '48', '64', '--rounds', '1', '--warmup', '1', '--frames', '2']
    assert cli.run(cli.main, [*words, '--cfg-options', 'model.heads.depth.widths=4']) == 0
    printed = capsys.readouterr().out
    assert 'points + depth' in printed and 'masks' not in printed


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--rounds', '0'), '--rounds 0: wanted at least 1'),
        (('--objects', '0'), '--objects 0: wanted at least 1'),
        (('--variant', 'Q/8'), "'Q/8' is no TRecViT variant"),
        (('--size', '4', '4'), 'smaller than one patch'),
        (('--out', 'nowhere/heads.json'), 'folder nowhere does not exist'),
        (('--cfg-options', 'model.chunk_frames=2'), '--cfg-options change a config'),
        (('no_such_config',), "config 'no_such_config' is neither a file nor the name of a recipe"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys) -> None:
    assert cli.run(cli.main, ['benchmark', 'heads', '--rounds', '1', '--variant', 'mu/8', *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0]
