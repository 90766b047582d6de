"""A discriminative model of an object that is fitted in closed form and carried as a linear recurrence.

Ridge regression needs only two sums over pixels, ``A = sum w f f'`` and ``b = sum w f y``. They are the memory: each
frame decays them and adds its own, ``S_t = a * S_{t-1} + s_t``, so that every past frame counts and nothing grows. The
fit is differentiable (arXiv 1805.08136); fitting a small target model on the first frame and renewing it on the way is
the scheme of FRTM (arXiv 2003.00908), which does it by gradient steps over stored frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TargetModel(nn.Module):
    """Linear classifier per object on features that are shared by all objects.

    Args:
        channels: Width D of the features, constant one included.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.ridge = nn.Parameter(torch.tensor(-4.0))  # log
        self.decay = nn.Parameter(torch.tensor(2.0))  # logit of the share that the past keeps
        self.trust = nn.Parameter(torch.tensor(0.0))  # logit: how much the gathered frames count beside the given one

    def sums(self, features: Tensor, masks: Tensor) -> Tensor:
        """What one frame adds: ``(B, K, D, D + 1)``, A and b side by side.

        Args:
            features: ``(B, N, D)`` float32.
            masks: ``(B, K, N)`` in [0, 1]; pixels in doubt count less, object and background weigh the same.
        """
        sure = (2 * masks - 1).abs()
        inside, outside = masks * sure, (1 - masks) * sure
        weight = inside / inside.sum(-1, keepdim=True).clamp(min=1.0)
        weight = 0.5 * (weight + outside / outside.sum(-1, keepdim=True).clamp(min=1.0))  # (B, K, N)
        weighted = features[:, None] * weight[..., None]  # (B, K, N, D)
        target = (2 * masks - 1)[..., None]  # (B, K, N, 1)
        right = torch.cat([features[:, None].expand_as(weighted), target], -1)
        return weighted.transpose(-1, -2) @ right

    def gather(self, past: Tensor, new: Tensor) -> Tensor:
        """One step of the recurrence."""
        keep = self.decay.sigmoid()
        return keep * past + (1 - keep) * new

    def fit(self, given: Tensor, gathered: Tensor) -> Tensor:
        """Weights ``(B, K, D)`` from the sums of the given frame and of those gathered since."""
        total = given + self.trust.sigmoid() * gathered
        a, b = total[..., :-1], total[..., -1:]
        eye = torch.eye(self.channels, device=a.device, dtype=a.dtype)
        return torch.linalg.solve(a + self.ridge.exp() * eye, b)[..., 0]

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """Scores ``(B, K, N)``, about -1 on background and 1 on the object."""
        return weights @ features.transpose(-1, -2)
