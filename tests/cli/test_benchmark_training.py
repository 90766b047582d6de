"""``trecvit benchmark training-memory``: the sum derived on paper, against what is counted and what runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trecvit_dense import cli
from trecvit_dense.cli.benchmark_training import MODES, WITHIN, measure, table
from trecvit_dense.engine.training_memory import Widths, kept_by_block, training_peak
from trecvit_dense.models.backbones.token_streams import make_streams
from trecvit_dense.registry import MODELS, use_scope

SMALL = dict(embed_dim=32, depth=2, num_heads=2, mlp_dim=80, patch_size=8, image_size=64)


def build(**changes: object) -> torch.nn.Module:
    use_scope()
    return MODELS.build(dict(type='TRecViT', **(SMALL | changes)))


def test_a_block_keeps_what_was_derived() -> None:
    """To the number, but for what does not grow with the clip."""
    model, frames = build(), 6
    widths = Widths.of(model, (64, 64))
    x = torch.rand(1, frames, widths.tokens_per_frame, 32, requires_grad=True)
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train().blocks[0]([x], [None], make_streams(x, [], None), widths.tokens_per_frame)
    numbers = sum(tensor.untyped_storage().nbytes() // 4 for tensor in kept.values())
    derived = frames * widths.tokens_per_frame * sum(kept_by_block(widths).values())
    assert numbers == pytest.approx(derived, rel=0.01)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('frames', [2, 12])
def test_derived_and_counted_agree(mode: bool | str, frames: int) -> None:
    row = measure(SMALL, 64, frames, mode, run=frames == 2)
    assert abs(row['ratio'] - 1) <= WITHIN
    assert row['derived'] == sum(row['parts'].values())
    if frames == 2:
        assert row['tensors'] == pytest.approx(row['counted'], rel=0.05)


def test_chunks_of_time_cost_what_was_derived() -> None:
    short, long = (measure(SMALL, 64, frames, False, run=True, chunk=4) for frames in (8, 24))
    for row in (short, long):
        assert abs(row['ratio'] - 1) <= WITHIN
        assert row['tensors'] == pytest.approx(row['counted'], rel=0.05)
    whole = measure(SMALL, 64, 24, False, run=False)
    assert long['derived'] < whole['derived'] and long['counted'] < whole['counted']
    assert long['parts']['kept'] == short['parts']['kept'] and long['parts']['between'] > short['parts']['between']


def test_the_peak_moves_to_the_end_where_gradients_weigh_more() -> None:
    widths = Widths.of(build(), (64, 64))
    parameters = 1_000_000
    assert training_peak(widths, 1, parameters).gradients == 4 * parameters
    long = training_peak(widths, 200, parameters)
    assert long.gradients == 0 and long.total > 100 * training_peak(widths, 1, 0).kept
    some, least = (training_peak(widths, 200, parameters, mode) for mode in ('selective', True))
    assert least.kept < some.kept < long.kept and least.working == long.working
    assert least == training_peak(widths, 200, parameters, 'block')


def test_one_table_one_json(tmp_path: Path, capsys) -> None:
    out = tmp_path / 'memory.json'
    words = ('--variant', 'mu/8', '--size', '32', '--frames', '2', '--run-frames', '--checkpointing', 'False')
    words += ('--chunked-frames',)
    assert cli.run(cli.main, ['benchmark', 'training-memory', *words, '--out', str(out)]) == 0
    (row,) = json.loads(out.read_text())['rows']
    assert row['checkpointing'] is False and row['model'] == 'mu/8' and row['tensors'] is None
    printed = capsys.readouterr().out
    assert 'derived and counted differ by at most' in printed and table([row]) in printed


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--frames', '0'), 'wanted at least 1'),
        (('--variant', 'Q/8'), "'Q/8' is no TRecViT variant"),
        (('--out', 'nowhere/m.json'), 'folder nowhere does not exist'),
    ],
)
def test_mistakes_are_one_line(words, message, capsys) -> None:
    assert cli.run(cli.main, ['benchmark', 'training-memory', '--run-frames', '2', *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0]
