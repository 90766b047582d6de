"""Every metric of the package, for the registry and for ``from trecvit_dense.evaluation import ...``."""

from .depth_metric import DepthMetric
from .mask_metric import MaskMetric
from .pixel_metrics import RecallMetric, ReconstructionMetric
from .tapvid_metric import TapVidMetric
from .track_metrics import AJRDMetric, PointOdysseyMetric

__all__ = [
    'AJRDMetric',
    'DepthMetric',
    'MaskMetric',
    'PointOdysseyMetric',
    'RecallMetric',
    'ReconstructionMetric',
    'TapVidMetric',
]
