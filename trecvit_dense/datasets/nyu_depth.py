"""NYU Depth v2: rooms before a Kinect, as the labelled mat file or as png."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import UNITS_PER_METRE, known_depth, read_depth_png
from ..registry import DATASETS
from .cameras import pinhole
from .depth_clips import DepthVideoDataset
from .depth_layout import number_of, pair_by_number
from .depth_sequence import DepthSequence
from .mask_layout import choose, list_folders, list_images

# Colour camera of the toolbox (camera_params.m); depth is projected onto it. px of 640 x 480.
NYU_CAMERA = pinhole(518.85790117, 519.46961112, 325.58244941, 253.73616633)
MAT_NAME, SPLITS_NAME = 'nyu_depth_v2_labeled.mat', 'splits.mat'
_IMAGE_FOLDERS = ('rgb', 'color', 'images')
_LAYOUTS = (
    f'{MAT_NAME} (and {SPLITS_NAME}), <scene>/{{rgb_00001.jpg,sync_depth_00001.png}}, or <scene>/{{rgb,depth}}/*.png'
)


@dataclass
class LabelledImage(DepthSequence):
    """One picture of the labelled mat file, as a video of one frame.

    Args:
        place: Its number in the file, from 0.
    """

    place: int = 0

    def image(self, t: int) -> np.ndarray:
        with _open_mat(self.frames[0]) as file:
            return np.asarray(file['images'][self.place]).transpose(2, 1, 0)  # stored (3, W, H)

    def depth_m(self, t: int) -> np.ndarray:
        with _open_mat(self.frames[0]) as file:
            return known_depth(np.asarray(file['depths'][self.place]).T)  # stored (W, H)

    def check(self) -> None:
        """Nothing to see before it is read."""


@DATASETS.register_module()
class NYUDepthDataset(DepthVideoDataset):
    """Three layouts, told apart by what is there.

    ``nyu_depth_v2_labeled.mat``: each picture is a video of one frame; ``splits.mat`` says which belong to ``split``.
    ``<scene>/rgb_00001.jpg`` beside ``sync_depth_00001.png`` (mm), as BTS prepared the raw videos; and
    ``<scene>/{rgb,depth}/*.png`` (6000 units a metre), as Video-Depth-Anything exports them.

    Args:
        data_root: Holds the file or the scenes, or a folder ``split`` with the scenes.
        split: ``'test'``, ``'train'`` or ``'all'``.
        depth_scale: Units of png files per metre; None: 1000 for ``sync_depth_*``, else 6000.
        as_images: Each picture is a video of one frame: the test set of BTS holds single pictures.
        sequences: Only these scenes, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 10.
            ``crop=(45, 471, 41, 601)`` leaves out the white frame around the pictures.

    Raises:
        FileNotFoundError: none of the layouts.
        ModuleNotFoundError: the mat file is of a kind that needs h5py, which is not installed.
        ValueError: frames and depth do not fit together.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'test',
        *,
        depth_scale: float | None = None,
        as_images: bool = False,
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        root = Path(data_root).expanduser()
        mat = root if root.suffix == '.mat' else root / MAT_NAME
        if mat.is_file():
            found = _from_mat(mat, split, sequences)
        else:
            found = _from_folders(root / split if (root / split).is_dir() else root, depth_scale, sequences)
            if as_images:
                found = [_one(sequence, t) for sequence in found for t in range(len(sequence.frames))]
        super().__init__(found, **(dict(dataset_name='nyu', max_depth_m=10.0) | options))


def _open_mat(path: Path) -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f'{path}: a MATLAB 7.3 file, which h5py reads (pip install h5py); or export it: {_LAYOUTS}', name='h5py'
        ) from None
    try:
        return h5py.File(path, 'r')
    except OSError as error:
        raise ValueError(f'{path}: not an HDF5 file ({" ".join(str(error).split())})') from None


def _from_mat(mat: Path, split: str, sequences: Sequence[str] | str | None) -> list[DepthSequence]:
    with _open_mat(mat) as file:
        shapes = {key: tuple(file[key].shape) for key in ('images', 'depths') if key in file}
    if len(shapes) < 2 or shapes['images'][0] != shapes['depths'][0] or shapes['images'][2:] != shapes['depths'][1:]:
        raise ValueError(f'{mat}: holds {shapes}; wanted images (N, 3, W, H) and depths (N, W, H)')
    numbers = read_split(mat.with_name(SPLITS_NAME), split) if split != 'all' else range(shapes['images'][0])
    places = {f'{number + 1:05d}': number for number in numbers}
    found = []
    for name in choose(places, sequences, where=mat):
        # The name of the picture stands for a file of its own in reports.
        found.append(LabelledImage(name, [mat], [mat], intrinsics=NYU_CAMERA, place=places[name]))
    return found


def read_split(path: Path, split: str) -> list[int]:
    """Numbers of pictures from 0, of ``trainNdxs`` or ``testNdxs``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such split, or another kind of file.
    """
    from scipy.io import loadmat

    if split not in ('train', 'test'):
        raise ValueError(f"split is '{split}'; wanted 'test', 'train' or 'all'")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; it says which pictures belong to {split} (split='all' takes all)")
    try:
        return [int(number) - 1 for number in loadmat(path)[f'{split}Ndxs'].ravel()]
    except (KeyError, ValueError, NotImplementedError) as error:
        raise ValueError(f'{path}: no list of {split} pictures ({" ".join(str(error).split())})') from None


def _from_folders(root: Path, depth_scale: float | None, sequences: Sequence[str] | str | None) -> list[DepthSequence]:
    scenes = {}
    for name in list_folders(root):
        images = next((root / name / part for part in _IMAGE_FOLDERS if (root / name / part).is_dir()), None)
        if images is not None and (root / name / 'depth').is_dir():
            scenes[name] = (list_images(images), list_images(root / name / 'depth', what='depth maps'), 'nyu_vda')
        elif files := sorted((root / name).glob('sync_depth_*.png'), key=number_of):
            scenes[name] = (sorted((root / name).glob('rgb_*'), key=number_of), files, 'mm')
    if not scenes:
        raise FileNotFoundError(f'{root}: nothing of NYU Depth v2 here; wanted {_LAYOUTS}')
    found = []
    for name in choose(scenes, sequences, where=root):
        images, files, kind = scenes[name]
        frames, files = pair_by_number(images, files)
        read = partial(read_depth_png, units_per_metre=depth_scale or UNITS_PER_METRE[kind])
        found.append(DepthSequence(name, frames, files, read, NYU_CAMERA, meta=dict(fps=30.0)))
    return found


def _one(sequence: DepthSequence, t: int) -> DepthSequence:
    single = sequence.only([t])
    single.name = f'{sequence.name}/{sequence.frames[t].stem}'
    return single
