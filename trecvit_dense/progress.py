"""Progress of long jobs: one line that redraws itself on a terminal, a line now and then in a log file.

The standard library alone, for programs that must start fast; training has a hook around it in ``engine.progress``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar('Item')

_WIDTH = 20
_REDRAW_S = 0.1  # terminal
_REPORT_S = 30.0  # anything else


def clock(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, second = divmod(int(seconds + 0.5), 60)
    hour, minute = divmod(minutes, 60)
    return f'{hour}:{minute:02d}:{second:02d}'


class ProgressBar:
    """Counts steps of a job and says when it will be done.

    Args:
        total: Steps in all; None when unknown: then no bar and no ETA.
        description: What is being done.
        done: Steps that were done before (a resumed run); they do not enter the ETA.
        stream: Where to write; standard error by default, so that results on standard output stay clean.
    """

    def __init__(
        self, total: int | None, description: str = '', *, done: int = 0, stream: TextIO | None = None
    ) -> None:
        self.total, self.description = total, description
        self.count = self.first = done
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.started = self.shown = time.monotonic()
        self.length = 0
        self.note = ''

    def update(self, steps: int = 1, note: str = '') -> None:
        """``steps`` more are done; ``note`` (the loss, say) is shown at the end of the line."""
        self.count += steps
        self.note = note or self.note
        if time.monotonic() - self.shown >= (_REDRAW_S if self.live else _REPORT_S):
            self.show()

    def show(self) -> None:
        """Write the line now."""
        self.shown = time.monotonic()
        line = self.line()
        if self.live:
            self.stream.write('\r' + line.ljust(self.length))
            self.length = len(line)
        else:
            self.stream.write(line + '\n')
        self.stream.flush()

    def close(self) -> None:
        """Show the final count and leave the line."""
        self.show()
        if self.live:
            self.stream.write('\n')
            self.stream.flush()

    def line(self) -> str:
        elapsed = time.monotonic() - self.started
        done = self.count - self.first
        rate = done / elapsed if elapsed > 0 else 0.0
        speed = f'{rate:.1f} it/s' if rate >= 1 or done == 0 else f'{elapsed / done:.1f} s/it'
        if self.total:
            share = min(self.count / self.total, 1.0)
            bar = ('#' * int(share * _WIDTH)).ljust(_WIDTH, '.')
            left = self.total - self.count
            timing = f'ETA {clock(left / rate)}' if left > 0 and rate > 0 else f'took {clock(elapsed)}'
            parts = [f'[{bar}] {self.count}/{self.total}', f'{share:4.0%}', speed, timing]
        else:
            parts = [f'{self.count}', speed, clock(elapsed)]
        return '  '.join(part for part in (self.description, *parts, self.note) if part)


def track(
    iterable: Iterable[Item], total: int | None = None, description: str = '', *, stream: TextIO | None = None
) -> Iterator[Item]:
    """Yield from ``iterable`` with a progress bar; ``total`` is its length where it has one."""
    if total is None and hasattr(iterable, '__len__'):
        total = len(iterable)
    bar = ProgressBar(total, description, stream=stream)
    try:
        for item in iterable:
            yield item
            bar.update()
    finally:
        bar.close()
