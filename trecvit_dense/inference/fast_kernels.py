"""Ways to compute a linear layer, and which is the fastest for a shape here: measured, never guessed from a name.

What ``F.linear`` takes on a CPU is one library of the two that torch comes with, and the better one for some processors
only: on some the other is twice as fast. Either is faster still with its weights packed beforehand, and oneDNN applies
a GELU to its output before that leaves the cache.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'none': lambda x: x,
    'tanh': lambda x: F.gelu(x, approximate='tanh'),
    'erf': F.gelu,
}
WORTH_IT = 0.95  # of the time of what a module does by itself, for another way to be taken
# Largest difference from the plain layer, in units of its largest value.
TOLERANCE = dict(fp32=1e-5, bf16=3e-2, int8=1e-1)
_ROUNDS, _MOST_ROUNDS, _SECONDS = 3, 20, 0.03  # of one measurement: at least, at most, and how long it may go on
_SLOW = 1.6  # times the best of the first round: not tried again
_MARGIN = 0.97  # of the time of plain: what is hardly faster is not worth another result in the last digits
_COPY_MARGIN = 0.92  # of the best so far: packed weights take as much memory as the weights
_OPERATIONS = 6e8  # of one measured product; more rows would not change the rate
_LEAST_ROWS = 32


@dataclass(frozen=True)
class Kernel:
    """One way to compute ``activation(x weight^T + bias)``.

    Args:
        name: For reports.
        precision: Of the product: ``'fp32'``, ``'bf16'`` or ``'int8'``.
        prepare: ``(weight, bias, rows)`` to what :attr:`run` is given; None: it needs nothing, and no more memory.
        run: ``(x (..., in), prepared, weight, bias, activation)`` to ``(..., out)``: bfloat16 for ``'bf16'``, else
            float32. ``x`` may be either.
        for_rows: What is prepared serves this number of rows alone; with others it runs as the plain layer.
    """

    name: str
    precision: str
    run: Callable[[Tensor, Any, Tensor, Tensor | None, str], Tensor]
    prepare: Callable[[Tensor, Tensor | None, int], Any] | None = None
    for_rows: bool = False

    def agrees(self, found: Tensor, wanted: Tensor) -> bool:
        """Whether a result is that of the plain layer, to the tolerance of the precision."""
        return bool((found.float() - wanted).abs().max() <= TOLERANCE[self.precision] * wanted.abs().max())


def _plain(x: Tensor, _: Any, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return ACTIVATIONS[activation](F.linear(x.float(), weight, bias))


def _onednn(x: Tensor, packed: Any, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return _fused(x.float(), weight if packed is None else packed, bias, activation)


def _fused(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    fused = ('none', [], '') if activation == 'none' else ('gelu', [], 'tanh' if activation == 'tanh' else 'none')
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *fused)


def _pack_onednn(weight: Tensor, bias: Tensor | None, rows: int) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def _mkl(x: Tensor, packed: Any, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    matrix, rows = packed
    return ACTIVATIONS[activation](torch.ops.mkl._mkl_linear(x.float(), matrix, weight, bias, rows))


def _pack_mkl(weight: Tensor, bias: Tensor | None, rows: int) -> Any:
    return torch.ops.mkl._mkl_reorder_linear_weight(weight, rows), rows


def _bf16(x: Tensor, packed: Any, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    matrix, offset = packed
    return _fused(x.bfloat16(), matrix, offset, activation)


def _pack_bf16(weight: Tensor, bias: Tensor | None, rows: int) -> Any:
    return _pack_onednn(weight.bfloat16(), bias, rows), None if bias is None else bias.bfloat16()


def _int8(x: Tensor, packed: Any, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return ACTIVATIONS[activation](torch.ops.quantized.linear_dynamic(x.float(), packed, False))


def _pack_int8(weight: Tensor, bias: Tensor | None, rows: int) -> Any:
    """Symmetric, one scale per output channel; the input gets one scale for all its rows on every call."""
    scale = (weight.abs().amax(1) / 127).clamp(min=1e-12)
    zero = torch.zeros(len(weight), dtype=torch.long)
    with warnings.catch_warnings():  # torch means to drop these tensors some day; then this kernel is one that fails
        warnings.simplefilter('ignore', UserWarning)
        quantised = torch.quantize_per_channel(weight, scale.double(), zero, 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(quantised, bias)


PLAIN = Kernel('plain', 'fp32', _plain)
KERNELS = {
    kernel.name: kernel
    for kernel in (
        PLAIN,
        Kernel('oneDNN', 'fp32', _onednn),
        Kernel('oneDNN, packed', 'fp32', _onednn, _pack_onednn),
        Kernel('MKL, packed', 'fp32', _mkl, _pack_mkl, for_rows=True),
        Kernel('bf16', 'bf16', _bf16, _pack_bf16),
        Kernel('int8', 'int8', _int8, _pack_int8),
    )
}
# On a GPU there is nothing to choose.
ON_GPU = Kernel(
    'bf16 on a GPU',
    'bf16',
    lambda x, packed, weight, bias, activation: ACTIVATIONS[activation](F.linear(x.bfloat16(), *packed)),
    lambda weight, bias, rows: (weight.bfloat16(), None if bias is None else bias.bfloat16()),
)


def watched() -> bool:
    """Whether torch compiles, exports, or looks at the operations: it has to see those of plain layers."""
    return torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


def why_not(name: str) -> str | None:
    """Why a kernel does not run on this CPU; None: it does."""
    kernel, weight, x = KERNELS[name], torch.rand(32, 32), torch.rand(4, 32)
    try:
        kernel.run(x, kernel.prepare(weight, None, len(x)) if kernel.prepare else None, weight, None, 'none')
    except _FAILURES as error:
        return _first_line(error)
    return None


_FAILURES = (RuntimeError, AttributeError, NotImplementedError)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ['failed'])[0][:120]


# ------------------------------------------------------------------------------------------------------- choosing


@dataclass
class Choice:
    """What was found for one shape.

    Args:
        kernel: The one that is used.
        seconds: Of every kernel that works here and agrees with the plain one, in the same order of rows.
        rejected: Name to reason for the others.
    """

    kernel: Kernel
    seconds: dict[str, float]
    rejected: dict[str, str]

    @property
    def gain(self) -> float:
        """How many times faster than the plain layer."""
        return self.seconds['plain'] / self.seconds[self.kernel.name]


def clock() -> Callable[[], float]:
    """CPU time with one thread, which a busy machine does not disturb; else the time on the wall."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def measure(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Shortest time of each call in seconds, in turns, so that a disturbance meets all of them."""
    now, best, spent, rounds = clock(), {}, 0.0, 0
    while rounds < _ROUNDS or (rounds < _MOST_ROUNDS and spent < _SECONDS):
        for name, call in calls.items():
            if rounds and best[name] > _SLOW * min(best.values()):
                continue
            begin = now()
            call()
            taken = now() - begin
            best[name], spent = min(best.get(name, taken), taken), spent + taken
        rounds += 1
    return best


