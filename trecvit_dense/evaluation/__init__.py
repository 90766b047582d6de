"""Metrics: pure numpy in ``functional``, MMEngine wrappers beside it, and the table that the tools print.

The metrics are imported when they are asked for: the evaluator of mask files does without MMEngine and torch, which
take longer to import than it needs for a whole data set.
"""

from typing import Any

from .table import format_table

_METRICS = (
    'AJRDMetric',
    'ClassificationMetric',
    'DepthMetric',
    'MaskMetric',
    'PointOdysseyMetric',
    'RecallMetric',
    'ReconstructionMetric',
    'RegressionMetric',
    'TapVidMetric',
)
__all__ = [*_METRICS, 'format_table']


def __getattr__(name: str) -> Any:
    if name in _METRICS:
        from . import metrics

        return getattr(metrics, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
