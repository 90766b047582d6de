"""How fast this machine could run a model if it did nothing but its matrix products, each in the fastest way there is.

The products and convolutions that a model makes are recorded with their sizes while it runs. Then every distinct one is
timed alone, with its weights packed beforehand and warm in the caches, by each library that torch comes with: what
``F.linear`` takes by itself (MKL, on CPUs of other makers in its slow path), MKL and oneDNN with packed weights, and
for convolutions both memory formats and, for patches, a product. The limit is the sum of the shortest times. No model
reaches it: norms, activations, softmax and the recurrence come on top, and a model's weights do not stay in the caches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from trecvit_dense.engine.measuring import shortest

_ONE_BY_ONE = 64  # batched products up to this many are also tried one after the other
_MATTERS = 0.01  # of the operations: products below are timed in a hurry, for a model may have hundreds
_LONG, _SHORT = dict(repeats=5, at_least_s=0.02), dict(repeats=2)
_GATED = 'trecvit_dense::gated_recurrence'
_aten = torch.ops.aten
_FACTORS = {_aten.mm: (0, 1), _aten.addmm: (1, 2), _aten.bmm: (0, 1), _aten.baddbmm: (1, 2)}


@dataclass(frozen=True)
class Product:
    """One matrix product or convolution.

    Attributes:
        kind: ``'product'``: sizes M, K, N. ``'batched'``: G, M, K, N. ``'convolution'``: shapes of input and weight,
            stride, padding, dilation, transposed, output padding, groups.
        sizes: See ``kind``.
        dtype: Of its numbers.
        flops: Operations, two per multiply-add.
    """

    kind: str
    sizes: tuple
    dtype: torch.dtype
    flops: int

    def __str__(self) -> str:
        if self.kind != 'convolution':
            return ' x '.join(map(str, self.sizes))
        return f'{"x".join(map(str, self.sizes[0]))} * {"x".join(map(str, self.sizes[1]))}'


class Products(TorchDispatchMode):
    """Records the matrix products and convolutions that run while this is active.

    Attributes:
        found: How often each was there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, function._overloadpacket
        result = function(*args, **kwargs)
        if function.name() == _GATED:
            self._add_gates(args[0], args[1], next(arg for arg in args if isinstance(arg, torch.dtype)))
            return result
        if packet in _FACTORS:
            a, b = (args[index] for index in _FACTORS[packet])
            kind, sizes = ('product' if a.ndim == 2 else 'batched'), (*a.shape, b.shape[-1])
        elif packet is _aten.convolution:
            a, weight, _, *rest = args
            kind = 'convolution'
            sizes = (tuple(a.shape), tuple(weight.shape), *(tuple(x) if isinstance(x, list) else x for x in rest))
        else:
            return result
        flops = flop_registry[packet](*args, **kwargs, out_val=result)
        if flops:
            self.found[Product(kind, tuple(sizes), a.dtype, flops)] += 1
        return result

    def _add_gates(self, x: Tensor, weight: Tensor, dtype: torch.dtype) -> None:
        """Both gates of the RG-LRU, which is one operator: ``x`` ``(B, T, ..., L)``, weight ``(G, L / G, L / G)``."""
        groups, inner, width = weight.shape
        rows = x.numel() // x.shape[-1]
        self.found[Product('batched', (groups, rows, inner, width), dtype, 2 * groups * rows * inner * width)] += 2


def find_products(function: Callable[[], Any]) -> Counter[Product]:
    """The products of ``function()``, a forward pass; attention is run as matrix products meanwhile."""
    # In inference mode torch would hand over whole layers instead of the products that they are made of.
    with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Products() as products:
        function()
    return products.found


# --------------------------------------------------------------------------------------------------------- routes


