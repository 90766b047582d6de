"""A step whose tensors stay where they are: what CUDA graphs and compiled code of fixed shapes want.

A stream has one shape. Its state then lives in buffers: what a caller put into the state since the last frame is copied
in, the recorded step runs, and it writes the new state back into the same buffers. Python, and on a GPU every launch of
a kernel, is paid for once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trecvit_dense.structures import RecurrentState

ENGINES = ('auto', 'graph', 'compile', 'eager')
_WARM_UP = 3  # runs before a graph is recorded: libraries choose their kernels and allocate on the first ones
Result = tuple[dict[str, Any], RecurrentState]


class StaticStep:
    """``model.step`` from buffers of fixed address.

    The first frames run as they are, until the state has all its entries; then the step is recorded, and again
    when a shape, a dtype, the heads that run or the mode of the model changes. Only the last recording is held.

    The state that is returned is made of the buffers: the next call overwrites it. Clone it to keep it. Outputs are
    the caller's own.

    Args:
        model: In eval mode; its parameters must not move afterwards.
        engine: ``'graph'``: a CUDA graph. ``'compile'``: ``torch.compile`` for these shapes, which takes half a minute
            and more, and on a CPU a C++ compiler. ``'eager'``: the step itself, between the same buffers. ``'auto'``: a
            graph on CUDA, else compiled.

    Attributes:
        engine: What runs; None: a step could not be recorded, and all run as they are (a warning said why).

    Raises:
        ValueError: an unknown engine.
    """

    def __init__(self, model: nn.Module, engine: str = 'auto') -> None:
        if engine not in ENGINES:
            raise ValueError(f"engine is '{engine}'; wanted one of {', '.join(ENGINES)}")
        cuda = next(model.parameters()).is_cuda
        self.model = model
        self.engine: str | None = engine if engine != 'auto' else 'graph' if cuda else 'compile'
        if self.engine == 'graph' and not cuda:
            self._give_up('a CUDA graph needs a model on a GPU')
        self._signature: tuple | None = None
        self._replay: Callable[[], dict[str, Any]] | None = None
        self._video: Tensor | None = None
        self._state = RecurrentState()

    @torch.no_grad()
    def __call__(self, video: Tensor, state: RecurrentState) -> Result:
        """As ``model.step``."""
        signature = self._signature_of(video, state)
        if self.engine is None or self.model.training:
            return self.model.step(video, state)
        if signature != self._signature:
            self._forget()
            result = self.model.step(video, state)
            if self._signature_of(video, result[1]) == signature:  # the state is complete
                self._record(video, result[1], signature)
            return result
        self._video.copy_(video)
        for key, buffer in self._state.items():
            if state[key] is not buffer:
                buffer.copy_(state[key])
        return self._replay(), RecurrentState(self._state)

    def _signature_of(self, video: Tensor, state: RecurrentState) -> tuple:
        tensors = (('', video), *sorted(state.items()))
        layout = tuple((key, tensor.shape, tensor.dtype, tensor.device) for key, tensor in tensors)
        return layout, self.model.tasks, torch.is_inference_mode_enabled()

    def _forget(self) -> None:
        self._signature = self._replay = self._video = None
        self._state = RecurrentState()

    def _give_up(self, why: str) -> None:
        warnings.warn(f'the step is not recorded, it runs as it is: {why}', stacklevel=3)
        self.engine = None

    # ------------------------------------------------------------------------------------------------- recording

    def _record(self, video: Tensor, state: RecurrentState, signature: tuple) -> None:
        self._video, self._state = video.clone(), state.clone()
        record = dict(graph=self._as_graph, compile=self._compiled, eager=self._as_it_is)[self.engine]
        try:
            self._replay, self._signature = record(), signature
        except Exception as error:  # torch raises of many kinds from its compiler and from capture
            self._forget()
            self._give_up((str(error).strip().splitlines() or [type(error).__name__])[0][:200])

    def _advance(self, step: Callable[[Tensor, RecurrentState], Result]) -> dict[str, Any]:
        """One step from the buffers, the new state back into them."""
        outputs, state = step(self._video, RecurrentState(self._state))
        held = {tensor.untyped_storage().data_ptr() for tensor in self._state.values()}
        # What an output shares with a buffer has to be read before that is written.
        outputs = map_tensors(outputs, lambda x: x.clone() if x.untyped_storage().data_ptr() in held else x)
        fresh = {key: value for key, value in state.items() if value is not self._state[key]}
        # An entry may be a view of another's buffer: first read all, then write.
        apart = {
            key: value.clone() if value.untyped_storage().data_ptr() in held else value for key, value in fresh.items()
        }
        for key, value in apart.items():
            self._state[key].copy_(value)
        return outputs

    def _as_it_is(self) -> Callable[[], dict[str, Any]]:
        return lambda: self._advance(self.model.step)

    def _as_graph(self) -> Callable[[], dict[str, Any]]:
        before = self._state.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._advance(self.model.step)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._advance(self.model.step)
        for key, buffer in self._state.items():
            buffer.copy_(before[key])

        def replay() -> dict[str, Any]:
            graph.replay()
            return map_tensors(outputs, Tensor.clone)

        return replay

    def _compiled(self) -> Callable[[], dict[str, Any]]:
        names = list(self._state)
        like = self.model.step(self._video, RecurrentState(self._state))[0]

        def step(video: Tensor, *tensors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            outputs, state = self.model.step(video, RecurrentState(zip(names, tensors, strict=True)))
            return list_tensors(outputs), [state[name] for name in names]

        fast = torch.compile(step, dynamic=False)

        def call(video: Tensor, state: RecurrentState) -> Result:
            found, tensors = fast(video, *(state[name] for name in names))
            found = iter(found)
            return map_tensors(like, lambda _: next(found)), RecurrentState(zip(names, tensors, strict=True))

        before = self._state.clone()
        self._advance(call)  # compiles
        for key, buffer in self._state.items():
            buffer.copy_(before[key])
        return lambda: self._advance(call)


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with every tensor in its dicts, lists, tuples and dataclasses replaced; the rest is shared."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return type(value)({key: map_tensors(part, function) for key, part in value.items()})
    if isinstance(value, (list, tuple)):
        parts = [map_tensors(part, function) for part in value]
        return type(value)(*parts) if hasattr(value, '_fields') else type(value)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{part.name: map_tensors(getattr(value, part.name), function) for part in fields(value)})
    return value


def list_tensors(value: Any) -> list[Tensor]:
    """The tensors that :func:`map_tensors` would meet, in its order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    elif is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, part.name) for part in fields(value)]
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for part in value for tensor in list_tensors(part)]
