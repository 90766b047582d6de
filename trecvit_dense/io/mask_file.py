"""Masks as PNG: the value of a pixel is the id of its object. Reading never goes through colours.

DAVIS, YouTube-VOS, MOSE and LVOS keep palette PNGs whose *index* is the id; the colours are only for looking at. Some
tools write grey PNGs (the grey value is the id), the DAVIS of 2016 holds 0 and 255, and a few sets spread ids over
the three channels of a colour picture.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from .atomic import FolderWriter, atomic_path
from .png import decode_index_png

VOID = 255
MAX_ID = 255
_LEVELS = {2: 85, 4: 17}  # what a decoder multiplies grey values of fewer than 8 bits with


def read_mask(path: str | Path, *, binary: bool = False, rgb_ids: bool = False) -> np.ndarray:
    """``(H, W)`` uint8 index map; 0 is background, 255 is void unless the file is binary.

    Args:
        path: Palette or grey PNG.
        binary: Anything but black is object 1, as the 0/255 files of DAVIS 2016 want it; colour files are taken too.
        rgb_ids: Colour files hold ``id = r + 256 g + 65536 b``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a PNG that can be read, a colour picture without ``binary`` or ``rgb_ids``, or an id over 255.
    """
    values = _read_values(Path(path))
    if binary:
        if values.ndim == 3:  # an alpha channel (the last of two or four) says nothing about objects
            values = values[..., : 3 if values.shape[2] > 2 else 1].any(axis=2)
        return (values != 0).astype(np.uint8)
    if values.ndim == 3:
        if not rgb_ids or values.shape[2] < 3:
            raise ValueError(
                f'{path}: a picture with {values.shape[2]} channels; wanted a palette or grey PNG whose pixel value '
                f'is the object id (binary: any colour but black is the object; rgb: id = r + 256 g + 65536 b)'
            )
        values = values[..., :3].astype(np.int64) @ np.array([1, 256, 65536])
    if values.dtype != np.uint8:
        largest = int(values.max(initial=0))
        if largest > MAX_ID:
            raise ValueError(f'{path}: holds the object id {largest}; wanted ids from 1 to 254, and 255 for void')
        values = values.astype(np.uint8)
    return values


def mask_header(path: str | Path) -> tuple[tuple[int, int], bool]:
    """``(H, W)``, and whether the file may hold something else than ids up to 255, from its header alone.

    Raises:
        ValueError: not an image.
    """
    with _open(Path(path)) as image:
        return (image.height, image.width), image.mode not in ('1', 'L', 'P')


def write_mask(path: str | Path, labels: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write an index map as palette PNG, as the servers of DAVIS, YouTube-VOS, MOSE and LVOS want it.

    The file is complete or absent. Its index is the id; ``palette`` ``(256, 3)`` uint8 is for looking at, by default
    that of PASCAL VOC and DAVIS.

    Raises:
        ValueError: ``labels`` is not ``(H, W)`` whole numbers from 0 to 255.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in 'bui' or 0 in labels.shape:
        raise ValueError(f'{path}: labels are {labels.dtype} {labels.shape}; wanted an index map (H, W) of integers')
    if labels.dtype != np.uint8 and labels.dtype.kind != 'b' and not 0 <= labels.min() <= labels.max() <= MAX_ID:
        raise ValueError(f'{path}: ids run from {labels.min()} to {labels.max()}; a PNG holds 0 to {MAX_ID}')
    picture = Image.fromarray(np.ascontiguousarray(labels.astype(np.uint8)))
    picture.putpalette((voc_palette() if palette is None else np.asarray(palette, np.uint8)).tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, format='PNG')


def voc_palette() -> np.ndarray:
    """``(256, 3)`` uint8, the colours of PASCAL VOC and DAVIS: the bits of the index dealt out to R, G and B."""
    index = np.arange(256)
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def decode_run_lengths(segment: list | dict, size: tuple[int, int], *, where: str) -> np.ndarray:
    """``(H, W)`` uint8, 0 and 1, from COCO's polygons, run lengths, or compressed run lengths.

    Args:
        segment: Polygons ``[[x, y, x, y, ...], ...]``, or ``{'size': [H, W], 'counts': list | str | bytes}``.
        size: ``(H, W)`` of the image.
        where: What a message names.

    Raises:
        ValueError: damaged, or of another size.
    """
    from pycocotools import mask as coco

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # pycocotools 2.0.11 with NumPy 2
        try:
            if isinstance(segment, list):
                coded = coco.merge(coco.frPyObjects(segment, *size))
            else:
                _check_run_lengths(segment['counts'], size)
                coded = coco.frPyObjects(segment, *size) if isinstance(segment['counts'], list) else segment
            decoded = coco.decode(coded)
        except Exception as error:  # the extension raises bare exceptions
            raise ValueError(f'{where}: segmentation that cannot be decoded ({" ".join(str(error).split())})') from None
    if decoded.shape != tuple(size):
        raise ValueError(f'{where}: run lengths of {decoded.shape[1]}x{decoded.shape[0]} px, not {size[1]}x{size[0]}')
    return decoded


def _check_run_lengths(counts: list[int] | str | bytes, size: tuple[int, int]) -> None:
    """See that the runs fill the image: pycocotools answers with whatever lies in memory where they do not."""
    runs: list[int] = list(counts) if isinstance(counts, list) else []
    if not isinstance(counts, list):  # six bits a character: five of a number, least first, and whether more follow
        value = shift = 0
        for character in counts if isinstance(counts, bytes) else counts.encode('ascii'):
            bits = character - 48
            value |= (bits & 0x1F) << shift
            shift += 5
            if not bits & 0x20:
                value -= (bits & 0x10) and 1 << shift  # the highest bit is a sign
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value = shift = 0
    if min(runs, default=-1) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError(f'run lengths of {sum(runs)} pixels in an image of {size[0] * size[1]}')


class MaskWriter(FolderWriter):
    """Context manager that writes one palette PNG per frame into a new folder; the folder appears when all went well.

    Args:
        folder: Must not exist, or be empty.
        replace: It may also hold masks of an earlier run (numbered PNGs and nothing else), which are replaced.

    Raises:
        FileNotFoundError: the folder above does not exist.
        ValueError: ``folder`` exists and holds something.
    """

    def __init__(self, folder: str | Path, *, replace: bool = False) -> None:
        super().__init__(folder, replaces=r'\d+\.png' if replace else None, what='masks')
        self.num_frames = 0

    def write(self, labels: np.ndarray, name: str | None = None) -> None:
        """Append one frame: ``(H, W)`` ids; ``name`` without suffix, by default the number of the frame."""
        write_mask(self.part / f'{name or format(self.num_frames, "05d")}.png', labels)
        self.num_frames += 1


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such mask') from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f'{path}: not an image that can be read ({" ".join(str(error).split())})') from None
    if image.format == 'JPEG':
        image.close()
        raise ValueError(f'{path}: a JPEG, which does not keep ids; wanted a palette or grey PNG')
    return image


def _read_values(path: Path) -> np.ndarray:
    """``(H, W)`` or ``(H, W, C)`` as stored: palette indices, grey values without scaling, or channels."""
    try:
        labels = decode_index_png(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such mask') from None
    except (OSError, ValueError, zlib.error, struct.error) as error:
        raise ValueError(f'{path}: damaged ({error})') from None
    if labels is not None:
        return labels
    with _open(path) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # transparency given in an odd way; ids do not depend on it
                values = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f'{path}: damaged ({" ".join(str(error).split())})') from None
        if image.mode == 'L' and image.format == 'PNG':
            values = values // _LEVELS.get(_bit_depth(path), 1)
    return values.astype(np.uint8) if values.dtype == bool else values


def _bit_depth(path: Path) -> int:
    with path.open('rb') as file:
        header = file.read(25)
    return header[24]
