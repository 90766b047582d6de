"""Run as a program with ``TRITON_INTERPRET=1``: errors of Triton's kernels against the equations, as json.

The variable must be set before the kernels are imported, and other tests want it unset; hence a process of its own. On
a machine with a GPU it runs without the variable too, compiled, on the device that is named.
"""

from __future__ import annotations

import json
import sys

import torch

from tests.models import recurrence_reference as reference
from tests.models import test_linear_recurrence as scans
from tests.models import test_rg_lru as layers
from trecvit_dense.models.layers import linear_recurrence, use_backend


def main(device: str = 'cpu') -> None:
    torch.manual_seed(0)
    errors: dict[str, float] = {}
    for name, shape in (('one', (2, 1, 3)), ('rows', (2, 4, 3, 100))):  # 300 features: two programs
        for with_h0, reverse in ((False, False), (True, True)):
            exact = scans.draw(*shape)
            wanted = scans.run(reference.scan, *exact[:2], exact[2] if with_h0 else None, reverse)
            lower = [tensor.detach().float().to(device).requires_grad_() for tensor in exact]
            found = scans.run(linear_recurrence, *lower[:2], lower[2] if with_h0 else None, reverse)
            errors[f'scan {name} {reverse}'] = worst(found, wanted)
    layer = layers.build()
    precise = reference.double(layer)
    layer = layer.to(device)
    for name, case in layers.CASES.items():
        x, given = layers.draw((2, 3, 13, layers.WIDTH), case)  # 312 features
        wanted = layers.run(lambda x, **k: reference.rg_lru(precise, x, **k), precise, x, given)
        lower = {key: tensor.to(device).detach() for key, tensor in layers.lower(given).items()}
        if 'state' in lower:
            lower['state'].requires_grad_()
        found = layers.run(layer, layer, x.detach().float().to(device).requires_grad_(), lower)
        errors[f'layer {name}'] = worst(found.values(), wanted.values())
    x, _ = layers.draw((1, 2, 3, layers.WIDTH), ())
    wanted = layers.run(lambda x: reference.rg_lru(precise, x), precise, x, {})
    found = layers.run(layer.double(), layer, x.detach().to(device).requires_grad_(), {})
    errors['layer float64'] = worst(found.values(), wanted.values())
    print(json.dumps(errors))


def worst(found, wanted) -> float:
    return max(reference.error(mine.detach().cpu(), its) for mine, its in zip(found, wanted, strict=True))


if __name__ == '__main__':
    with use_backend('triton'):
        main(*sys.argv[1:])
