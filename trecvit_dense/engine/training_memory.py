"""Memory of a training step of TRecViT, derived on paper; docs/performance.md has the derivation in words.

What a block keeps for the backward pass is a sum of terms in its widths: tokens ``C``, recurrence ``L``, MLP ``M`` and
the number of heads. A step's peak is where the backward pass begins, or where it ends when the gradients of the
parameters weigh more than the activations.
"""

from __future__ import annotations

from dataclasses import dataclass

_BYTES = 4  # float32


@dataclass(frozen=True)
class Widths:
    """Of a TRecViT whose stem is one convolution, without a class token or temporal MLP.

    Attributes:
        embed_dim: ``C``.
        lru_width: ``L``.
        mlp_dim: ``M``.
        num_heads: Of the attention.
        depth: Blocks.
        pixels: Numbers of one patch, 3 times its pixels.
        conv_past: Frames of the past that the temporal convolution reads.
        tokens_per_frame: Patches.
    """

    embed_dim: int
    lru_width: int
    mlp_dim: int
    num_heads: int
    depth: int
    pixels: int
    conv_past: int
    tokens_per_frame: int

    @classmethod
    def of(cls, backbone, size: tuple[int, int]) -> Widths:
        """Of a built TRecViT and the pixels of a frame."""
        patch = backbone.patch_size
        return cls(
            backbone.embed_dim,
            backbone.lru_width,
            backbone.mlp_dim,
            backbone.num_heads,
            backbone.depth,
            3 * patch[0] * patch[1],
            backbone.conv_width - 1,
            (size[0] // patch[0]) * (size[1] // patch[1]),
        )


def kept_by_block(widths: Widths, frames: int) -> dict[str, float]:
    """Numbers that a block keeps for every token of a clip of ``frames``, by term; see docs/performance.md."""
    c, width, m, heads = widths.embed_dim, widths.lru_width, widths.mlp_dim, widths.num_heads
    return {
        'RMS norm: input, normalised, scaled, 1 / rms': 3 * c + 1,
        'gate: before and after its GELU': 2 * width,
        'convolution: input, and input with its past': (2 + widths.conv_past / frames) * width,
        'RG-LRU: input and h': 2 * width,
        'product of h and gate': width,
        'norm of attention: input, normalised, two statistics': 2 * c + 2,
        'attention: query, key, value, result, log-sum': 4 * c + heads,
        'norm of the MLP: input, normalised, two statistics': 2 * c + 2,
        'MLP: before and after its GELU': 2 * m,
    }


@dataclass(frozen=True)
class Peak:
    """Bytes at the worst moment of a training step, by part; the sum is :attr:`total`."""

    parameters: float
    gradients: float
    video: float
    kept: float
    working: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.video + self.kept + self.working


def training_peak(widths: Widths, frames: int, parameters: int, checkpointing: bool | str = False) -> Peak:
    """The derived peak for one clip.

    Args:
        widths: Of the model.
        frames: Of the clip.
        parameters: Numbers.
        checkpointing: Of TRecViT.
    """
    tokens = frames * widths.tokens_per_frame
    block = tokens * sum(kept_by_block(widths, frames).values())
    row = tokens * widths.embed_dim  # what enters a block
    # A block in its backward pass: the gradient that comes to it, and that of the MLP's hidden layer.
    working = row + tokens * widths.mlp_dim
    kept = (row if checkpointing else block) * widths.depth + (block - row if checkpointing else 0) + row
    video = tokens * widths.pixels
    first = (0, kept, working)  # gradients, kept, working: in the last block, where the backward pass begins
    last = (parameters, block, working)  # in the first block, where it ends
    gradients, kept, working = max(first, last, key=sum)
    return Peak(*(_BYTES * value for value in (parameters, gradients, video, kept, working)))
