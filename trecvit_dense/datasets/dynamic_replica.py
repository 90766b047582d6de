"""DynamicReplica (arXiv 2305.02296): rendered rooms with people and animals, seen by a moving stereo camera."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..io.depth_file import read_float16_png
from ..registry import DATASETS, nearest
from .cameras import LEFT_UP_FORWARD, camera_to_world, pinhole
from .depth_clips import DepthVideoDataset
from .depth_sequence import DepthSequence
from .mask_layout import choose

_FORMATS = ('ndc_isotropic', 'ndc_norm_image_bounds')


@DATASETS.register_module()
class DynamicReplicaDataset(DepthVideoDataset):
    """``<split>/frame_annotations_<split>.jgz`` and the images and depth maps (half floats in png) that it names.

    Args:
        data_root: Holds the splits.
        split: ``'train'``, ``'valid'``, ``'test'``, ``'real'``.
        camera: ``'left'`` or ``'right'``.
        sequences: Only these, or a text file with one a line.
        options: See :class:`~trecvit_dense.datasets.depth_clips.DepthVideoDataset`. ``max_depth_m`` is 80.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the annotation is damaged, or frames and depth do not fit together.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'valid',
        *,
        camera: str = 'left',
        sequences: Sequence[str] | str | None = None,
        **options: Any,
    ) -> None:
        folder = Path(data_root).expanduser() / split
        path = folder / f'frame_annotations_{split}.jgz'
        videos: dict[str, list[dict]] = {}
        cameras = set()
        for entry in read_annotations(path):
            cameras.add(entry.get('camera_name'))
            if entry.get('camera_name') == camera:
                videos.setdefault(str(entry.get('sequence_name')), []).append(entry)
        if not videos:
            known = sorted(map(str, cameras))
            raise ValueError(f"{path}: no frame of camera '{camera}'{nearest(camera, known)}; there are {known}")
        found = [_sequence(folder, path, name, videos[name]) for name in choose(videos, sequences, where=path)]
        super().__init__(found, **(dict(dataset_name='dynamic_replica', max_depth_m=80.0) | options))


def read_annotations(path: Path) -> list[dict[str, Any]]:
    """The list of frames of a ``.jgz``, which is gzip of JSON.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such annotation')
    try:
        with gzip.open(path, 'rt', encoding='utf-8') as file:
            content = json.load(file)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f'{path}: not JSON packed by gzip ({" ".join(str(error).split())})') from None
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f'{path}: wanted a list of frames')
    return content


def read_viewpoint(viewpoint: dict[str, Any], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """``(3, 3)`` px and world to camera ``(3, 4)`` of a PyTorch3D camera (rows times matrix, x left, y up).

    Args:
        size: ``(H, W)`` px.

    Raises:
        KeyError, ValueError: not such a camera.
    """
    kind = viewpoint.get('intrinsics_format', _FORMATS[1])
    if kind not in _FORMATS:
        raise ValueError(f'intrinsics_format {kind}; wanted one of {", ".join(_FORMATS)}')
    half = np.array([size[1], size[0]]) / 2
    unit = np.full(2, half.min()) if kind == 'ndc_isotropic' else half
    focal = np.broadcast_to(np.asarray(viewpoint['focal_length'], float) * unit, 2)
    centre = half - np.asarray(viewpoint['principal_point'], float) * unit
    turn, shift = np.asarray(viewpoint['R'], float).reshape(3, 3), np.asarray(viewpoint['T'], float).reshape(3)
    outside = LEFT_UP_FORWARD @ np.concatenate([turn.T, shift[:, None]], axis=1)
    return pinhole(*focal, *centre), outside


def _sequence(folder: Path, path: Path, name: str, entries: list[dict[str, Any]]) -> DepthSequence:
    try:
        entries = sorted(entries, key=lambda entry: entry['frame_number'])
        frames, files = ([folder / entry[part]['path'] for entry in entries] for part in ('image', 'depth'))
        cameras = [read_viewpoint(entry['viewpoint'], tuple(entry['image']['size'])) for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: {name} lacks or mistakes {error}') from None
    matrices, outside = (np.stack(part) for part in zip(*cameras, strict=True))
    return DepthSequence(name, frames, files, read_float16_png, matrices, camera_to_world(outside), meta=dict(fps=30.0))
