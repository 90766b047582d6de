"""Hostile, damaged and honest pickles of every protocol."""

import codecs
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest

from trecvit_dense.io.restricted_pickle import UnsafePickleError, load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def write(tmp_path, data: bytes, name='file.pkl'):
    path = tmp_path / name
    path.write_bytes(data)
    return path


class Call:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Subclass(np.ndarray):
    pass


def sample():
    video = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    return {
        'a': dict(
            video=video, points=np.random.default_rng(0).random((5, 2, 2), np.float32), occluded=np.eye(5, 2) > 0
        ),
        'jpeg': np.array([b'\xff\xd8one', b'\xff\xd8three']),
        'objects': np.array([b'1', b'22'], object),
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'big_endian': np.arange(4, dtype='>i4'),
        'list': [b'bytes', 'text', 1, 2.5, None, True, (1, 2)],
    }


def assert_same(got, wanted):
    assert type(got) is type(wanted)
    if isinstance(wanted, dict):
        assert list(got) == list(wanted)
        for key in wanted:
            assert_same(got[key], wanted[key])
    elif isinstance(wanted, np.ndarray):
        assert got.dtype == wanted.dtype and np.array_equal(got, wanted)
    else:
        assert got == wanted


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_plain_data_of_every_protocol(tmp_path, protocol):
    assert_same(load_pickle(write(tmp_path, pickle.dumps(sample(), protocol))), sample())


def renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace a module name in a pickle, whatever opcode carries it."""
    for length in (4, 1):
        encode = struct.Struct('<I' if length == 4 else '<B').pack
        data = data.replace(encode(len(old)) + old, encode(len(new)) + new)
    return data.replace(b'c' + old + b'\n', b'c' + new + b'\n')


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_both_spellings_of_numpy_core(tmp_path, protocol):
    # Frames of protocol 4 and 5 state their length: write without them, as the pure-Python format allows.
    data = pickle.dumps(sample(), protocol)
    names = {arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str) and 'core.' in arg}
    assert names, 'numpy writes its arrays by other names now; the table of globals wants a look'
    plain = strip_frames(data)
    for suffix in ('multiarray', 'numeric'):
        for old, new in (('numpy._core.', 'numpy.core.'), ('numpy.core.', 'numpy._core.')):
            other = renamed(plain, (old + suffix).encode(), (new + suffix).encode())
            assert_same(load_pickle(write(tmp_path, other)), sample())


def strip_frames(data: bytes) -> bytes:
    kept, ops = b'', list(pickletools.genops(data))
    for (op, _, start), following in zip(ops, ops[1:] + [(None, None, len(data))], strict=True):
        kept += b'' if op.name == 'FRAME' else data[start : following[2]]
    return kept


HOSTILE = {
    'os.system': (lambda: Call(os.system, 'echo run > {marker}'), 'system'),
    'builtins.eval': (lambda: Call(eval, "open('{marker}', 'w')"), 'eval'),
    'builtins.getattr': (lambda: Call(getattr, 'text', 'upper'), 'getattr'),
    'numpy.load': (lambda: Call(np.load, 'x.npy'), 'load'),
    'numpy.frombuffer': (lambda: Call(np.frombuffer, b'12345678'), 'frombuffer'),
    'other codec': (lambda: Call(codecs.encode, 'text', 'rot13'), 'rot13'),
    'ndarray subclass': (lambda: np.zeros(3).view(Subclass), 'Subclass'),
    'ndarray called': (lambda: Call(np.ndarray, (3,)), 'ndarray'),
    'numpy scalar': (lambda: np.float64(1.0), 'scalar'),
    'structured dtype': (lambda: np.zeros(2, [('a', 'i4')]), 'dtype'),
    'set': (lambda: {1, 2}, ''),
    'complex': (lambda: 1 + 2j, 'complex'),
}


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('kind', HOSTILE)
def test_anything_else_is_refused_by_name(tmp_path, kind, protocol):
    make, named = HOSTILE[kind]
    marker = tmp_path / 'ran'
    value = make()
    if isinstance(value, Call):
        function, args = value.call
        value = Call(function, *(a.format(marker=marker) if isinstance(a, str) else a for a in args))
    path = write(tmp_path, pickle.dumps([dict(video=value)], protocol))
    with pytest.raises(ValueError) as caught:
        load_pickle(path)
    message = str(caught.value)
    assert named in message and str(path) in message and '\n' not in message
    assert not marker.exists()
    if named:
        assert isinstance(caught.value, UnsafePickleError)


def test_forged_dtype_state_never_reaches_numpy(tmp_path):
    # An object dtype relabelled as plain data would make numpy read the bytes as pointers.
    honest = pickle.dumps(np.array([None], object), 2)
    forged = honest.replace(b'N', b'(X\x01\x00\x00\x00aK\x01tq\xf0', 1)
    with pytest.raises(ValueError):
        load_pickle(write(tmp_path, forged))
    raw = b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R'
    raw = raw + b'(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R\x89C\x08AAAAAAAAtb.'
    with pytest.raises(UnsafePickleError, match='state that NumPy does not write'):
        load_pickle(write(tmp_path, raw))


def test_the_reader_itself_cannot_be_changed(tmp_path):
    changed = b'\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.'
    with pytest.raises(UnsafePickleError, match='own functions'):
        load_pickle(write(tmp_path, changed))


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_truncated_anywhere(tmp_path, protocol):
    data = pickle.dumps(sample(), protocol)
    for length in range(1, len(data), 37):
        with pytest.raises(ValueError, match='file.pkl'):
            load_pickle(write(tmp_path, data[:length]))


def test_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        load_pickle(tmp_path / 'nowhere.pkl')
    with pytest.raises(ValueError, match='empty'):
        load_pickle(write(tmp_path, b''))
    with pytest.raises(ValueError, match='not a readable pickle'):
        load_pickle(write(tmp_path, b'\x00\x00\x00\x18ftypmp42 this is a video'))
    huge = b'\x80\x04\x8e' + struct.pack('<Q', 1 << 60) + b'x.'
    with pytest.raises(ValueError, match='file.pkl'):
        load_pickle(write(tmp_path, huge))
    wrong_size = pickle.dumps(np.zeros(4), 2).replace(b'K\x04\x85', b'K\x09\x85', 1)
    with pytest.raises(ValueError, match='file.pkl'):
        load_pickle(write(tmp_path, wrong_size))


def test_nesting_neither_hangs_nor_overflows(tmp_path):
    bomb = 'leaf'
    for _ in range(12):
        bomb = [bomb] * 50  # 50 ** 12 leaves if shared parts were walked each time
    load_pickle(write(tmp_path, pickle.dumps(bomb)))
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError):
        load_pickle(write(tmp_path, pickle.dumps(loop)))


def test_npy(tmp_path):
    np.save(tmp_path / 'plain.npy', np.arange(3))
    assert load_pickle(tmp_path / 'plain.npy').tolist() == [0, 1, 2]
    np.save(tmp_path / 'dict.npy', np.array(sample(), object), allow_pickle=True)
    assert_same(load_pickle(tmp_path / 'dict.npy'), sample())
    np.save(tmp_path / 'bad.npy', np.array(dict(a=Call(os.system, 'true')), object), allow_pickle=True)
    with pytest.raises(UnsafePickleError, match='system'):
        load_pickle(tmp_path / 'bad.npy')
    with pytest.raises(ValueError, match='short.npy'):
        load_pickle(write(tmp_path, (tmp_path / 'plain.npy').read_bytes()[:40], 'short.npy'))
