"""The encoder that has already run: tokens from a feature store in place of a video."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trecvit_dense.registry import MODELS
from trecvit_dense.structures import FeatureLevel, Features, PromptGroup, RecurrentState


@MODELS.register_module()
class StoredFeatures(nn.Module):
    """Takes tokens ``(B, T, n, C)`` where other backbones take video and gives them back as features.

    It has no parameters and no memory. The items of :class:`.StoredFeatureDataset` and the batches of
    :class:`.FeaturePreprocessor` are what it reads (docs/vis4mer.md). Heads that look at pixels or give coordinates
    need the video, not this.

    Args:
        embed_dim: C.
        grid: ``(h, w)`` of the patch tokens; None: one row of all of them.
        stride: Pixels per token of the encoder, ``(y, x)`` or one number.
        class_token: The first token of every frame is a class token.
    """

    causal = True
    supports_prompts = False
    takes_video = False

    def __init__(
        self,
        embed_dim: int,
        *,
        grid: Sequence[int] | None = None,
        stride: int | Sequence[int] = 16,
        class_token: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim, self.grid = embed_dim, None if grid is None else tuple(grid)
        stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
        self.has_class_token = class_token
        self.class_token_dim = embed_dim if class_token else None
        self.out_channels, self.strides = (embed_dim,), (stride,)

    def forward(
        self, video: Tensor, prompts: list[PromptGroup] | None = None, state: RecurrentState | None = None, **_: object
    ) -> tuple[Features, RecurrentState]:
        """Features of stored tokens ``(B, T, n, C)``.

        Raises:
            ValueError: prompts, or tokens of another shape than said.
        """
        if prompts:
            raise ValueError('StoredFeatures takes no prompt tokens; use a head that reads features alone')
        first = int(self.has_class_token)
        if video.ndim != 4 or video.shape[-1] != self.embed_dim or not video.shape[1] or video.shape[2] <= first:
            raise ValueError(
                f'features have shape {tuple(video.shape)}; wanted (B, T, tokens, {self.embed_dim}), as a feature '
                f'store has them; for video set encoder to the config of a backbone'
            )
        patches = video[:, :, first:]
        grid = self.grid or (1, patches.shape[2])
        if grid[0] * grid[1] != patches.shape[2]:
            raise ValueError(f'{patches.shape[2]} patch tokens a frame are no grid of {grid[0]}x{grid[1]}')
        level = FeatureLevel(patches, grid, self.strides[0])
        return Features((level,), video[:, :, 0] if first else None), RecurrentState()
