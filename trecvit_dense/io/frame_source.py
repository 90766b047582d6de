"""FrameSource: one interface over every place that frames come from; a frame at a time, never the whole video."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


class VideoError(ValueError):
    """A video that cannot be read as promised. The message is one line for the user and names the file."""


class FrameSource:
    """Frames of one video, ``(H, W, 3)`` uint8 RGB, upright (rotation metadata is applied).

    Iterating starts at the first frame every time and holds one frame. Make one with :meth:`open`. A source opens its
    file only while it is read, so that it can be sent to a worker process.

    Attributes:
        name: What messages call it.
        size: ``(H, W)`` pixels of the upright frame.
        fps: Frames per second (the mean of a file with variable rate).
        num_frames: None when it is not known: a camera.
        rotation: Degrees, counter-clockwise, by which the stored frames are turned.
    """

    name: str
    size: tuple[int, int]
    fps: float = 25.0
    num_frames: int | None = None
    rotation: int = 0

    @staticmethod
    def open(source: str | Path | int | np.ndarray | FrameSource, *, fps: float | None = None) -> FrameSource:
        """Open a video file, image, folder of images, glob pattern, array, or camera.

        Args:
            source: Path, pattern as ``frames/*.png``, ``(T, H, W, 3)`` uint8 array, camera index or ``'camera:0'``.
            fps: Frames per second, for sources that do not say.

        Raises:
            FileNotFoundError: nothing is there.
            VideoError: it is there and cannot be read: not a video, no video stream, empty, truncated.
        """
        opened = _open(source)
        if fps is not None:
            opened.fps = float(fps)
        return opened

    @property
    def live(self) -> bool:
        """True when frames cannot be read twice."""
        return False

    def __iter__(self) -> Iterator[np.ndarray]:
        raise NotImplementedError

    def read(self, index: int) -> np.ndarray:
        """Frame ``index``, exactly the one that iterating gives. Negative indices count from the end."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the source holds; it may be read again."""

    def __len__(self) -> int:
        if self.num_frames is None:
            raise TypeError(f'{self.name}: the number of frames is not known')
        return self.num_frames

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f'{self.name}: frame {index} does not exist; it has frames 0 to {len(self) - 1}')
        return index % len(self)


def _open(source: str | Path | int | np.ndarray | FrameSource) -> FrameSource:
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, np.ndarray):
        return ArrayFrames(source)
    if isinstance(source, (int, np.integer)) and not isinstance(source, bool):
        return CameraFrames(int(source))
    if not isinstance(source, (str, Path)):
        raise TypeError(f'a {type(source).__name__} is no video; wanted a path, a camera index or a (T, H, W, 3) array')
    camera = re.fullmatch(r'camera:(\d+)', str(source))
    if camera:
        return CameraFrames(int(camera[1]))
    return _open_path(Path(source).expanduser())


def _open_path(path: Path) -> FrameSource:
    from .video_file import VideoFile

    if path.is_dir():
        return ImageFrames([file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES], name=str(path))
    if path.exists():
        return ImageFrames([path], name=str(path)) if path.suffix.lower() in IMAGE_SUFFIXES else VideoFile(path)
    if glob.has_magic(str(path)):
        return ImageFrames([Path(file) for file in glob.glob(str(path), recursive=True)], name=str(path))
    hint = f"; for a camera write 'camera:{path}'" if str(path).isdigit() else ''
    raise FileNotFoundError(f'{path}: no such file or folder{hint}')


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sorts ``frame2`` before ``frame10``."""
    parts = re.split(r'(\d+)', path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in parts if part]


class ArrayFrames(FrameSource):
    """Frames of an array that is already in memory.

    Args:
        video: ``(T, H, W, 3)`` RGB or ``(T, H, W)`` grey, uint8.
    """

    def __init__(self, video: np.ndarray) -> None:
        self.name = 'array'
        if video.ndim not in (3, 4) or (video.ndim == 4 and video.shape[-1] != 3) or video.dtype != np.uint8:
            raise VideoError(f'array of {video.dtype} with shape {video.shape} is no video; wanted uint8 (T, H, W, 3)')
        if 0 in video.shape:
            raise VideoError(f'the video is empty: array of shape {video.shape}')
        self._video = video
        self.size = (video.shape[1], video.shape[2])
        self.num_frames = len(video)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.read(index) for index in range(len(self._video)))

    def read(self, index: int) -> np.ndarray:
        frame = self._video[self._index(index)]
        return frame if frame.ndim == 3 else np.repeat(frame[:, :, None], 3, axis=2)


class ImageFrames(FrameSource):
    """Image files as a video, in natural order of their names; all of one size. Orientation tags are applied."""

    def __init__(self, files: list[Path], *, name: str) -> None:
        self.name = name
        self._files = sorted(files, key=natural_key)
        if not files:
            raise VideoError(f'{name}: no images found; wanted files that end in {" ".join(IMAGE_SUFFIXES)}')
        self.num_frames = len(files)
        self.size = read_image(self._files[0]).shape[:2]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.read(index) for index in range(len(self._files)))

    def read(self, index: int) -> np.ndarray:
        file = self._files[self._index(index)]
        image = read_image(file)
        if image.shape[:2] != self.size:
            seen, wanted = (f'{width}x{height}' for height, width in (image.shape[:2], self.size))
            raise VideoError(f'{file}: {seen} px, but the first image of the video has {wanted}; all must agree')
        return image


def read_image(file: Path) -> np.ndarray:
    """``(H, W, 3)`` uint8 RGB of one file.

    Raises:
        VideoError: it cannot be decoded.
    """
    import cv2

    data = np.fromfile(file, dtype=np.uint8)  # cv2.imread cannot tell a missing file from a broken one
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise VideoError(f'{file}: not an image that can be read ({data.size} bytes)')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class CameraFrames(FrameSource):
    """A camera, until it is unplugged. Iterating a second time goes on where the first stopped."""

    def __init__(self, index: int) -> None:
        import cv2

        self.name = f'camera:{index}'
        self._capture = cv2.VideoCapture(index)
        self._pending = self._grab()
        if self._pending is None:
            self.close()
            raise VideoError(f'{self.name}: cannot be opened; is a camera connected, and free?')
        self.size = self._pending.shape[:2]
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = rate if rate and rate > 0 else 30.0

    @property
    def live(self) -> bool:
        return True

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            frame, self._pending = self._pending, None
            if frame is None and (frame := self._grab()) is None:
                return
            yield frame

    def _grab(self) -> np.ndarray | None:
        import cv2

        ok, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if ok else None

    def read(self, index: int) -> np.ndarray:
        raise VideoError(f'{self.name}: a camera has no frame numbers; iterate over it')

    def close(self) -> None:
        self._capture.release()
