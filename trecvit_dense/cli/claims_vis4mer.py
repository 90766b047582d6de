"""ViS4mer's decoder against the same decoder with self-attention in the place of S4, for ``trecvit benchmark claims``.

The authors compare with "the corresponding pure self-attention-based model". Here that is: the same stages with the
same norms, pooling, halving of channels and readout, and in each of them multi-head self-attention of 64 channels a
head over all tokens instead of the S4 layer.

All heads of materialised attention at once are 9 GB for the scores alone at 11,820 tokens. Its time is that of one
head, run by itself, times the number of heads, plus that of everything else; so is that of fused attention, for one way
of measuring. Its memory is counted with all heads at once, see :mod:`trecvit_dense.engine.costs`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.engine.costs import PeakMemory, count
from trecvit_dense.models.backbones.vis4mer import ViS4mer
from trecvit_dense.models.layers.attention import attend
from trecvit_dense.models.layers.s4 import fft_length

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
STAGES = 3
_HEAD = 64  # channels


class AttentionStage(nn.Module):
    """``x + proj(attention(norm(x)))``; then pairs of tokens are averaged and half of the channels remain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(channels // _HEAD, 1)
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.linear = nn.Linear(channels, channels // 2)

    def forward(self, x: Tensor, attention: Attend) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.proj(attention(query, key, value).transpose(1, 2).flatten(2))
        pairs = x[:, : x.shape[1] // 2 * 2].unflatten(1, (-1, 2))
        return F.gelu(self.linear(pairs.mean(2)))


class AttentionDecoder(nn.Module):
    """:class:`.ViS4mer` without an encoder, with attention; ``(B, L, C)`` to the mean of the last tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(AttentionStage(width >> index) for index in range(STAGES))

    def forward(self, x: Tensor, attention: Attend) -> Tensor:
        for stage in self.stages:
            x = stage(x, attention)
        return x.mean(1)


@dataclass
class Load:
    """What the decoders read: ``frames`` of ``tokens``, ``width`` channels."""

    frames: int
    tokens: int
    width: int

    @property
    def length(self) -> int:
        return self.frames * self.tokens

    def input(self, device: str | None = None) -> Tensor:
        return torch.randn(1, self.frames, self.tokens, self.width, device=device)


def measure(load: Load, device: str) -> dict[str, Any]:
    """Seconds and bytes of one clip: a training step (forward and backward) and a forward pass, of each decoder."""
    torch.manual_seed(0)
    found: dict[str, Any] = dict(frames=load.frames, tokens=load.tokens, width=load.width)
    found['s4'] = s4_decoder(load, device)
    for kind in ('fused', 'materialised'):
        found[kind] = attention_decoder(load, device, fused=kind == 'fused')
    found['fft'] = transforms(load, device)
    return found


def s4_decoder(load: Load, device: str) -> dict[str, float]:
    """Training step, and the forward pass with the kernel made for it and with the kernel kept."""
    video = load.input(device)
    model = ViS4mer(d_input=load.width, l_max=load.length, n_layers=STAGES, dropout=0.0).to(device).train()

    def run() -> Tensor:
        return model(video)[0].class_token[:, -1]

    train_s = seconds(lambda: run().sum().backward(), device)
    model.zero_grad()
    with PeakMemory() as memory:  # slower than without
        memory.add([video, *model.parameters()])
        run().sum().backward()
    model.zero_grad()
    with torch.no_grad():
        fresh_s = seconds(run, device)
        for stage in model.stages:
            stage.s4.kernel.eval()  # kernels are kept; layers in training work out no state to go on from
        with PeakMemory() as eval_memory:
            eval_memory.add([video, *model.parameters()])
            run()
        kept_s = seconds(run, device)
    return dict(
        train_s=train_s, eval_s=fresh_s, eval_kept_s=kept_s, train_bytes=memory.peak, eval_bytes=eval_memory.peak
    )


def attention_decoder(load: Load, device: str, *, fused: bool) -> dict[str, float]:
    """Training step and forward pass."""
    video = load.input(device).flatten(1, 2)
    model = AttentionDecoder(load.width).to(device)
    attention = partial(attend, fused=fused)
    times = {}
    for name, train in (('train_s', True), ('eval_s', False)):
        with torch.set_grad_enabled(train):
            times[name] = seconds(lambda train=train: step(model(video, without_attention), train), device)
            for index, stage in enumerate(model.stages):
                rows = (1, 1, load.length >> index, (load.width >> index) // stage.heads)
                one = [torch.randn(rows, device=device, requires_grad=train) for _ in range(3)]
                times[name] += stage.heads * seconds(lambda one=one, train=train: step(attention(*one), train), device)
    count_on = partial(
        count,
        lambda: AttentionDecoder(load.width),
        lambda model: model(load.input().flatten(1, 2), attention),
        fused=fused,
    )
    return dict(times, train_bytes=count_on(train=True).peak_bytes, eval_bytes=count_on(train=False).peak_bytes)


def without_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As cheap as can be; every projection still counts, forward and backward."""
    return value + (query + key)


def step(result: Tensor, train: bool) -> None:
    if train:
        result.sum().backward()


def transforms(load: Load, device: str) -> dict[str, float]:
    """Seconds to filter the first stage's tokens with 2 L points, as the authors do, and with a length that factors."""
    length = load.length
    signal = torch.randn(load.width, length, device=device)
    found = {}
    for name, points in (('plain', 2 * length), ('chosen', fft_length(2 * length - 1))):
        spectrum = torch.fft.rfft(torch.randn(load.width, length, device=device), points)
        found[f'{name}_points'] = points
        found[f'{name}_s'] = seconds(
            lambda points=points, spectrum=spectrum: torch.fft.irfft(torch.fft.rfft(signal, points) * spectrum, points),
            device,
            repeats=3,
        )
    return found


def seconds(function: Callable[[], Any], device: str, *, repeats: int = 1) -> float:
    """The fastest of ``repeats``. Of one thread on a CPU the work counts, whatever else the machine is busy with."""
    from trecvit_dense.cli.benchmark_rows import timed

    alone = device == 'cpu' and torch.get_num_threads() == 1
    best = float('inf')
    for _ in range(repeats):
        worked = time.process_time()
        clock, _ = timed(function, device)
        best = min(best, time.process_time() - worked if alone else clock)
    return best