def routes(product: Product, device: str) -> dict[str, Callable[[], Tensor]]:
    """Ways to compute it, by name, on random numbers; one that this torch or processor lacks fails when called."""
    make = partial(torch.rand, device=device)
    if product.kind == 'product':
        return _of_product(*product.sizes, product.dtype, make, packed=device == 'cpu')
    if product.kind == 'batched':
        return _of_batched(*product.sizes, product.dtype, make, packed=device == 'cpu')
    return _of_convolution(product, make, packed=device == 'cpu')


def _of_product(
    rows: int, inner: int, width: int, dtype: torch.dtype, make: Callable[..., Tensor], *, packed: bool
) -> dict[str, Callable[[], Tensor]]:
    x, weight, bias = make(rows, inner).to(dtype), make(width, inner).to(dtype), make(width).to(dtype)
    found = {'linear': lambda: F.linear(x, weight, bias)}
    if packed:
        found['oneDNN'] = _Packed(lambda: _onednn(x, weight, bias))
    if packed and dtype == torch.float32:
        found['MKL, packed'] = _Packed(lambda: _mkl(x, weight, bias))
    return found


def _onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Callable[[], Tensor]:
    ready = torch.ops.mkldnn._reorder_linear_weight(weight, x.shape[0])
    return lambda: torch.ops.mkldnn._linear_pointwise(x, ready, bias, 'none', [], '')


def _mkl(x: Tensor, weight: Tensor, bias: Tensor) -> Callable[[], Tensor]:
    ready = torch.ops.mkl._mkl_reorder_linear_weight(weight, x.shape[0])
    return lambda: torch.ops.mkl._mkl_linear(x, ready, weight, bias, x.shape[0])


class _Packed:
    """A call that prepares its weights the first time."""

    def __init__(self, prepare: Callable[[], Callable[[], Tensor]]) -> None:
        self.prepare, self.call = prepare, None

    def __call__(self) -> Tensor:
        if self.call is None:
            self.call = self.prepare()
        return self.call()


def _of_batched(
    groups: int, rows: int, inner: int, width: int, dtype: torch.dtype, make: Callable[..., Tensor], *, packed: bool
) -> dict[str, Callable[[], Tensor]]:
    a, b = make(groups, rows, inner).to(dtype), make(groups, inner, width).to(dtype)
    turned = b.transpose(1, 2).contiguous().transpose(1, 2)  # as keys lie in attention
    found = {'bmm': lambda: torch.bmm(a, b), 'bmm, columns': lambda: torch.bmm(a, turned)}
    if packed and groups <= _ONE_BY_ONE:
        parts = [(x, y.t(), y.new_zeros(width)) for x, y in zip(a, b, strict=True)]
        found['oneDNN, one by one'] = lambda: [
            torch.ops.mkldnn._linear_pointwise(x, y, bias, 'none', [], '') for x, y, bias in parts
        ]
    return found


def _of_convolution(product: Product, make: Callable[..., Tensor], *, packed: bool) -> dict[str, Callable[[], Tensor]]:
    shape, kernel, stride, padding, _, transposed, _, groups = product.sizes
    x, weight = make(shape).to(product.dtype), make(kernel).to(product.dtype)
    call = partial(torch.convolution, bias=None, **dict(zip(_OPTIONS, product.sizes[2:], strict=True)))
    found = {'as it lies': lambda: call(x, weight)}
    if len(shape) == 4:
        lasts = [part.to(memory_format=torch.channels_last) for part in (x, weight)]
        found['channels last'] = lambda: call(*lasts)
    if groups == 1 and not transposed and not any(padding) and tuple(stride) == tuple(kernel[2:]):
        inner = weight[0].numel()  # patches side by side: every number of the input is in one product
        rows = product.flops // (2 * inner * kernel[0])
        ways = _of_product(rows, inner, kernel[0], product.dtype, make, packed=packed)
        found |= {f'as a product, {name}': way for name, way in ways.items()}
    return found


_OPTIONS = ('stride', 'padding', 'dilation', 'transposed', 'output_padding', 'groups')


# ---------------------------------------------------------------------------------------------------------- limit


