"""TrackWriter: point tracks to csv and npz, a frame at a time; memory does not grow with the video."""

from __future__ import annotations

import csv
import os
import zipfile
from pathlib import Path

import numpy as np

from .atomic import remove, temporary_path

_BLOCK_BYTES = 8 << 20


class TrackWriter:
    """Context manager that writes ``<stem>.csv`` while frames come and ``<stem>.npz`` at the end; both or neither.

    The csv has the columns ``frame, id, x, y, visible``, without rows for a point before its query. The npz has
    ``tracks`` ``(N, T, 2)`` float32 (NaN before the query), ``visible`` ``(N, T)`` bool, ``query_txy`` ``(N, 3)``,
    ``fps`` and ``size`` ``(H, W)``. Coordinates are x, y in pixels of the video, centre of a pixel at +0.5.

    Args:
        stem: Path without suffix.
        query_txy: ``(N, 3)`` frame, x, y.
        size: ``(H, W)`` of the video.

    Raises:
        FileNotFoundError: the folder does not exist.
    """

    def __init__(self, stem: str | Path, query_txy: np.ndarray, *, fps: float, size: tuple[int, int]) -> None:
        stem = Path(stem)
        self.csv_path, self.npz_path = (stem.with_name(stem.name + suffix) for suffix in ('.csv', '.npz'))
        self._constants = dict(query_txy=np.asarray(query_txy), fps=np.float64(fps), size=np.array(size))
        self._num_points, self.num_frames = len(query_txy), 0
        rows_path = stem.with_name(stem.name + '.rows')
        self._parts = [temporary_path(path) for path in (self.csv_path, self.npz_path, rows_path)]

    def __enter__(self) -> TrackWriter:
        self._csv_file = self._parts[0].open('w', newline='')
        self._rows_file = self._parts[2].open('wb')
        self._csv = csv.writer(self._csv_file)
        self._csv.writerow(['frame', 'id', 'x', 'y', 'visible'])
        return self

    def write(self, xy_px: np.ndarray, visible: np.ndarray) -> None:
        """Append one frame: ``(N, 2)`` pixels, ``(N,)`` bool."""
        row = np.concatenate([xy_px, visible[:, None]], axis=1).astype(np.float32)  # (N, 3)
        if row.shape != (self._num_points, 3):
            raise ValueError(f'a frame of {len(row)} points; wanted {self._num_points}')
        self._rows_file.write(row.tobytes())
        for identity, (x, y, seen) in enumerate(row.tolist()):
            if x == x:  # not NaN
                self._csv.writerow([self.num_frames, identity, f'{x:.3f}', f'{y:.3f}', int(seen)])
        self.num_frames += 1

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            self._csv_file.close()
            self._rows_file.close()
            if kind is None:
                self._write_npz()
                os.replace(self._parts[1], self.npz_path)
                os.replace(self._parts[0], self.csv_path)
        finally:
            for part in self._parts:
                remove(part)

    def _write_npz(self) -> None:
        shape = (self._num_points, self.num_frames)
        with zipfile.ZipFile(self._parts[1], 'w') as archive:
            for name, value in self._constants.items():
                with archive.open(f'{name}.npy', 'w') as file:
                    np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)
            self._write_column(archive, 'tracks', slice(0, 2), np.float32, (*shape, 2))
            self._write_column(archive, 'visible', 2, np.bool_, shape)

    def _write_column(
        self, archive: zipfile.ZipFile, name: str, columns: slice | int, dtype: type, shape: tuple[int, ...]
    ) -> None:
        """Rows are frame by frame, the file wants point by point: turned in blocks of points."""
        header = dict(descr=np.lib.format.dtype_to_descr(np.dtype(dtype)), fortran_order=False, shape=shape)
        block = max(1, _BLOCK_BYTES // (12 * max(1, self.num_frames)))
        with archive.open(f'{name}.npy', 'w', force_zip64=True) as file, self._parts[2].open('rb') as rows:
            np.lib.format.write_array_header_1_0(file, header)
            for first in range(0, self._num_points, block):
                part = self._read_points(rows, first, min(block, self._num_points - first))  # (n, T, 3)
                file.write(np.ascontiguousarray(part[..., columns].astype(dtype)).tobytes())

    def _read_points(self, rows: object, first: int, count: int) -> np.ndarray:
        """``(count, T, 3)`` of the points from ``first`` on."""
        part = np.empty((self.num_frames, count, 3), np.float32)
        for frame in range(self.num_frames):
            rows.seek((frame * self._num_points + first) * 12)
            part[frame] = np.frombuffer(rows.read(count * 12), np.float32).reshape(count, 3)
        return part.swapaxes(0, 1)
