"""Attention for use: torch's fused kernel, or products of a few heads at a time, whichever is faster for a shape.

The fused kernel never holds all weights, and its products are small. As two products over all heads attention waits
for memory: 12 heads of 1280 tokens have 79 MB of weights. Some heads at a time, or some queries of one head, stay in
the cache, and in bfloat16 they take less time than the fused kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trecvit_dense.models.layers.attention import attend

from .fast_kernels import WORTH_IT, measure, watched

_PART_BYTES = 8 << 20  # of the weights that are held at once; 4 and 16 MB: within a tenth, 1 MB: a third slower
_MEASURED = 4  # of a batch of frames, the part that is measured
Shape = tuple[object, ...]


class FastAttend:
    """Stands in for :func:`~trecvit_dense.models.layers.attention.attend` of one module; same arguments and result.

    Args:
        seconds: Shape to the seconds of each way; filled as shapes come.
    """

    def __init__(self, seconds: dict[Shape, dict[str, float]]) -> None:
        self.seconds = seconds

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, fused: bool) -> Tensor:
        graded = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
        if not fused or graded or query.device.type != 'cpu' or not query.numel() or watched():
            return attend(query, key, value, mask=mask, fused=fused)
        shape = (*query.shape[1:], key.shape[2], len(query) > 1, query.dtype, mask is not None, torch.get_num_threads())
        if shape not in self.seconds:
            few = [part[:_MEASURED] for part in (query, key, value)]
            few_mask = mask if mask is None else mask[:_MEASURED]
            ways = {'fused': attend, 'products': attend_in_parts}
            calls = {name: lambda way=way: way(*few, mask=few_mask) for name, way in ways.items()}
            self.seconds[shape] = measure(calls)
        seconds = self.seconds[shape]
        faster = attend_in_parts if seconds['products'] < WORTH_IT * seconds['fused'] else attend
        return faster(query, key, value, mask=mask)


def attend_in_parts(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, part_bytes: int = _PART_BYTES
) -> Tensor:
    """:func:`~trecvit_dense.models.layers.attention.attend` by products of some heads, or some queries, at a time.

    Not for training: nothing is kept for a backward pass.

    Args:
        query, key, value: ``(B, heads, N, d)`` and ``(B, heads, M, d)``, the latter two.
        mask: ``(B or 1, heads or 1, N or 1, M)`` bool, True where a query may look; None: everywhere.
        part_bytes: About how much the weights of a part may take.

    Returns:
        ``(B, heads, N, d)`` in the dtype of ``value``, laid out as ``(B, N, heads, d)``.
    """
    batch, heads, rows, width = query.shape
    out = query.new_empty(batch, rows, heads, width).transpose(1, 2)
    scaled, turned = query * width**-0.5, key.transpose(-1, -2)
    if mask is not None:
        mask = mask.expand(batch, heads, rows, key.shape[2])
    for item in range(batch):
        for some, part in _parts(heads, rows, key.shape[2] * query.element_size(), part_bytes):
            weights = scaled[item, some, part] @ turned[item, some]
            if mask is not None:
                weights.masked_fill_(~mask[item, some, part], float('-inf'))
            torch.softmax(weights, -1, out=weights)
            torch.matmul(weights, value[item, some], out=out[item, some, part])
    return out


def _parts(heads: int, rows: int, row_bytes: int, part_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Heads and queries whose weights take about ``part_bytes``: whole heads if one of them fits."""
    heads_each = max(part_bytes // (rows * row_bytes), 1)
    rows_each = rows if heads_each > 1 else max(part_bytes // row_bytes, 1)
    for head in range(0, heads, heads_each):
        for row in range(0, rows, rows_each):
            yield slice(head, head + heads_each), slice(row, row + rows_each)
