"""Video in, video and tracks out, a frame at a time."""

from .atomic import atomic_path
from .frame_source import FrameSource, VideoError
from .track_writer import TrackWriter
from .video_writer import VideoWriter

__all__ = ['FrameSource', 'TrackWriter', 'VideoError', 'VideoWriter', 'atomic_path']
