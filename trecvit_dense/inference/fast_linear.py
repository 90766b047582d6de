"""``speed_up``: a model for use, with each linear layer computed the way that is fastest on this machine.

Nothing is known of processors by name. On its first call with a shape a layer measures the kernels that torch offers
(:mod:`.fast_kernels`) and keeps the fastest that agrees with the plain one, for all layers of that shape; every layer
checks on its own numbers that it agrees. What changes is how a module's ``forward`` is computed: modules, parameters
and their names stay as they are, and :func:`restore` takes it back. Where a gradient is wanted, under autocast, when
torch compiles, exports or counts, and on a device without such a choice, the plain layers run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.models.layers.attention import MLP, Attention
from trecvit_dense.models.layers.embedding import PatchEmbed
from trecvit_dense.models.layers.kept import Kept
from trecvit_dense.models.layers.recurrent_block import GatedMLP, RecurrentBlock

from .fast_attention import FastAttend
from .fast_kernels import (
    ACTIVATIONS,
    ON_GPU,
    PLAIN,
    WORTH_IT,
    Choice,
    Kernel,
    choose,
    measure,
    watched,
    why_not,
)

PRECISIONS = ('auto', 'fp32', 'bf16', 'int8')
_KEPT = 'fast_weights'  # name of the child that holds a layer's packed weights
_CHECKED = 32  # rows on which a layer is checked
_PATIENCE = 2  # calls with other numbers of rows before weights are packed again
_ROWS = 64  # numbers of rows that a layer remembers
_MEASURED: dict[tuple, Choice] = {}  # in this process, whatever the model


@dataclass
class Tuning:
    """What :func:`speed_up` was asked for, and what it found.

    Args:
        precision: ``'fp32'``, ``'bf16'`` or ``'int8'``.
        copies: Whether packed copies of the weights may be held.
        at_least: How many times faster than float32 another precision must be.
        choices: ``(rows, in, out, activation, threads)`` to what was measured; rows are rounded up to a power of two.
        attention: The same for attention: name to seconds.
    """

    precision: str = 'fp32'
    copies: bool = True
    at_least: float = 1.2
    choices: dict[tuple, Choice] = field(default_factory=dict)
    attention: dict[tuple, dict[str, float]] = field(default_factory=dict)

    def kernel(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Kernel:
        key = (_rounded(len(x)), weight.shape[1], weight.shape[0], activation, torch.get_num_threads())
        found = self.choices.get(key)
        return self._find(key, x, weight, bias) if found is None else found.kernel

    def _find(self, key: tuple, x: Tensor, weight: Tensor, bias: Tensor | None) -> Kernel:
        options = dict(precision=self.precision, copies=self.copies, at_least=self.at_least)
        everywhere = (*key, *options.values())
        if everywhere not in _MEASURED:
            if not bool(x.isfinite().all()):
                return PLAIN  # nothing can be compared
            _MEASURED[everywhere] = choose(x, weight, bias, key[3], **options)
        self.choices[key] = _MEASURED[everywhere]
        return self.choices[key].kernel

    def __str__(self) -> str:
        lines = []
        for (rows, inner, width, activation, _), choice in sorted(self.choices.items()):
            times = ', '.join(f'{name} {1e3 * value:.3f}' for name, value in choice.seconds.items())
            act = '' if activation == 'none' else f' gelu {activation}'
            lines.append(f'{rows} x {inner} x {width}{act}: {choice.kernel.name} (ms: {times})')
        return '\n'.join(lines)


# ------------------------------------------------------------------------------------------------------- products


class Product:
    """``activation(x weight^T + bias)`` of a linear layer, or of a part of its outputs.

    Args:
        linear: Has ``weight`` and ``bias``; a convolution is read as a layer over flattened patches. It is given a
            child that keeps packed weights.
        part: Rows of the weight; None: all.
        keep: Leave the result in bfloat16 where that is what was computed; else it is float32.
    """

    def __init__(
        self,
        linear: nn.Linear | nn.Conv2d,
        tuning: Tuning,
        *,
        activation: str = 'none',
        part: slice | None = None,
        keep: bool = False,
    ) -> None:
        self.linear, self.tuning = linear, tuning
        self.activation, self.part, self.keep = activation, part, keep
        self.key = (activation, part and part.start)
        if _KEPT not in linear._modules:
            linear.add_module(_KEPT, Kept())
        self.kept: Kept = linear._modules[_KEPT]

    def __call__(self, x: Tensor) -> Tensor:
        # A small layer takes less time than Python can waste here: no look-up that is not needed, no view.
        weight, bias = self.linear._parameters['weight'], self.linear._parameters['bias']
        if not usable(x, weight):
            return ACTIVATIONS[self.activation](F.linear(x, *self._own(weight, bias)))
        stamp = (weight._version, weight.data_ptr(), bias is None or (bias._version, bias.data_ptr()))
        stamp = (*stamp, torch.get_num_threads(), x.device)
        found = self.kept.values.get(self.key)
        if found is None or found[0] != stamp:
            found = self.kept.values[self.key] = stamp, _Ready(*self._own(weight, bias))
        ready = found[1]
        kernel, prepared = ready.calls.get(x.numel() // x.shape[-1]) or self._prepare(x, ready)
        y = kernel.run(x, prepared, ready.weight, ready.bias, self.activation)
        return y if self.keep or y.dtype == torch.float32 else y.float()

    def _own(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        weight = weight.flatten(1)
        if self.part is None:
            return weight, bias
        return weight[self.part], None if bias is None else bias[self.part]

    def _prepare(self, x: Tensor, ready: _Ready) -> tuple[Kernel, Any]:
        """The kernel for the rows of ``x`` and its packed weights, for this call and those that follow."""
        x = x.reshape(-1, x.shape[-1])
        kernel = ON_GPU if x.is_cuda else self.tuning.kernel(x, ready.weight, ready.bias, self.activation)
        if kernel.for_rows and not ready.makes_room(len(x)):
            return PLAIN, None
        if kernel is not PLAIN and kernel.name not in ready.packed:
            # Outside of inference mode: what is made in it could not be used outside.
            with torch.inference_mode(False), torch.no_grad():
                ready.packed[kernel.name] = kernel.prepare and kernel.prepare(ready.weight, ready.bias, len(x))
            if not self._agrees(kernel, x[:_CHECKED], ready):
                ready.packed[kernel.name] = None
                ready.refused.add(kernel.name)
        if kernel.name in ready.refused:
            kernel = PLAIN
        call = kernel, ready.packed.get(kernel.name)
        if len(ready.calls) < _ROWS:
            ready.calls[len(x)] = call
        return call

    def _agrees(self, kernel: Kernel, x: Tensor, ready: _Ready) -> bool:
        parts = ready.weight, ready.bias, self.activation
        return kernel.agrees(kernel.run(x, ready.packed[kernel.name], *parts), PLAIN.run(x, None, *parts))


class _Ready:
    """What a product needs for its next calls.

    Attributes:
        weight, bias: Of the layer, or the part of them.
        calls: Number of rows to the kernel and its packed weights.
        packed: Name of a kernel to packed weights.
        refused: Kernels that do not agree with the plain one for these weights.
        rows: For which a kernel that serves one number of rows has packed.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.calls: dict[int, tuple[Kernel, Any]] = {}
        self.packed: dict[str, Any] = {}
        self.refused: set[str] = set()
        self.rows: int | None = None
        self._others = 0  # calls in turn with other numbers of rows

    def makes_room(self, rows: int) -> bool:
        """Whether weights are, or may now be, packed for ``rows``: not before a change of rows has lasted."""
        if self.rows is not None:
            self._others += 1
            if self._others <= _PATIENCE:
                return False
            self.packed.clear()
            self.calls.clear()
        self.rows, self._others = rows, 0
        return True


