"""The embedded dataset: procedural video with exact tracks, masks, depth and labels, made on the fly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..registry import DATASETS
from ..structures import VideoSample
from .procedural import CLASSES, ClipSpec, render_clip
from .procedural_base import ProceduralDataset, check_at_least, check_clip, check_strengths


@DATASETS.register_module()
class SyntheticVideoDataset(ProceduralDataset):
    """Endless procedural video: textured deformable layers before a moving camera.

    Item ``index + length * draw`` is clip ``index`` of pass ``draw`` over the data: a sampler that adds ``length``
    every epoch gets new clips each time, and a resumed run gets the very clips that the straight one would have got.
    Layers are flat, so depth is that of (tilted) planes: exact, but simpler than the world's.

    Args:
        length: Clips per epoch.
        size: ``(H, W)`` pixels; motion and objects scale with it.
        num_frames: Frames per clip.
        num_points: Tracks per clip.
        seed: Another seed gives other clips.
        split: ``'train'``, ``'val'`` or ``'test'``; no clip of one can occur in another.
        num_objects: Fewest and most objects, both included.
        motion: Multiplies every speed (objects and camera); 0 gives a still picture.
        camera: Multiplies the camera's speed alone.
        nonrigid: Odds and strength of deformation, 0 for rigid planes.
        photometric: Odds and strength of light change, blur, noise and compression, 0 for clean renders.
        query_mode: ``'first'`` asks for a point on its first visible frame, ``'random'`` on any visible one. None:
            random for train, first otherwise.
        object_fraction: Share of points picked on objects rather than on the background.
        reference_frames: Clips shorter than this are sampled at a lower frame rate, so that points travel as far as in
            a clip of this length (and zero motion is as bad a guess). None: the same speed per frame at any length.
        zoom: Whether the focal length may change within a clip.
        shared_surfaces: Share of clips in which objects and background are made of the same few materials, several
            each: looks alone do not tell them apart.
        num_targets: Fewest and most objects that a clip asks for in segmentation; the others become background in
            ``masks`` and stay in the picture. Only objects that show 0.2 % of the frame are asked for, at least one of
            them on frame 0, some only later. A clip without such an object is drawn again. None:
            ``masks`` holds every object.
        pipeline: Transforms, configs or callables ``(sample, rng) -> sample``, applied in order.

    Raises:
        ValueError: a value is out of range; the message says which.
    """

    classes = CLASSES

    def __init__(
        self,
        length: int = 1000,
        size: tuple[int, int] = (128, 128),
        *,
        num_frames: int = 24,
        num_points: int = 64,
        seed: int = 0,
        split: str = 'train',
        num_objects: tuple[int, int] = (3, 10),
        motion: float = 1.0,
        camera: float = 1.0,
        nonrigid: float = 1.0,
        photometric: float = 1.0,
        query_mode: str | None = None,
        object_fraction: float = 0.6,
        reference_frames: int | None = 24,
        zoom: bool = True,
        shared_surfaces: float = 0.0,
        num_targets: tuple[int, int] | None = None,
        pipeline: Sequence[dict | Callable] | None = None,
    ) -> None:
        super().__init__(
            'synthetic',
            length,
            seed=seed,
            split=split,
            num_objects=num_objects,
            num_targets=num_targets,
            pipeline=pipeline,
        )
        check_at_least(1, num_frames=num_frames, num_points=num_points)
        check_strengths(motion=motion, camera=camera, nonrigid=nonrigid, photometric=photometric)
        query_mode = check_clip(size, query_mode, split)
        self.spec = ClipSpec(
            size=tuple(size),
            num_frames=num_frames,
            num_points=num_points,
            num_objects=tuple(num_objects),
            motion=motion,
            camera=camera,
            nonrigid=nonrigid,
            photometric=photometric,
            query_mode=query_mode,
            object_fraction=object_fraction,
            reference_frames=reference_frames,
            zoom=zoom,
            shared_surfaces=shared_surfaces,
        )

    def render(self, rng: np.random.Generator) -> VideoSample:
        """One clip, a pure function of ``rng``."""
        return render_clip(rng, self.spec)
