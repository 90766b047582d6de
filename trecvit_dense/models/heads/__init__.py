"""Decoder heads; one file each."""

from .base import DepthOutput, Head, MaskOutput, PointOutput
from .classification import ClassificationHead
from .cost_volume import CostVolumePointHead
from .depth import DPTDepthHead
from .label_propagation import LabelPropagationHead
from .mask_slots import MaskHead
from .masked_autoencoder import MaskedAutoencoderHead
from .object_tokens import ObjectTokenHead
from .tapnext import TAPNextHead
from .temporal_aggregation import TemporalAggregationHead

__all__ = [
    'ClassificationHead',
    'CostVolumePointHead',
    'DPTDepthHead',
    'DepthOutput',
    'Head',
    'LabelPropagationHead',
    'MaskHead',
    'MaskOutput',
    'MaskedAutoencoderHead',
    'ObjectTokenHead',
    'PointOutput',
    'TAPNextHead',
    'TemporalAggregationHead',
]
