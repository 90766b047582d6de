"""Muon for matrices and kernels, AdamW for the rest."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trecvit_dense.engine import MuonAdamW
from trecvit_dense.engine.muon import orthogonalised
from trecvit_dense.registry import OPTIMIZERS, use_scope


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 48, 3), nn.GroupNorm(1, 48), nn.Conv2d(48, 2, 1))


def give_gradients(*models: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameters in zip(*(one.parameters() for one in models), strict=True):
        slope = torch.randn(parameters[0].shape, generator=generator)
        for parameter in parameters:
            parameter.grad = slope.clone()


@pytest.mark.parametrize('shape', [(32, 32), (40, 300), (300, 40)])
def test_singular_values_come_near_one_and_directions_stay(shape) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.mT @ orthogonalised(matrix) @ right.mT
    values = turned.diagonal()
    assert values.min() > 0.3 and values.max() < 1.3 and (values > 0.6).double().mean() > 0.9
    assert (turned - values.diag()).abs().max() < 1e-9


def test_matrices_move_as_torch_has_it() -> None:
    """torch.optim.Muon works in bfloat16, so up to that; a kernel moves as the matrix that it is."""
    generator = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.randn(64, 32, 3, 3, generator=generator))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    tall = nn.Parameter(torch.randn(96, 40, generator=generator))
    same = nn.Parameter(tall.detach().clone())
    ours = MuonAdamW([kernel, tall], lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon([matrix, same], lr=0.02, weight_decay=0.1)
    start = kernel.detach().clone()
    for _ in range(3):
        kernel.grad = torch.randn(kernel.shape, generator=generator)
        matrix.grad = kernel.grad.flatten(1).clone()
        tall.grad = torch.randn(tall.shape, generator=generator)
        same.grad = tall.grad.clone()
        ours.step()
        theirs.step()
    moved = (kernel - start).norm()
    assert (kernel.flatten(1) - matrix).norm() < 0.02 * moved and (tall - same).norm() < 0.02 * moved


def test_the_rest_moves_as_adamw_has_it() -> None:
    first = model()
    second = copy.deepcopy(first)
    ours = MuonAdamW(first.parameters(), lr=0.02, adam_lr=3e-3, weight_decay=0.1)
    plain = torch.optim.AdamW(second.parameters(), lr=3e-3, weight_decay=0.1, betas=(0.9, 0.99))
    for seed in range(3):
        give_gradients(first, second, seed=seed)
        ours.step()
        plain.step()
    for (name, mine), its in zip(first.named_parameters(), second.parameters(), strict=True):
        same = torch.allclose(mine, its, rtol=1e-5, atol=1e-7)
        assert same != (name == '2.weight'), name  # the one kernel with 32 inputs or more and 32 outputs or more


def test_groups_keep_their_ratio_and_a_schedule_moves_both() -> None:
    net = model()
    groups = [dict(params=list(net[0].parameters())), dict(params=list(net[2].parameters()), lr=5e-4)]
    optimiser = MuonAdamW(groups, lr=0.02, adam_lr=1e-3)
    steps = [(group['momentum'] is not None, group['lr']) for group in optimiser.param_groups if group['params']]
    assert steps == [(False, 1e-3), (True, 0.01), (False, 5e-4)]
    torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 0.5)
    assert [group['lr'] for group in optimiser.param_groups if group['params']] == [5e-4, 0.005, 2.5e-4]


def test_a_run_goes_on_where_it_stopped() -> None:
    first = model()
    optimiser = MuonAdamW(first.parameters())
    give_gradients(first)
    optimiser.step()
    second, later = copy.deepcopy(first), None
    later = MuonAdamW(second.parameters())
    later.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for chosen, net in ((optimiser, first), (later, second)):
        give_gradients(net, seed=2)
        chosen.step()
    for mine, its in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_a_parameter_without_a_gradient_stays() -> None:
    net = model()
    give_gradients(net)
    net[2].weight.grad = None
    before = net[2].weight.detach().clone()
    MuonAdamW(net.parameters()).step()
    assert torch.equal(net[2].weight, before)


def test_recipes_name_it_and_wrong_steps_are_refused() -> None:
    use_scope()
    built = OPTIMIZERS.build(dict(type='MuonAdamW', lr=0.03, params=model().parameters()))
    assert built.param_groups[0]['lr'] == 0.03
    for wrong in (dict(lr=0.0), dict(adam_lr=-1.0), dict(momentum=1.0)):
        with pytest.raises(ValueError, match='wanted two above 0'):
            MuonAdamW(model().parameters(), **wrong)
