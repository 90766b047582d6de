"""Forget what a data set says where it should not be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trecvit_dense.registry import TRANSFORMS, nearest
from trecvit_dense.structures import ANNOTATIONS, VideoSample

_KINDS = (*ANNOTATIONS, 'label')


@TRANSFORMS.register_module()
class DropAnnotations:
    """Leave out annotations: in a mixture, heads learn only from the data sets that suit them.

    Args:
        kinds: Some of ``'points'``, ``'masks'``, ``'depth'``, ``'label'``.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        for kind in kinds:
            if kind not in _KINDS:
                raise ValueError(
                    f"DropAnnotations: kinds names '{kind}'; wanted some of {', '.join(_KINDS)}{nearest(kind, _KINDS)}"
                )
        self.kinds = tuple(kinds)

    def __call__(self, sample: VideoSample, rng: np.random.Generator | None = None) -> VideoSample:
        return replace(sample, **dict.fromkeys(self.kinds))