@dataclass
class Rate:
    """Of one product: how often it is there, seconds of one by the fastest route, and the rate of every route."""

    product: Product
    count: int
    seconds: float
    route: str
    gflops_per_s: dict[str, float]


@dataclass
class Limit:
    """The least time that the products of a model take here, one after the other."""

    rates: list[Rate]

    @property
    def flops(self) -> int:
        return sum(rate.count * rate.product.flops for rate in self.rates)

    @property
    def seconds(self) -> float:
        return sum(rate.count * rate.seconds for rate in self.rates)

    @property
    def gflops_per_s(self) -> float:
        """The mean over all products, weighted by operations."""
        return self.flops / self.seconds / 1e9

    @property
    def best_gflops_per_s(self) -> float:
        """Of the fastest among the products that make up at least 1 % of the operations."""
        large = [rate for rate in self.rates if rate.count * rate.product.flops >= _MATTERS * self.flops]
        return max(rate.product.flops / rate.seconds / 1e9 for rate in large)

    def fraction(self, seconds: float) -> float:
        """The part of the limit that a model reaches which takes ``seconds``."""
        return self.seconds / seconds

    def as_dict(self) -> dict[str, Any]:
        parts = [
            dict(
                product=str(rate.product),
                kind=rate.product.kind,
                dtype=str(rate.product.dtype).removeprefix('torch.'),
                count=rate.count,
                share=rate.count * rate.product.flops / self.flops,
                route=rate.route,
                gflops_per_s=rate.gflops_per_s,
            )
            for rate in sorted(self.rates, key=lambda rate: -rate.count * rate.product.flops)
        ]
        return dict(
            gflop=self.flops / 1e9,
            seconds=self.seconds,
            gflops_per_s=self.gflops_per_s,
            best_gflops_per_s=self.best_gflops_per_s,
            products=parts,
        )


def measure_limit(
    products: Counter[Product],
    device: str = 'cpu',
    *,
    known: dict[Product, Rate] | None = None,
    timer: Callable[..., float] = shortest,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Limit:
    """Time every product by every route.

    Args:
        products: Of :func:`find_products`.
        device: Where.
        known: Rates that were measured before: here their fastest route is timed again. New ones are added.
        timer: Gives the seconds of a call, as :func:`.shortest` does.
        progress: Wraps the list of products, for a progress bar.

    Raises:
        ValueError: there are no products.
    """
    if not products:
        raise ValueError('this model makes no matrix product and no convolution: there is no limit to measure')
    known = {} if known is None else known
    total = sum(count * product.flops for product, count in products.items())
    for product in progress(list(products)):
        matters = products[product] * product.flops >= _MATTERS * total
        if product in known:
            known[product] = _again(known[product], device, timer)
        else:
            known[product] = _rate(product, device, timer, **(_LONG if matters else _SHORT))
    return limit_of(products, known)


def limit_of(products: Counter[Product], known: dict[Product, Rate]) -> Limit:
    """The limit by rates that were measured before."""
    return Limit([replace(known[product], count=count) for product, count in products.items()])


def _again(rate: Rate, device: str, timer: Callable[..., float]) -> Rate:
    """The fastest route once more, for the machine may have been busy before."""
    with torch.inference_mode():
        seconds = min(rate.seconds, timer(routes(rate.product, device)[rate.route], device, **_SHORT))
    rates = rate.gflops_per_s | {rate.route: rate.product.flops / seconds / 1e9}
    return replace(rate, seconds=seconds, gflops_per_s=rates)


def _rate(product: Product, device: str, timer: Callable[..., float], **effort: float) -> Rate:
    seconds = {}
    for name, way in routes(product, device).items():
        try:
            with torch.inference_mode():
                seconds[name] = timer(way, device, **effort)
        except (RuntimeError, AttributeError, NotImplementedError):
            if not seconds:  # the first is torch's own way, which the model needs itself
                raise
    route = min(seconds, key=seconds.__getitem__)
    rates = {name: product.flops / value / 1e9 for name, value in seconds.items()}
    return Rate(product, 1, seconds[route], route, rates)
