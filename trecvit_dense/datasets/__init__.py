"""One adapter per dataset; each yields VideoSample. ``synthetic`` is the embedded default."""

from .breakfast import BreakfastDataset
from .burst import BURSTDataset
from .coco_clips import CocoClipsDataset
from .coin import COINDataset
from .davis import DAVISDataset
from .dynamic_replica import DynamicReplicaDataset
from .kinetics import KineticsDataset
from .kitti_depth import KITTIDepthDataset
from .lvos import LVOSDataset
from .lvu import LVUDataset
from .masks_folder import MaskFolderDataset
from .mixture import MixtureDataset
from .mose import MOSEDataset
from .nyu_depth import NYUDepthDataset
from .perception_test import PerceptionTestPoints
from .point_odyssey import PointOdysseyDataset
from .point_odyssey_depth import PointOdysseyDepthDataset
from .repeated_clips import RepeatedClipsDataset
from .rgbd_depth import RGBDDepthDataset
from .rgbd_points import RGBDPointsDataset
from .scannet import ScanNetDataset
from .sintel_depth import SintelDepthDataset
from .something_something import SomethingSomethingDataset
from .stored_features import StoredFeatureDataset
from .synthetic import SyntheticVideoDataset
from .synthetic_motion_classes import SyntheticMotionClassesDataset
from .synthetic_scenes import SyntheticSceneDataset
from .tapvid import TapVidDataset
from .tartanair import TartanAirDataset
from .tum_rgbd import BonnDataset, TUMRGBDDataset
from .video_list import ClassFoldersDataset, VideoListDataset
from .virtual_kitti import VirtualKITTI2Dataset
from .youtube_vos import YouTubeVOSDataset

__all__ = [
    'BURSTDataset',
    'BonnDataset',
    'BreakfastDataset',
    'COINDataset',
    'ClassFoldersDataset',
    'CocoClipsDataset',
    'DAVISDataset',
    'DynamicReplicaDataset',
    'KITTIDepthDataset',
    'KineticsDataset',
    'LVOSDataset',
    'LVUDataset',
    'MOSEDataset',
    'MaskFolderDataset',
    'MixtureDataset',
    'NYUDepthDataset',
    'PerceptionTestPoints',
    'PointOdysseyDataset',
    'PointOdysseyDepthDataset',
    'RGBDDepthDataset',
    'RGBDPointsDataset',
    'RepeatedClipsDataset',
    'ScanNetDataset',
    'SintelDepthDataset',
    'SomethingSomethingDataset',
    'StoredFeatureDataset',
    'SyntheticMotionClassesDataset',
    'SyntheticSceneDataset',
    'SyntheticVideoDataset',
    'TUMRGBDDataset',
    'TapVidDataset',
    'TartanAirDataset',
    'VideoListDataset',
    'VirtualKITTI2Dataset',
    'YouTubeVOSDataset',
]
