"""How a backbone that looks both ways in time answers a stream: every frame from the frames that end with it.

A model that is not causal has no state from which it could go on. It streams by being run again for every frame, on a
window of the last W frames: W times the work of one clip, but a step, a clip and any chunks of it give the same
numbers, and the memory between two calls is W - 1 frames, however long the video.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trecvit_dense.structures import FeatureLevel, Features, RecurrentState

ClipFeatures = Callable[[Tensor], Features]


class SlidingWindow:
    """Runs a clip model over windows of W frames, or once over a whole clip.

    Before the first frame of a video nothing is known: there the first frame stands in, repeated.

    State:

    - ``window`` ``(B, W - 1, 3, H, W)``: the last frames, as they were given; full from the first call on,
    - ``seen`` ``(B,)`` int64: frames so far. A row where it is 0 starts afresh.

    Args:
        frames: W. None: every call is one whole clip. Then the state holds ``seen`` alone, so that going on from it is
            refused instead of being taken for another clip.

    Raises:
        ValueError: W is below 1.
    """

    def __init__(self, frames: int | None) -> None:
        if frames is not None and frames < 1:
            raise ValueError(f'window is {frames}; wanted a number of frames from 1 up, or None for whole clips')
        self.frames = frames

    def __call__(
        self, clip_features: ClipFeatures, video: Tensor, state: RecurrentState | None
    ) -> tuple[Features, RecurrentState]:
        """Features of the T frames of a video that goes on where ``state`` ends.

        Args:
            clip_features: ``(B, W, 3, H, W)`` to features of all W frames.
            video: ``(B, T, 3, H, W)``.
            state: From the frames before; None or empty starts afresh. It is left as it was.

        Raises:
            ValueError: no frames; a state of other sizes; a state where whole clips are wanted.
        """
        if video.ndim != 5 or not video.shape[1]:
            raise ValueError(f'video has shape {tuple(video.shape)}; wanted (B, T, 3, H, W) with at least one frame')
        batch, time = video.shape[:2]
        if self.frames is None:
            if state:
                raise ValueError(
                    'this backbone looks both ways in time and was built for whole clips, so it cannot go on from a '
                    'state; give the clip in one call and not in chunks of chunk_frames, or set window=W in its config '
                    'to stream'
                )
            seen = torch.full((batch,), time, dtype=torch.int64, device=video.device)
            return clip_features(video), RecurrentState(seen=seen)
        frames = torch.cat([self._past(video, state), video], dim=1)  # (B, W - 1 + T, 3, H, W)
        found = [last_frame(clip_features(frames[:, step : step + self.frames])) for step in range(time)]
        seen = video.new_zeros(batch, dtype=torch.int64) if not state else state['seen']
        return join_frames(found), RecurrentState(window=frames[:, time:].clone(), seen=seen + time)

    def _past(self, video: Tensor, state: RecurrentState | None) -> Tensor:
        """``(B, W - 1, 3, H, W)`` frames before those of ``video``."""
        first = video[:, :1].expand(-1, self.frames - 1, -1, -1, -1)
        if not state:
            return first
        past = state.get('window')
        if past is None or past.shape != first.shape:
            shape = None if past is None else tuple(past.shape)
            raise ValueError(
                f"state 'window' has shape {shape}, this call needs {tuple(first.shape)}; batch, frame size and window "
                f'must stay as they were when the state was made'
            )
        fresh = (state['seen'] == 0)[:, None, None, None, None]
        return torch.where(fresh, first, past.to(video.dtype))


def last_frame(features: Features) -> Features:
    """The last frame of ``features``, without what prompts and heads added."""
    levels = tuple(FeatureLevel(level.tokens[:, -1:], level.grid, level.stride) for level in features.levels)
    return Features(levels, None if features.class_token is None else features.class_token[:, -1:])


def join_frames(parts: list[Features]) -> Features:
    """Features of consecutive frames as one; in one go, where :meth:`Features.then` copies at every frame."""
    first = parts[0]
    levels = tuple(
        FeatureLevel(torch.cat([part.levels[index].tokens for part in parts], dim=1), level.grid, level.stride)
        for index, level in enumerate(first.levels)
    )
    token = None if first.class_token is None else torch.cat([part.class_token for part in parts], dim=1)
    return Features(levels, token)
