"""Muon for weights that are matrices, AdamW for the rest: fewer views to learn from, where views are what is dear."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from trecvit_dense.registry import OPTIMIZERS

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """``matrix (m, n)`` with all its singular values brought near 1 (0.7 to 1.2), by Newton-Schulz iterations.

    Source: Jordan et al., Muon (2024), whose quintic polynomial this is; in the precision of ``matrix``.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.mT
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.mT


@OPTIMIZERS.register_module()
class MuonAdamW(torch.optim.AdamW):
    """Orthogonalised momentum for kernels of convolutions and weights of linear layers; fused AdamW for the rest.

    torch's own Muon takes two-dimensional weights alone, and works in bfloat16, which many CPUs emulate. Here a kernel
    ``(out, in, ...)`` counts as a matrix ``(out, in * ...)``. A weight with fewer than ``smallest`` rows or columns (a
    norm, a bias, a layer that reads colours or writes one number) is left to AdamW.

    Args:
        params: Parameters, or groups of them.
        lr: Step of the matrices: each is moved by a matrix with singular values near ``lr``, times the root of rows
            over columns where there are more rows.
        adam_lr: Step of the rest.
        momentum: Of the matrices (Nesterov's).
        smallest: Rows and columns that a matrix has at least.
        weight_decay: Of both, decoupled: a share ``lr * weight_decay`` a step.
        betas: Of AdamW.

    Raises:
        ValueError: a step or momentum that is none.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float = 0.02,
        adam_lr: float = 1e-3,
        momentum: float = 0.95,
        smallest: int = 32,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        if not lr > 0 or not adam_lr > 0 or not 0 <= momentum < 1:
            raise ValueError(f'lr {lr}, adam_lr {adam_lr}, momentum {momentum}: wanted two above 0 and one in [0, 1)')
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [dict(params=given)]
        split = list(chain.from_iterable(_split(group, lr, adam_lr, momentum, smallest) for group in groups))
        super().__init__(split, lr=adam_lr, betas=tuple(betas), weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have a gradient; returns what ``closure`` does."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if group['momentum'] is None]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group['momentum'] is not None:
                for weight in group['params']:
                    if weight.grad is not None:
                        self._move(weight, group)
        return loss

    def _move(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state['momentum'] = torch.zeros_like(weight, memory_format=torch.contiguous_format)
            state['step'] = torch.tensor(0.0)  # AdamW looks for it when a state is loaded
        state['step'] += 1
        gathered = state['momentum'].mul_(group['momentum']).add_(weight.grad)
        ahead = weight.grad.add(gathered, alpha=group['momentum']).flatten(1)
        size = group['lr'] * max(1, ahead.shape[0] / ahead.shape[1]) ** 0.5
        weight.mul_(1 - group['lr'] * group['weight_decay'])
        weight.add_(orthogonalised(ahead).view(weight.shape), alpha=-size)


def _split(
    group: dict[str, Any], lr: float, adam_lr: float, momentum: float, smallest: int
) -> Iterable[dict[str, Any]]:
    """The matrices of a group and its rest; a step that the group names is AdamW's, the other goes in proportion."""
    ratio = group.get('lr', adam_lr) / adam_lr
    kinds: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for weight in group['params']:
        kinds[weight.ndim > 1 and min(weight.shape[0], weight[0].numel()) >= smallest].append(weight)
    yield dict(group, params=kinds[True], lr=ratio * lr, momentum=momentum)
    yield dict(group, params=kinds[False], lr=ratio * adam_lr, momentum=None)
