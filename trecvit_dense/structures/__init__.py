"""The nouns of the framework: shapes and units are defined here, once."""

from .features import FeatureLevel, Features, PromptGroup
from .recurrent_state import RecurrentState
from .samples import ANNOTATIONS, DepthMap, DepthPrediction, ObjectMasks, PointTracks, VideoSample

__all__ = [
    'ANNOTATIONS',
    'DepthMap',
    'DepthPrediction',
    'FeatureLevel',
    'Features',
    'ObjectMasks',
    'PointTracks',
    'PromptGroup',
    'RecurrentState',
    'VideoSample',
]
