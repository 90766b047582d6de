"""The nouns of the framework: shapes and units are defined here, once."""

from .features import FeatureLevel, Features, PromptGroup
from .recurrent_state import RecurrentState
from .samples import DepthMap, ObjectMasks, PointTracks, VideoSample

__all__ = [
    'DepthMap',
    'FeatureLevel',
    'Features',
    'ObjectMasks',
    'PointTracks',
    'PromptGroup',
    'RecurrentState',
    'VideoSample',
]
