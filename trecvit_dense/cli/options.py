"""What the subcommands share."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Help as it is written, and a mistake in one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{'formatter_class': argparse.RawDescriptionHelpFormatter, **kwargs})
        self._negative_number_matcher = re.compile(r'-\.?\d')  # a point such as -1,10 is a value, not an option

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message}; {self.prog} --help says more\n')


def make_parser(doc: str) -> Parser:
    """The parser of a command whose module begins with ```trecvit COMMAND``: what it does``."""
    return Parser(description=doc.split(': ', 1)[1])


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', metavar='CONFIG', help='path of a config, or name of a recipe: point_track_trecvit')
    add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='K=V',
        help='change the config: dotted keys that exist, e.g. train_dataloader.batch_size=4; +key=value adds a key',
    )


def say(message: str) -> None:
    """A remark for the person in front of the terminal, once per job."""
    if os.environ.get('RANK', '0') == '0':
        print(message, file=sys.stderr, flush=True)


def pick_device(name: str) -> str:
    """``auto`` is the first GPU, or the CPU.

    Raises:
        ValueError: a device that torch does not know or this machine does not have.
    """
    from trecvit_dense.inference import runtime

    return str(runtime.pick_device(name))


def check_out(path: Path | None) -> None:
    """Refuse an output that cannot be written before any work is done; None is no output."""
    from trecvit_dense.io.atomic import check_target

    if path is not None:
        check_target(path)


def flat(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Metrics as plain numbers; one that is not defined for this data (NaN) becomes null, which json can hold."""
    numbers = {key: float(value) for key, value in metrics.items() if not isinstance(value, (str, dict, list))}
    return {key: value if math.isfinite(value) else None for key, value in numbers.items()}


def write_results(metrics: dict[str, Any], path: Path) -> None:
    """Flat json: metric key to number. The file is complete or absent."""
    from trecvit_dense.io.atomic import write_json

    write_json(path, flat(metrics))
