"""Video in; video, tracks, masks, depth and point clouds out, a frame at a time.

What is named here is imported when it is asked for: whoever reads masks alone need not wait for the video libraries.
"""

import importlib
from typing import Any

_HOMES = {
    'DepthNpzWriter': 'depth_writer',
    'DepthPngWriter': 'depth_writer',
    'FrameSource': 'frame_source',
    'MaskWriter': 'mask_file',
    'PlyWriter': 'point_cloud',
    'TrackWriter': 'track_writer',
    'VideoError': 'frame_source',
    'VideoWriter': 'video_writer',
    'atomic_path': 'atomic',
    'read_intrinsics': 'intrinsics',
    'read_mask': 'mask_file',
    'read_saved_depth': 'depth_writer',
    'write_mask': 'mask_file',
    'write_ply': 'point_cloud',
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
