"""What MMEngine lacks on today's torch: bf16 on any device, plain checkpoints, exact resume, gloo, clear errors."""

from .optim_wrapper import AutocastOptimWrapper

__all__ = ['AutocastOptimWrapper']
