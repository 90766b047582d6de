"""One RGB-D recording of a folder: images, depth, and, where they are known, poses and intrinsics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..io import FrameSource
from ..io.depth_file import DEPTH_SUFFIXES, depth_size, read_depth
from ..io.frame_source import natural_key
from ..io.intrinsics import read_intrinsics
from .cameras import is_rigid
from .mask_layout import list_images

LAYOUT = 'images/, depth/ (16-bit png), poses.txt and K.txt'
_SMALLEST, _LARGEST = 0.02, 300.0  # metres: half of the values of a frame below or above this are in another unit


class RGBDRecording:
    """One folder: ``images/``, ``depth/`` (16-bit png, 0 = no value, or npy in metres), ``poses.txt``, ``K.txt``.

    Images and depth pair up in natural order of their names; line i of ``poses.txt`` is the camera to world matrix of
    image i, 4 x 4 row by row, in metres; ``K.txt`` is the 3 x 3 matrix of intrinsics in pixels of the images.

    Args:
        depth_scale: Units of the depth files per metre: 1000 for millimetres, 5000 for TUM RGB-D.
        camera: Whether poses and intrinsics must be there; otherwise they are None where they are not.
        same_size: Whether depth must have the size of the images; otherwise the shape alone must agree.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: the parts do not fit, or a number cannot be what it should.
    """

    def __init__(
        self, folder: Path, *, depth_scale: float = 1000.0, camera: bool = True, same_size: bool = True
    ) -> None:
        if not depth_scale > 0:
            raise ValueError(f'depth_scale is {depth_scale}; wanted the number of units per metre, such as 1000')
        for part in ('images', 'depth', *(('poses.txt', 'K.txt') if camera else ())):
            if not (folder / part).exists():
                raise FileNotFoundError(f'{folder}: {part} is missing; wanted {LAYOUT}')
        self.name, self.folder, self.depth_scale = folder.resolve().name, folder, depth_scale
        self.images = FrameSource.open(folder / 'images')
        self.image_files = list_images(folder / 'images')
        self.depth_files = _depth_files(folder / 'depth')
        if len(self.depth_files) != len(self.images):
            raise ValueError(
                f'{folder}: {len(self.images)} images and {len(self.depth_files)} depth '
                f'{self.depth_files[0].suffix[1:]}; wanted one each'
            )
        self.same_size = same_size
        self.depth_size = depth_size(self.depth_files[0])
        self._check_size(self.depth_files[0], self.depth_size)
        intrinsics, poses = folder / 'K.txt', folder / 'poses.txt'
        self.intrinsics = read_intrinsics(intrinsics, self.images.size) if intrinsics.exists() else None
        self.camera_to_world = _read_poses(poses, len(self.images)) if poses.exists() else None
        self._check_units()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def depth_intrinsics(self) -> np.ndarray | None:
        """``(3, 3)`` in pixels of the depth files."""
        if self.intrinsics is None:
            return None
        ratio = np.divide(self.depth_size, self.images.size)
        return np.diag([ratio[1], ratio[0], 1.0]) @ self.intrinsics

    def depth(self, index: int) -> np.ndarray:
        """``(H, W)`` float32 metres, 0 where there is no value."""
        path = self.depth_files[index]
        depth_m = read_depth(path, self.depth_scale)
        self._check_size(path, depth_m.shape)
        return depth_m

    def _check_size(self, path: Path, size: tuple[int, int]) -> None:
        (height, width), (rows, columns) = self.images.size, size
        if self.same_size:
            fits, wanted = (rows, columns) == (height, width), 'the same size'
        else:
            # The same field of view: a pixel of the smaller one may be lost on each side.
            fits = abs(columns * height - rows * width) <= 2 * max(height, width, rows, columns)
            wanted = 'the same shape'
            if fits and size != self.depth_size:
                (height, width), fits, wanted = self.depth_size, False, 'one size'
        if not fits:
            whose = 'the first depth file has' if wanted == 'one size' else 'the images have'
            raise ValueError(f'{path}: {columns}x{rows} px, {whose} {width}x{height}; wanted {wanted}')

    def _check_units(self) -> None:
        first = self.depth(0)
        known = first[first > 0]
        typical = float(np.median(known)) if known.size else 1.0
        if typical < _SMALLEST:
            raise ValueError(
                f'{self.depth_files[0]}: half of the values are below {typical * self.depth_scale:.3g}, which at '
                f'{self.depth_scale:g} units per metre is {typical * 1000:.3g} mm; wanted 16-bit millimetres, '
                f'are these metres? (depth_scale is the number of units per metre)'
            )
        if typical > _LARGEST:
            of_floats = self.depth_files[0].suffix.lower() != '.png'
            wanted = 'floats in metres' if of_floats else 'depth_scale, the number of units per metre, such as 1000'
            raise ValueError(
                f'{self.depth_files[0]}: half of the values are beyond {typical:.4g} m; wanted {wanted}; are these '
                f'millimetres?'
            )
        if self.camera_to_world is None:
            return
        travel = np.linalg.norm(np.diff(self.camera_to_world[:, :3, 3], axis=0), axis=1)
        if len(travel) and np.median(travel) > 10 * max(typical, 1.0):
            raise ValueError(
                f'{self.folder}: the camera moves {np.median(travel):.3g} a frame where the scene is {typical:.3g} m '
                f'away; wanted poses in metres, are these millimetres?'
            )


def find_recordings(root: Path) -> list[Path]:
    """``root`` itself where it is a recording, else the recordings in it.

    Raises:
        FileNotFoundError: there is none.
    """
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder; wanted an RGB-D recording: {LAYOUT}')
    if any((root / part).exists() for part in ('images', 'depth', 'poses.txt', 'K.txt')):
        return [root]
    folders = sorted((path for path in root.iterdir() if (path / 'images').is_dir()), key=natural_key)
    if not folders:
        raise FileNotFoundError(f'{root}: no RGB-D recording here; wanted {LAYOUT}, or folders that hold them')
    return folders


def _depth_files(folder: Path) -> list[Path]:
    """Files of one kind, in natural order: png, or npy where there is no png."""
    for suffix in DEPTH_SUFFIXES:
        files = sorted(folder.glob(f'*{suffix}'), key=natural_key)
        if files:
            return files
    raise FileNotFoundError(f'{folder}: no depth here; wanted files that end in {" ".join(DEPTH_SUFFIXES)}')


def _read_numbers(path: Path) -> np.ndarray:
    try:
        return np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ValueError(f'{path}: not a table of numbers ({" ".join(str(error).split())})') from None


def _read_poses(path: Path, num_images: int) -> np.ndarray:
    rows = _read_numbers(path)
    if rows.shape[1] != 16:
        raise ValueError(f'{path}: {rows.shape[1]} numbers a line; wanted 16, a 4x4 camera to world matrix row by row')
    if len(rows) != num_images:
        raise ValueError(f'{path}: {len(rows)} poses for {num_images} images; wanted one line per image')
    poses = rows.reshape(-1, 4, 4)
    rigid = is_rigid(poses)
    if not rigid.all():
        line = int(np.flatnonzero(~rigid)[0])
        raise ValueError(
            f'{path}: line {line + 1} is no rigid camera to world matrix (rotation, position, last row 0 0 0 1); '
            f'leave out frames without a pose'
        )
    return poses
