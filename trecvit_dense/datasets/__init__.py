"""One adapter per dataset; each yields VideoSample. ``synthetic`` is the embedded default."""

from .burst import BURSTDataset
from .coco_clips import CocoClipsDataset
from .davis import DAVISDataset
from .lvos import LVOSDataset
from .masks_folder import MaskFolderDataset
from .mixture import MixtureDataset
from .mose import MOSEDataset
from .perception_test import PerceptionTestPoints
from .point_odyssey import PointOdysseyDataset
from .rgbd_depth import RGBDDepthDataset
from .rgbd_points import RGBDPointsDataset
from .synthetic import SyntheticVideoDataset
from .synthetic_scenes import SyntheticSceneDataset
from .tapvid import TapVidDataset
from .youtube_vos import YouTubeVOSDataset

__all__ = [
    'BURSTDataset',
    'CocoClipsDataset',
    'DAVISDataset',
    'LVOSDataset',
    'MOSEDataset',
    'MaskFolderDataset',
    'MixtureDataset',
    'PerceptionTestPoints',
    'PointOdysseyDataset',
    'RGBDDepthDataset',
    'RGBDPointsDataset',
    'SyntheticSceneDataset',
    'SyntheticVideoDataset',
    'TapVidDataset',
    'YouTubeVOSDataset',
]
