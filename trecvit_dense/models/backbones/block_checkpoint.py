"""What a block keeps of its forward pass for the backward pass: everything, nothing, or what is dear to make again.

``'selective'`` keeps the results of matrix products, of attention and of the recurrence, and makes norms, GELUs, the
temporal convolution and products of gates again when the backward pass reaches the block. The names below are those of
torch's operators, so this holds whatever the block is made of.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

MODES = (False, 'block', 'selective')
_KEPT = frozenset(
    (
        'aten::mm',
        'aten::addmm',
        'aten::_scaled_dot_product_flash_attention',
        'aten::_scaled_dot_product_flash_attention_for_cpu',
        'aten::_scaled_dot_product_efficient_attention',
        'aten::_scaled_dot_product_cudnn_attention',
        'trecvit_dense::gated_recurrence',
    )
)


def check_mode(value: bool | str) -> bool | str:
    """One of :data:`MODES`; True is ``'block'``.

    Raises:
        ValueError: anything else.
    """
    if value is True or value in ('block', 'selective'):
        return 'block' if value is True else value
    if value is not False:
        raise ValueError(f"checkpointing is {value!r}; wanted False, True ('block') or 'selective'")
    return False


def run_block(block: Callable[..., Any], mode: bool | str, *args: Any) -> Any:
    """``block(*args)``, keeping what ``mode`` says; without gradients nothing is kept anyway."""
    if not mode or not torch.is_grad_enabled():
        return block(*args)
    if mode == 'block':
        return checkpoint(block, *args, use_reentrant=False)
    contexts = functools.partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(block, *args, use_reentrant=False, context_fn=contexts)


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    schema = getattr(operator, '_schema', None)
    kept = schema is not None and schema.name in _KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
