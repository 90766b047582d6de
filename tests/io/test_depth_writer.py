"""Depth on disk says what was written, and what it means; what goes wrong leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trecvit_dense.io import DepthNpzWriter, DepthPngWriter, read_saved_depth
from trecvit_dense.io.depth_file import read_depth_png

SIZE = (6, 9)
ABOUT = dict(fps=12.5, size=SIZE)


def frames(count: int = 5, low: float = 0.3, high: float = 7.0) -> np.ndarray:
    values = np.random.default_rng(0).uniform(low, high, (count, *SIZE)).astype(np.float32)
    values[1, 2, 3] = np.nan
    return values


@pytest.mark.parametrize('kind', ['depth', 'disparity'])
@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_npz(tmp_path: Path, kind: str, dtype: str) -> None:
    values, confidence = frames(), frames(5, 0, 1)
    with DepthNpzWriter(tmp_path / 'a.npz', kind, dtype=dtype, **ABOUT) as writer:
        for frame, sure in zip(values, confidence, strict=True):
            writer.write(frame, sure)
    assert [path.name for path in tmp_path.iterdir()] == ['a.npz']
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as saved:
        assert sorted(saved) == sorted(['confidence', 'fps', 'kind', kind])
        assert saved[kind].dtype == dtype and saved['kind'] == kind and saved['fps'] == 12.5
        np.testing.assert_array_equal(saved[kind], values.astype(dtype))
        np.testing.assert_array_equal(saved['confidence'], confidence.astype(np.float16))
    np.testing.assert_allclose(np.stack(list(read_saved_depth(tmp_path / 'a.npz'))), values, rtol=1e-3)


def test_npz_mistakes_leave_nothing(tmp_path: Path) -> None:
    good = frames()[0]
    for wrong, confidence, words in (
        (np.full(SIZE, 1e5, np.float32), None, 'frame 1: depth 100000 is too large for float16; use float32'),
        (np.zeros((3, 3), np.float32), None, r'frame 1 of depth is float32 \(3, 3\); wanted floats \(6, 9\)'),
        (np.zeros(SIZE, np.uint8), None, 'uint8'),
        (good, good, 'differ in whether they have a confidence'),
    ):
        with (
            pytest.raises(ValueError, match=words),
            DepthNpzWriter(tmp_path / 'a.npz', 'depth', **ABOUT) as writer,
        ):
            writer.write(good)
            writer.write(wrong, confidence)
        assert not list(tmp_path.iterdir())
    for name, kind, dtype, words in (
        ('a.txt', 'depth', 'float16', "cannot write '.txt'"),
        ('a.npz', 'inverse', 'float16', "kind is 'inverse'"),
        ('a.npz', 'depth', 'int8', "dtype is 'int8'"),
    ):
        with pytest.raises(ValueError, match=words):
            DepthNpzWriter(tmp_path / name, kind, dtype=dtype, **ABOUT)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        DepthNpzWriter(tmp_path / 'no' / 'a.npz', 'depth', **ABOUT)


def test_metric_png_is_millimetres(tmp_path: Path) -> None:
    values = frames()
    values[2, 0, :3] = 0, -1, 70.0  # no value, no value, more than 16 bits of millimetres
    with DepthPngWriter(tmp_path / 'd', 'depth', **ABOUT) as writer:
        for frame in values:
            writer.write(frame)
    assert sorted(path.name for path in (tmp_path / 'd').iterdir()) == [
        *(f'{k:05d}.png' for k in range(5)),
        'depth.json',
    ]
    with Image.open(tmp_path / 'd' / '00002.png') as picture:
        pixels = np.asarray(picture)
    assert pixels.dtype == np.uint16 and pixels[0, :3].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(pixels[1:], np.round(values[2, 1:].astype(float) * 1000))
    np.testing.assert_allclose(read_depth_png(tmp_path / 'd' / '00002.png')[1:], values[2, 1:], atol=5.1e-4)
    about = json.loads((tmp_path / 'd' / 'depth.json').read_text())
    assert about['codes'] == [dict(first_frame=0, scale=0.001, offset=0.0)]
    assert about['unit'] == 'metres' and about['pixels_too_far'] == 1 and about['frames'] == 5
    read = np.stack(list(read_saved_depth(tmp_path / 'd')))
    assert np.isnan(read[2, 0, :3]).all() and np.isnan(read[1, 2, 3]) and np.isnan(read).sum() == 4
    np.testing.assert_allclose(read[3:], values[3:], atol=5.1e-4)


def test_relative_png_has_one_code_unless_it_must_change(tmp_path: Path) -> None:
    values = frames()
    values[0, 0, 0], values[3] = 7.0, values[3] * 20  # frame 3 leaves the code of the first
    with DepthPngWriter(tmp_path / 'd', 'disparity', **ABOUT) as writer:
        for frame in values:
            writer.write(frame)
    codes = json.loads((tmp_path / 'd' / 'depth.json').read_text())['codes']
    assert [code['first_frame'] for code in codes] == [0, 3]
    read = np.stack(list(read_saved_depth(tmp_path / 'd')))
    assert np.isnan(read[1, 2, 3]) and np.isnan(read).sum() == 1
    np.testing.assert_allclose(read[:3], values[:3], atol=7 * 2.5 / 65534)
    np.testing.assert_allclose(read[3:], values[3:], atol=20 * 7 * 2.5 / 65534)


@pytest.mark.parametrize('value', [0.0, -3.0, 1e-6, 5.0, np.nan])
def test_flat_frames(tmp_path: Path, value: float) -> None:
    with DepthPngWriter(tmp_path / 'd', 'disparity', **ABOUT) as writer:
        writer.write(np.full(SIZE, value, np.float32))
        writer.write(frames()[0])
    flat, other = read_saved_depth(tmp_path / 'd')
    np.testing.assert_allclose(flat, value, atol=1e-4 * max(abs(value), 1e-6))
    np.testing.assert_allclose(other, frames()[0], atol=5e-4)


def test_png_folder_is_whole_or_absent(tmp_path: Path) -> None:
    for _ in range(2):  # a second run replaces the first
        with DepthPngWriter(tmp_path / 'd', 'depth', replace=True, **ABOUT) as writer:
            writer.write(frames()[0])
    with pytest.raises(ValueError, match='not empty; wanted the name of a new folder for the depth'):
        DepthPngWriter(tmp_path / 'd', 'depth', **ABOUT)
    with pytest.raises(ZeroDivisionError), DepthPngWriter(tmp_path / 'half', 'depth', **ABOUT) as writer:
        writer.write(frames()[0] / 0 if False else frames()[0])
        raise ZeroDivisionError
    (tmp_path / 'd' / 'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='not empty'):
        DepthPngWriter(tmp_path / 'd', 'depth', replace=True, **ABOUT)
    with pytest.raises(ValueError, match='units_per_metre is 0'):
        DepthPngWriter(tmp_path / 'e', 'depth', units_per_metre=0, **ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ['d']


def test_reading_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / 'other.npz', tracks=np.zeros(3))
    with pytest.raises(ValueError, match='holds tracks; wanted kind'):
        next(read_saved_depth(tmp_path / 'other.npz'))
    for path in (tmp_path, tmp_path / 'none.npz'):
        with pytest.raises(FileNotFoundError):
            next(read_saved_depth(path))
