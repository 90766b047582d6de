"""Video in and out, a frame at a time."""

from .atomic import atomic_path
from .frame_source import FrameSource, VideoError
from .video_writer import VideoWriter

__all__ = ['FrameSource', 'VideoError', 'VideoWriter', 'atomic_path']
