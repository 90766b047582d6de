"""Building blocks: plain ``nn.Module`` and functions, free of any framework."""

from .attention import MLP, Attention, SpatialBlock
from .causal_conv import CausalConv
from .chunked_recurrence import combine_chunks, summarise_chunk
from .drop_path import DropPath
from .embedding import ConvStem, LearnedPosition, PatchEmbed, SinCosPosition, interpolate_table, lecun_normal_, sincos2d
from .linear_recurrence import linear_recurrence, use_backend
from .recurrent_block import GatedMLP, RecurrentBlock, RMSNorm
from .rg_lru import RGLRU, BlockDiagonalLinear

__all__ = [
    'MLP',
    'RGLRU',
    'Attention',
    'BlockDiagonalLinear',
    'CausalConv',
    'ConvStem',
    'DropPath',
    'GatedMLP',
    'LearnedPosition',
    'PatchEmbed',
    'RMSNorm',
    'RecurrentBlock',
    'SinCosPosition',
    'SpatialBlock',
    'combine_chunks',
    'interpolate_table',
    'lecun_normal_',
    'linear_recurrence',
    'sincos2d',
    'summarise_chunk',
    'use_backend',
]