def choose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
    *,
    precision: str = 'fp32',
    copies: bool = True,
    at_least: float = 1.2,
) -> Choice:
    """Measure what there is on the first rows of ``x (rows, in)``; the fastest that agrees with the plain layer.

    Args:
        weight, bias: ``(out, in)`` and ``(out,)`` float32 on the CPU.
        activation: A name in :data:`ACTIVATIONS`.
        precision: ``'fp32'``: products in float32 alone. ``'bf16'`` and ``'int8'``: in this one, too.
        copies: Whether kernels that hold a packed copy of the weights may be taken.
        at_least: How many times faster than the best float32 product another precision must be.
    """
    rows = min(len(x), max(_LEAST_ROWS, int(_OPERATIONS / (2 * weight.numel()))))
    x = x[:rows].float()
    wanted = PLAIN.run(x, None, weight, bias, activation)
    calls, rejected = {}, {}
    for name, kernel in KERNELS.items():
        refused = kernel.prepare and kernel.precision == 'fp32' and not copies
        if refused or kernel.precision not in ('fp32', precision):
            continue
        try:
            prepared = kernel.prepare(weight, bias, rows) if kernel.prepare else None
            found = kernel.run(x, prepared, weight, bias, activation)
        except _FAILURES as error:
            rejected[name] = _first_line(error)
            continue
        if not kernel.agrees(found, wanted):
            rejected[name] = f'differs by {float((found.float() - wanted).abs().max()):.1e}'
            continue
        calls[name] = _call(kernel, x, prepared, weight, bias, activation)
    seconds = measure(calls)
    return Choice(KERNELS[_fastest(seconds, at_least)], seconds, rejected)


def _call(
    kernel: Kernel, x: Tensor, prepared: Any, weight: Tensor, bias: Tensor | None, activation: str
) -> Callable[[], Tensor]:
    return lambda: kernel.run(x, prepared, weight, bias, activation)


def _fastest(seconds: dict[str, float], at_least: float) -> str:
    """Each step to more memory, or to fewer digits, has to be worth it."""
    best = 'plain'
    for needs_copy, margin in ((False, _MARGIN), (True, _COPY_MARGIN)):
        likely = {
            name: value
            for name, value in seconds.items()
            if KERNELS[name].precision == 'fp32' and bool(KERNELS[name].prepare) == needs_copy
        }
        name = min(likely, key=likely.__getitem__, default=best)
        if seconds[name] < margin * seconds[best]:
            best = name
    for name, value in seconds.items():
        if KERNELS[name].precision != 'fp32' and value * at_least <= seconds[best]:
            best = name
    return best
