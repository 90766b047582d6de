"""Mobile-Former against a second, plain reading of the published layers, on arrays of official names.

It covers what the reference outputs may leave out: groups with their shuffles, sides that do not divide, and blocks in
places where no published size has them.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.checkpoints.mobile_former_names import mobile_former_to_official
from trecvit_dense.registry import MODELS, use_scope

WIDTH = 32  # of the tokens
ROWS = (
    ('first', 3, 12, 2, 0),
    ('dna', 3, 12, 1, 0),
    ('lite', 6, 24, 2, 4),
    ('dna', 4, 32, 1, 0),
    ('lite', 2, 32, 1, 3),
    ('dna', 2, 32, 2, 0),
)


def build(groups: int) -> nn.Module:
    """Random weights, norms and running statistics."""
    use_scope()
    torch.manual_seed(0)
    head = dict(type='MobileFormerClassifier', num_classes=5, rep_size=16, token_dim=WIDTH, groups=groups)
    backbone = dict(type='MobileFormer', stem_channels=8, num_tokens=3, token_dim=WIDTH, groups=groups, rows=ROWS)
    model = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head))).eval()
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith('var'):
                value.uniform_(0.5, 2)
            elif value.is_floating_point():
                value.normal_(1.0 if name.endswith('norm.weight') else 0.0, 0.3)
    return model


class Reading:
    """The network as a chain of functions of named arrays."""

    def __init__(self, arrays: dict, groups: int) -> None:
        self.arrays, self.groups = {name: torch.from_numpy(array) for name, array in arrays.items()}, groups

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.arrays[f'{name}.weight'], self.arrays[f'{name}.bias'])

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.arrays[f'{name}.weight'], self.arrays[f'{name}.bias'])

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        parts = (self.arrays[f'{name}.{part}'] for part in ('running_mean', 'running_var', 'weight', 'bias'))
        return F.batch_norm(x, *parts)

    def convolve(self, x: Tensor, name: str, *, stride: int = 1, groups: int | None = None) -> Tensor:
        """``name.0`` and its norm ``name.1``."""
        kernel = self.arrays[f'{name}.0.weight']
        options = dict(stride=stride, padding=kernel.shape[-1] // 2, groups=groups or self.groups)
        return self.batch_norm(F.conv2d(x, kernel, **options), f'{name}.1')

    def shuffle(self, x: Tensor, parts: int) -> Tensor:
        order = torch.arange(x.shape[1]).view(parts, -1).T.flatten()
        return x[:, order] if self.groups > 1 else x

    def relu(self, x: Tensor, z: Tensor, name: str) -> Tensor:
        hidden = F.relu(self.linear(z[:, 0], f'{name}.hyper.0'))
        steep, shallow = F.relu6(self.linear(hidden, f'{name}.hyper.2') + 3)[..., None, None].div(6).chunk(2, 1)
        return torch.max(x * 2 * steep, x * (2 * shallow - 1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """``(B, N, C)`` each."""
        query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    def gather(self, x: Tensor, z: Tensor, name: str) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)
        found = self.attend(self.linear(z, f'{name}.q'), cells, cells, 2)
        found = found * F.relu6(self.linear(z, f'{name}.alpha.0') + 3) / 3
        return self.layer_norm(z + self.linear(found, f'{name}.proj'), f'{name}.layer_norm')

    def former(self, z: Tensor, name: str) -> Tensor:
        found = self.attend(self.linear(z, f'{name}.q'), z, z, 4)
        z = self.layer_norm(z + self.linear(found, f'{name}.channel_mlp'), f'{name}.layer_norm')
        hidden = F.gelu(self.linear(z, f'{name}.ffn.0'))
        return self.layer_norm(z + self.linear(hidden, f'{name}.ffn.2'), f'{name}.ffn_norm')

    def spread(self, x: Tensor, z: Tensor, name: str) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)
        found = self.attend(cells, self.linear(z, f'{name}.k'), self.linear(z, f'{name}.proj'), 2)
        return x + found.transpose(1, 2).view_as(x)

    def block(self, x: Tensor, z: Tensor, name: str, row: tuple) -> tuple[Tensor, Tensor]:
        kind, _, out, stride, _ = row
        channels, residual = x.shape[1], x if stride == 1 and x.shape[1] == out else 0
        z = self.former(self.gather(x, z, f'{name}.local_global'), f'{name}.global_block')
        if kind == 'dna':
            y = self.shuffle(self.convolve(x, f'{name}.conv1'), self.groups)
            y = self.relu(y, z, f'{name}.hyper1')
            y = self.relu(self.convolve(y, f'{name}.conv2', stride=stride, groups=y.shape[1]), z, f'{name}.hyper2')
            y = self.shuffle(self.convolve(y, f'{name}.conv3'), self.groups)
            return self.spread(y + residual, z, f'{name}.global_local'), z
        y = self.shuffle(self.convolve(x, f'{name}.conv1', stride=stride, groups=channels), channels)
        half = self.convolve(self.relu(y, z, f'{name}.hyper1'), f'{name}.conv2')
        y = self.shuffle(self.convolve(half, f'{name}.conv3', groups=out), out)
        y = self.convolve(self.relu(y, z, f'{name}.hyper3'), f'{name}.conv4')
        return self.spread(half + y, z, f'{name}.global_local') + residual, z

    def __call__(self, image: Tensor) -> Tensor:
        x = F.relu6(self.convolve(image, 'stem', stride=2, groups=1))
        z = self.arrays['tokens.weight'].expand(len(x), -1, -1)
        channels = x.shape[1]
        x = F.relu6(self.convolve(x, 'features.0.conv', stride=ROWS[0][3], groups=channels))
        x = F.conv2d(self.shuffle(x, channels), self.arrays['features.0.conv.4.weight'], groups=self.groups)
        x = self.batch_norm(x, 'features.0.conv.5')
        for index, row in enumerate(ROWS[1:], start=1):
            x, z = self.block(x, z, f'features.{index}', row)
        z = self.gather(x, z, 'local_global')
        x = F.conv2d(self.shuffle(x, self.groups), self.arrays['classifier.conv.1.weight'], groups=self.groups)
        x = F.relu6(self.batch_norm(x, 'classifier.conv.2')).mean((2, 3))
        x = self.linear(torch.cat([F.hardswish(x), z[:, 0]], 1), 'classifier.fc.0')
        return self.linear(F.hardswish(self.batch_norm(x, 'classifier.fc.1')), 'classifier.classifier.1')


@pytest.mark.parametrize('size', [(64, 64), (50, 62)])
@pytest.mark.parametrize('groups', [1, 2, 4])
@torch.no_grad()
def test_a_second_reading_agrees(groups: int, size: tuple[int, int]) -> None:
    model, image = build(groups), torch.rand(2, 3, *size)
    wanted = Reading(mobile_former_to_official(model.state_dict()), groups)(image)
    outputs, _ = model.step(image[:, None], model.start(2))
    error = (outputs['classification'].logits - wanted).abs().max()
    assert error <= 2e-4 * wanted.abs().max(), 'random weights amplify rounding; a wrong channel would be of order one'
    assert wanted.std() > 0.1
