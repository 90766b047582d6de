"""One adapter per dataset; each yields VideoSample. ``synthetic`` is the embedded default."""

from .burst import BURSTDataset
from .coco_clips import CocoClipsDataset
from .davis import DAVISDataset
from .dynamic_replica import DynamicReplicaDataset
from .kitti_depth import KITTIDepthDataset
from .lvos import LVOSDataset
from .masks_folder import MaskFolderDataset
from .mixture import MixtureDataset
from .mose import MOSEDataset
from .nyu_depth import NYUDepthDataset
from .perception_test import PerceptionTestPoints
from .point_odyssey import PointOdysseyDataset
from .point_odyssey_depth import PointOdysseyDepthDataset
from .rgbd_depth import RGBDDepthDataset
from .rgbd_points import RGBDPointsDataset
from .scannet import ScanNetDataset
from .sintel_depth import SintelDepthDataset
from .synthetic import SyntheticVideoDataset
from .synthetic_motion_classes import SyntheticMotionClassesDataset
from .synthetic_scenes import SyntheticSceneDataset
from .tapvid import TapVidDataset
from .tartanair import TartanAirDataset
from .tum_rgbd import BonnDataset, TUMRGBDDataset
from .virtual_kitti import VirtualKITTI2Dataset
from .youtube_vos import YouTubeVOSDataset

__all__ = [
    'BURSTDataset',
    'BonnDataset',
    'CocoClipsDataset',
    'DAVISDataset',
    'DynamicReplicaDataset',
    'KITTIDepthDataset',
    'LVOSDataset',
    'MOSEDataset',
    'MaskFolderDataset',
    'MixtureDataset',
    'NYUDepthDataset',
    'PerceptionTestPoints',
    'PointOdysseyDataset',
    'PointOdysseyDepthDataset',
    'RGBDDepthDataset',
    'RGBDPointsDataset',
    'ScanNetDataset',
    'SintelDepthDataset',
    'SyntheticMotionClassesDataset',
    'SyntheticSceneDataset',
    'SyntheticVideoDataset',
    'TUMRGBDDataset',
    'TapVidDataset',
    'TartanAirDataset',
    'VirtualKITTI2Dataset',
    'YouTubeVOSDataset',
]
