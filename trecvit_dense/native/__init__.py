"""Compiled code for CPUs: ``recurrence.c``, built by the machine's own C compiler when it is asked for.

Nobody needs it: ``backend='native'`` or ``TRECVIT_NATIVE=1`` ask for it. Building takes a second or two, once for each
machine and version: the library is kept in ``$TRECVIT_CACHE`` (default: ``trecvit_dense`` in the user's cache folder).
Without a compiler, or with ``TRECVIT_NATIVE=0``, :func:`why_not` gives the reason. float32 alone. Where the compiler
has OpenMP, torch's threads share the channels of a tile.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from trecvit_dense.models.layers.gated_tiles import FLOOR, Buffer, Shape

_SOURCE = Path(__file__).with_name('recurrence.c')
_COMPILERS = ('cc', 'gcc', 'clang')
_FLAGS = ('-std=gnu11', '-O3', '-fno-math-errno', '-fno-trapping-math', '-shared', '-fPIC')
_NATIVE = (('-march=native', '-mprefer-vector-width=512'), ('-march=native',), ('-mcpu=native',), ())
_THREADS = ('-fopenmp', '-fopenmp-simd')  # the latter: vectors alone, one thread
_LEAST = 1 << 14  # numbers that are worth a thread of their own
_HUGE = 1 << 22  # bytes from which a tensor gets huge pages: a page fault costs as much as filling the page


# ------------------------------------------------------------------------------------------------------- building


def why_not() -> str:
    """In words, why the library cannot be used here; empty: it can, and is built now."""
    if os.environ.get('TRECVIT_NATIVE', '1') == '0':
        return 'TRECVIT_NATIVE=0 turns it off'
    return _library()[1]


@functools.cache
def _library() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason."""
    compiler = os.environ.get('CC') or next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        return None, f'no C compiler found ({", ".join(_COMPILERS)})'
    identity = '\0'.join((_SOURCE.read_text(), compiler, *_FLAGS, platform.machine(), _cpu()))
    name = f'recurrence-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so'
    try:
        folder = _folder()
        path = folder / name
        if not path.is_file():
            _compile(compiler, path)
        return ctypes.CDLL(str(path)), ''
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, 'stderr', None) or error
        return None, f'{compiler} did not build {_SOURCE.name}: {str(words).strip().splitlines()[-1]}'


def _cpu() -> str:
    """What the code is compiled for: a cache may be shared by machines that differ."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(('flags', 'features'))), platform.processor())


def _folder() -> Path:
    """A folder of this user alone: what lies in it is run."""
    given = os.environ.get('TRECVIT_CACHE')
    folder = Path(given) if given else Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser() / 'trecvit_dense'
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix='trecvit_dense_'))


def _compile(compiler: str, path: Path) -> None:
    """Build into a file of another name first: several processes may do so at once."""
    for threads, flags in itertools.product(_THREADS, _NATIVE):
        handle, built = tempfile.mkstemp(suffix='.so', dir=path.parent)
        os.close(handle)
        command = [compiler, *_FLAGS, threads, *flags, '-o', built, str(_SOURCE), '-lm']
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode == 0:
            os.replace(built, path)
            return
        os.unlink(built)
    raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr or 'no words')


# -------------------------------------------------------------------------------------------------------- calling


class _Tile(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ('heads', 'batch', 'frames', 'rows', 'channels', 'fresh')]


class _View(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('token', ctypes.c_int64), ('head', ctypes.c_int64)]


def _view(x: Tensor) -> _View:
    """Of ``(heads, tokens, S)``."""
    return _View(x.data_ptr(), x.stride(1), x.stride(0))


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _state(before: Tensor | None) -> tuple[ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]:
    """Of ``(batch, rows, heads, S)``."""
    strides = (0, 0) if before is None else before.stride()[:2]
    return _pointer(before), *map(ctypes.c_int64, strides)


def _parts(length: int, numbers: int) -> ctypes.c_int64:
    """How many threads share ``length`` channels: as many as torch uses, if there is enough for each."""
    return ctypes.c_int64(max(1, min(torch.get_num_threads(), numbers // _LEAST, length // 16)))


def forward_tile(
    shape: Shape,
    x: Tensor,
    gates: Tensor,
    log_decay: Tensor,
    *,
    before: Tensor | None,
    mask: Tensor | None,
    fresh: bool,
    h: Tensor,
    buffer: Buffer,
) -> None:
    """As :func:`trecvit_dense.models.layers.gated_tiles.forward_tile`."""
    heads, _, size = x.shape
    _library()[0].gated_forward(
        ctypes.byref(_Tile(heads, *shape, size, fresh)),
        _view(x),
        *map(_view, gates.chunk(2, dim=-1)),
        _pointer(log_decay),
        *_state(before),
        _pointer(mask),
        _view(h),
        _parts(size, x.numel()),
    )


def backward_tile(
    shape: Shape,
    grad_h: Tensor,
    x: Tensor,
    gates: Tensor,
    log_decay: Tensor,
    *,
    h: Tensor,
    before: Tensor | None,
    mask: Tensor | None,
    fresh: bool,
    grad_x: Tensor,
    carried: Tensor,
    sums: Tensor,
    buffer: Buffer,
) -> None:
    """As :func:`trecvit_dense.models.layers.gated_tiles.backward_tile`."""
    heads, _, size = x.shape
    added = torch.zeros(3, heads, size, dtype=torch.float64)
    _library()[0].gated_backward(
        ctypes.byref(_Tile(heads, *shape, size, fresh)),
        *map(_view, (grad_h, x, *gates.chunk(2, dim=-1))),
        _pointer(log_decay),
        _view(h),
        *_state(before),
        _pointer(mask),
        _view(grad_x),
        _pointer(carried),
        _pointer(added),
        ctypes.c_float(FLOOR),
        _parts(size, x.numel()),
    )
    sums += added


def empty(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Memory for a result, in huge pages where the system lets a program ask for them."""
    found = torch.empty(shape, dtype=dtype)
    if found.nbytes >= _HUGE:
        _library()[0].huge_pages(_pointer(found), ctypes.c_int64(found.nbytes))
    return found


