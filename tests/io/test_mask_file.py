"""Masks: the index of a PNG is the id, whatever its colours, its depth or the program that wrote it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trecvit_dense.io import MaskWriter, read_mask, write_mask
from trecvit_dense.io.mask_file import mask_header, voc_palette


def labels(seed: int = 0, most: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, (13, 21)).astype(np.uint8)


def palette_png(path: Path, index: np.ndarray, colours: np.ndarray | None = None) -> Path:
    """Written by hand: mode P with any palette."""
    picture = Image.new('P', index.shape[::-1])
    picture.putdata(index.ravel().tolist())
    picture.putpalette((np.arange(768) % 256 if colours is None else colours.ravel()).tolist())
    picture.save(path)
    return path


def test_index_is_the_id_whatever_the_palette(tmp_path: Path) -> None:
    truth = labels()
    truth[0, :3] = 255
    for number, colours in enumerate((None, np.zeros((256, 3), int), np.full((256, 3), 200))):
        np.testing.assert_array_equal(read_mask(palette_png(tmp_path / f'{number}.png', truth, colours)), truth)
    cv2.imwrite(str(tmp_path / 'grey.png'), truth)
    np.testing.assert_array_equal(read_mask(tmp_path / 'grey.png'), truth)


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_few_bits_a_pixel(tmp_path: Path, bits: int) -> None:
    truth = labels(most=2**bits)
    picture = Image.fromarray(truth)
    picture.putpalette([0, 0, 0, 255, 255, 255] * (2 ** (bits - 1)))
    picture.save(tmp_path / 'p.png', bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / 'p.png'), truth)
    if bits == 1:
        Image.fromarray(truth.astype(bool)).save(tmp_path / 'g.png')
        np.testing.assert_array_equal(read_mask(tmp_path / 'g.png'), truth)


def test_binary_takes_anything_but_black(tmp_path: Path) -> None:
    truth = labels(most=2)
    shapes = {
        'grey': truth * 255,
        'rgb': np.dstack([truth * 0, truth * 9, truth * 0]),
        'rgba': np.dstack([truth * 255] * 3 + [np.full_like(truth, 255)]),
        'la': np.dstack([truth * 3, np.full_like(truth, 255)]),
    }
    for name, values in shapes.items():
        Image.fromarray(values).save(tmp_path / f'{name}.png')
        np.testing.assert_array_equal(read_mask(tmp_path / f'{name}.png', binary=True), truth)
    np.testing.assert_array_equal(read_mask(palette_png(tmp_path / 'p.png', truth * 7), binary=True), truth)


def test_ids_spread_over_channels(tmp_path: Path) -> None:
    truth = labels()
    Image.fromarray(np.dstack([truth, truth * 0, truth * 0])).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_mask(tmp_path / 'a.png', rgb_ids=True), truth)
    Image.fromarray(np.dstack([truth, truth * 0 + 2, truth * 0])).save(tmp_path / 'b.png')
    with pytest.raises(ValueError, match=r'b\.png: holds the object id 517;'):
        read_mask(tmp_path / 'b.png', rgb_ids=True)


def test_what_is_no_mask_is_one_line(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([labels()] * 3)).save(tmp_path / 'rgb.png')
    Image.fromarray(labels().astype(np.uint16) + 300).save(tmp_path / 'deep.png')
    Image.fromarray(labels() * 40).save(tmp_path / 'photo.jpg')
    (tmp_path / 'text.png').write_text('not a picture')
    (tmp_path / 'empty.png').write_bytes(b'')
    write_mask(tmp_path / 'cut.png', labels())
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'cut.png').read_bytes()[:-40])
    messages = {
        'rgb.png': 'a picture with 3 channels; wanted a palette or grey PNG',
        'deep.png': 'holds the object id 305',
        'photo.jpg': 'a JPEG, which does not keep ids',
        'text.png': 'not an image',
        'empty.png': 'not an image',
        'cut.png': 'damaged',
    }
    for name, message in messages.items():
        with pytest.raises(ValueError) as caught:
            read_mask(tmp_path / name)
        assert message in str(caught.value) and str(tmp_path / name) in str(caught.value)
        assert '\n' not in str(caught.value)
    with pytest.raises(FileNotFoundError, match='no such mask'):
        read_mask(tmp_path / 'nowhere.png')


def test_written_masks_are_what_the_servers_want(tmp_path: Path) -> None:
    truth = labels(most=256)
    write_mask(tmp_path / 'a.png', truth)
    picture = Image.open(tmp_path / 'a.png')
    assert picture.mode == 'P' and picture.size == (21, 13)
    np.testing.assert_array_equal(np.array(picture), truth)
    # The first colours of PASCAL VOC, as its development kit lists them.
    wanted = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 0, 128, 128, 128, 128, 128, 64, 0, 0]
    assert picture.getpalette()[:27] == wanted and voc_palette()[255].tolist() == [224, 224, 192]
    assert mask_header(tmp_path / 'a.png') == ((13, 21), False)
    write_mask(tmp_path / 'b.png', truth > 3)
    assert np.array(Image.open(tmp_path / 'b.png')).max() == 1
    for wrong in (truth.astype(float), truth[0], truth.astype(int) + 1, truth.astype(int) - 1):
        with pytest.raises(ValueError, match='c.png'):
            write_mask(tmp_path / 'c.png', wrong)
    assert not (tmp_path / 'c.png').exists()


def test_a_folder_of_masks_is_complete_or_absent(tmp_path: Path) -> None:
    with MaskWriter(tmp_path / 'out') as writer:
        writer.write(labels(0))
        writer.write(labels(1), '00007')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['00000.png', '00007.png']
    with pytest.raises(ValueError, match='not empty'):
        MaskWriter(tmp_path / 'out')
    with pytest.raises(FileNotFoundError, match='create it first'):
        MaskWriter(tmp_path / 'none' / 'out')
    with pytest.raises(ZeroDivisionError), MaskWriter(tmp_path / 'half') as writer:
        writer.write(labels())
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ['out']
