"""What was said of depth before, carried along and joined with what looks and motion say of a new frame.

Looks are right about shape and, on average, about size, but a view keeps its bias for as long as it lasts: the mean
over its frames is no better than one of them, and an answer that follows the mean wanders. So size is told once, what
was said is carried from frame to frame by :mod:`.motion_parallax`, and looks may change it only as far as a frame shows
what the last one did not. Motion has no unit of its own and takes the one that is carried.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trecvit_dense.structures import RecurrentState

from .motion_parallax import Parallax

_PULL = 0.02  # of looks on the level, every frame
_PULL_OF_NEW = 0.3  # and so much more where nothing of the last frame is seen
_KNOWN = 0.02  # share of the frame that has to be known for a level to count half
_USUAL_ERROR = 0.14  # of looks that do not say, in log depth
_APART = 12.0  # times the error of looks squared: disagreement with motion that halves the trust in motion
_CLASH = 0.4  # disagreement with what was said before that halves what that is worth


@dataclass(frozen=True)
class DepthFilter:
    """One answer per frame from looks, motion and the answers before it; nothing is learnt.

    Args:
        motion_share: Share of motion in relief where it is trusted and agrees with looks; 0 takes only its level.
        steadiness: Greatest share of a value that is carried over from the last frame, where it can be followed. A
            value counts as the mean of the frames that it was seen in, up to ``1 / (1 - steadiness)`` of them.

    Raises:
        ValueError: a share out of its range.
    """

    motion_share: float = 0.7
    steadiness: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.steadiness < 1:
            raise ValueError(f'steadiness is {self.steadiness}; wanted a share from 0 to below 1')
        if not 0 <= self.motion_share <= 1:
            raise ValueError(f'motion_share is {self.motion_share}; wanted a share from 0 to 1')

    def __call__(
        self, looks: Tensor, found: Parallax, state: RecurrentState, error: Tensor | None = None
    ) -> tuple[Tensor, RecurrentState]:
        """Advance by the T frames of ``looks (B, T, h, w)``, log inverse depth.

        ``error (B, T)`` is how far looks expect to be off, in log depth: the further, the more a motion counts that
        disagrees with them; None: 0.14. The state holds the last answer, ``values (B, h, w)``, and of how many frames
        each is the mean, ``frames``.
        """
        values = state.get('values', looks[:, 0])
        frames = state.get('frames', torch.zeros_like(values))
        if error is None:
            error = looks.new_full(looks.shape[:2], _USUAL_ERROR)
        answers = []
        for step, (look, off) in enumerate(zip(looks.unbind(1), error.unbind(1), strict=True)):
            values, frames = self._advance(look, off, found.at(step), values, frames)
            answers.append(values)
        return torch.stack(answers, 1), RecurrentState(values=values, frames=frames)

    def _advance(
        self, look: Tensor, off: Tensor, seen: Parallax, last: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Answer ``(B, h, w)`` and of how many frames it is the mean."""
        carried, frames = _carry(last, frames, seen, self.steadiness / (1 - self.steadiness))
        look, motion = _level(look, carried, seen)
        apart = torch.lerp(look, carried, frames / (frames + 1)) - motion
        doubt = _mean(apart.square(), seen.trust) / (_APART * off.clamp(min=0.01).square()).square()
        now = torch.lerp(look, motion, self.motion_share * seen.trust / (1 + doubt[:, None, None]))
        frames = frames / (1 + ((carried - now) / _CLASH).square())
        return torch.lerp(now, carried, frames / (frames + 1)), frames + 1


def _carry(last: Tensor, frames: Tensor, seen: Parallax, most: float) -> tuple[Tensor, Tensor]:
    """The last answer where it is now, and of how many frames it is the mean there, as far as it can be followed."""
    place = seen.source.clamp(-1, 1)
    moved = F.grid_sample(torch.stack([last, frames], 1), place, padding_mode='border', align_corners=False)
    return moved[:, 0] + seen.nearer, moved[:, 1].clamp(max=most) * seen.follows.square()


def _level(look: Tensor, carried: Tensor, seen: Parallax) -> tuple[Tensor, Tensor]:
    """Looks and motion in the unit of what was said before, as far as that is known."""
    known, followed = seen.trust.mean((1, 2)), seen.trust * seen.follows
    apart = _mean(look - seen.log_inverse, seen.trust)
    kept = _mean(carried - seen.log_inverse, followed)
    pull = _PULL + _PULL_OF_NEW * (1 - seen.follows.mean((1, 2)))
    level = torch.lerp(apart, kept, (1 - pull) * _saturate(followed.mean((1, 2))))
    look = look + (_saturate(known) * (level - apart))[:, None, None]
    return look, seen.log_inverse + level[:, None, None]


def _saturate(share: Tensor) -> Tensor:
    return share / (share + _KNOWN)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """``(B,)`` weighted mean of maps; 0 where nothing has weight."""
    return (values * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
