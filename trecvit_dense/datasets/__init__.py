"""One adapter per dataset; each yields VideoSample. ``synthetic`` is the embedded default."""

from .perception_test import PerceptionTestPoints
from .point_odyssey import PointOdysseyDataset
from .rgbd_points import RGBDPointsDataset
from .synthetic import SyntheticVideoDataset
from .tapvid import TapVidDataset

__all__ = ['PerceptionTestPoints', 'PointOdysseyDataset', 'RGBDPointsDataset', 'SyntheticVideoDataset', 'TapVidDataset']
