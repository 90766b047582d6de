"""What backbones of the ViT family share: sizes by name, options that are read the same way, the position table."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from trecvit_dense.models.layers.embedding import LearnedPosition, SinCosPosition
from trecvit_dense.registry import nearest

# name: (embed_dim, depth, mlp_dim, num_heads), the ViT family of big_vision
VARIANTS: dict[str, tuple[int, int, int, int]] = {
    'mu': (32, 1, 128, 2),
    'Ti': (192, 12, 768, 3),
    'S': (384, 12, 1536, 6),
    'M': (512, 12, 2048, 8),
    'B': (768, 12, 3072, 12),
    'L': (1024, 24, 4096, 16),
    'So400m': (1152, 27, 4304, 16),
    'H': (1280, 32, 5120, 16),
    'g': (1408, 40, 6144, 16),
    'g-opt': (1536, 40, 6144, 16),
    'G': (1664, 48, 8192, 16),
    'G-opt': (1536, 48, 8192, 16),
    'e': (1792, 56, 15360, 16),
}


def find_variant(kind: str, variant: str) -> tuple[int, int, int, int]:
    """The entry of :data:`VARIANTS` for ``'B'``, ``'B/16'`` ...; ``kind`` is the backbone that asks.

    Raises:
        ValueError: there is none of this name.
    """
    name, known = variant.partition('/')[0], list(VARIANTS)
    if name not in VARIANTS:
        raise ValueError(f"'{variant}' is no {kind} variant; known: {', '.join(known)}{nearest(name, known)}")
    return VARIANTS[name]


def resolve_sizes(
    kind: str,
    variant: str | None,
    embed_dim: int | None,
    depth: int | None,
    num_heads: int | None,
    mlp_dim: int | None,
    patch_size: int | Sequence[int] | None,
) -> tuple[int, int, int, int, tuple[int, int]]:
    """``embed_dim, depth, num_heads, mlp_dim, patch_size`` of a variant such as ``'B/16'`` with overrides.

    Raises:
        ValueError: an unknown variant, or sizes that are missing or disagree.
    """
    if variant is not None:
        name, _, patch = variant.partition('/')
        width, blocks, hidden, heads = find_variant(kind, variant)
        if patch:
            if not patch.isdigit() or int(patch) < 1:
                raise ValueError(f"variant '{variant}': behind '/' stands the patch size in pixels, e.g. '{name}/16'")
            if patch_size is not None and pair(patch_size) != pair(int(patch)):
                raise ValueError(f"variant '{variant}' and patch_size {patch_size} disagree; give one of them")
            patch_size = int(patch)
        if embed_dim is None and mlp_dim is None:
            mlp_dim = hidden
        embed_dim, depth, num_heads = embed_dim or width, depth or blocks, num_heads or heads
    missing = [name for name, value in dict(embed_dim=embed_dim, depth=depth, num_heads=num_heads).items() if not value]
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing: name a variant, e.g. variant='B', or give all three")
    return embed_dim, depth, num_heads, mlp_dim or 4 * embed_dim, pair(16 if patch_size is None else patch_size)


def check_out_indices(out_indices: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Blocks that become levels, from 0; None: the final one.

    Raises:
        ValueError: they do not ascend, or do not end with the final block.
    """
    chosen = [depth - 1] if out_indices is None else [i + depth if i < 0 else i for i in out_indices]
    if not chosen or chosen != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] != depth - 1:
        raise ValueError(f'out_indices is {out_indices}; wanted ascending block numbers that end with {depth - 1}')
    return tuple(chosen)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """``(height, width)`` of either.

    Raises:
        ValueError: not positive integers.
    """
    found = (size, size) if isinstance(size, int) else tuple(size)
    if len(found) != 2 or any(not isinstance(value, int) or value < 1 for value in found):
        raise ValueError(f'{size} is no size; wanted a positive int or (height, width)')
    return found


def build_position(position: str, embed_dim: int, patch: tuple[int, int], image_size: tuple[int, int]) -> nn.Module:
    """The table of a frame's patches, ``'learned'`` for the grid of ``image_size`` or ``'sincos2d'``.

    Raises:
        ValueError: another name, or an image without a patch.
    """
    if position == 'sincos2d':
        return SinCosPosition(embed_dim)
    if position != 'learned':
        raise ValueError(f"position is '{position}'; wanted 'learned' or 'sincos2d'")
    grid = (image_size[0] // patch[0], image_size[1] // patch[1])
    if 0 in grid:
        raise ValueError(f'image_size {image_size} is smaller than one patch of {patch}; enlarge it')
    return LearnedPosition(grid, embed_dim)
