"""The embedded dataset of classification: clips whose class no single frame and no mean of frames tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..registry import DATASETS
from ..structures import VideoSample
from .procedural.cast import MOTION_CLASSES, CastSpec, draw_cast, render_cast
from .procedural_base import SPLITS, ProceduralDataset, check_at_least, check_clip, check_strengths


@DATASETS.register_module()
class SyntheticMotionClassesDataset(ProceduralDataset):
    """Twelve classes of motion: direction and speed, sense of rotation, order of two movements; equal odds.

    Four textured things move before a textured ground, three of them to and fro; the fourth makes the class.
    :mod:`trecvit_dense.datasets.procedural.cast` says why frames, alone or as a mean, do not tell which.
    Do not mirror or turn these clips: left and right are classes.

    Item ``index + length * draw`` is clip ``index`` of pass ``draw``, as in
    :class:`trecvit_dense.datasets.SyntheticVideoDataset`.

    Args:
        length: Clips per epoch.
        size: ``(H, W)`` pixels; motion and things scale with it.
        num_frames: Frames per clip, at least 6; a slow movement takes the whole clip, however long that is.
        seed: Another seed gives other clips.
        split: ``'train'``, ``'val'`` or ``'test'``; no clip and no texture of one can occur in another.
        motion: Multiplies the length of every way.
        shake: Multiplies the shake of the camera.
        photometric: Odds and strength of light change, blur, noise and compression, 0 for clean renders.
        clutter: Fewest and most small things that move to and fro in any direction, in all classes.
        pipeline: Transforms, configs or callables ``(sample, rng) -> sample``, applied in order.

    Raises:
        ValueError: a value is out of range; the message says which.
    """

    classes = MOTION_CLASSES

    def __init__(
        self,
        length: int = 1000,
        size: tuple[int, int] = (64, 64),
        *,
        num_frames: int = 8,
        seed: int = 0,
        split: str = 'train',
        motion: float = 1.0,
        shake: float = 1.0,
        photometric: float = 1.0,
        clutter: tuple[int, int] = (0, 3),
        pipeline: Sequence[dict | Callable] | None = None,
    ) -> None:
        if not 0 <= clutter[0] <= clutter[1] <= 100:
            raise ValueError(f'clutter is {tuple(clutter)}; wanted (fewest, most) with 0 <= fewest <= most <= 100')
        super().__init__(
            'motion', length, seed=seed, split=split, num_objects=(4, 4), num_targets=None, pipeline=pipeline
        )
        check_at_least(6, num_frames=num_frames)
        check_strengths(motion=motion, shake=shake, photometric=photometric)
        check_clip(size, None, split)
        self.metainfo = dict(dataset_name='motion_classes', classes=self.classes)
        self.spec = CastSpec(
            size=tuple(size),
            num_frames=num_frames,
            motion=motion,
            shake=shake,
            photometric=photometric,
            clutter=tuple(clutter),
            split=SPLITS.index(split),
        )

    def render(self, rng: np.random.Generator) -> VideoSample:
        """One clip, a pure function of ``rng``."""
        label = int(rng.integers(len(self.classes)))
        video = render_cast(rng, self.spec, draw_cast(rng, self.spec, label))
        return VideoSample(video=video, label=label, meta=dict(class_name=self.classes[label]))
