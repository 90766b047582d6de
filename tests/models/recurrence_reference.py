"""The recurrence and the RG-LRU as their equations say, in float64, for autograd to differentiate."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from trecvit_dense.models.layers import RGLRU
from trecvit_dense.models.layers.rg_lru import bounded_sqrt


def scan(x: Tensor, a: Tensor, h0: Tensor | None, reverse: bool = False) -> tuple[Tensor, Tensor]:
    frames = list(range(x.shape[1]))[:: -1 if reverse else 1]
    state, states = torch.zeros_like(x[:, 0]) if h0 is None else h0, {}
    for t in frames:
        state = states[t] = a[:, t] * state + x[:, t]
    return torch.stack([states[t] for t in range(x.shape[1])], dim=1), state


def rg_lru(
    layer: RGLRU, x: Tensor, state: Tensor | None = None, *, reset: Tensor | None = None, hold: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Griffin's equations 1 to 4, frame by frame, with what is said of resets and waiting rows in RGLRU."""
    gates = []
    for gate in (layer.input_gate, layer.a_gate):
        blocks = x.unflatten(-1, gate.bias.shape)
        gates.append(torch.sigmoid((torch.einsum('...gi,gij->...gj', blocks, gate.weight) + gate.bias).flatten(-2)))
    log_a = -8.0 * gates[1] * F.softplus(layer.a_param)
    a, multiplier = torch.exp(log_a), bounded_sqrt(1.0 - torch.exp(2.0 * log_a))
    start = torch.zeros(x.shape[:-1], dtype=torch.bool) if reset is None else reset.clone()
    if state is None:
        start[:, 0] = True
    wait = torch.zeros_like(start) if hold is None else hold
    a = torch.where(start[..., None], 0.0, a).masked_fill(wait[..., None], 1.0)
    multiplier = torch.where(start[..., None], 1.0, multiplier).masked_fill(wait[..., None], 0.0)
    return scan(multiplier * gates[0] * x, a, state)


def double(layer: RGLRU) -> RGLRU:
    return copy.deepcopy(layer).double()


def error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference in parts of the largest value wanted."""
    return ((found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)).item()
