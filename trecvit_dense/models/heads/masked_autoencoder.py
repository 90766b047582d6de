"""Masked pre-training: most patches are hidden from the backbone, and a small causal decoder paints them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecvit_dense.models.layers.context_blocks import ContextBlocks
from trecvit_dense.models.layers.embedding import sincos2d
from trecvit_dense.models.layers.patch_hiding import draw_hidden
from trecvit_dense.models.layers.pixel_patches import normalise_patches, patch_grid, to_patches
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import Features, RecurrentState, VideoSample

from .base import Head

MASKINGS = ('tube', 'random')


@dataclass
class ReconstructionOutput:
    """Patches of the T frames of one call; ``P = patch_y * patch_x * 3`` values each.

    Args:
        patches: ``(B, T, N, P)`` what the model paints, normalised per patch.
        targets: ``(B, T, N, P)`` the truth, normalised per patch.
        mean, deviation: ``(B, T, N, 1)`` what the truth was normalised with.
        hidden: ``(B, T, N)`` bool: the backbone did not see the patch.
        grid: ``(h, w)`` patches of a frame.
        patch: ``(y, x)`` pixels of a patch.
    """

    patches: Tensor
    targets: Tensor
    mean: Tensor
    deviation: Tensor
    hidden: Tensor
    grid: tuple[int, int]
    patch: tuple[int, int]


@dataclass
class Reconstruction:
    """What :class:`MaskedAutoencoderHead` says about one video: the fields of its output as arrays ``(T, N, ...)``."""

    patches: np.ndarray
    targets: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    hidden: np.ndarray
    grid: tuple[int, int]
    patch: tuple[int, int]


class SeenNeighbours(nn.Module):
    """Weighted mean of the seen tokens around each place, a weight for each channel and offset (arXiv 1804.07723).

    Args:
        width: Channels.
        size: Places across, odd.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, 1, size, size))

    def forward(self, tokens: Tensor, seen: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(B, T, N, C)`` of ``(B, T, N, C)`` and ``seen (B, T, N)`` bool; zero where nothing near is seen."""
        shape, pad = tokens.shape, self.weight.shape[-1] // 2
        there = seen.flatten(0, 1).unflatten(1, grid)[:, None].to(tokens.dtype)
        maps = tokens.flatten(0, 1).transpose(1, 2).unflatten(2, grid) * there
        total = F.conv2d(maps, self.weight.to(maps.dtype), padding=pad, groups=len(self.weight))
        count = F.avg_pool2d(there, 2 * pad + 1, stride=1, padding=pad, divisor_override=1).clamp_min(1)
        return (total / count).flatten(2).transpose(1, 2).view(shape)


@MODELS.register_module()
class MaskedAutoencoderHead(Head):
    """MAE on a recurrent backbone (TRecViT, arXiv 2412.14294, section 4.2; VideoMAE, arXiv 2203.12602).

    The paper's: tube masking of 90 %, hidden tokens are dropped from the encoder, the target is each patch's pixels,
    normalised by the patch. Not published, so ours: the decoder, which is :class:`.ContextBlocks` (recurrence over
    time, attention over the frame) over seen tokens and mask tokens. It is causal as the backbone is: what it paints on
    a frame depends on this and earlier frames alone, and a stream is painted like a clip.

    A hidden patch takes no part in the backbone, and its recurrent row waits (``backbones/hidden_patches.py`` has the
    rule): with tubes the row is dropped altogether, with random masks it goes on where it was.

    State: ``seed (B,)`` and ``frame (B,)``, which say what is hidden; ``tube (B, N)`` where the mask was given;
    ``decoder.*``, the recurrent rows of the decoder.

    Args:
        masking: ``'tube'``: the same places on all frames. ``'random'``: others on every frame.
        ratio: Share of the patches of each frame that is hidden, between 0 and 1.
        decoder_dim, decoder_depth, decoder_heads: Width, blocks and attention heads of the decoder.
        decoder_mlp: Hidden width of its MLPs; None: four times the width.
        neighbourhood: Places across, odd, of the window in which a hidden place begins with a weighted mean of the
            seen tokens (a convolution over what is there, arXiv 1804.07723), so that a small decoder need not first
            learn to look at what is near; 0: every hidden place begins as the same mask token, as in MAE.
        target_eps: Added to the variance of a patch: 1e-6 as in MAE; larger where flat patches hold only noise.
        loss_on: ``'masked'``: hidden patches. ``'all'``: seen ones as well.

    Raises:
        ValueError: a value out of range, or tokens that do not stand for whole patches of pixels.
    """

    hides_patches = True
    reads_video = True

    def __init__(
        self,
        *,
        backbone_channels: tuple[int, ...],
        backbone_strides: tuple[tuple[float, float], ...],
        masking: str = 'tube',
        ratio: float = 0.9,
        decoder_dim: int = 384,
        decoder_depth: int = 4,
        decoder_heads: int = 6,
        decoder_mlp: int | None = None,
        neighbourhood: int = 0,
        target_eps: float = 1e-6,
        loss_on: str = 'masked',
    ) -> None:
        super().__init__(backbone_channels, backbone_strides)
        if masking not in MASKINGS:
            raise ValueError(f"masking is '{masking}'; wanted {' or '.join(map(repr, MASKINGS))}")
        if not 0 < ratio < 1:
            raise ValueError(f'ratio is {ratio}; wanted the share of hidden patches, above 0 and below 1')
        if loss_on not in ('masked', 'all'):
            raise ValueError(f"loss_on is '{loss_on}'; wanted 'masked' or 'all'")
        if neighbourhood < 0 or (neighbourhood and neighbourhood % 2 == 0):
            raise ValueError(f'neighbourhood is {neighbourhood}; wanted an odd number of places, or 0')
        self.masking, self.ratio, self.target_eps, self.loss_on = masking, ratio, target_eps, loss_on
        _, patch = patch_grid((1 << 30, 1 << 30), self.backbone_strides[-1], who=type(self).__name__)
        self.enter = nn.Linear(self.backbone_channels[-1], decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(decoder_dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.near = SeenNeighbours(decoder_dim, neighbourhood) if neighbourhood else None
        self.decoder = ContextBlocks(
            decoder_dim, depth=decoder_depth, num_heads=decoder_heads, mlp_dim=decoder_mlp or 4 * decoder_dim
        )
        self.paint = nn.Linear(decoder_dim, patch[0] * patch[1] * 3)
        nn.init.xavier_uniform_(self.enter.weight)
        nn.init.normal_(self.paint.weight, std=0.02)  # begins near the mean of each patch
        nn.init.zeros_(self.enter.bias)
        nn.init.zeros_(self.paint.bias)

    # ------------------------------------------------------------------------------------------------- hiding

    def begin(
        self, batch_size: int, device: torch.device | str, *, seed: Tensor | None = None, hidden: Tensor | None = None
    ) -> RecurrentState:
        """State before the first frame.

        Args:
            seed: ``(B,)`` int64, decides what is hidden. None: drawn anew in training, 0, 1, ... otherwise.
            hidden: ``(B, N)`` bool, a tube mask of one's own instead.
        """
        if seed is None:
            drawn = torch.randint(2**62, (batch_size,)) if self.training else torch.arange(batch_size)
            seed = drawn.to(device)
        state = RecurrentState(seed=seed.to(device), frame=torch.zeros(batch_size, dtype=torch.int64, device=device))
        if hidden is not None:
            if hidden.ndim != 2 or len(hidden) != batch_size or hidden.dtype != torch.bool:
                raise ValueError(f'hidden is {hidden.dtype} {tuple(hidden.shape)}; wanted bool ({batch_size}, N)')
            state['tube'] = hidden.to(device)
        return state

    def patch_mask(self, state: RecurrentState, num_frames: int, input_size: tuple[int, int]) -> Tensor:
        grid, _ = self._grid(input_size)
        num_patches = grid[0] * grid[1]
        if 'tube' in state:
            if state['tube'].shape[1] != num_patches:
                raise ValueError(f'the given mask has {state["tube"].shape[1]} patches; frames have {num_patches}')
            return state['tube'][:, None].expand(-1, num_frames, -1)
        return draw_hidden(
            state['seed'],
            state['frame'],
            num_frames=num_frames,
            num_patches=num_patches,
            ratio=self.ratio,
            masking=self.masking,
        )

    def sample_queries(self, sample: VideoSample) -> dict[str, Any]:
        """A mask that belongs to the video: evaluations hide the same, in any order and chunks."""
        return dict(seed=torch.tensor([zlib.crc32(sample.name.encode())]))

    def forget(self, state: RecurrentState) -> RecurrentState:
        """What the decoder carries goes; what is hidden stays."""
        return RecurrentState({key: value for key, value in state.items() if not key.startswith('decoder.')})

    def _grid(self, input_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        return patch_grid(input_size, self.backbone_strides[-1], who=type(self).__name__)

    # ------------------------------------------------------------------------------------------------ painting

    def forward(
        self, features: Features, state: RecurrentState, input_size: tuple[int, int]
    ) -> tuple[ReconstructionOutput, RecurrentState]:
        """Paint the frames in ``features``."""
        tokens = features.levels[-1].tokens  # (B, T, N, C)
        time = tokens.shape[1]
        grid, patch = self._grid(input_size)
        hidden = self.patch_mask(state, time, input_size)
        x = self.enter(tokens)
        mask_token = self.mask_token.to(x.dtype)
        if self.near is not None:
            mask_token = mask_token + self.near(x, ~hidden, grid)
        x = torch.where(hidden[..., None], mask_token, x)
        x = x + sincos2d(grid, x.shape[-1], device=x.device).to(x.dtype)
        maps, memory = self.decoder(x.transpose(2, 3).unflatten(3, grid), state.scope('decoder'))
        painted = self.paint(maps.flatten(3).transpose(2, 3))  # (B, T, N, P)
        with torch.no_grad():
            truth = normalise_patches(to_patches(features.video.float(), grid, patch), self.target_eps)
        new_state = RecurrentState(self.advance(self.forget(state), time)).put('decoder', memory)
        return ReconstructionOutput(painted.float(), *truth, hidden, grid, patch), new_state

    def loss(
        self, output: ReconstructionOutput, samples: list[VideoSample], scale: tuple[float, float]
    ) -> dict[str, Tensor]:
        """Mean squared error over hidden patches, in deviations of each patch: painting its mean costs 1."""
        error = (output.patches - output.targets).square().mean(dim=-1)  # (B, T, N)
        return {'loss_mae': error.mean() if self.loss_on == 'all' else error[output.hidden].mean()}

    @torch.no_grad()
    def predict(
        self, outputs: list[ReconstructionOutput], sample: VideoSample, scale: tuple[float, float]
    ) -> Reconstruction:
        """All frames of one video, on the patches of the model's input."""
        names = ('patches', 'targets', 'mean', 'deviation', 'hidden')
        arrays = [torch.cat([getattr(output, name)[0] for output in outputs]).cpu().numpy() for name in names]
        return Reconstruction(*arrays, outputs[0].grid, outputs[0].patch)
