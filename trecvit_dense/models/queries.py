"""What a sample asks of a model, by task: its point queries and object masks as a head's ``begin`` takes them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trecvit_dense.models.layers.mask_matching import cover
from trecvit_dense.structures import ObjectMasks, VideoSample


def point_queries(samples: list[VideoSample], scale: tuple[float, float], device: torch.device) -> dict[str, Tensor]:
    """Queries of a batch, padded to one length, in model pixels.

    Raises:
        ValueError: a sample without queries.
    """
    for sample in samples:
        if sample.points is None or sample.points.query_txy is None:
            raise ValueError(f"the model has a points head, but sample '{sample.name}' has no point queries")
    count = max(len(sample.points) for sample in samples)
    query = torch.zeros(len(samples), count, 3)
    valid = torch.zeros(len(samples), count, dtype=torch.bool)
    for row, sample in enumerate(samples):
        points = sample.points.scaled(*scale)
        query[row, : len(points)] = torch.from_numpy(np.ascontiguousarray(points.query_txy)).float()
        valid[row, : len(points)] = True
    return dict(query_txy=query.to(device), valid=valid.to(device))


def first_frames(masks: ObjectMasks) -> list[int]:
    """Frame on which each object is given."""
    return list(masks.first_frame) if masks.first_frame is not None else [0] * len(masks.ids)


def fit_masks(masks: Tensor, size: tuple[int, int], scale: tuple[float, float], input_size: tuple[int, int]) -> Tensor:
    """Masks of a sample to the model's input: reduced by area, enlarged bilinearly, padded with nothing.

    Args:
        masks: ``(N, H', W')`` float; their size may differ from the video's.
        size: ``(H, W)`` of the video.
        scale: Model-input pixels per video pixel, ``(x, y)``.
        input_size: ``(h, w)`` of the model input, padding included.
    """
    inner = min(round(size[0] * scale[1]), input_size[0]), min(round(size[1] * scale[0]), input_size[1])
    if tuple(masks.shape[-2:]) != inner:
        masks = F.interpolate(masks[None], inner, mode='bilinear', align_corners=False, antialias=True)[0]
    return F.pad(masks, (0, input_size[1] - inner[1], 0, input_size[0] - inner[0]))


def object_queries(
    samples: list[VideoSample], scale: tuple[float, float], input_size: tuple[int, int], device: torch.device
) -> dict[int, dict[str, Tensor]]:
    """The given masks of a batch by the frame they belong to: ``masks (B, K, h, w)`` and ``rows (B, K)``.

    Nothing else of the annotation is looked at.

    Raises:
        ValueError: a sample without masks.
    """
    for sample in samples:
        if sample.masks is None:
            raise ValueError(f"the model has a masks head, but sample '{sample.name}' has no object masks")
    count = max(len(sample.masks.ids) for sample in samples)
    found: dict[int, dict[str, Tensor]] = {}
    for row, sample in enumerate(samples):
        for slot, (identity, frame) in enumerate(zip(sample.masks.ids, first_frames(sample.masks), strict=True)):
            if frame not in found:
                found[frame] = dict(
                    masks=torch.zeros(len(samples), count, *input_size),
                    rows=torch.zeros(len(samples), count, dtype=torch.bool),
                )
            mask = torch.from_numpy(sample.masks.labels[frame] == identity).float()[None]
            found[frame]['masks'][row, slot] = fit_masks(mask, sample.size, scale, input_size)[0]
            found[frame]['rows'][row, slot] = True
    found.setdefault(
        0, dict(masks=torch.zeros(len(samples), count, *input_size), rows=torch.zeros(len(samples), count) > 0)
    )
    return {frame: {key: part.to(device) for key, part in found[frame].items()} for frame in sorted(found)}


def object_targets(
    samples: list[VideoSample], scale: tuple[float, float], input_size: tuple[int, int], stride: int
) -> tuple[Tensor, Tensor]:
    """Truth of a batch for training.

    Returns:
        ``(B, T, K, h, w)`` share of each cell that the object covers, and ``(B, T, h, w)`` bool, cells that have truth:
        inside the frame, not void, on an annotated frame.
    """
    count, time = max(len(sample.masks.ids) for sample in samples), samples[0].num_frames
    shares, known = [], []
    for sample in samples:
        labels = torch.from_numpy(sample.masks.labels)  # (T, H, W)
        ids = torch.tensor([*sample.masks.ids, *[-1] * (count - len(sample.masks.ids))])  # padding matches nothing
        masks = (labels[:, None] == ids.view(-1, 1, 1)).float()
        there = (labels != 255).float()[:, None]
        if sample.masks.annotated is not None:
            there = there * torch.from_numpy(sample.masks.annotated).view(-1, 1, 1, 1)
        both = fit_masks(torch.cat([masks, there], 1).flatten(0, 1), sample.size, scale, input_size)
        both = cover(both, stride).unflatten(0, (time, count + 1))
        shares.append(both[:, :-1])
        known.append(both[:, -1] > 0.999)
    return torch.stack(shares), torch.stack(known)
