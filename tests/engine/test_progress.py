"""The progress line on a terminal and in a file."""

from __future__ import annotations

import io

from trecvit_dense import progress
from trecvit_dense.engine.progress import ProgressBar, clock, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_track_yields_everything_and_closes_with_the_total():
    stream = io.StringIO()
    assert list(track([1, 2, 3], description='count', stream=stream)) == [1, 2, 3]
    assert stream.getvalue().startswith('count  [####################] 3/3  100%')
    assert stream.getvalue().count('\n') == 1, 'a file gets lines, not redraws'


def test_terminal_redraws_one_line(monkeypatch):
    monkeypatch.setattr(progress, '_REDRAW_S', 0.0)
    stream = Terminal()
    list(track(range(4), description='count', stream=stream))
    assert stream.getvalue().count('\r') == 5 and stream.getvalue().count('\n') == 1


def test_eta_counts_only_the_steps_of_this_run(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    bar = ProgressBar(100, 'train', done=50, stream=io.StringIO())
    now[0] += 10
    bar.update(10, note='loss 1.0')
    assert bar.line() == 'train  [############........] 60/100   60%  1.0 it/s  ETA 0:00:40  loss 1.0'


def test_unknown_length_has_no_eta():
    stream = io.StringIO()
    list(track(iter(range(3)), stream=stream))
    assert 'ETA' not in stream.getvalue() and stream.getvalue().startswith('3  ')


def test_bar_is_closed_when_the_job_fails():
    stream = io.StringIO()
    jobs = track(range(3), stream=stream)
    next(jobs)
    jobs.close()
    assert stream.getvalue().endswith('\n')


def test_clock():
    assert (clock(0), clock(61), clock(3600 * 25 + 5)) == ('0:00:00', '0:01:01', '25:00:05')
