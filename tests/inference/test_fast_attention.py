"""Attention in parts is attention, and is taken where it was the faster one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trecvit_dense.inference import fast_attention, restore, speed_up
from trecvit_dense.inference.fast_attention import FastAttend, attend_in_parts
from trecvit_dense.models.layers.attention import Attention, attend

ROW = 4 * 7  # bytes of the weights of one query
PARTS = {'one query': 1, 'queries': 2 * ROW, 'one head': 5 * ROW, 'two heads': 2 * 5 * ROW, 'all': 1 << 20}
MASKS = {'none': None, 'keys': (3, 1, 1, 7), 'everywhere alike': (1, 1, 1, 7), 'queries': (3, 1, 5, 7)}


def draw(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Query, key and value of 3 frames, 4 heads, 5 queries and 7 keys, as views of tokens, as layers give them."""
    torch.manual_seed(0)
    return [torch.randn(3, count, 4, 6).to(dtype).transpose(1, 2) for count in (5, 7, 7)]


@pytest.mark.parametrize('mask', MASKS.values(), ids=MASKS)
@pytest.mark.parametrize('part_bytes', PARTS.values(), ids=PARTS)
def test_parts_are_the_whole(part_bytes: int, mask: tuple[int, ...] | None) -> None:
    looks = None if mask is None else torch.rand(mask) > 0.4
    if looks is not None:
        looks[..., 0] = True  # a query that sees nothing has no answer
    parts = draw()
    found = attend_in_parts(*parts, mask=looks, part_bytes=part_bytes)
    torch.testing.assert_close(found, attend(*parts, mask=looks))


def test_bfloat16_has_the_digits_of_bfloat16() -> None:
    parts = draw(torch.bfloat16)
    found = attend_in_parts(*parts)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), attend(*map(Tensor.float, parts)), rtol=0.02, atol=0.01)


@pytest.mark.parametrize('faster', ['fused', 'products'])
def test_the_faster_one_is_taken(faster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, taken = [], []

    def measure(calls: dict) -> dict[str, float]:
        for call in calls.values():
            measured.append(call())
        return {name: float(name != faster) for name in calls}

    monkeypatch.setattr(fast_attention, 'measure', measure)
    for name, function in dict(fused=attend, products=attend_in_parts).items():
        spy = lambda *args, name=name, function=function, **options: taken.append(name) or function(*args, **options)  # noqa: E731
        monkeypatch.setattr(fast_attention, function.__name__, spy)
    parts, fast = draw(), FastAttend({})
    for _ in range(2):
        torch.testing.assert_close(fast(*parts, mask=None, fused=True), attend(*parts))
    assert len(measured) == 2, 'a shape is measured once'
    assert taken == ['fused', 'products', faster, faster]


def test_where_a_gradient_is_wanted_or_somebody_looks_on_it_is_the_layer_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, seconds = draw(), {}
    for part in parts:
        part.requires_grad_()
    assert FastAttend(seconds)(*parts, mask=None, fused=True).grad_fn is not None
    with torch.no_grad():
        with monkeypatch.context() as patch:
            patch.setattr(fast_attention, 'watched', lambda: True)
            FastAttend(seconds)(*parts, mask=None, fused=True)
        FastAttend(seconds)(*parts, mask=None, fused=False)
        assert not seconds
        FastAttend(seconds)(*parts, mask=None, fused=True)
    assert [list(times) for times in seconds.values()] == [['fused', 'products']]


@torch.no_grad()
def test_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_attention, 'measure', lambda calls: {name: float(name != 'products') for name in calls})
    layer, x = Attention(24, 4).requires_grad_(False), torch.randn(2, 3, 9, 24)
    active = torch.rand(2, 3, 9) > 0.3
    active[..., 0] = True
    wanted = layer(x, active=active)[0]
    tuning = speed_up(layer)
    torch.testing.assert_close(layer(x, active=active)[0], wanted, rtol=1e-4, atol=1e-5)
    assert len(tuning.attention) == 1
    restore(layer)
    assert torch.equal(layer(x, active=active)[0], wanted)
