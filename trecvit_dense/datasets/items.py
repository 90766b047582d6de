"""What every data set does alike: from an index to its random numbers, and through the pipeline to the item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import get_worker_info

from ..registry import TRANSFORMS
from ..structures import VideoSample


def build_pipeline(steps: Sequence[dict | Callable] | None) -> list[Callable]:
    """Transforms ``(sample, rng) -> sample`` from configs or callables."""
    return [TRANSFORMS.build(step) if isinstance(step, dict) else step for step in steps or ()]


def run_pipeline(pipeline: Sequence[Callable], sample: VideoSample, rng: np.random.Generator) -> VideoSample:
    """``sample`` after all transforms, in order."""
    for transform in pipeline:
        sample = transform(sample, rng)
    return sample


def place_of(index: int, length: int, *, once: str | None = None) -> tuple[int, int]:
    """Pass over the data and place in it of item ``place + length * draw``.

    Args:
        once: There is one pass alone: what the items of it are called.

    Raises:
        IndexError: a negative index, or one behind the only pass.
    """
    if index < 0:
        raise IndexError(f'index is {index}; wanted 0 or more')
    draw, place = divmod(int(index), length)
    if draw and once is not None:
        raise IndexError(f'index is {index}; there are {length} {once}')
    return draw, place


def one_thread_in_workers() -> None:
    """OpenCV in a loader's worker takes one thread; more only fight each other."""
    if get_worker_info() is not None:
        cv2.setNumThreads(0)


def video_item(sample: VideoSample) -> dict[str, Any]:
    """The item of one sample; ``inputs`` shares the memory of ``sample.video``, of which a long clip has little."""
    return dict(inputs=torch.from_numpy(np.ascontiguousarray(sample.video)).permute(0, 3, 1, 2), data_samples=sample)
