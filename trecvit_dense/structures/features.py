"""What a backbone takes beside the video (prompt tokens) and what it gives back (features)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class PromptGroup:
    """Extra tokens that a head adds beside the patch tokens of every frame.

    Args:
        name: Unique among the groups of one call; the same name returns in :attr:`Features.prompts`.
        tokens: ``(B, T, Q, C)``.
        attention: ``'full'``: patches and prompts of a frame all attend to each other. ``'read_only'``: a prompt reads
            the patches and the tokens of its own item; patches never see it.
        item_size: Tokens of one item (a point has one; an object may have several); item ``i`` owns the tokens
            ``i * item_size .. (i + 1) * item_size - 1``.
        active: ``(B, T, Q)`` bool. Inactive tokens take no part in attention; their recurrent rows are cleared.
            None: all are active.
        reset: ``(B, T, Q)`` bool. True where a row starts afresh at that frame: no decayed past, input multiplier 1,
            empty convolution history. None: only the first frame of a call without state.
    """

    name: str
    tokens: Tensor
    attention: str = 'full'
    item_size: int = 1
    active: Tensor | None = None
    reset: Tensor | None = None


@dataclass
class FeatureLevel:
    """One level of dense features.

    Args:
        tokens: ``(B, T, h * w, C)`` in raster order.
        grid: ``(h, w)``.
        stride: Pixels of the model's input per token, ``(y, x)``. Token ``(i, j)`` is centred on the pixel coordinate
            ``((j + 0.5) * stride_x, (i + 0.5) * stride_y)``.
    """

    tokens: Tensor
    grid: tuple[int, int]
    stride: tuple[float, float]

    def maps(self) -> Tensor:
        """``(B, T, h, w, C)`` view of the tokens."""
        batch, time, _, channels = self.tokens.shape
        return self.tokens.view(batch, time, *self.grid, channels)


@dataclass
class Features:
    """Output of every backbone.

    Args:
        levels: Dense levels in the order of the backbone's ``out_indices``; the last one is the final, normalised one.
        class_token: ``(B, T, C)`` after the final norm, or None.
        prompts: Group name to tokens ``(B, T, Q, C)`` after the final norm.
        prompt_layers: Group name to the un-normalised tokens after each block (``depth`` tensors), when asked for.
        grey: ``(B, T, H, W)`` the model's input in grey, values in [0, 1], where a head reads it.
        video: ``(B, T, 3, H, W)`` the model's input itself, where a head reads it.
    """

    levels: tuple[FeatureLevel, ...]
    class_token: Tensor | None = None
    prompts: dict[str, Tensor] = field(default_factory=dict)
    prompt_layers: dict[str, list[Tensor]] = field(default_factory=dict)
    grey: Tensor | None = None
    video: Tensor | None = None

    def between(self, first: int, last: int) -> Features:
        """Frames ``first .. last - 1`` of these."""

        def cut(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[:, first:last]

        return Features(
            tuple(FeatureLevel(cut(level.tokens), level.grid, level.stride) for level in self.levels),
            cut(self.class_token),
            {name: cut(tokens) for name, tokens in self.prompts.items()},
            {name: [cut(layer) for layer in layers] for name, layers in self.prompt_layers.items()},
            cut(self.grey),
            cut(self.video),
        )

    def then(self, later: Features) -> Features:
        """These frames followed by those of ``later``."""

        def join(first: Tensor | None, second: Tensor | None) -> Tensor | None:
            return None if first is None else torch.cat([first, second], 1)

        levels = (
            FeatureLevel(join(a.tokens, b.tokens), a.grid, a.stride)
            for a, b in zip(self.levels, later.levels, strict=True)
        )
        return Features(
            tuple(levels),
            join(self.class_token, later.class_token),
            {name: join(tokens, later.prompts[name]) for name, tokens in self.prompts.items()},
            {
                name: [join(a, b) for a, b in zip(layers, later.prompt_layers[name], strict=True)]
                for name, layers in self.prompt_layers.items()
            },
            join(self.grey, later.grey),
            join(self.video, later.video),
        )
