"""What is made once is made again when it has to be, and is nowhere but in memory."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from trecvit_dense.engine.costs import count_flops
from trecvit_dense.models.heads.tapnext import TAPNextHead
from trecvit_dense.models.layers import LearnedPosition, SinCosPosition, interpolate_table
from trecvit_dense.models.layers.attention import Attention
from trecvit_dense.models.layers.kept import Kept


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.kept, self.made = Kept(), 0

    def forward(self) -> torch.Tensor:
        return self.kept.get('doubled', [self.weight], self.make)

    def make(self) -> torch.Tensor:
        self.made += 1
        return 2 * self.weight


@torch.no_grad()
def test_made_once_until_a_source_changes() -> None:
    module = Doubled()
    first = module()
    assert module() is first
    module.weight.add_(1)
    assert torch.equal(module(), torch.full((3,), 4.0))
    module.weight.data = torch.zeros(3)
    assert torch.equal(module(), torch.zeros(3))
    module.load_state_dict(dict(weight=torch.full((3,), 5.0)))
    assert torch.equal(module(), torch.full((3,), 10.0))
    assert module.made == 4
    assert list(module.state_dict()) == ['weight']


@pytest.mark.parametrize('change', [nn.Module.train, nn.Module.eval, nn.Module.double])
def test_dropped_when_the_module_is_moved_or_changes_its_mode(change) -> None:
    module = Doubled()
    with torch.no_grad():
        module()
        change(module)
        assert not module.kept.values
        assert module().dtype == module.weight.dtype
    assert module.made == 2


def test_not_kept_where_a_gradient_is_wanted_or_operations_are_counted() -> None:
    module = Doubled()
    module().sum().backward()
    assert torch.equal(module.weight.grad, torch.full((3,), 2.0))
    with torch.no_grad():
        count_flops(module)
    assert not module.kept.values


def test_what_was_made_in_inference_mode_serves_training() -> None:
    module = Doubled()
    with torch.inference_mode():
        kept = module()
        assert module() is kept
    scale = torch.ones(3, requires_grad=True)
    (kept * scale).sum().backward()
    assert torch.equal(scale.grad, kept)


def test_copies_and_files_start_empty() -> None:
    module = Doubled()
    with torch.no_grad():
        module()
        other = copy.deepcopy(module)
        other.weight.zero_()
        assert torch.equal(other(), torch.zeros(3))
        assert torch.equal(module(), torch.full((3,), 2.0))
    file = io.BytesIO()
    torch.save(module.kept, file)
    file.seek(0)
    assert torch.load(file, weights_only=False).values == {}


def test_it_does_not_grow() -> None:
    kept = Kept(limit=3)
    for key in range(10):
        assert kept.get(key, [], lambda key=key: key) == key
    assert list(kept.values) == [7, 8, 9]


@torch.no_grad()
def test_positions_of_another_grid() -> None:
    learned, sincos = LearnedPosition((4, 5), 8).eval(), SinCosPosition(8).eval()
    for position in (learned, sincos):
        found = position((3, 7))
        assert position((3, 7)) is found
        assert found.shape == (1, 21, 8)
    learned.table.mul_(2)
    assert torch.equal(learned((3, 7)), interpolate_table(learned.table, (4, 5), (3, 7)))
    assert learned((4, 5)) is learned.table


@torch.no_grad()
def test_masks_and_tables_of_prompts() -> None:
    attention = Attention(8, 2).eval()
    memory, x = (torch.rand(1, 2, 6, 4), torch.rand(1, 2, 6, 4)), torch.rand(1, 1, 4, 8)
    wanted = attention.read(x, memory, item_size=2, active=torch.ones(1, 1, 4, dtype=torch.bool))
    assert not attention.kept.values
    for _ in range(2):
        torch.testing.assert_close(attention.read(x, memory, item_size=2), wanted)
    assert len(attention.kept.values) == 1
    head = TAPNextHead((16,), ((8, 8),), image_size=(16, 24)).eval()
    xy = torch.tensor([[[3.0, 4.0]]])
    assert torch.equal(head.query_tokens(xy, (16, 24)), head.query_tokens(xy, (16, 24)))
    assert len(head.kept.values) == 1
