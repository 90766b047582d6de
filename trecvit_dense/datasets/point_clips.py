"""What every point-tracking benchmark shares: resizing and decoding as the official readers do, and the sample."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..evaluation.functional.tapvid import sample_queries
from ..structures import PointTracks, VideoSample


def parse_resolution(resolution: int | str | Sequence[int] | None) -> tuple[int, int] | None:
    """``(H, W)`` from ``256`` or ``(H, W)``; None from None or ``'native'`` (keep the video's own size).

    Raises:
        ValueError: anything else.
    """
    if resolution in (None, 'native'):
        return None
    pair = (resolution, resolution) if isinstance(resolution, int) else resolution
    if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError(f'resolution is {resolution!r}; wanted a number of pixels, (height, width), or native')
    return pair[0], pair[1]


def resize_frame(frame: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """One ``(H, W, 3)`` uint8 frame at ``size``: Lanczos with antialiasing on bytes, as TAP-Vid's reader does."""
    if size is None or frame.shape[:2] == tuple(size):
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def stack_frames(frames: Iterable[np.ndarray], size: tuple[int, int] | None) -> tuple[np.ndarray, tuple[int, int]]:
    """``(T, H, W, 3)`` uint8 at ``size``, and the ``(H, W)`` that the frames had. Holds one full-size frame."""
    original, resized = (0, 0), []
    for frame in frames:
        original = frame.shape[:2]
        resized.append(resize_frame(frame, size))
    return np.stack(resized), (int(original[0]), int(original[1]))


def signed_video(video: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [-1, 1], the range in which the official readers yield video."""
    return video.astype(np.float32) / 255 * 2 - 1


def decode_jpeg(data: bytes, *, where: str) -> np.ndarray:
    """``(H, W, 3)`` uint8 of one encoded frame.

    Raises:
        ValueError: not an image, or truncated.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert('RGB'))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f'{where}: not a readable image of {len(data)} bytes ({" ".join(str(error).split())})'
        ) from None


def shift_kinetics_points(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Normalised points of the Kinetics csv as the published pickles hold them: half a pixel up and to the left.

    The shift is a slip of the script that built the pickles; every published number contains it.

    Args:
        points: ``(..., 2)`` x, y in 0..1.
        size: ``(H, W)`` px of the source video.
    """
    extent = np.array([size[1], size[0]])
    return (points * extent - 0.5) / extent


def check_annotation(
    points: Any, occluded: Any, num_frames: int | None, *, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised points ``(N, T, 2)`` and flags ``(N, T)`` that can be trusted.

    Points that are occluded may lie anywhere or be NaN (they become 0); visible ones must lie in the image.

    Args:
        num_frames: Frames of the video; None when it is not known yet.

    Raises:
        ValueError: wrong type, shape or range; the message says which.
    """
    if not isinstance(points, np.ndarray) or points.dtype.kind != 'f' or points.ndim != 3 or points.shape[-1] != 2:
        raise ValueError(f'{where}: points is {_describe(points)}; wanted float (points, frames, 2) with x, y in 0..1')
    if not isinstance(occluded, np.ndarray) or occluded.shape != points.shape[:2]:
        raise ValueError(f'{where}: occluded is {_describe(occluded)}; wanted bool {points.shape[:2]} as points')
    if num_frames is not None and points.shape[1] != num_frames:
        raise ValueError(f'{where}: points has {points.shape[1]} frames, the video {num_frames}; wanted the same')
    if occluded.dtype.kind not in 'biuf' or not np.isin(occluded, (0, 1)).all():
        raise ValueError(f'{where}: occluded holds values other than 0 and 1; wanted flags')
    occluded = occluded.astype(bool)
    seen = points[~occluded]
    if not np.isfinite(seen).all():
        raise ValueError(f'{where}: a visible point is not finite; mark it as occluded')
    if seen.size and (seen.min() < -0.5 or seen.max() > 1.5):
        raise ValueError(
            f'{where}: visible points run from {seen.min():.3g} to {seen.max():.3g}; wanted 0..1 '
            f'(x / width, y / height), are these pixels?'
        )
    finite = np.isfinite(points).all(axis=-1, keepdims=True)
    return np.where(finite, points, points.dtype.type(0)), occluded


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f'{value.dtype} {value.shape}'
    return 'missing' if value is None else f'a {type(value).__name__}'


def point_item(
    video: np.ndarray,
    points: np.ndarray,
    occluded: np.ndarray,
    *,
    query_mode: str,
    name: str,
    meta: dict[str, Any],
) -> dict[str, Any]:
    """The item that a dataset yields: one row of ground truth per query.

    Args:
        video: ``(T, H, W, 3)`` uint8.
        points: ``(N, T, 2)`` x, y in 0..1 of the frame.
        occluded: ``(N, T)`` bool.
        query_mode: ``'first'`` or ``'strided'``.

    Returns:
        ``inputs`` ``(T, 3, H, W)`` uint8 tensor; ``data_samples``, a VideoSample with ``points`` in px of the video.
    """
    height, width = video.shape[1:3]
    queries = sample_queries(occluded, points * np.array([width, height]), query_mode)
    tracks = PointTracks(
        xy_px=queries['target_points'],
        visible=~queries['occluded'],
        query_txy=queries['query_points'][:, [0, 2, 1]],
        group=queries['trackgroup'],
    )
    sample = VideoSample(video=video, points=tracks, name=name, meta=dict(query_mode=query_mode, **meta))
    return dict(inputs=video_tensor(video), data_samples=sample)


def video_tensor(video: np.ndarray) -> torch.Tensor:
    """``(T, 3, H, W)`` uint8 copy of ``(T, H, W, 3)``."""
    return torch.from_numpy(np.ascontiguousarray(video.transpose(0, 3, 1, 2)))
