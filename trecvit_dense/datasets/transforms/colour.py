"""Photometric augmentation: one colour for the clip, small changes from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from trecvit_dense.registry import TRANSFORMS
from trecvit_dense.structures import VideoSample

_TO_GREY = np.array([0.299, 0.587, 0.114])


@TRANSFORMS.register_module()
class ColorJitter:
    """Brightness, contrast, saturation and hue, drawn per clip and, smaller, per frame; geometry is untouched.

    Args:
        brightness, contrast, saturation: Greatest relative change: 0.3 draws factors in [0.7, 1.3].
        hue: Greatest turn, as a share of the colour circle.
        per_frame: Size of the changes from frame to frame, as a share of those of the clip.
        grey: Probability of a black and white clip.
        p: Probability of any change.
    """

    def __init__(
        self,
        *,
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.4,
        hue: float = 0.08,
        per_frame: float = 0.1,
        grey: float = 0.05,
        p: float = 0.8,
    ) -> None:
        for name, value in dict(
            brightness=brightness, contrast=contrast, saturation=saturation, grey=grey, p=p
        ).items():
            if not 0 <= value <= 1:
                raise ValueError(f'ColorJitter: {name} is {value}; wanted a number in [0, 1]')
        self.limits = np.array([brightness, contrast, saturation, hue])
        self.per_frame, self.grey, self.p = per_frame, grey, p

    def __call__(self, sample: VideoSample, rng: np.random.Generator) -> VideoSample:
        if rng.random() >= self.p:
            return sample
        changes = rng.uniform(-1, 1, 4) + self.per_frame * rng.uniform(-1, 1, (sample.num_frames, 4))
        changes = changes * self.limits  # (T, 4)
        if rng.random() < self.grey:
            changes[:, 2] = -1
        mean = float(sample.video[0].mean())
        frames = [cv2.transform(frame, colour_matrix(*c, mean)) for frame, c in zip(sample.video, changes, strict=True)]
        return replace(sample, video=np.stack(frames))


def colour_matrix(brightness: float, contrast: float, saturation: float, hue: float, mean: float) -> np.ndarray:
    """``(3, 4)`` affine map of RGB: hue about the grey axis, then saturation, contrast about ``mean``, brightness.

    Args:
        brightness, contrast, saturation: Relative changes, 0 for none.
        hue: Turn as a share of the circle.
        mean: Level in [0, 255] that contrast leaves alone.
    """
    cosine, sine = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis)  # Rodrigues
    grey = np.tile(_TO_GREY, (3, 1))
    linear = (1 + contrast) * ((1 + saturation) * np.eye(3) - saturation * grey) @ turn
    offset = np.full((3, 1), -contrast * mean)
    return (1 + brightness) * np.concatenate([linear, offset], axis=1)
