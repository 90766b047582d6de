"""Memory of a training step of TRecViT, derived on paper; docs/performance.md has the derivation in words.

What a block keeps for the backward pass is a sum of terms in its widths: tokens ``C``, recurrence ``L``, MLP ``M`` and
the number of heads. A step's peak is where the backward pass begins, or where it ends when the gradients of the
parameters weigh more than the activations. A clip that is worked in chunks of time has the peak of one chunk; to that
come the states between the chunks and what the backbone answers on every frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_BYTES = 4  # float32


@dataclass(frozen=True)
class Widths:
    """Of a TRecViT whose stem is one convolution, without a class token or temporal MLP.

    Attributes:
        embed_dim: ``C``.
        lru_width: ``L``.
        mlp_dim: ``M``.
        conv_width: Taps of the temporal convolution.
        num_heads: Of the attention.
        depth: Blocks.
        pixels: Numbers of one patch, 3 times its pixels.
        tokens_per_frame: Patches.
    """

    embed_dim: int
    lru_width: int
    mlp_dim: int
    conv_width: int
    num_heads: int
    depth: int
    pixels: int
    tokens_per_frame: int

    @classmethod
    def of(cls, backbone, size: tuple[int, int]) -> Widths:
        """Of a built TRecViT and the pixels of a frame."""
        patch = backbone.patch_size
        return cls(
            backbone.embed_dim,
            backbone.lru_width,
            backbone.mlp_dim,
            backbone.conv_width,
            backbone.num_heads,
            backbone.depth,
            3 * patch[0] * patch[1],
            (size[0] // patch[0]) * (size[1] // patch[1]),
        )


def kept_by_block(widths: Widths) -> dict[str, float]:
    """Numbers that a block keeps for every token of a clip, by term; see docs/performance.md."""
    c, width, m, heads = widths.embed_dim, widths.lru_width, widths.mlp_dim, widths.num_heads
    return {
        'RMS norm: input, normalised, scaled, 1 / rms': 3 * c + 1,
        'convolution: input': width,
        'RG-LRU: input and h': 2 * width,
        'output gate: before its GELU': width,
        'product of h and gate': width,
        'norm of attention: input, normalised, two statistics': 2 * c + 2,
        'attention: query, key, value, result, log-sum': 4 * c + heads,
        'norm of the MLP: input, normalised, two statistics': 2 * c + 2,
        'MLP: before and after its GELU': 2 * m,
    }


def kept_selectively(widths: Widths) -> dict[str, float]:
    """The same where the results of products, attention and recurrence are kept, and the rest is made again."""
    c, width, m, heads = widths.embed_dim, widths.lru_width, widths.mlp_dim, widths.num_heads
    return {
        'input': c,
        'both linear layers of the temporal block': 2 * width,
        'h': width,
        'output of the temporal block': c,
        'attention: query, key, value, result, log-sum': 4 * c + heads,
        'output of attention': c,
        'MLP: before its GELU, output': m + c,
    }


@dataclass(frozen=True)
class Peak:
    """Bytes at the worst moment of a training step, by part; the sum is :attr:`total`."""

    parameters: float
    gradients: float
    video: float
    kept: float
    working: float
    between: float = 0.0  # chunks of time: states, and tokens of the last level of all frames

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.video + self.kept + self.working + self.between


def training_peak(
    widths: Widths, frames: int, parameters: int, checkpointing: bool | str = False, chunk: int | None = None
) -> Peak:
    """The derived peak for one clip.

    Args:
        widths: Of the model.
        frames: Of the clip.
        parameters: Numbers.
        checkpointing: As in TRecViT: False, True or ``'block'``, ``'selective'``.
        chunk: Frames that are worked at a time (``train_chunk_frames`` of the perceiver), not checkpointed; None: all.
    """
    if chunk is not None and chunk < frames:
        return _peak_in_chunks(widths, frames, parameters, chunk)
    tokens = frames * widths.tokens_per_frame
    row = tokens * widths.embed_dim  # what enters a block
    block = tokens * sum(kept_by_block(widths).values())
    waiting = {False: block, 'block': row, 'selective': tokens * sum(kept_selectively(widths).values())}
    entry = waiting['block' if checkpointing is True else checkpointing]
    # A block in its backward pass has all that it keeps; to that come the gradient that reaches it, and that of the
    # MLP's hidden layer.
    working = row + tokens * widths.mlp_dim
    kept = entry * (widths.depth - 1) + block + row
    video = tokens * widths.pixels
    first = (0, kept, working)  # gradients, kept, working: in the last block, where the backward pass begins
    last = (parameters, block, working)  # in the first block, where it ends
    gradients, kept, working = max(first, last, key=sum)
    return Peak(*(_BYTES * value for value in (parameters, gradients, video, kept, working)))


def _peak_in_chunks(widths: Widths, frames: int, parameters: int, chunk: int) -> Peak:
    """While the last chunk but one is worked again: gradients of the parameters are there, and all states."""
    one = training_peak(widths, chunk, parameters)
    state = widths.tokens_per_frame * widths.depth * widths.conv_width * widths.lru_width  # h, and inputs of the taps
    answers = frames * widths.tokens_per_frame * widths.embed_dim
    return replace(
        one,
        gradients=_BYTES * parameters,
        video=_BYTES * frames * widths.tokens_per_frame * widths.pixels,
        between=_BYTES * (answers + state * (math.ceil(frames / chunk) - 1)),
    )
