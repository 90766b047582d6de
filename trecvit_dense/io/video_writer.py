"""VideoWriter: H.264 that every browser plays, written frame by frame; a file that exists is a whole one."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .atomic import remove, temporary_path

VIDEO_SUFFIXES = ('.mp4', '.mov', '.mkv')


class VideoWriter:
    """Context manager that takes frames in order.

    Frames go to a hidden file in the same folder, which is renamed when the block ends and removed when it raises. Odd
    sizes are padded by repeating the last row or column: yuv420p has none.

    Args:
        path: Ends in ``.mp4``, ``.mov`` or ``.mkv``.
        fps: Frames per second, above 0.
        crf: Quality of H.264, 0 (lossless) to 51.

    Raises:
        ValueError: the suffix, the rate or a frame is not as said above.
        FileNotFoundError: the folder does not exist.
    """

    def __init__(self, path: str | Path, fps: float = 25.0, *, crf: int = 18) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in VIDEO_SUFFIXES:
            raise ValueError(f"{path}: cannot write '{self.path.suffix}'; wanted a name that ends in {VIDEO_SUFFIXES}")
        if not 0 < fps < 1e4:
            raise ValueError(f'fps is {fps}; wanted a rate above 0')
        self.fps = Fraction(fps).limit_denominator(1001)
        self.num_frames = 0
        self._crf = crf
        self._temporary = temporary_path(self.path)
        self._container: av.container.OutputContainer | None = None
        self._size: tuple[int, int] | None = None

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, ``(H, W, 3)`` uint8 RGB, of the size of the first."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f'a frame of {frame.dtype} with shape {frame.shape}; wanted uint8 (H, W, 3)')
        if self._container is None:
            self._open(frame.shape[:2])
        if frame.shape[:2] != self._size:
            raise ValueError(f'frame {self.num_frames} has size {frame.shape[:2]}; the first one had {self._size}')
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
        picture.pts = self.num_frames
        picture.time_base = 1 / self.fps
        self._container.mux(self._stream.encode(picture))
        self.num_frames += 1

    def _open(self, size: tuple[int, int]) -> None:
        options = {} if self.path.suffix.lower() == '.mkv' else {'movflags': 'faststart'}
        self._container = av.open(str(self._temporary), 'w', options=options)
        self._stream = self._container.add_stream('libx264', rate=self.fps)
        self._stream.height, self._stream.width = (side + side % 2 for side in size)
        self._stream.pix_fmt = 'yuv420p'
        self._stream.options = {'crf': str(self._crf), 'preset': 'veryfast'}
        self._size = tuple(size)

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            ValueError: no frame was written.
        """
        if self._container is None:
            raise ValueError(f'{self.path}: no frame was written')
        self._container.mux(self._stream.encode())
        self._container.close()
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Stop and leave nothing behind."""
        if self._container is not None:
            self._container.close()
        remove(self._temporary)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise
