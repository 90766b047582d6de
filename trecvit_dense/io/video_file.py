"""Video files through PyAV: exact frame numbers (also at variable frame rate) and no silent short reads.

A list of packet times is made when the file is opened, without decoding. It gives the number of frames, lets
:meth:`VideoFile.read` seek to the key frame before any frame, and exposes files that end before their index says.
"""

from __future__ import annotations

import bisect
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .frame_source import FrameSource, VideoError


class VideoFile(FrameSource):
    """One video file.

    Args:
        path: Anything that FFmpeg decodes.

    Raises:
        VideoError: not a video, only audio, empty, truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._reader: _Reader | None = None
        if path.stat().st_size == 0:
            raise VideoError(f'{path}: the file is empty (0 bytes)')
        with self._container() as (container, stream):
            self._promised = stream.frames
            self._packets = _packet_index(container, stream)
            self.fps = _mean_rate(self._packets, stream)
            self._check_complete(container.format.name, stream)
        self.num_frames = len(self._packets.pts)
        first = next(self._frames(probe=True), None)
        if first is None:
            raise VideoError(f'{path}: the video is empty: no frame could be decoded')
        self.rotation = int(round(first.rotation / 90)) * 90
        self.size = self._upright(first, 0, VideoReformatter()).shape[:2]

    def _check_complete(self, container_format: str, stream: av.VideoStream) -> None:
        found = self._packets.total
        if 'mp4' in container_format:
            # An edit list may hide frames of a sound file, so the sizes of the boxes decide, not the count of frames.
            complete, promised = _missing_bytes(self.path) == 0, f'{self._promised} frames'
        else:
            # Other formats repeat or drop frames, so their count says little: the duration decides.
            lasts, end = _promised_seconds(stream), self._packets.end * float(stream.time_base or 0)
            complete, promised = end >= lasts - max(0.1, 2 / self.fps), f'{lasts:.2f} s'
        if not complete:
            raise VideoError(f'{self.path}: truncated: it promises {promised} and holds {found} frames; copy it again')
        if not len(self._packets.pts):
            raise VideoError(f'{self.path}: the video is empty (0 frames)')

    @contextmanager
    def _container(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        try:
            container = av.open(str(self.path))
        except (av.FFmpegError, ValueError) as error:
            missing = _missing_bytes(self.path)
            reason = f'truncated: {missing} bytes are missing' if missing else 'not a video, or cut off'
            raise VideoError(f'{self.path}: {reason} ({_reason(error)})') from None
        with container:
            if not container.streams.video:
                missing = _missing_bytes(self.path)
                reason = f'truncated: {missing} bytes are missing' if missing else 'no video stream in it'
                raise VideoError(f'{self.path}: {reason} (other streams: {len(container.streams)})')
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError(f'{self.path}: its video codec is not known to this build of FFmpeg')
            stream.thread_type = 'AUTO'
            yield container, stream

    def __iter__(self) -> Iterator[np.ndarray]:
        index, reformatter = -1, VideoReformatter()
        for index, frame in enumerate(self._frames()):
            yield self._upright(frame, index, reformatter)
        if index + 1 < self.num_frames and self._promised:
            raise VideoError(f'{self.path}: {index + 1} frames decoded of {self.num_frames} promised; it is damaged')

    def _frames(self, *, seek_dts: int | None = None, probe: bool = False) -> Iterator[av.VideoFrame]:
        """Decoded frames in display order, from the start or from the key frame at ``seek_dts``."""
        count, packets = 0, self._packets
        with self._container() as (container, stream):
            if probe:
                stream.thread_type = 'NONE'  # one frame is wanted: no read-ahead
            if seek_dts is not None:
                container.seek(seek_dts, stream=stream, backward=True)
            try:
                for frame in container.decode(stream):
                    if not probe and packets.timed and frame.pts is not None and frame.pts < packets.pts[0]:
                        continue  # before the first frame that can be shown whole
                    if frame.is_corrupt and count:
                        raise VideoError(f'{self.path}: frame {count} of {len(packets.pts)} is corrupt')
                    count += 1
                    yield frame
            except av.FFmpegError as error:
                where = f'{self.path}: damaged after frame {count} of {len(packets.pts)}'
                raise VideoError(f'{where} ({_reason(error)})') from None

    def _upright(self, frame: av.VideoFrame, index: int, reformatter: VideoReformatter) -> np.ndarray:
        image = reformatter.reformat(frame, format='rgb24').to_ndarray()  # one scaler for all frames, not one each
        if self.rotation:
            image = np.ascontiguousarray(np.rot90(image, self.rotation // 90))
        if index and image.shape[:2] != self.size:
            seen, wanted = (f'{width}x{height}' for height, width in (image.shape[:2], self.size))
            raise VideoError(f'{self.path}: frame {index} has {seen} px, the first one {wanted}; all must agree')
        return image

    def read(self, index: int) -> np.ndarray:
        index = self._index(index)
        if self._reader is None or not self._reader.reaches(index):
            self.close()
            self._reader = _Reader(self, index)
        frame = self._reader.read(index)
        if frame is None and not self._reader.from_start:  # some formats seek too far
            self.close()
            self._reader = _Reader(self, index, from_start=True)
            frame = self._reader.read(index)
        if frame is None:
            raise VideoError(f'{self.path}: frame {index} of {self.num_frames} cannot be decoded')
        return self._upright(frame, index, self._reader.reformatter)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.frames.close()
            self._reader = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_reader': None}  # a decoder cannot go to another process


class _Packets(NamedTuple):
    """Times in units of the stream. ``pts`` is sorted: entry ``i`` is the time of frame ``i``."""

    pts: array
    key_pts: list[int]
    key_dts: list[int]
    total: int
    end: int
    timed: bool


def _packet_index(container: av.container.InputContainer, stream: av.VideoStream) -> _Packets:
    pts, keys, total, end, timed, first = array('q'), [], 0, 0, True, None
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue  # the flush packet at the end, or a frame that repeats the one before
            total += 1
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
            timed &= packet.pts is not None
            if packet.is_keyframe and timed:
                if not keys and pts:  # a recording that was cut between key frames: what comes before cannot be decoded
                    first, pts = packet.pts, array('q')
                keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
            if packet.is_discard or (first is not None and timed and packet.pts < first):
                continue  # decoded for others, cut away by an edit list
            pts.append(packet.pts if packet.pts is not None else total)
    except av.FFmpegError as error:
        raise VideoError(f'{container.name}: damaged after {total} frames ({_reason(error)})') from None
    keys.sort()
    ordered = array('q', sorted(pts))
    timed = timed and all(before < after for before, after in pairwise(ordered))
    return _Packets(ordered, [key[0] for key in keys], [key[1] for key in keys], total, end, timed)


def _mean_rate(packets: _Packets, stream: av.VideoStream) -> float:
    """The rate that the file states, unless the times of its frames say otherwise."""
    stated = float(stream.average_rate or stream.guessed_rate or 25)
    if not packets.timed or len(packets.pts) < 2:
        return stated
    measured = (len(packets.pts) - 1) / float((packets.pts[-1] - packets.pts[0]) * stream.time_base)
    return stated if abs(stated - measured) < 0.02 * measured else measured


def _promised_seconds(stream: av.VideoStream) -> float:
    """Duration of the stream according to its header; 0 when that does not say. Matroska has it in a tag, hh:mm:ss."""
    tag = re.fullmatch(r'(\d+):(\d+):([\d.]+)', stream.metadata.get('DURATION', '').strip())
    if tag:
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    return float(((stream.start_time or 0) + (stream.duration or 0)) * stream.time_base)


class _Reader:
    """A decoder that stands at one place of the file and moves forward."""

    def __init__(self, file: VideoFile, index: int, *, from_start: bool = False) -> None:
        self._packets = packets = file._packets
        self._next = 0  # used when packets carry no times: frames are counted from the start
        self._at = -1
        self.reformatter = VideoReformatter()
        # An open group of pictures shows frames before its key frame: those belong to the key frame before it.
        key = bisect.bisect_right(packets.key_pts, packets.pts[index]) - 1 if packets.timed else -1
        self.from_start = from_start or key <= 0
        self.frames = file._frames(seek_dts=None if self.from_start else packets.key_dts[key])

    def reaches(self, index: int) -> bool:
        """Whether going on from here costs no more than seeking: a later frame before the next key frame."""
        if index <= self._at:
            return False
        if not self._packets.timed:
            return True
        keys, pts = self._packets.key_pts, self._packets.pts
        return bisect.bisect_right(keys, pts[index]) == bisect.bisect_right(keys, pts[self._at])

    def read(self, index: int) -> av.VideoFrame | None:
        """Frame ``index``, or None when the decoder stands behind it."""
        wanted, timed = self._packets.pts[index], self._packets.timed
        for frame in self.frames:
            position, self._next = self._next, self._next + 1
            if (frame.pts == wanted) if timed else (position == index):
                self._at = index
                return frame
            if timed and frame.pts is not None and frame.pts > wanted:
                return None
        return None


def _missing_bytes(path: Path) -> int:
    """Bytes by which the boxes of an MP4 or MOV file run past its end; 0 for a whole file or another format.

    The file is a row of boxes: a length of 4 bytes (1: a longer length follows, 0: up to the end) and 4 letters
    (ISO/IEC 14496-12, section 4.2).
    """
    size, position = path.stat().st_size, 0
    with path.open('rb') as file:
        while position + 8 <= size:
            file.seek(position)
            header = file.read(16)
            if position == 0 and header[4:8] not in (b'ftyp', b'moov', b'mdat', b'free', b'wide', b'skip'):
                return 0
            length = int.from_bytes(header[:4], 'big')
            if length == 1:
                length = int.from_bytes(header[8:16], 'big')
            if length < 8:
                return 0
            position += length
    return max(0, position - size)


def _reason(error: Exception) -> str:
    return str(getattr(error, 'strerror', None) or error).splitlines()[0].lower()
