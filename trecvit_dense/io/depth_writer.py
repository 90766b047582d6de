"""Depth to disk a frame at a time, as one npz or as a folder of 16-bit PNGs; memory does not grow with the video.

What is written carries its own meaning: ``kind`` is ``'depth'`` (metres) or ``'disparity'`` (one over depth, but for an
unknown scale and shift), as in :class:`trecvit_dense.structures.DepthPrediction`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from .atomic import FolderWriter, remove, temporary_path, write_json

KINDS = ('disparity', 'depth')
CODE_FILE = 'depth.json'
_LEVELS = 65535  # 1 .. 65535; 0 is for pixels without a value
_ROOM = 1.5  # a code of disparity reaches so many times the first frame's range further
_COPY_BYTES = 1 << 20


def _check_frame(values: np.ndarray, size: tuple[int, int], index: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != tuple(size) or values.dtype.kind != 'f':
        raise ValueError(f'frame {index} of depth is {values.dtype} {values.shape}; wanted floats {tuple(size)}')
    return values


def _check_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"kind is '{kind}'; wanted {' or '.join(map(repr, KINDS))}")
    return kind


class DepthNpzWriter:
    """Context manager that writes one npz, complete or absent.

    It holds ``depth`` or ``disparity`` (by ``kind``) ``(T, H, W)``, ``kind``, ``fps``, and ``confidence`` ``(T, H, W)``
    float16 when the frames have one. Until the end the frames lie in hidden files beside it.

    Args:
        path: Ends in ``.npz``.
        dtype: ``'float16'`` (a relative error of 0.05 %) or ``'float32'``.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: another suffix, kind or dtype.
    """

    def __init__(
        self, path: str | Path, kind: str, *, fps: float, size: tuple[int, int], dtype: str = 'float16'
    ) -> None:
        self.path, self.kind = Path(path), _check_kind(kind)
        if self.path.suffix.lower() != '.npz':
            raise ValueError(f"{path}: cannot write '{self.path.suffix}'; wanted a name that ends in .npz")
        if dtype not in ('float16', 'float32'):
            raise ValueError(f"dtype is '{dtype}'; wanted 'float16' or 'float32'")
        self.num_frames, self._size, self._fps = 0, tuple(size), fps
        self._types = {kind: np.dtype(dtype), 'confidence': np.dtype('float16')}
        self._part = temporary_path(self.path)
        self._raw = {name: self._part.with_suffix(f'.{name}') for name in self._types}
        self._files: dict[str, object] = {}

    def __enter__(self) -> DepthNpzWriter:
        self._files[self.kind] = self._raw[self.kind].open('wb')
        return self

    def write(self, values: np.ndarray, confidence: np.ndarray | None = None) -> None:
        """Append one frame ``(H, W)``, NaN where there is no value; either every frame has a confidence or none."""
        if self.num_frames and (confidence is not None) != ('confidence' in self._files):
            raise ValueError(f'frame {self.num_frames} and those before differ in whether they have a confidence')
        for name, frame in ((self.kind, values), ('confidence', confidence)):
            if frame is None:
                continue
            frame, dtype = _check_frame(frame, self._size, self.num_frames), self._types[name]
            largest = float(np.max(np.abs(frame), initial=0, where=np.isfinite(frame)))
            if largest > float(np.finfo(dtype).max):
                raise ValueError(f'frame {self.num_frames}: {name} {largest:g} is too large for {dtype}; use float32')
            if name not in self._files:
                self._files[name] = self._raw[name].open('wb')
            self._files[name].write(np.ascontiguousarray(frame.astype(dtype)).data)
        self.num_frames += 1

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            for file in self._files.values():
                file.close()
            if kind is None:
                self._assemble()
                os.replace(self._part, self.path)
        finally:
            for path in (self._part, *self._raw.values()):
                remove(path)

    def _assemble(self) -> None:
        with zipfile.ZipFile(self._part, 'w') as archive:
            for name, value in dict(kind=np.array(self.kind), fps=np.float64(self._fps)).items():
                with archive.open(f'{name}.npy', 'w') as file:
                    np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)
            for name in self._files:
                shape = (self.num_frames, *self._size)
                header = dict(descr=np.lib.format.dtype_to_descr(self._types[name]), fortran_order=False, shape=shape)
                with archive.open(f'{name}.npy', 'w', force_zip64=True) as file, self._raw[name].open('rb') as raw:
                    np.lib.format.write_array_header_1_0(file, header)
                    shutil.copyfileobj(raw, file, _COPY_BYTES)


class DepthPngWriter(FolderWriter):
    """Context manager that writes ``00000.png`` ... (16 bit, one channel) and ``depth.json`` into a new folder.

    One rule reads both kinds: ``value = offset + scale * pixel``, and pixel 0 has no value. Metric depth has offset 0
    and scale ``1 / units_per_metre``: with 1000 pixels are millimetres. Relative disparity gets an affine code from
    its first frame, with room for more; should a later frame leave it, another code, wide enough for both, begins
    with that frame. ``depth.json`` lists the codes with their first frames; nearly always there is one.

    Args:
        folder: Must not exist, or be empty.
        units_per_metre: Of metric depth. What is farther than 65535 units has no value; ``depth.json`` counts it.
        replace: The folder may also hold the result of an earlier run and nothing else, which is replaced.

    Raises:
        FileNotFoundError: the folder above does not exist.
        ValueError: ``folder`` exists and holds something; another kind.
    """

    def __init__(
        self,
        folder: str | Path,
        kind: str,
        *,
        fps: float,
        size: tuple[int, int],
        units_per_metre: float = 1000.0,
        replace: bool = False,
    ) -> None:
        earlier = rf'\d+\.png|{re.escape(CODE_FILE)}' if replace else None
        super().__init__(folder, replaces=earlier, what='depth')
        if not 0 < units_per_metre < 1e9:
            raise ValueError(f'units_per_metre is {units_per_metre}; wanted a number above 0, such as 1000')
        self.kind, self.num_frames, self._size, self._fps = _check_kind(kind), 0, tuple(size), fps
        self._codes = [(0, 1 / units_per_metre, 0.0)] if kind == 'depth' else []  # first frame, scale, offset
        self.path, self._too_far = f'{self.folder}/', 0

    def write(self, values: np.ndarray) -> None:
        """Append one frame ``(H, W)``; NaN, and for metric depth what is not above 0, has no value."""
        values = _check_frame(values, self._size, self.num_frames).astype(np.float32, copy=False)
        known = np.isfinite(values) & ((values > 0) if self.kind == 'depth' else True)
        values = np.where(known, values, 0)
        if self.kind == 'disparity' and known.any():
            self._fit_code(float(values.min()), float(values.max()))
        _, scale, offset = self._codes[-1] if self._codes else (0, 1.0, 0.0)
        pixels = np.rint((values - np.float32(offset)) * np.float32(1 / scale))
        if self.kind == 'depth':
            far = pixels > _LEVELS
            self._too_far += int(far.sum())
            known &= ~far
        pixels = np.where(known, np.clip(pixels, 1, _LEVELS), 0)
        done, data = cv2.imencode('.png', pixels.astype(np.uint16))
        if not done:
            raise ValueError(f'frame {self.num_frames} of depth cannot be written as png')
        (self.part / f'{self.num_frames:05d}.png').write_bytes(data.tobytes())
        self.num_frames += 1

    def _fit_code(self, low: float, high: float) -> None:
        """See that the last code holds ``low .. high``."""
        if self._codes:
            _, scale, offset = self._codes[-1]
            if offset < low and high <= offset + _LEVELS * scale:
                return
            low, high = min(low, offset + scale), max(high, offset + _LEVELS * scale)
        low = min(low, 0.0)  # disparity is not negative, as a rule
        span = max(high - low, 1e-12)
        low, high = low - _ROOM * span if low < 0 else 0.0, high + _ROOM * span
        scale = (high - low) / (_LEVELS - 1)
        self._codes.append((self.num_frames, scale, low - scale))

    def finish(self) -> None:
        names = ('first_frame', 'scale', 'offset')
        about = dict(
            kind=self.kind,
            unit='metres' if self.kind == 'depth' else 'none: one over depth, but for an unknown scale and shift',
            rule='value = offset + scale * pixel; pixel 0 has no value',
            codes=[dict(zip(names, code, strict=True)) for code in self._codes],
            frames=self.num_frames,
            fps=float(self._fps),
            size=list(self._size),
        )
        if self.kind == 'depth':
            about['pixels_too_far'] = self._too_far
        write_json(self.part / CODE_FILE, about)


def read_saved_depth(path: str | Path) -> Iterator[np.ndarray]:
    """Frames ``(H, W)`` float32 of what :class:`DepthNpzWriter` or :class:`DepthPngWriter` wrote; NaN: no value.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: something else.
    """
    path = Path(path)
    if path.is_dir():
        yield from _read_folder(path)
        return
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file or folder')
    with np.load(path, allow_pickle=False) as saved:
        if 'kind' not in saved or str(saved['kind']) not in saved:
            raise ValueError(f'{path}: holds {", ".join(saved)}; wanted kind, and depth or disparity')
        yield from saved[str(saved['kind'])].astype(np.float32)


def _read_folder(folder: Path) -> Iterator[np.ndarray]:
    if not (folder / CODE_FILE).is_file():
        raise FileNotFoundError(f'{folder}: {CODE_FILE} is missing, which says what the pixels mean')
    about = json.loads((folder / CODE_FILE).read_text())
    for index in range(about['frames']):
        code = [code for code in about['codes'] if code['first_frame'] <= index][-1:]
        pixels = cv2.imdecode(np.fromfile(folder / f'{index:05d}.png', np.uint8), cv2.IMREAD_UNCHANGED)
        values = code[0]['offset'] + code[0]['scale'] * pixels.astype(np.float64) if code else np.zeros(pixels.shape)
        yield np.where(pixels > 0, values, np.nan).astype(np.float32)
