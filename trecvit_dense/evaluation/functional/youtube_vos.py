"""YouTube-VOS: objects of seen and of unseen categories, scored after the frame on which each is given.

Source: Xu et al., "YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark", arXiv 1809.03327, section 4. The
official scores come from a server; whether an object's first annotated frame counts there is not published. Here it
does not, because the mask of that frame is given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from .vos import ObjectScores
from .vos import summarise as summarise_davis


def group_of(category: str | None, seen: Collection[str] | None, unseen: Collection[str] | None) -> str | None:
    """``'seen'``, ``'unseen'``, or None if that is not known."""
    if category is None or (seen is None and unseen is None):
        return None
    if unseen is not None:
        return 'unseen' if category in unseen else 'seen'
    return 'seen' if category in seen else 'unseen'


def summarise(objects: Sequence[ObjectScores], *, decay: str = 'sound') -> dict[str, float]:
    """Means over all objects as in DAVIS, and by the group in ``extra['group']``.

    Returns:
        ``J&F J F`` with recall and decay; where groups are known ``J_seen F_seen J_unseen F_unseen``, and where both
        have objects ``G``, the mean of those four.
    """
    metrics = summarise_davis(objects, decay=decay)
    parts = {}
    for group in ('seen', 'unseen'):
        chosen = [scores for scores in objects if scores.extra.get('group') == group]
        for measure in 'JF' if chosen else '':
            parts[f'{measure}_{group}'] = float(np.mean([getattr(scores, measure).mean() for scores in chosen]))
    overall = {'G': float(np.mean(list(parts.values())))} if len(parts) == 4 else {}
    return {**overall, **metrics, **parts}
