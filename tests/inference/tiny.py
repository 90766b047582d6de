"""Small random models: points from features alone, points that are tokens, masks by propagation, depth, and several."""

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
DEPTH = dict(type='DPTDepthHead', scales=(4, 8), widths=8, parallax=dict(window=3, points=60), confidence=True)


def tiny_config(head: str = 'volume', input_size: tuple[int, int] | None = (64, 64)) -> dict:
    """``head``: a key of HEADS, ``'masks'``, ``'depth'``, ``'metric'`` (depth in metres), ``'both'``: the cost volume
    and masks, or ``'all'``: these two and depth."""
    heads = dict(
        masks=dict(masks=MASKS),
        depth=dict(depth=DEPTH),
        metric=dict(depth=dict(DEPTH, kind='depth', confidence=False)),
        both=dict(points=HEADS['volume'], masks=MASKS),
        all=dict(points=HEADS['volume'], masks=MASKS, depth=DEPTH),
    )
    return dict(
        type='VideoPerceiver',
        data_preprocessor=dict(type='VideoPreprocessor', input_size=input_size, value_range='signed'),
        backbone=BACKBONE,
        heads=heads.get(head) or dict(points=HEADS[head]),
    )


def tiny_model(head: str = 'volume', input_size: tuple[int, int] | None = (64, 64)) -> torch.nn.Module:
    use_scope()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(tiny_config(head, input_size)).eval()
        if 'depth' in model.heads:  # an untrained head starts with a flat map
            torch.nn.init.normal_(model.heads['depth'].out[-1].weight)
        return model


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
