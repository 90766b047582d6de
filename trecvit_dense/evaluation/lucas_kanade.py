"""Pyramidal Lucas-Kanade, the classic point tracker: a baseline that needs no weights and is hard to be worse than.

Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker", 2001, as OpenCV has it. A point is followed
from frame to frame; nothing brings it back once it is lost.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..structures import PointTracks, VideoSample


def lucas_kanade(
    video: np.ndarray,
    query_txy: np.ndarray,
    *,
    backward: bool = False,
    window: int = 21,
    levels: int = 3,
    max_round_trip_px: float = 2.0,
) -> PointTracks:
    """Follow points through a video.

    A point is visible until the first step that fails: the search breaks down, leads out of the frame, or, run back
    again, does not end where it started. A lost point keeps being followed, and its last position is held where the
    search breaks down.

    Args:
        video: ``(T, H, W, 3)`` uint8 RGB.
        query_txy: ``(N, 3)`` frame, x, y in px of the video; pixel centres at +0.5. A fractional frame rounds half to
            even.
        backward: Also follow each point to the frames before its query; otherwise they hold the query's position and
            are not visible.
        window: Side of the patch that is matched, px.
        levels: Pyramid levels above the full resolution.
        max_round_trip_px: Largest distance between a point and where its step leads back to.
    """
    size, num_frames = video.shape[1:3], len(video)
    query = np.asarray(query_txy, np.float64)
    start = np.clip(np.round(query[:, 0]), 0, num_frames - 1).astype(int)
    xy = np.repeat(query[:, None, 1:].astype(np.float32), num_frames, axis=1)  # (N, T, 2)
    visible = np.zeros((len(query), num_frames), bool)
    visible[np.arange(len(query)), start] = True
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in video]
    options = dict(winSize=(window, window), maxLevel=levels)
    ways = [(range(num_frames - 1), 1)]
    if backward:
        ways.append((range(num_frames - 1, 0, -1), -1))
    for frames, turn in ways:
        for now in frames:
            then = now + turn
            rows = np.flatnonzero((start - now) * turn <= 0)
            if not len(rows):
                continue
            moved, good = _step(grey[now], grey[then], xy[rows, now], size, max_round_trip_px, options)
            xy[rows, then], visible[rows, then] = moved, visible[rows, now] & good
    return PointTracks(xy, visible, query_txy)


def track_sample(sample: VideoSample) -> PointTracks:
    """:func:`lucas_kanade` on a sample's queries; both ways when its ``meta['query_mode']`` is ``'strided'``.

    Raises:
        ValueError: the sample has no queries.
    """
    if sample.points is None or sample.points.query_txy is None:
        raise ValueError(f"video '{sample.name}' has no points to follow; Lucas-Kanade needs a point dataset")
    tracks = lucas_kanade(sample.video, sample.points.query_txy, backward=sample.meta.get('query_mode') == 'strided')
    tracks.group = sample.points.group
    return tracks


def _step(
    here: np.ndarray,
    there: np.ndarray,
    xy: np.ndarray,
    size: tuple[int, int],
    max_round_trip_px: float,
    options: dict,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions ``(M, 2)`` on the next frame, and ``(M,)`` bool: can they be trusted?"""
    centred = np.ascontiguousarray(xy - 0.5, np.float32)[:, None]  # OpenCV counts from the centre of the first pixel
    moved, found, _ = cv2.calcOpticalFlowPyrLK(here, there, centred, None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(there, here, moved, None, **options)
    found = (found.ravel() > 0) & np.isfinite(moved).all(axis=(1, 2))
    trip = np.linalg.norm(back - centred, axis=-1)[:, 0]
    moved = np.where(found[:, None], moved[:, 0] + np.float32(0.5), xy)
    inside = (moved >= 0).all(axis=1) & (moved <= (size[1], size[0])).all(axis=1)
    return moved, found & (found_back.ravel() > 0) & (trip <= max_round_trip_px) & inside
