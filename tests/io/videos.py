"""Small videos made on the spot; every frame carries its number in its brightness."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def numbered_frame(index: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """``(H, W, 3)``: grey of value ``16 + 3 * (index % 70)``, with a bright top-left corner that shows orientation."""
    frame = np.full((*size, 3), 16 + 3 * (index % 70), np.uint8)
    frame[: size[0] // 4, : size[1] // 4] = 250
    return frame


def number_of(frame: np.ndarray) -> int:
    """The index that :func:`numbered_frame` wrote (read at the bottom right corner)."""
    return round((float(frame[-8:, -8:].mean()) - 16) / 3)


def make_video(
    path: Path,
    num_frames: int = 30,
    *,
    size: tuple[int, int] = (48, 64),
    pts: list[int] | None = None,
    faststart: bool = True,
    rotation: int | None = None,
    codec: str = 'libx264',
    gop: int = 10,
    pix_fmt: str = 'yuv420p',
) -> Path:
    """An H.264 file with B frames; ``pts`` in units of 1/100 s make it variable in rate."""
    options = {'movflags': 'faststart'} if faststart and path.suffix == '.mp4' else {}
    with av.open(str(path), 'w', options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        stream.gop_size = gop
        if codec == 'libx264':
            stream.options = {'crf': '10', 'preset': 'veryfast'}
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index, size), format='rgb24')
            frame.pts = pts[index] if pts else 4 * index
            frame.time_base = Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
