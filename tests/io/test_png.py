"""The fast reader of index PNGs gives what Pillow gives, for every way to write one, and refuses the rest."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trecvit_dense.io import png, read_mask, write_mask
from trecvit_dense.io.png import decode_index_png, png_size, read_index_png

SIGNATURE = b'\x89PNG\r\n\x1a\n'


def labels(seed=0, size=(23, 37), ids=3):
    rng = np.random.default_rng(seed)
    array = np.zeros(size, np.uint8)
    for i in range(1, ids + 1):
        y, x = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        array[y : y + 7, x : x + 8] = i
    return array


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def encode(array, filters, *, depth=8, colour=0, parts=1):
    """A PNG of 8 bits with the given filter for each row."""
    height, width = array.shape
    rows = []
    for y, kind in enumerate(filters):
        row = array[y].astype(int)
        left = np.concatenate([[0], row[:-1]])
        up = array[y - 1].astype(int) if y else np.zeros(width, int)
        predicted = [0 * row, left, up, (left + up) // 2][kind]
        rows.append(bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes())
    stream = zlib.compress(b''.join(rows))
    pieces = [stream[i * len(stream) // parts : (i + 1) * len(stream) // parts] for i in range(parts)]
    header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b'IHDR', header) + b''.join(chunk(b'IDAT', p) for p in pieces) + chunk(b'IEND', b'')


@pytest.mark.parametrize('colour', [0, 3])
@pytest.mark.parametrize('kinds', [[0], [1], [2], [3], [1, 2, 3, 0, 1]])
def test_row_filters(kinds, colour):
    array = labels()
    data = encode(array, [kinds[y % len(kinds)] for y in range(len(array))], parts=3, colour=colour)
    assert np.array_equal(decode_index_png(data), array)


@pytest.mark.parametrize('colours', [2, 4, 16, 256])
def test_palettes_of_every_depth(tmp_path, colours):
    array = labels(ids=min(colours - 1, 5))
    image = Image.fromarray(array)
    image.putpalette(np.arange(3 * colours).astype(np.uint8).tobytes())
    image.save(tmp_path / 'a.png')
    data = (tmp_path / 'a.png').read_bytes()
    assert np.array_equal(decode_index_png(data), array) and np.array_equal(
        np.asarray(Image.open(tmp_path / 'a.png')), array
    )


def test_own_files_and_grey_ones(tmp_path):
    array = labels(size=(480, 854))
    write_mask(tmp_path / 'a.png', array)
    Image.fromarray(array).save(tmp_path / 'b.png')
    Image.fromarray(array > 0).save(tmp_path / 'c.png')
    for name, expected in (('a', array), ('b', array), ('c', array > 0)):
        read = read_index_png(tmp_path / f'{name}.png')
        assert read.dtype == np.uint8 and np.array_equal(read, expected)
        assert np.array_equal(read_mask(tmp_path / f'{name}.png'), expected)
        assert png_size(tmp_path / f'{name}.png') == (480, 854)


def test_without_the_fast_inflater(monkeypatch):
    monkeypatch.setattr(png, 'inflater', zlib)
    array = labels()
    assert np.array_equal(decode_index_png(encode(array, [0] * len(array), colour=3)), array)


def refused(path, error=ValueError):
    with pytest.raises(error) as caught:
        read_index_png(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)
    return str(caught.value)


def test_refusals_are_one_line_with_the_file(tmp_path):
    data = encode(labels(), [0] * 23, colour=3)
    path = tmp_path / 'a.png'
    assert 'no such mask' in refused(path, FileNotFoundError)
    assert 'a folder' in refused(tmp_path)
    for damaged in (data[:-30], data[:60], data[:-20] + b'\x00' * 20):
        path.write_bytes(damaged)
        assert 'damaged' in refused(path)
    flipped = bytearray(data)
    flipped[data.index(b'IDAT') + 20] ^= 1
    path.write_bytes(flipped)
    assert 'checksum' in refused(path)
    wrong = data.replace(struct.pack('>II', 37, 23), struct.pack('>II', 37, 24))
    path.write_bytes(wrong)
    assert 'holds' in refused(path)
    path.write_bytes(b'text')
    refused(path)
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    assert 'palette or grey' in refused(path)
    Image.fromarray(np.full((4, 5), 300, np.uint16)).save(path)
    assert '300' in refused(path)
