"""Memory that a step gives back and takes again on the next frame."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of malloc.h
_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next tensors, instead of handing it to the system.

    The C library asks the system for every large tensor and returns it at once; the pages come back one by one, each
    by an interrupt and cleared, which costs more than many an operation that fills them. The peak is what
    it was, and it is held until the process ends. It concerns the whole process: programs call it, libraries
    should not.

    Returns:
        Whether it is so from now on; False where the C library is not glibc.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _PAD_BYTES))
    return all([mallopt(name, value) == 1 for name, value in settings])
