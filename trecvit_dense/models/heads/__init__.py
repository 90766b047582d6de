"""Decoder heads; one file each."""

from .attentive_probe import AttentiveProbe
from .base import DepthOutput, Head, MaskOutput, PointOutput
from .classification import ClassificationHead
from .cost_volume import CostVolumePointHead
from .depth import DPTDepthHead
from .frame_recall import FrameRecall
from .label_propagation import LabelPropagationHead
from .mask_slots import MaskHead
from .masked_autoencoder import MaskedAutoencoderHead
from .mobile_former_classifier import MobileFormerClassifier
from .object_tokens import ObjectTokenHead
from .regression import RegressionHead
from .tapnext import TAPNextHead
from .temporal_aggregation import TemporalAggregationHead

__all__ = [
    'AttentiveProbe',
    'ClassificationHead',
    'CostVolumePointHead',
    'DPTDepthHead',
    'DepthOutput',
    'FrameRecall',
    'Head',
    'LabelPropagationHead',
    'MaskHead',
    'MaskOutput',
    'MaskedAutoencoderHead',
    'MobileFormerClassifier',
    'ObjectTokenHead',
    'PointOutput',
    'RegressionHead',
    'TAPNextHead',
    'TemporalAggregationHead',
]
