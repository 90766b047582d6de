"""Long videos as many short clips, the way features for ViS4mer are taken from them."""

from __future__ import annotations

import numpy as np

from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import VideoSample

from .geometry import pick_frames


@TRANSFORMS.register_module()
class SpreadClips:
    """Clips that are equally spaced over the whole video, one after the other: ``num_clips * clip_frames`` frames.

    ViS4mer's program, on Breakfast and COIN: 64 clips of 32 frames. To train, it keeps ``pool`` equally spaced clips of
    each video (512 and 256) and draws 64 of them, in their order. Where a video is too short its last frame is
    repeated.

    Args:
        num_clips: Clips.
        clip_frames: Frames of each.
        pool: Equally spaced clips from which ``num_clips`` are drawn, to train; None takes them all, to test.

    Raises:
        ValueError: a number below 1, or a pool that is smaller than ``num_clips``.
    """

    def __init__(self, num_clips: int = 64, *, clip_frames: int = 32, pool: int | None = None) -> None:
        if num_clips < 1 or clip_frames < 1:
            raise ValueError(
                f'SpreadClips: num_clips {num_clips}, clip_frames {clip_frames}; wanted at least 1 of each'
            )
        if pool is not None and pool < num_clips:
            raise ValueError(f'SpreadClips: pool is {pool}; wanted at least num_clips, {num_clips}, or none')
        self.num_clips, self.clip_frames, self.pool = num_clips, clip_frames, pool

    def __call__(self, sample: VideoSample, rng: np.random.Generator | None = None) -> VideoSample:
        return pick_frames(sample, self.frames(sample.num_frames, rng))

    def frames(self, total: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """``(num_clips * clip_frames,)`` frame numbers of a video of ``total`` frames."""
        starts = np.linspace(0, max(total - self.clip_frames, 0), self.pool or self.num_clips).astype(np.int64)
        if self.pool is not None:
            starts = starts[np.sort(rng.choice(self.pool, self.num_clips, replace=False))]
        frames = starts[:, None] + np.arange(self.clip_frames)  # (clips, frames)
        return np.minimum(frames, total - 1).reshape(-1)