def usable(x: Tensor, weight: Tensor) -> bool:
    """Whether there is another way than the plain layer: float32 weights, no gradient, nobody looking on."""
    return (
        weight.dtype == torch.float32
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.device == weight.device
        and not weight.is_inference()
        and not (torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad))
        and x.numel() > 0
        and not torch.is_autocast_enabled(x.device.type)
        and not watched()
    )


def _rounded(rows: int) -> int:
    return 1 << (rows - 1).bit_length()


# -------------------------------------------------------------------------------------------------------- modules


class _Fast:
    """Stands in for the ``forward`` of one module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def plain(self, *args: Any, **kwargs: Any) -> Any:
        return type(self.module).forward(self.module, *args, **kwargs)


class _FastLinear(_Fast):
    def __init__(self, module: nn.Linear, tuning: Tuning, *, keep: bool = False) -> None:
        super().__init__(module)
        self.product = Product(module, tuning, keep=keep)

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(x)


class _FastMLP(_Fast):
    def __init__(self, module: MLP, tuning: Tuning) -> None:
        super().__init__(module)
        activation = 'tanh' if module.act.approximate == 'tanh' else 'erf'
        self.first = Product(module.fc1, tuning, activation=activation, keep=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self.module.fc2(self.first(x)) if usable(x, self.module.fc1.weight) else self.plain(x)


class _FastGatedMLP(_Fast):
    def __init__(self, module: GatedMLP, tuning: Tuning) -> None:
        super().__init__(module)
        half = module.up.out_features // 2
        self.gate = Product(module.up, tuning, activation='tanh', part=slice(0, half), keep=True)
        self.value = Product(module.up, tuning, part=slice(half, 2 * half), keep=True)

    def __call__(self, x: Tensor) -> Tensor:
        if not usable(x, self.module.up.weight):
            return self.plain(x)
        gate, value = self.gate(x), self.value(x)
        return self.module.down(value.mul_(gate) if value.dtype == gate.dtype else value * gate)


class _FastGate(_Fast):
    """In the place of :meth:`RecurrentBlock.gate`."""

    def __init__(self, module: RecurrentBlock, tuning: Tuning) -> None:
        super().__init__(module)
        self.product = Product(module.linear_y, tuning, activation='tanh', keep=True)

    def __call__(self, normed: Tensor) -> Tensor:
        return self.product(normed)


class _FastPatchEmbed(_Fast):
    """The convolution, or a product over patches side by side; in float32."""

    def __init__(self, module: PatchEmbed, tuning: Tuning) -> None:
        super().__init__(module)
        self.product = Product(module.proj, Tuning(copies=tuning.copies))
        self.as_product: dict[tuple, bool] = {}  # by shape of the frames and threads

    def __call__(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        if not usable(frames, self.module.proj.weight) or frames.is_cuda:
            return self.plain(frames)
        key = (frames.shape[1:], len(frames) > 1, torch.get_num_threads())
        if key not in self.as_product:
            few = frames[:2]
            self._unfolded(few)  # chooses its kernel
            seconds = measure({'conv': lambda: self.plain(few), 'product': lambda: self._unfolded(few)})
            self.as_product[key] = seconds['product'] < WORTH_IT * seconds['conv']
        return self._unfolded(frames) if self.as_product[key] else self.plain(frames)

    def _unfolded(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        size_y, size_x = self.module.proj.kernel_size
        h, w = frames.shape[2] // size_y, frames.shape[3] // size_x
        patches = frames[..., : h * size_y, : w * size_x].unflatten(3, (w, size_x)).unflatten(2, (h, size_y))
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(len(frames), h, w, -1)  # (B * T, h, w, 3 * p * p)
        return self.product(patches), []


# -------------------------------------------------------------------------------------------------------- swapping


def speed_up(model: nn.Module, precision: str = 'auto', *, copies: bool = True, at_least: float = 1.2) -> Tuning:
    """Compute ``model`` the fast way from now on, in place; it is for use, not for training.

    Costs one measurement per distinct shape, on the first call with it: about a second for a model of size B.

    Args:
        precision: ``'auto'`` and ``'fp32'``: products in float32. ``'bf16'``: layers whose product is ``at_least``
            times faster so have bfloat16 weights. ``'int8'``: the same with weights and inputs in 8 bits, on a CPU. The
            recurrence, norms and the residual stay float32.
        copies: Hold packed copies of the weights where that is faster: as much memory again as the linear layers'.
        at_least: See ``precision``; 0 takes it wherever it agrees with float32.

    Returns:
        What was asked for and, as it comes, what is found; ``print`` shows it.

    Raises:
        ValueError: an unknown precision (float16 among them), or one that this machine cannot compute.
    """
    device = next(model.parameters()).device
    tuning = Tuning(check_precision(precision, device), copies, at_least)
    restore(model)
    if device.type == 'cpu' or tuning.precision != 'fp32':
        for module in list(model.modules()):
            if type(module) in _STAND_INS:
                module.forward = _STAND_INS[type(module)](module, tuning)
        for module in model.modules():
            if type(module) is Attention:
                module.attend = FastAttend(tuning.attention)
                module.qkv.forward.product.keep = True
            if type(module) is RecurrentBlock:
                module.gate = _FastGate(module, tuning)
    return tuning


def restore(model: nn.Module) -> None:
    """Take :func:`speed_up` back."""
    for module in model.modules():
        for name in ('forward', 'attend', 'gate'):
            if isinstance(module.__dict__.get(name), (_Fast, FastAttend)):
                delattr(module, name)
        module._modules.pop(_KEPT, None)


_STAND_INS: dict[type, Callable[[Any, Tuning], _Fast]] = {
    nn.Linear: _FastLinear,
    MLP: _FastMLP,
    GatedMLP: _FastGatedMLP,
    PatchEmbed: _FastPatchEmbed,
}


def check_precision(precision: str, device: torch.device) -> str:
    """``'fp32'``, ``'bf16'`` or ``'int8'`` of what a user asks for; errors as in :func:`speed_up`."""
    if precision in ('fp16', 'float16', 'half'):
        raise ValueError(f"precision '{precision}' overflows at 65504, and trained weights reach 7e4; use 'bf16'")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is '{precision}'; wanted {', '.join(PRECISIONS)}")
    where = dict(bf16=('cpu', 'cuda'), int8=('cpu',)).get(precision)
    if where and device.type not in where:
        raise ValueError(f"precision '{precision}' runs on {' and '.join(where)}, not on {device}; use 'fp32'")
    if where and device.type == 'cpu' and (why := why_not(precision)):
        raise ValueError(f"precision '{precision}' does not run on this CPU with this torch: {why}; use 'fp32'")
    if where and device.type == 'cuda' and not torch.cuda.is_bf16_supported():
        raise ValueError(f"precision 'bf16': {torch.cuda.get_device_name(device)} has none; use 'fp32'")
    return 'fp32' if precision == 'auto' else precision
