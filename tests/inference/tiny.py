"""Small random models: points from features alone, points that are tokens, masks by propagation, points and masks."""

from __future__ import annotations

import numpy as np
import torch

from trecvit_dense.registry import MODELS, use_scope

BACKBONE = dict(type='TRecViT', embed_dim=32, depth=2, num_heads=2, mlp_dim=64, patch_size=8, image_size=64)
HEADS = dict(
    volume=dict(type='CostVolumePointHead', channels=16, stride=4, num_levels=2, hidden_dim=16, iterations=2),
    tokens=dict(type='TAPNextHead', image_size=(64, 64), attention='read_only'),
)
MASKS = dict(type='LabelPropagationHead', stride=4, num_context=3, max_references=4)


def tiny_config(head: str = 'volume', input_size: tuple[int, int] | None = (64, 64)) -> dict:
    """``head``: a key of HEADS, ``'masks'``, or ``'both'``: the cost volume and masks."""
    points = {} if head == 'masks' else dict(points=HEADS['volume' if head == 'both' else head])
    return dict(
        type='VideoPerceiver',
        data_preprocessor=dict(type='VideoPreprocessor', input_size=input_size, value_range='signed'),
        backbone=BACKBONE,
        heads=points | (dict(masks=MASKS) if head in ('masks', 'both') else {}),
    )


def tiny_model(head: str = 'volume', input_size: tuple[int, int] | None = (64, 64)) -> torch.nn.Module:
    use_scope()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS.build(tiny_config(head, input_size)).eval()


def drifting_clip(num_frames: int = 12, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    """``(T, H, W, 3)`` uint8 noise that drifts to the left."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 255, (size[0], size[1] + num_frames, 3), dtype=np.uint8)
    return np.stack([wide[:, index : index + size[1]] for index in range(num_frames)])


def square_mask(size: tuple[int, int] = (40, 56), place: tuple[int, int] = (10, 10), side: int = 16) -> np.ndarray:
    """``(H, W)`` bool, a square whose top left pixel is at ``place`` ``(y, x)``."""
    mask = np.zeros(size, bool)
    mask[place[0] : place[0] + side, place[1] : place[1] + side] = True
    return mask
