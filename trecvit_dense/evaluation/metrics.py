"""Every metric of the package, for the registry and for ``from trecvit_dense.evaluation import ...``."""

from .classification_metric import ClassificationMetric
from .depth_metric import DepthMetric
from .mask_metric import MaskMetric
from .pixel_metrics import RecallMetric, ReconstructionMetric
from .regression_metric import RegressionMetric
from .tapvid_metric import TapVidMetric
from .track_metrics import AJRDMetric, PointOdysseyMetric

__all__ = [
    'AJRDMetric',
    'ClassificationMetric',
    'DepthMetric',
    'MaskMetric',
    'PointOdysseyMetric',
    'RecallMetric',
    'ReconstructionMetric',
    'RegressionMetric',
    'TapVidMetric',
]
