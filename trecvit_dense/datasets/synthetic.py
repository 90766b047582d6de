"""The embedded dataset: procedural video with exact tracks, masks, depth and labels, made on the fly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from ..registry import DATASETS, TRANSFORMS
from ..structures import VideoSample
from .procedural import CLASSES, ClipSpec, render_clip
from .transforms.objects import SelectObjects

SPLITS = ('train', 'val', 'test')
QUERY_MODES = ('random', 'first')
_TARGETS = 1  # the stream of random numbers that picks the targets
_TRIES = 20


@DATASETS.register_module()
class SyntheticVideoDataset(Dataset):
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
        if split not in SPLITS:
            raise ValueError(f"split is '{split}'; wanted one of {SPLITS}")
        query_mode = query_mode or ('random' if split == 'train' else 'first')
        if query_mode not in QUERY_MODES:
            raise ValueError(f"query_mode is '{query_mode}'; wanted one of {QUERY_MODES}")
        for name, value, least in (
            ('length', length, 1),
            ('num_frames', num_frames, 1),
            ('num_points', num_points, 1),
            ('seed', seed, 0),
        ):
            if value < least:
                raise ValueError(f'{name} is {value}; wanted at least {least}')
        for name, value in dict(motion=motion, camera=camera, nonrigid=nonrigid, photometric=photometric).items():
            if not 0 <= value < float('inf'):
                raise ValueError(f'{name} is {value}; wanted a strength of 0 or more')
        if min(size) < 8:
            raise ValueError(f'size is {tuple(size)}; wanted at least 8 x 8 pixels')
        if not 0 <= num_objects[0] <= num_objects[1] <= 100:
            raise ValueError(
                f'num_objects is {tuple(num_objects)}; wanted (fewest, most) with 0 <= fewest <= most <= 100'
            )
        if num_targets is not None and not (1 <= num_targets[0] <= num_targets[1] and num_objects[1] > 0):
            raise ValueError(
                f'num_targets is {tuple(num_targets)} of {tuple(num_objects)} objects; wanted (fewest, most) with '
                f'1 <= fewest <= most, or none'
            )
        self.length, self.seed, self.split, self.num_targets = length, seed, split, num_targets
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
        self.pipeline = [TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline or ()]

    def __len__(self) -> int:
        return self.length

    def rng(self, index: int) -> np.random.Generator:
        """The generator from which everything about item ``index`` is drawn."""
        if index < 0:
            raise IndexError(f'index is {index}; wanted 0 or more')
        draw, clip = divmod(int(index), self.length)
        return np.random.default_rng([self.seed, draw, clip, SPLITS.index(self.split)])

    def sample(self, index: int) -> VideoSample:
        """Clip ``index``, after the pipeline."""
        rng = self.rng(index)
        if self.num_targets is None:
            return self._render(index, rng)
        # Its own generator: what a clip looks like does not depend on what is asked of it.
        choice = np.random.default_rng([*rng.bit_generator.seed_seq.entropy, _TARGETS])
        select = SelectObjects(int(choice.integers(self.num_targets[0], self.num_targets[1] + 1)))
        for _ in range(_TRIES):
            sample = select(self._render(index, rng), choice)
            if 0 in sample.masks.first_frame:
                sample.meta['frame_names'] = [f'{t:05d}' for t in range(sample.num_frames)]
                return sample
        raise ValueError(
            f'clip {index} was drawn {_TRIES} times and shows no object on its first frame; wanted more or larger '
            f'objects: num_objects is {self.spec.num_objects}'
        )

    def _render(self, index: int, rng: np.random.Generator) -> VideoSample:
        sample = render_clip(rng, self.spec)
        sample.name = f'synthetic_{self.split}_{int(index):06d}'
        for transform in self.pipeline:
            sample = transform(sample, rng)
        return sample

    def __getitem__(self, index: int) -> dict:
        """``dict(inputs=(T, 3, H, W) uint8 tensor, data_samples=VideoSample)``."""
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # one thread per worker; more only fight each other
        sample = self.sample(index)
        video = torch.from_numpy(np.ascontiguousarray(sample.video.transpose(0, 3, 1, 2)))
        return dict(inputs=video, data_samples=sample)
