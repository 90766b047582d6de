"""The ``trecvit`` command: ``trecvit train|test|demo|benchmark|convert|...``; ``trecvit --help`` lists all.

Each subcommand is a module here with ``main(argv) -> int``, imported only when it is asked for; ``tools/*.py`` call the
same functions. Importing this package needs the standard library alone.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

COMMANDS = {
    'train': 'train a model and evaluate it',
    'test': 'evaluate a checkpoint',
    'eval-masks': 'score masks of any program, PNG against PNG',
    'eval-depth': 'score depth maps of any program, by the rules of papers',
    'demo': 'run a model on a video, a folder of frames or a camera',
    'benchmark': 'measure latency, throughput and memory',
    'check-transfer': 'follow points through a video and back: consistency without annotation',
    'convert': 'convert official weights',
    'extract-features': 'write the features of a frozen encoder to disk, to train on them',
    'package': 'make one file of a checkpoint, to share it',
    'make-synthetic': 'write the embedded synthetic data to disk',
    'memorisation': 'measure how well models remember frames of the past',
    'print-config': 'show a config with everything merged',
    'env': 'show versions for a bug report',
}


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main`` and turn an exception into one line on standard error and an exit code.

    0: done. 1: a fault of the program. 2: a mistake of the user. 130: interrupted. ``TRECVIT_DEBUG=1`` shows the
    traceback instead.
    """
    try:
        return main(argv) or 0
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, say head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get('TRECVIT_DEBUG'):
            raise
        return _report(error)


def _report(error: Exception) -> int:
    from trecvit_dense.cli.errors import is_user_error, one_line

    if is_user_error(error):
        print(f'error: {one_line(error)}', file=sys.stderr)
        return 2
    print(
        f'error: {type(error).__name__}: {one_line(error)} (TRECVIT_DEBUG=1 shows where)',
        file=sys.stderr,
    )
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """``trecvit COMMAND ...``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == '--version':
        from trecvit_dense import __version__

        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        raise ValueError(f"unknown command '{arguments[0]}'{_nearest(arguments[0])}; commands: {', '.join(COMMANDS)}")
    module = importlib.import_module(f'trecvit_dense.cli.{arguments[0].replace("-", "_")}')
    sys.argv[0] = f'trecvit {arguments[0]}'  # what argparse shows as the program
    return module.main(arguments[1:])


def usage() -> str:
    lines = [f'  {name:<16}{text}' for name, text in COMMANDS.items()]
    return '\n'.join(['usage: trecvit COMMAND ...', '', *lines, '', 'trecvit COMMAND --help says more.'])


def _nearest(name: str) -> str:
    import difflib

    matches = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ''


def entry() -> None:
    """The console script."""
    sys.exit(run(main))
