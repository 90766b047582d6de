"""The pixel decoder of ObjectTokenHead: cues of every object and the features that all share, to one logit a pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.models.layers.dense_fusion import resize


class MaskDecoder(nn.Module):
    """A small U-Net over the objects of a frame; what does not depend on the object is computed once.

    Args:
        channels, fine_channels: Width of the shared features at stride 4 and 2.
        cues: Maps of each object: 4 masks and those of its rivals, score, 4 agreements, 2 of motion, tokens.
        hidden_dim: Width at stride 4; twice that at strides 8, 16 and 32.
    """

    def __init__(self, channels: int, fine_channels: int, *, cues: int, hidden_dim: int = 32) -> None:
        super().__init__()
        width, deep = hidden_dim, 2 * hidden_dim
        self.embed = nn.Conv2d(channels + fine_channels, channels, 1)
        self.shared_in = nn.Conv2d(channels + fine_channels, width, 3, padding=1)
        self.shared_fine = nn.Conv2d(fine_channels, width // 2, 3, padding=1)
        self.cues_in = nn.Conv2d(cues, width, 3, padding=1)
        self.top = nn.Conv2d(width, width, 3, padding=1)
        self.down8 = nn.Conv2d(width, deep, 3, stride=2, padding=1)
        self.down16 = nn.Conv2d(deep, deep, 3, stride=2, padding=1)
        self.down32 = nn.Conv2d(deep, deep, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(deep, deep, 3, padding=1)
        self.merge16 = nn.Conv2d(deep, deep, 3, padding=1)
        self.merge8 = nn.Conv2d(deep, width, 3, padding=1)
        self.merge4 = nn.Conv2d(width, width, 3, padding=1)
        self.logit = nn.Conv2d(width, 1, 1)
        self.to_fine = nn.Conv2d(width, width // 2, 1)
        self.cue_fine = nn.Conv2d(1, width // 2, 3, padding=1)
        self.fine = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.fine_logit = nn.Conv2d(width // 2, 1, 3, padding=1)
        self.prior = nn.Parameter(torch.tensor([1.0, 0.05, 0.05, 0.0, 0.1]))
        for layer in (self.logit, self.fine_logit):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)

    def shared(self, pixels: Tensor, fine: Tensor) -> dict[str, Tensor]:
        """What all objects share, of ``pixels (B, C + C', h, w)`` and ``fine (B, C', 2h, 2w)``."""
        return dict(embedding=self.embed(pixels), coarse=self.shared_in(pixels), fine=self.shared_fine(fine))

    def forward(self, shared: dict[str, Tensor], maps: Tensor, matches: Tensor, tracked: Tensor) -> Tensor:
        """Logits ``(B, K, 2h, 2w)`` of each object alone.

        Args:
            maps: ``(B, K, 5 + M, h, w)``: mask carried over, read from the given frame, from the last frame, the last
                mask itself; score of the target model, agreement with tokens.
            matches: ``(B, K, 6, h / 2, w / 2)`` agreement with object and rest of the given and of the last frame, and
                motion beside that of the object.
            tracked: ``(B, K)`` bool.
        """
        batch, count, _, height, width = maps.shape
        flags = tracked[..., None, None, None]
        maps = maps * flags
        masks = maps[:, :, :4]
        rivals = _rivals(masks)
        matches = F.interpolate((matches * flags).flatten(0, 1), (height, width), mode='bilinear', align_corners=False)
        cues = torch.cat(
            [(2 * masks - 1).flatten(0, 1), maps[:, :, 4:].flatten(0, 1), rivals.flatten(0, 1), matches], 1
        )
        evidence = torch.cat([masks.clamp(0.01, 0.99).logit(), 2 * maps[:, :, 4:5]], 2).flatten(0, 1)
        base = (evidence * self.prior.view(-1, 1, 1)).sum(1, keepdim=True)  # (B*K, 1, h, w)
        fused = self.cues_in(cues).unflatten(0, (batch, count)) + shared['coarse'][:, None]
        x4 = F.relu(self.top(F.relu(fused.flatten(0, 1))))
        x8 = F.relu(self.down8(x4))
        x16 = F.relu(self.down16(x8))
        x32 = F.relu(self.deep(F.relu(self.down32(x16))))
        x16 = F.relu(self.merge16(x16 + resize(x32, x16)))
        x8 = F.relu(self.merge8(x8 + resize(x16, x8)))
        x4 = F.relu(self.merge4(x4 + resize(x8, x4)))
        coarse = base + self.logit(x4)
        up = F.interpolate(coarse, scale_factor=2, mode='bilinear', align_corners=False)
        x2 = F.interpolate(self.to_fine(x4), scale_factor=2, mode='bilinear', align_corners=False)
        x2 = x2 + self.cue_fine(up.tanh())
        x2 = F.relu(x2.unflatten(0, (batch, count)) + shared['fine'][:, None]).flatten(0, 1)
        logits = up + self.fine_logit(F.relu(self.fine(x2)))
        return logits.view(batch, count, 2 * height, 2 * width)


def _rivals(masks: Tensor) -> Tensor:
    """The strongest of the other objects, ``(B, K, C, h, w)`` each; zero where there is none."""
    if masks.shape[1] == 1:
        return torch.zeros_like(masks)
    best, second = masks.topk(2, dim=1).values.unbind(1)
    return torch.where(masks == best[:, None], second[:, None], best[:, None])
