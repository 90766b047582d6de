"""The products of a model are found with their sizes, every route computes the same, and the limit is their sum."""

from __future__ import annotations

from collections import Counter
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trecvit_dense.engine import measuring
from trecvit_dense.engine.costs import count_flops
from trecvit_dense.engine.limits import Product, Rate, _rate, find_products, limit_of, measure_limit, routes
from trecvit_dense.engine.measuring import ProcessPeak, exponent, shortest
from trecvit_dense.registry import MODELS, use_scope


def test_a_linear_layer_by_hand() -> None:
    layer = nn.Linear(8, 5)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = find_products(lambda: layer(torch.rand(2, 3, 8)))
        assert found == {Product('product', (6, 8, 5), torch.float32, 2 * 6 * 8 * 5): 1}


def test_attention_is_two_batched_products() -> None:
    query = torch.rand(2, 3, 20, 8)
    found = find_products(lambda: F.scaled_dot_product_attention(query, query, query))
    assert {product.sizes for product in found} == {(6, 20, 8, 20), (6, 20, 20, 8)}
    assert all(product.flops == 2 * 6 * 20 * 20 * 8 for product in found)


def test_half_precision_is_another_product() -> None:
    layer = nn.Linear(8, 5)

    def run() -> None:
        with torch.autocast('cpu', torch.bfloat16):
            layer(torch.rand(6, 8))

    (product,) = find_products(run)
    assert product.dtype == torch.bfloat16


def test_all_operations_of_a_model_are_found() -> None:
    use_scope()
    sizes = dict(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=32)
    model, video = MODELS.build(dict(type='TRecViT', **sizes)).eval(), torch.rand(1, 3, 3, 32, 32)
    found = find_products(lambda: model(video))
    assert sum(count * product.flops for product, count in found.items()) == count_flops(lambda: model(video))
    assert sum(product.kind == 'convolution' for product in found) == 1


@pytest.mark.parametrize(
    'product',
    [
        Product('product', (6, 8, 5), torch.float32, 2 * 6 * 8 * 5),
        Product('product', (6, 8, 5), torch.bfloat16, 2 * 6 * 8 * 5),
        Product('batched', (3, 6, 8, 5), torch.float32, 2 * 3 * 6 * 8 * 5),
    ],
)
def test_every_route_computes_the_product(product: Product) -> None:
    torch.manual_seed(0)
    ways = routes(product, 'cpu')
    assert 'oneDNN' in ' '.join(ways)
    there = dict(oneDNN=torch.backends.mkldnn.is_available(), MKL=torch.backends.mkl.is_available())
    results = [way() for name, way in ways.items() if there.get(name.split(',')[0], True)]
    first, *others = [torch.stack(result) if isinstance(result, list) else result for result in results]
    assert first.shape == (*product.sizes[:-2], product.sizes[-1]) and first.dtype == product.dtype
    assert all(torch.allclose(first, other, rtol=2e-2 if product.dtype == torch.bfloat16 else 1e-5) for other in others)


def test_every_route_computes_the_convolution() -> None:
    def run() -> None:
        F.conv2d(torch.rand(2, 3, 16, 16), torch.rand(4, 3, 8, 8), stride=8)
        F.conv2d(torch.rand(1, 4, 9, 9), torch.rand(4, 2, 3, 3), padding=1, groups=2)

    patches, grouped = sorted(find_products(run), key=lambda product: -product.sizes[1][2])
    assert patches.flops == 2 * (2 * 2 * 2) * (3 * 8 * 8) * 4
    ways = routes(patches, 'cpu')
    assert torch.allclose(ways['as it lies'](), ways['channels last'](), rtol=1e-5)
    assert ways['as a product, linear']().shape == (8, 4)
    assert set(routes(grouped, 'cpu')) == {'as it lies', 'channels last'}


def test_the_limit_is_the_sum_of_the_shortest_times() -> None:
    small, large = (Product('product', (6, 8, width), torch.float32, 2 * 6 * 8 * width) for width in (5, 50))
    times = iter([4.0, 2.0, 3.0, 10.0, 30.0, 20.0])  # by route: linear, oneDNN, MKL
    limit = measure_limit(Counter({small: 3, large: 1}), timer=lambda *_, **__: next(times))
    assert limit.seconds == 3 * 2.0 + 10.0 and limit.flops == 3 * 480 + 4800
    assert [rate.route for rate in limit.rates] == ['oneDNN', 'linear']
    assert limit.fraction(32.0) == 0.5
    assert limit.best_gflops_per_s == pytest.approx(480e-9)
    parts = limit.as_dict()['products']
    assert parts[0]['share'] == pytest.approx(4800 / 6240) and parts[0]['product'] == '6 x 8 x 50'


def test_a_known_rate_is_measured_again_by_its_route_alone() -> None:
    product = Product('product', (6, 8, 5), torch.float32, 480)
    for again, kept in ((1.5, 1.5), (3.0, 2.0)):
        known = {product: Rate(product, 1, 2.0, 'linear', {'linear': 240e-9, 'oneDNN': 100e-9})}
        timer = Mock(return_value=again)
        limit = measure_limit(Counter({product: 4}), known=known, timer=timer)
        assert limit.seconds == 4 * kept == limit_of(Counter({product: 4}), known).seconds
        assert known[product].gflops_per_s == pytest.approx({'linear': 480e-9 / kept, 'oneDNN': 100e-9})
        assert timer.call_count == 1
    with pytest.raises(ValueError, match='no matrix product'):
        measure_limit(Counter())


def test_a_route_that_fails_is_left_out() -> None:
    def timer(call, *_, **__) -> float:
        if 'Packed' in type(call).__name__:
            raise RuntimeError('this torch was built without it')
        return 1.0

    rate = _rate(Product('product', (6, 8, 5), torch.float32, 480), 'cpu', timer)
    assert rate.route == 'linear' and list(rate.gflops_per_s) == ['linear']


# ------------------------------------------------------------------------------------------------------ measuring


def test_the_power_of_a_curve() -> None:
    assert exponent((4, 8, 40), (16, 64, 1600)) == pytest.approx(2)
    assert exponent((1, 10, 100), (5, 5, 5)) == pytest.approx(0)
    with pytest.raises(ValueError, match='no power fits'):
        exponent((1, 2), (0, 1))


@pytest.mark.parametrize(('took', 'at_once'), [([0.003, 0.005, 0.002, 0.004], 1), ([0.0001], 10)])
def test_shortest_counts_its_calls(took: list[float], at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest of four, after one to warm up and one to see how long it takes; several at once if that is short."""
    now, calls = 0.0, []

    def work() -> None:
        nonlocal now
        calls.append(1)
        now += took[len(calls) % len(took)]

    for clock in ('process_time', 'perf_counter'):
        monkeypatch.setattr(measuring.time, clock, lambda: now)
    assert shortest(work, 'cpu', repeats=4) == pytest.approx(min(took))
    assert len(calls) == 2 + 4 * at_once


def test_the_peak_of_a_process_is_forgotten() -> None:
    peak = ProcessPeak()
    if not peak.exact:
        pytest.skip('this system keeps the peak of a process for its life')
    block = torch.ones(64 << 20, dtype=torch.uint8)
    high = peak.nbytes
    del block
    peak.reset()
    assert peak.nbytes < high - (32 << 20)
