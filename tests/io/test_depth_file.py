"""Depth files: every coding gives metres and 0 for nothing, and what is no depth is named."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from trecvit_dense.io.depth_file import (
    UNITS_PER_METRE,
    depth_size,
    read_depth,
    read_depth_npy,
    read_dpt,
    read_float16_png,
)


def png16(path, values):
    Image.fromarray(np.asarray(values, np.uint16)).save(path)
    return path


def dpt(path, values, tag=202021.25):
    height, width = values.shape
    path.write_bytes(struct.pack('<f', tag) + struct.pack('<ii', width, height) + values.astype('<f4').tobytes())
    return path


@pytest.mark.parametrize(
    ('name', 'value', 'metres'),
    [
        ('mm', 1500, 1.5),
        ('kitti', 2560, 10),
        ('tum', 5000, 1),
        ('nyu_vda', 9000, 1.5),
        ('virtual_kitti', 65535, 655.35),
        ('point_odyssey', 65535, 1000),
    ],
)
def test_depth_png_of_every_unit(name, value, metres, tmp_path):
    path = png16(tmp_path / 'd.png', [[0, value, 1]])
    depth = read_depth(path, UNITS_PER_METRE[name])
    assert depth.dtype == np.float32 and depth[0, 0] == 0 and depth_size(path) == (1, 3)
    assert depth[0, 1] == pytest.approx(metres, rel=1e-6)


def test_depth_of_half_floats(tmp_path):
    values = np.array([[1.5, np.inf, np.nan, -2.0, 0.0, 60000.0]], np.float16)
    depth = read_float16_png(png16(tmp_path / 'd.png', values.view(np.uint16)))
    np.testing.assert_array_equal(depth, [[1.5, 0, 0, 0, 0, 60000]])


def test_depth_of_floats(tmp_path):
    values = np.array([[1.25, np.nan, -np.inf], [-1, 1e6, 0]])
    expected = [[1.25, 0, 0], [0, 1e6, 0]]
    np.save(tmp_path / 'd.npy', values)
    np.testing.assert_array_equal(read_depth(tmp_path / 'd.npy'), expected)
    np.save(tmp_path / 'c.npy', values[..., None].astype(np.float32))
    np.testing.assert_array_equal(read_depth_npy(tmp_path / 'c.npy'), expected)
    assert depth_size(tmp_path / 'c.npy') == depth_size(tmp_path / 'd.npy') == (2, 3)
    np.testing.assert_array_equal(read_depth(dpt(tmp_path / 'd.dpt', values)), expected)
    np.save(tmp_path / 'mm.npy', np.array([[1500, 0]], np.uint16))
    np.testing.assert_array_equal(read_depth(tmp_path / 'mm.npy', 1000), [[1.5, 0]])


def test_depth_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.png: no such depth file'):
        read_depth(tmp_path / 'none.png')
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / 'rgb.png')
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / 'grey.png')
    for name, kind in (('rgb', 'colour'), ('grey', 'grey')):
        with pytest.raises(ValueError, match='wanted a 16-bit png with one channel'):
            read_depth(tmp_path / f'{name}.png')
        with pytest.raises(ValueError, match=f'8-bit {kind} png'):
            depth_size(tmp_path / f'{name}.png')
    (tmp_path / 'text.png').write_text('no')
    (tmp_path / 'text.npy').write_text('no')
    (tmp_path / 'text.dpt').write_text('no')
    for name in ('text.png', 'text.npy', 'text.dpt'):
        for read in (read_depth, depth_size):
            with pytest.raises(ValueError, match=name) as caught:
                read(tmp_path / name)
            assert '\n' not in str(caught.value)
    np.save(tmp_path / 'three.npy', np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r'shape \(2, 3, 4\)'):
        read_depth(tmp_path / 'three.npy')
    with pytest.raises(ValueError, match='wanted the tag 202021.25'):
        read_dpt(dpt(tmp_path / 'tag.dpt', np.ones((2, 2)), tag=1.0))
    short = dpt(tmp_path / 'short.dpt', np.ones((2, 2)))
    short.write_bytes(short.read_bytes()[:-1])
    with pytest.raises(ValueError, match='27 bytes; wanted 28 for 2x2'):
        read_dpt(short)
