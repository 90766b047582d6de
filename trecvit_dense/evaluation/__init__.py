"""Metrics: pure numpy in ``functional``, MMEngine wrappers beside it, and the table that the tools print."""

from .table import format_table
from .tapvid_metric import TapVidMetric
from .track_metrics import AJRDMetric, PointOdysseyMetric

__all__ = ['AJRDMetric', 'PointOdysseyMetric', 'TapVidMetric', 'format_table']
