"""``trecvit benchmark constant``: what is compared, what counts as growth, and words for mistakes."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from tests.inference.tiny import tiny_config, tiny_model
from trecvit_dense import cli
from trecvit_dense.cli.benchmark_constant import Stream, compare, equal, powers, table, within
from trecvit_dense.structures import RecurrentState

QUICK = ('--young', 2, '--old', 5, '--rounds', 2, '--frames', 1, '--many-points', 2, '--points', 3, '--repeats', 1)
QUICK += ('--system-malloc',)  # it would concern every test of this process


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'tiny.py'
    path.write_text(f'model = {tiny_config("all")!r}\n')
    return path


def run(*words: object) -> int:
    return cli.run(cli.main, ['benchmark', 'constant', *map(str, words), '--device', 'cpu'])


def test_a_stream_has_its_lines(config: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'constant.json'
    assert run(config, *QUICK, '--out', out) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    bars = {bar['what']: bar for bar in found['bars']}
    assert bars['bytes of state']['holds'] and bars['bytes of state']['young'] > 0
    tensors = bars['peak memory of a step, tensors, MB']
    assert tensors['young'] == tensors['old'] > 0
    assert bars['power of frames in operations, 1 to 10 frames']['ratio'] == pytest.approx(1, abs=0.02)
    points = next(bar for what, bar in bars.items() if what.startswith('power of points in operations'))
    assert points['ratio'] == pytest.approx(1, abs=0.02) and points['holds']
    assert found['tasks'] == ['points'] and 'median time of 2 interleaved steps' in printed


@pytest.mark.parametrize('given', [True, False])
def test_freed_memory_is_kept_unless_told_otherwise(given: bool, config: Path, tmp_path: Path, monkeypatch) -> None:
    asked, out = [], tmp_path / 'constant.json'
    monkeypatch.setattr('trecvit_dense.inference.keep_freed_memory', lambda: asked.append(1) is None)
    assert run(config, *(QUICK if given else QUICK[:-1]), '--out', out) == 0
    assert len(asked) == (not given) and json.loads(out.read_text())['kept'] is not given


def test_every_head_can_stream(config: Path, tmp_path: Path) -> None:
    out = tmp_path / 'constant.json'
    assert run(config, *QUICK, '--size', 64, 64, '--tasks', 'masks', 'depth', '--out', out) == 0
    bars = json.loads(out.read_text())['bars']
    assert not any('points' in bar['what'] for bar in bars)  # nothing to fit


class Growing:
    """A model whose state grows by a number a frame."""

    tasks = ()

    def start(self, batch: int, device: str) -> RecurrentState:
        return RecurrentState(past=torch.zeros(1, 1))

    def parameters(self) -> list:
        return []

    def step(self, video: torch.Tensor, state: RecurrentState) -> tuple[dict, RecurrentState]:
        past = torch.cat([state['past'], torch.zeros(1, video.shape[1])], 1)
        return {}, RecurrentState(past=past)


def test_growth_is_seen() -> None:
    args = Namespace(size=(4, 4), points=1, objects=1, young=2, old=50, rounds=2)
    bars = {bar.what: bar for bar in compare(Stream(Growing(), args, 'cpu'), args)}
    assert (bars['bytes of state'].young, bars['bytes of state'].old) == (12, 204)
    assert not bars['bytes of state'].holds
    assert not bars['peak memory of a step, tensors, MB'].holds


def test_a_clip_is_its_frames_in_turn() -> None:
    args = Namespace(size=(64, 64), points=2, objects=1)
    model = tiny_model()
    model.tasks = ['points']
    stream = Stream(model, args, 'cpu')
    with torch.inference_mode():
        one = stream.advance(stream.start(), 0, 3)
        whole = stream.step(stream.start(), 0, 3)
    assert all(torch.allclose(one[key].float(), whole[key].float(), atol=1e-4) for key in one)


def test_what_holds() -> None:
    assert equal('a', 4, 4).holds and not equal('a', 4, 5).holds
    assert within('a', 100.0, 101.9, 0.02).holds and not within('a', 100.0, 97.0, 0.02).holds
    linear, noise = powers('frames', (1, 10), [(2, 5.0), (20, -1.0)])
    assert linear.ratio == pytest.approx(1) and linear.holds
    assert noise.ratio is None and not noise.holds
    quadratic, _ = powers('points', (1, 10), [(2, 5.0), (200, 500.0)])
    assert quadratic.ratio == pytest.approx(2) and not quadratic.holds
    assert table([quadratic], 2, 5).splitlines()[1].endswith('no')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--old', '10'), '--old 10: wanted a frame after --young 10'),
        (('--rounds', '0'), '--rounds 0: wanted at least 1'),
        (('--tasks', 'mask'), "--tasks mask: the model has points, masks, depth; did you mean 'masks'?"),
        (('--out', 'nowhere/c.json'), 'folder nowhere does not exist'),
    ],
)
def test_mistakes_are_one_line(config: Path, words, message, capsys) -> None:
    assert run(config, *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0]
