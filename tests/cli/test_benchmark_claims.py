"""``trecvit benchmark claims``: every paper has its lines, in a table and as json; words for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trecvit_dense import cli
from trecvit_dense.cli.benchmark_claims import Claim, against, growth, table
from trecvit_dense.cli.claims_curves import count_curves


def test_every_paper_has_its_lines(tmp_path: Path, capsys) -> None:
    out = tmp_path / 'claims.json'
    assert cli.run(cli.main, ['benchmark', 'claims', '--quick', '--device', 'cpu', '--out', str(out)]) == 0
    printed, claims = capsys.readouterr().out, json.loads(out.read_text())['claims']
    names = ' '.join(claim['claim'] for claim in claims)
    for wanted in (
        *('TRecViT-B for ViViT-L', 'parameters', 'operations', 'peak memory', 'activations', 'fused attention'),
        *('XViT: cost against frames', 'attention over all frames', 'multiply-adds', 'kernel made', 'kernel kept'),
        *('(materialised): time of a training step', '(fused): memory', 'transform of', 'vmf_0.5g'),
    ):
        assert wanted in names and wanted in printed
    papers = ' '.join(claim['paper'] for claim in claims)
    assert all(figure in papers for figure in ('3x', '12x', '5x', '2.63x', '8x', 'within 1 GFLOP', 'T^1'))
    assert all(claim['ours'] and claim['why'] and claim['numbers'] for claim in claims)
    assert not any(claim['same'] for claim in claims)  # small models are never the setting of a paper


def test_one_paper_alone(tmp_path: Path, capsys) -> None:
    out = tmp_path / 'claims.json'
    words = ['--quick', '--only', 'video_mobile_former', '--out', str(out)]
    assert cli.run(cli.main, ['benchmark', 'claims', *words]) == 0
    printed, (claim,) = capsys.readouterr().out, json.loads(out.read_text())['claims']
    assert 'vmf_0.5g' in printed and 'ViViT' not in printed
    assert claim['numbers']['multiply_adds'] < 0.5e9  # under 1 GFLOP also with two operations each


def test_curves_and_their_picture(tmp_path: Path) -> None:
    out, picture = tmp_path / 'claims.json', tmp_path / 'claims.png'
    words = ['--quick', '--only', 'video_mobile_former', '--out', str(out), '--plot', str(picture)]
    assert cli.run(cli.main, ['benchmark', 'claims', *words]) == 0
    curves = json.loads(out.read_text())['curves']
    assert picture.read_bytes().startswith(b'\x89PNG')
    trecvit, kept, fused = (curves[name] for name in ('TRecViT-B', *(name for name in curves if 'ViViT' in name)))
    assert [row['frames'] for row in trecvit] == [8, 16]
    assert trecvit[1]['operations'] == pytest.approx(2 * trecvit[0]['operations'], rel=0.05)
    assert kept[1]['operations'] == fused[1]['operations'] > 2.1 * kept[0]['operations']
    assert kept[1]['train'] > kept[1]['forward'] and trecvit[1]['train'] > trecvit[1]['forward']


def test_weights_of_attention_take_memory_where_they_are_kept() -> None:
    sizes = dict(embed_dim=8, depth=2, num_heads=2, mlp_dim=16, image_size=32)
    head = dict(type='ClassificationHead', num_classes=3, rep_size=None, pool='gap')

    def perceiver(**backbone: object) -> dict:
        return dict(type='VideoPerceiver', backbone=dict(**backbone, **sizes), heads=dict(classification=head))

    vivit = perceiver(type='ViViT', tubelet_size=(1, 4, 4), num_frames=8, fused=False)
    _, kept, fused = count_curves((perceiver(type='TRecViT', patch_size=4), vivit), (4, 8), 32).values()
    weights = 4 * 2 * (8 * 64) ** 2  # bytes of one block: two heads, every patch of eight frames looks at all
    assert kept[1]['forward'] > fused[1]['forward'] + weights and kept[1]['train'] > fused[1]['train'] + 2 * weights


def test_xvit_is_linear_and_joint_attention_is_not() -> None:
    sizes = dict(embed_dim=8, depth=1, num_heads=2, image_size=64)
    xvit = growth(dict(type='XViT', patch_size=8, **sizes), (2, 4, 8), 64, 'cpu')
    joint = growth(dict(type='ViViT', tubelet_size=(1, 8, 8), num_frames=8, **sizes), (2, 4, 8), 64, 'cpu')
    assert xvit['operations_exponent'] == pytest.approx(1, abs=0.01)
    assert joint['operations_exponent'] > 1.5
    assert xvit['operations'][1] == 2 * xvit['operations'][0]
    assert len(xvit['seconds']) == 3 and min(xvit['seconds']) > 0


def test_table_says_why_once() -> None:
    lines = table([against('a', '2x', [6.0, 2.0], 's', True, 'because'), Claim('b', '-', '1', False, 'because', {})])
    assert lines.count('because') == 1 and '3x (6 / 2 s)' in lines
    assert [line.split()[-1] for line in lines.splitlines()] == ['setting', 'yes', 'because', 'no']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--threads', '0'), '--threads 0: wanted at least 1'),
        (('--out', 'nowhere/claims.json'), 'folder nowhere does not exist'),
        (('--device', 'tpu3'), 'tpu3'),
    ],
)
def test_mistakes_are_one_line(words, message, capsys) -> None:
    assert cli.run(cli.main, ['benchmark', 'claims', '--quick', *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0]