def scan(x: Tensor, a: Tensor, h0: Tensor | None, h: Tensor, *, reverse: bool) -> None:
    """``h_t = a_t * h_{t-1} + x_t`` over float32 ``(B, T, F)``, into a contiguous ``h``."""
    x, a, h0 = x.contiguous(), a.contiguous(), None if h0 is None else h0.contiguous()
    sizes = [ctypes.c_int64(size) for size in x.shape]
    parts = _parts(x.shape[2], x.numel())
    _library()[0].scan(*map(_pointer, (x, a, h0, h)), *sizes, ctypes.c_int(reverse), parts)


def scan_backward(
    grad_h: Tensor,
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor | None],
    *,
    reverse: bool,
) -> None:
    """Write the gradients of ``x``, ``a`` and ``h0`` to ``grads``, contiguous as ``h`` is."""
    grad_h, a, h0 = grad_h.contiguous(), a.contiguous(), None if h0 is None else h0.contiguous()
    sizes = [ctypes.c_int64(size) for size in a.shape]
    parts = _parts(a.shape[2], a.numel())
    _library()[0].scan_backward(*map(_pointer, (grad_h, a, h, h0, *grads)), *sizes, ctypes.c_int(reverse), parts)


class _Clip(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ('batch', 'time', 'rows', 'width', 'past')]


def convolve(x: Tensor, state: Tensor | None, weight: Tensor, bias: Tensor, reach: Tensor | None) -> Tensor:
    """The causal convolution of contiguous ``(B, T, N, L)``; ``state (B, past, N, L)``, ``reach (B, T, N)`` int8."""
    y, clip = empty(x.shape, x.dtype), _Clip(*x.shape, len(weight) - 1)
    pointers = map(_pointer, (x, state, weight, bias, reach, y))
    _library()[0].conv_forward(ctypes.byref(clip), *pointers, _parts(x.shape[-1], x.numel()))
    return y


def convolve_backward(
    grad_y: Tensor, x: Tensor, state: Tensor | None, weight: Tensor, reach: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of ``x``, ``state``, ``weight`` and ``bias``."""
    grad_x, grad_state = empty(x.shape, x.dtype), None if state is None else torch.zeros_like(state)
    sums = torch.zeros(len(weight) + 1, x.shape[-1], dtype=torch.float64)
    clip = _Clip(*x.shape, len(weight) - 1)
    pointers = map(_pointer, (grad_y, x, state, weight, reach, grad_x, grad_state, sums))
    _library()[0].conv_backward(ctypes.byref(clip), *pointers, _parts(x.shape[-1], x.numel()))
    grads = sums.to(weight.dtype)
    return grad_x, grad_state, grads[:-1], grads[-1]


def gate(y: Tensor, h: Tensor) -> Tensor:
    """``gelu(y) * h`` of contiguous tensors of one shape."""
    out = empty(y.shape, y.dtype)
    _library()[0].gate_forward(*map(_pointer, (y, h, out)), *_numbers(y))
    return out


def gate_backward(grad: Tensor, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``y`` and ``h``."""
    grads = empty(y.shape, y.dtype), empty(h.shape, h.dtype)
    _library()[0].gate_backward(*map(_pointer, (grad, y, h, *grads)), *_numbers(y))
    return grads


def _numbers(x: Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64]:
    """How many, and how many threads share them."""
    return ctypes.c_int64(x.numel()), _parts(x.numel(), x.numel())
