"""Video in, video and tracks out, a frame at a time."""

from .atomic import atomic_path
from .frame_source import FrameSource, VideoError
from .mask_file import MaskWriter, read_mask, write_mask
from .track_writer import TrackWriter
from .video_writer import VideoWriter

__all__ = [
    'FrameSource',
    'MaskWriter',
    'TrackWriter',
    'VideoError',
    'VideoWriter',
    'atomic_path',
    'read_mask',
    'write_mask',
]
