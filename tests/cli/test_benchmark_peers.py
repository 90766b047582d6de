"""``trecvit benchmark peers``: the plain models compute what they say, every model has its row, words for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trecvit_dense import cli
from trecvit_dense.cli import peer_models
from trecvit_dense.cli.benchmark_peers import add_times, table
from trecvit_dense.cli.peer_models import Sizes, causal_attention, ours, plain_recurrence

SIZES = Sizes(embed_dim=16, depth=2, mlp_dim=32, num_heads=2, patch=8, frames=4, side=16)
QUICK = ('--variant', 'mu/8', '--frames', 4, '--size', 16, '--rounds', 1, '--past', 2, 5)


def run(*words: object) -> int:
    return cli.run(cli.main, ['benchmark', 'peers', *map(str, words)])


@pytest.fixture
def alone(monkeypatch) -> None:
    """As on a machine without the package."""
    monkeypatch.setattr(peer_models, 'PACKAGE', 'no_such_package')


def test_the_plain_recurrence_is_the_same_model() -> None:
    mine, plain, video = ours(SIZES), plain_recurrence(SIZES), torch.rand(1, 4, 3, 16, 16)
    for block, other in zip(mine.model.blocks, plain.model.blocks, strict=True):
        other.temporal.block.load_state_dict(block.temporal.state_dict())
        other.spatial.load_state_dict(block.spatial.state_dict())
    rest = {key: value for key, value in mine.model.state_dict().items() if not key.startswith('blocks')}
    plain.model.load_state_dict(rest, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(plain.clip(video), mine.clip(video), rtol=1e-4, atol=1e-5)
        before, after = (peer.step(video[:, 1:2], peer.model(video[:, :1])[1]) for peer in (mine, plain))
    assert set(before) == set(after)
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)


def test_the_plain_recurrence_trains_and_takes_no_masks() -> None:
    plain = plain_recurrence(SIZES)
    plain.clip(torch.rand(1, 4, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in plain.model.parameters())
    with pytest.raises(ValueError, match='no masks'):
        plain.model.blocks[0].temporal(torch.rand(1, 2, 4, 16), reset=torch.zeros(1, 2, 4, dtype=torch.bool))


def test_a_cache_is_the_clip_frame_by_frame() -> None:
    model, video = causal_attention(SIZES).model, torch.rand(1, 4, 3, 16, 16)
    with torch.no_grad():
        whole, state = model(video)[0], model.start(0, 4)
        for index in range(4):
            frame, state = model(video[:, index : index + 1], state)
            torch.testing.assert_close(frame[:, 0], whole[:, index], rtol=1e-4, atol=1e-5)


def test_what_is_kept_grows_with_attention_alone(alone, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'peers.json'
    assert run(*QUICK, '--train', '--out', out) == 0
    told, found = capsys.readouterr(), json.loads(out.read_text())
    assert 'pip install no_such_package' in told.err and len(found['left_out']) == 1
    mine, fast, plain, cached = found['rows']
    names = ['TRecViT', 'TRecViT, fast layers', 'plain recurrence', 'causal attention, cache']
    assert [row['model'] for row in found['rows']] == names
    assert mine['state_2_mb'] == mine['state_5_mb'] == plain['state_5_mb'] > 0
    tokens, width, depth = 4, 32, 1
    assert cached['state_5_mb'] * 2**20 == 4 * 2 * tokens * width * depth * (5 + 1)
    assert mine['gflop'] == fast['gflop'] == plain['gflop'] and mine['parameters'] == plain['parameters']
    assert plain['train_mb'] > plain['clip_mb'] and mine['clip_ratio'] == 1
    assert 'ms after 5' in told.out and 'train s' in told.out


@pytest.mark.slow
def test_models_of_transformers(tmp_path: Path, capsys) -> None:
    pytest.importorskip('transformers', reason='transformers is not installed: pip install transformers')
    out = tmp_path / 'peers.json'
    assert run(*QUICK, '--tubelets', 1, 2, '--out', out) == 0
    rows = {row['model']: row for row in json.loads(out.read_text())['rows']}
    for name in ('ViViT', 'VideoMAE'):
        assert rows[f'{name}, 1 frame a token']['gflop'] > 1.9 * rows[f'{name}, 2 frames a token']['gflop']
        assert rows[f'{name}, 1 frame a token']['step_2_s'] is None
    assert ' -' in capsys.readouterr().out


def test_ratios_are_to_the_first(monkeypatch) -> None:
    times = iter([9.0, 9.0, 1.0, 3.0, 2.0, 4.0])  # the first round does not count
    monkeypatch.setattr('trecvit_dense.engine.measuring.seconds_of', lambda call, device: next(times))
    rows: list[dict] = [{}, {}, {}]
    add_times(rows, 'clip', [lambda: None, lambda: None, None], 2)
    assert [row['clip_s'] for row in rows] == [1.5, 3.5, None]
    assert [row['clip_ratio'] for row in rows] == [1.0, 2.5, None]
    for row in rows:
        row |= dict(model='m', parameters=1e6, gflop=2.0, clip_mb=3.0)
    assert 'x2.50' in table(rows)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--variant', 'Q/8'), "'Q/8' is no TRecViT variant"),
        (('--size', '20'), 'frames of 20 px do not divide into patches of 8'),
        (('--tubelets', '3'), '--tubelets 3: 4 frames do not divide into it'),
        (('--past', '0'), 'wanted at least 1'),
        (('--out', 'nowhere/p.json'), 'folder nowhere does not exist'),
    ],
)
def test_mistakes_are_one_line(alone, words, message, capsys) -> None:
    assert run(*QUICK, *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0]
