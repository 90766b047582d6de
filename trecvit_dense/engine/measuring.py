"""Time and memory of a call on a machine that others use, too.

On a CPU the time of one thread is the CPU time of this process: what it worked, whatever else the machine did. With
more threads, and on a GPU, only the clock tells when the last of them was done. The shortest of several calls is the
one that was disturbed least.
"""

from __future__ import annotations

import ctypes
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

_READABLE_S = 1e-3  # what a clock tells well
_STATUS = Path('/proc/self/status')
_CLEAR = Path('/proc/self/clear_refs')


def counts_cpu_time(device: str) -> bool:
    """Whether times here are CPU time; else they are of the clock."""
    return device == 'cpu' and torch.get_num_threads() == 1


def seconds_of(function: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    clock = time.process_time if counts_cpu_time(device) else time.perf_counter
    wait = torch.cuda.synchronize if device.startswith('cuda') else (lambda: None)
    wait()
    begin = clock()
    function()
    wait()
    return clock() - begin


def shortest(function: Callable[[], Any], device: str, *, repeats: int = 3, at_least_s: float = 0.0) -> float:
    """Seconds of the shortest call, of ``repeats`` after one that is not counted; more until ``at_least_s`` is over.

    Calls that are shorter than a millisecond are timed several at once.
    """
    function()
    calls = max(1, math.ceil(_READABLE_S / max(seconds_of(function, device), 1e-6)))
    times = []
    while len(times) < repeats or calls * sum(times) < at_least_s:
        times.append(seconds_of(lambda: [function() for _ in range(calls)], device) / calls)
    return max(min(times), 1e-9)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The power p of the curve ``c * size^p`` that is closest to the costs on a logarithmic scale.

    Raises:
        ValueError: fewer than two different sizes, or a size or cost that is not positive.
    """
    if len(set(sizes)) < 2 or min(*sizes, *costs) <= 0:
        raise ValueError(f'no power fits costs {list(costs)} of sizes {list(sizes)}; wanted two sizes, all positive')
    x, y = [math.log(value) for value in sizes], [math.log(value) for value in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - mean_x) ** 2 for a in x)


# --------------------------------------------------------------------------------------------------------- memory


class ProcessPeak:
    """Most bytes of memory that this process has held since :meth:`reset`, libraries and weights included.

    Attributes:
        exact: Whether the system lets a process forget its peak (Linux); else it is that of the whole life so far.
    """

    def __init__(self) -> None:
        self.exact = False
        self.reset()

    def reset(self) -> None:
        give_back()
        try:
            _CLEAR.write_text('5')  # proc(5): the peak becomes what is held now
            self.exact = True
        except OSError:
            self.exact = False

    @property
    def nbytes(self) -> int:
        return _status('VmHWM') if self.exact else peak_of_life()


def give_back() -> None:
    """Let the allocator return what it keeps of freed memory, where it can be told to (glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def peak_of_life() -> int:
    """Most bytes that this process has ever held."""
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ':'))
    return int(line.split()[1]) * 1024
