"""Read pickled data sets (TAP-Vid, RoboTAP, pickled ``.npy``) without running anything that the file says.

A pickle is a program: it names globals and calls them. Here the few names that NumPy's own writer uses are answered by
stand-ins that only record what they are told; any other name is refused. NumPy itself is never handed the file's state
(a forged ``dtype`` state can make it follow pointers): arrays are built from plain bytes afterwards.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_DTYPE = re.compile(r'([|<>=]?)(?:([biufSUV])(\d+)|O8?)')
_MAX_DEPTH = 16


class UnsafePickleError(ValueError):
    """A pickle asks for more than plain data. The message is one line and names the file and the global."""


class _Refused(Exception):
    """Carries the reason out of the unpickler."""


class _DType:
    """Records ``numpy.dtype(spec, ...)`` and its byte order."""

    def __init__(self, spec: Any, *_flags: Any) -> None:
        match = _DTYPE.fullmatch(spec) if isinstance(spec, str) else None
        if match is None:
            raise _Refused(f'an array of dtype {spec!r}')
        self.is_object = 'O' in spec
        self._kind, self._order = spec.lstrip('|<>='), match[1]

    def __setstate__(self, state: Any) -> None:
        fields = state[2:5] if isinstance(state, tuple) else ()
        if len(fields) < 3 or any(field is not None for field in fields) or state[1] not in ('<', '>', '|', '='):
            raise _Refused('an array of a structured dtype')
        self._order = state[1]

    def numpy(self) -> np.dtype:
        return np.dtype(object) if self.is_object else np.dtype(self._order + self._kind)


class _Global:
    """What a name resolves to: it can be called and nothing else. A file could set attributes on a bare function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a change of one of the reader's own functions")


def _only_named(*_args: Any) -> Any:
    raise _Refused("a call of the global 'numpy.ndarray'")


_NDARRAY = _Global(_only_named)


class _Array:
    """Records ``numpy.ndarray`` state; :meth:`numpy` builds the array."""

    def __init__(self) -> None:
        self._state: tuple[Any, _DType, Any, bool] | None = None

    @staticmethod
    def reconstruct(kind: Any, *_placeholder: Any) -> _Array:
        if kind is not _NDARRAY:
            raise _Refused('an array of a class that is not numpy.ndarray')
        return _Array()

    @staticmethod
    def from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any = 'C') -> _Array:
        array = _Array()
        array._record(shape, dtype, buffer, order == 'F')
        return array

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused('an array with a state that NumPy does not write')
        _version, shape, dtype, fortran, data = state
        self._record(shape, dtype, data, bool(fortran))

    def _record(self, shape: Any, dtype: Any, data: Any, fortran: bool) -> None:
        if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
            raise _Refused('an array with a state that NumPy does not write')
        if not isinstance(data, list if dtype.is_object else (bytes, bytearray, str)):
            raise _Refused('an array with a state that NumPy does not write')
        self._state = (shape, dtype, data, fortran)

    def numpy(self, convert: Any) -> np.ndarray:
        if self._state is None:
            raise _Refused('an array without data')
        shape, dtype, data, fortran = self._state
        if min(shape, default=0) < 0:
            raise _Refused(f'an array of shape {shape}')
        if dtype.is_object:
            flat = np.empty(len(data), object)
            for index, value in enumerate(data):
                flat[index] = convert(value)
        else:
            flat = np.frombuffer(data.encode('latin1') if isinstance(data, str) else data, dtype.numpy())
        return flat.reshape(shape, order='F' if fortran else 'C')


def _latin1_bytes(text: Any, encoding: Any = None) -> bytes:
    if not isinstance(text, str) or encoding != 'latin1':
        raise _Refused(f"the global '_codecs.encode' with the codec {encoding!r} (only latin1 is read)")
    return text.encode('latin1')


_GLOBALS: dict[tuple[str, str], _Global] = {
    ('_codecs', 'encode'): _Global(_latin1_bytes),  # how protocols 0 to 2 write bytes
    ('numpy', 'dtype'): _Global(_DType),
    ('numpy', 'ndarray'): _NDARRAY,
}
for _core in ('numpy.core', 'numpy._core'):  # before and since NumPy 2
    _GLOBALS[f'{_core}.multiarray', '_reconstruct'] = _Global(_Array.reconstruct)
    _GLOBALS[f'{_core}.numeric', '_frombuffer'] = _Global(_Array.from_buffer)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise _Refused(f"the global '{module}.{name}'")
        return _GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused('an object outside the file (a persistent id)')


class _Converter:
    """Turns the recorded tree into dicts, lists, tuples and arrays; shared parts stay shared."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, Any]] = {}  # by id; holding the original keeps its id taken
        self._depth = 0

    def __call__(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str, bytes, bytearray)):
            return value
        if id(value) in self._done:
            return self._done[id(value)][1]
        if self._depth == _MAX_DEPTH:
            raise _Refused(f'data nested more than {_MAX_DEPTH} deep')
        self._depth += 1
        converted = self._container(value)
        self._depth -= 1
        self._done[id(value)] = (value, converted)
        return converted

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            if not all(isinstance(key, (str, int, bytes)) for key in value):
                raise _Refused('a dict whose keys are not text')
            for key in value:
                value[key] = self(value[key])
            return value
        if isinstance(value, list):
            value[:] = [self(item) for item in value]
            return value
        if isinstance(value, tuple):
            return tuple(self(item) for item in value)
        if isinstance(value, _Array):
            return value.numpy(self)
        raise _Refused(f'a {type(value).__name__.lstrip("_")}, which is no plain data')


def _load(file: BinaryIO, path: Path) -> Any:
    try:
        # latin1 lets byte strings of Python 2 through unchanged.
        return _Converter()(_Unpickler(file, encoding='latin1').load())
    except _Refused as error:
        raise UnsafePickleError(
            f'{path}: refused, the pickle asks for {error}; only dicts, lists, numbers, text and plain numpy arrays '
            f'are read, and nothing was run: get the file from its publisher again, or re-save it as plain arrays'
        ) from None
    except (MemoryError, OverflowError):
        raise ValueError(f'{path}: the pickle claims more data than memory holds; is the file damaged?') from None
    except Exception as error:  # a damaged pickle can fail in any opcode, with any exception
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(f'{path}: not a readable pickle, or truncated ({reason}); copy or download it again') from None


def load_pickle(path: str | Path) -> Any:
    """The data in a pickle file, or in a ``.npy`` file that holds a pickled object.

    Plain dicts, lists, tuples, numbers, text, bytes and NumPy arrays of numbers, flags, bytes or text; object arrays of
    these. Arrays may be read-only views of the file's bytes.

    Raises:
        FileNotFoundError: no such file.
        UnsafePickleError: the file names any other global; nothing was run.
        ValueError: not a pickle, or truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    if os.path.getsize(path) == 0:
        raise ValueError(f'{path}: the file is empty')
    with open(path, 'rb') as file:
        if file.peek(6)[:6] == b'\x93NUMPY':
            return _load_npy(file, path)
        return _load(file, path)


def _load_npy(file: io.BufferedReader, path: Path) -> Any:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _shape, _fortran, dtype = read(file)
        if not dtype.hasobject:
            file.seek(0)
            return np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f'{path}: not a readable .npy file ({" ".join(str(error).split())})') from None
    value = _load(file, path)
    return value.item() if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 0 else value
