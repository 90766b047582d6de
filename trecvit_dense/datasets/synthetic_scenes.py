"""The embedded dataset for depth: ray-cast 3-D scenes with exact depth, poses, tracks and masks, made on the fly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..registry import DATASETS
from ..structures import VideoSample
from .procedural_base import SPLITS, ProceduralDataset, check_at_least, check_clip, check_strengths
from .scenes import CLASSES, SceneSpec, render_scene_clip


@DATASETS.register_module()
class SyntheticSceneDataset(ProceduralDataset):
    """Endless video of furnished rooms and open ground, seen by a hand-held camera; some solids move.

    Items are named and drawn as those of :class:`~trecvit_dense.datasets.SyntheticVideoDataset`, and the options that
    both have mean the same. ``depth`` holds depth along the optical axis at the centres of pixels, intrinsics
    ``(T, 3, 3)`` and poses ``(T, 4, 4)``; the sky has no depth. ``points`` are fixed to surfaces, moving ones included,
    and visible where a ray meets that surface first. ``masks`` holds every piece of furniture, every small thing and
    every moving solid; walls, floor and what hangs on walls are background. Intrinsics are constant within a clip.

    Args:
        length: Clips per epoch.
        size: ``(H, W)`` pixels.
        num_frames: Frames per clip.
        num_points: Tracks per clip.
        seed: Another seed gives other clips.
        split: ``'train'``, ``'val'`` or ``'test'``; no clip, and no texture, of one can occur in another.
        num_objects: Fewest and most objects, both included; fewer where there is no room left.
        motion: Multiplies every speed (objects and camera); 0 gives a still picture.
        camera: Multiplies the camera's speed alone; 0 stands still.
        photometric: Odds and strength of light change, blur, noise and compression, 0 for clean renders.
        indoor: Share of clips in rooms; the others are in the open.
        movers: Share of clips with moving solids.
        travel: Share of the camera's speed that is walked, the rest is turned; None: any share, and a clip in twenty
            stands still. Only a camera that goes somewhere shows depth by motion.
        query_mode: ``'first'`` asks for a point on its first visible frame, ``'random'`` on any visible one. None:
            random for train, first otherwise.
        object_fraction: Share of points picked on objects rather than on the background.
        reference_frames: Clips shorter than this are sampled at a lower frame rate, so that points travel as far as in
            a clip of this length. None: the same speed per frame at any length.
        num_targets: Fewest and most objects that a clip asks for in segmentation; the others become background in
            ``masks`` and stay in the picture. None: ``masks`` holds every object.
        pipeline: Transforms, configs or callables ``(sample, rng) -> sample``, applied in order.

    Raises:
        ValueError: a value is out of range; the message says which.
    """

    classes = CLASSES

    def __init__(
        self,
        length: int = 1000,
        size: tuple[int, int] = (96, 128),
        *,
        num_frames: int = 8,
        num_points: int = 64,
        seed: int = 0,
        split: str = 'train',
        num_objects: tuple[int, int] = (6, 32),
        motion: float = 1.0,
        camera: float = 1.0,
        photometric: float = 1.0,
        indoor: float = 0.75,
        movers: float = 0.4,
        travel: float | None = None,
        query_mode: str | None = None,
        object_fraction: float = 0.6,
        reference_frames: int | None = 24,
        num_targets: tuple[int, int] | None = None,
        pipeline: Sequence[dict | Callable] | None = None,
    ) -> None:
        super().__init__(
            'scene',
            length,
            seed=seed,
            split=split,
            num_objects=num_objects,
            num_targets=num_targets,
            pipeline=pipeline,
        )
        check_at_least(1, num_frames=num_frames, num_points=num_points)
        check_strengths(motion=motion, camera=camera, photometric=photometric)
        query_mode = check_clip(size, query_mode, split)
        shares = dict(indoor=indoor, movers=movers, object_fraction=object_fraction, travel=travel or 0)
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f'{name} is {value}; wanted a share from 0 to 1')
        self.spec = SceneSpec(
            size=tuple(size),
            num_frames=num_frames,
            num_points=num_points,
            num_objects=tuple(num_objects),
            motion=motion,
            camera=camera,
            photometric=photometric,
            indoor=indoor,
            movers=movers,
            travel=travel,
            query_mode=query_mode,
            object_fraction=object_fraction,
            reference_frames=reference_frames,
            split=SPLITS.index(split),
        )

    def render(self, rng: np.random.Generator) -> VideoSample:
        """One clip, a pure function of ``rng``."""
        return render_scene_clip(rng, self.spec)
