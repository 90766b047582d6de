"""Convolution over space and time that looks both ways, or back only: then it streams."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpaceTimeConv(nn.Module):
    """3D convolution without bias on ``(B, C, T, H, W)``, with zeros around the clip in space and time.

    With a temporal kernel and stride of 1 it is a 2D convolution of every frame. With ``causal`` a frame sees itself
    and the ``temporal_kernel - 1`` frames before it, and those are what is carried on to the next call.

    Args:
        kernel: Height and width, odd.
        stride: Of height and width.
        groups: Channel groups; ``in_channels`` is a depthwise convolution.
        temporal_kernel: Frames, odd.
        temporal_stride: Every so many frames one comes out, the first included.
        causal: Pad with past frames only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        temporal_kernel: int = 1,
        temporal_stride: int = 1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        self.temporal_kernel, self.temporal_stride, self.causal = temporal_kernel, temporal_stride, causal
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, temporal_kernel, kernel, kernel))
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / (temporal_kernel * kernel**2 * out_channels)))

    def forward(self, x: Tensor, past: Tensor | None = None, *, first: int = 0) -> tuple[Tensor, Tensor | None]:
        """Convolve T frames.

        Args:
            past: Causal only: ``(B, C, temporal_kernel - 1, H, W)``, the frames before; None: zeros.
            first: Causal only: the frame of this call from which the temporal stride counts.

        Returns:
            ``(B, C', T', h, w)``, and the frames that the next call wants as ``past`` (None: it wants none).
        """
        taps = self.temporal_kernel - 1
        if not self.causal or not taps:
            return self._convolve(x[:, :, first:]), None
        if past is None:
            past = x.new_zeros(*x.shape[:2], taps, *x.shape[3:])
        x = torch.cat([past.to(x.dtype), x], dim=2)  # (B, C, taps + T, H, W)
        return self._convolve(x[:, :, first:]), x[:, :, x.shape[2] - taps :].clone()

    def skip(self, x: Tensor, past: Tensor) -> Tensor:
        """``past`` after T frames of which none is looked at."""
        return torch.cat([past.to(x.dtype), x], dim=2)[:, :, x.shape[2] :].clone()

    def _convolve(self, x: Tensor) -> Tensor:
        space = self.kernel // 2
        if self.temporal_kernel == 1:
            # as images: PyTorch's 2D kernels are several times faster on a CPU than 3D ones of depth 1
            x = x[:, :, :: self.temporal_stride]
            frames = x.transpose(1, 2).flatten(0, 1)  # (B * T, C, H, W)
            y = F.conv2d(frames, self.weight[:, :, 0], stride=self.stride, padding=space, groups=self.groups)
            return y.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        time = 0 if self.causal else self.temporal_kernel // 2
        if self.weight.shape[0] == self.groups and torch.is_grad_enabled() and x.device.type == 'cpu':
            return self._sum_of_taps(F.pad(x, (0, 0, 0, 0, time, time)))
        strides = (self.temporal_stride, self.stride, self.stride)
        return F.conv3d(x, self.weight, stride=strides, padding=(time, space, space), groups=self.groups)

    def _sum_of_taps(self, x: Tensor) -> Tensor:
        """The same for depthwise kernels in training on a CPU, where the gradient in 3D takes three times as long."""
        images, total = x.transpose(1, 2), None  # (B, T, C, H, W)
        frames = images.shape[1] - self.temporal_kernel + 1
        for tap in range(self.temporal_kernel):
            part = images[:, tap : tap + frames : self.temporal_stride].flatten(0, 1)
            kernel = self.weight[:, :, tap]
            y = F.conv2d(part, kernel, stride=self.stride, padding=self.kernel // 2, groups=self.groups)
            total = y if total is None else total + y
        return total.unflatten(0, (x.shape[0], -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[0], self.weight.shape[1] * self.groups
        return (
            f'{in_channels}, {out_channels}, kernel={self.kernel}, stride={self.stride}, groups={self.groups}, '
            f'temporal_kernel={self.temporal_kernel}, temporal_stride={self.temporal_stride}, causal={self.causal}'
        )


class ConvNorm(nn.Module):
    """:class:`SpaceTimeConv` and batch norm over clip and space, with its arguments."""

    def __init__(self, in_channels: int, out_channels: int, **options: int) -> None:
        super().__init__()
        self.conv = SpaceTimeConv(in_channels, out_channels, **options)
        self.norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor, past: Tensor | None = None, *, first: int = 0) -> tuple[Tensor, Tensor | None]:
        y, past = self.conv(x, past, first=first)
        return self.norm(y), past


class Pointwise(nn.Module):
    """1x1x1 convolution and batch norm: a plain module, since it has no past."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2.0 / out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2, 3)  # (B, C, T * H, W): the frames of a clip as one tall image, faster than in 3D on a CPU
        return self.norm(self.conv(y)).unflatten(2, x.shape[2:4])
