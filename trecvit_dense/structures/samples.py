"""Annotations of one video.

Coordinates are ``xy`` in pixels of the frame; the centre of pixel ``(i, j)`` is ``(j + 0.5, i + 0.5)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class PointTracks:
    """N points over T frames.

    Args:
        xy_px: ``(N, T, 2)`` float, x then y, pixels of the frame.
        visible: ``(N, T)`` bool.
        query_txy: ``(N, 3)`` float, frame index, x, y: where each point was asked for. None when nothing was asked yet.
        group: ``(N,)`` int, the annotated track that a query came from (strided queries repeat tracks). None: its own.
        ids: ``(N,)`` int, stable identities in a live session. None: its own.
    """

    xy_px: np.ndarray
    visible: np.ndarray
    query_txy: np.ndarray | None = None
    group: np.ndarray | None = None
    ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.xy_px.ndim != 3 or self.xy_px.shape[-1] != 2:
            raise ValueError(f'xy_px has shape {self.xy_px.shape}; wanted (N, T, 2)')
        if self.visible.shape != self.xy_px.shape[:2]:
            raise ValueError(f'visible has shape {self.visible.shape}; wanted {self.xy_px.shape[:2]} as xy_px')
        if self.query_txy is not None and self.query_txy.shape != (len(self.xy_px), 3):
            raise ValueError(f'query_txy has shape {self.query_txy.shape}; wanted ({len(self.xy_px)}, 3)')

    def __len__(self) -> int:
        return len(self.xy_px)

    def scaled(self, scale_x: float, scale_y: float) -> PointTracks:
        """The same tracks in a frame resized by ``(scale_x, scale_y)``: a plain ratio, no half-pixel shift."""
        factor = np.array([scale_x, scale_y], dtype=self.xy_px.dtype)
        query = self.query_txy
        if query is not None:
            query = query * np.array([1.0, scale_x, scale_y], dtype=query.dtype)
        return PointTracks(self.xy_px * factor, self.visible, query, self.group, self.ids)


@dataclass
class ObjectMasks:
    """Instance masks as index maps.

    Args:
        labels: ``(T, H, W)`` uint8; 0 is background, ``ids`` are the objects, 255 is void. The size may differ from the
            video's: some data sets annotate at another one.
        ids: Object ids, in order.
        first_frame: Frame on which each object is given; None: frame 0 for all.
        annotated: ``(T,)`` bool, frames that carry truth; None: all do.
    """

    labels: np.ndarray
    ids: list[int]
    first_frame: list[int] | None = None
    annotated: np.ndarray | None = None


@dataclass
class DepthMap:
    """Metric depth along the optical axis: truth.

    Args:
        depth_m: ``(T, H, W)`` float32 metres. The size may differ from the video's: some cameras have two.
        valid: ``(T, H, W)`` bool.
        intrinsics: ``(3, 3)`` or ``(T, 3, 3)``, in pixels of ``depth_m``.
        camera_to_world: ``(T, 4, 4)``; camera axes are x right, y down, z forward.
    """

    depth_m: np.ndarray
    valid: np.ndarray
    intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None


@dataclass
class DepthPrediction:
    """What a model says about depth.

    Args:
        values: ``(T, H, W)`` float32, size of the video.
        kind: ``'disparity'``: one over depth, but for an unknown scale and shift; ``'depth'``: metres.
        confidence: ``(T, H, W)`` float32 in (0, 1), or None.
    """

    values: np.ndarray
    kind: str = 'disparity'
    confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.kind not in ('disparity', 'depth'):
            raise ValueError(f"kind is '{self.kind}'; wanted 'disparity' or 'depth'")
        if self.values.ndim != 3:
            raise ValueError(f'values have shape {self.values.shape}; wanted (T, H, W)')


ANNOTATIONS = ('points', 'masks', 'depth')  # fields of a sample, and names of tasks


@dataclass
class VideoSample:
    """One video with whatever is known about it: what a dataset yields and a metric receives.

    Args:
        video: ``(T, H, W, 3)`` uint8 RGB.
        points, masks, depth: Annotations, or None.
        label: Class index, or None.
        name: Identity in reports.
        meta: Anything else (fps, original size, query mode); plain Python values.
        predictions: Filled by the model, by task: ``{'points': PointTracks, ...}`` in pixels of ``video``.
    """

    video: np.ndarray
    points: PointTracks | None = None
    masks: ObjectMasks | None = None
    depth: DepthMap | None = None
    label: int | None = None
    name: str = ''
    meta: dict = field(default_factory=dict)
    predictions: dict = field(default_factory=dict)

    @property
    def annotated(self) -> list[str]:
        """Which of :data:`ANNOTATIONS` are known."""
        return [kind for kind in ANNOTATIONS if getattr(self, kind) is not None]

    @property
    def num_frames(self) -> int:
        return len(self.video)

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` pixels."""
        return self.video.shape[1:3]
