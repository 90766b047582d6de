"""What the subcommands share."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any


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
    import torch

    if name == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from None
    return name


def flat(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Metrics as plain numbers; one that is not defined for this data (NaN) becomes null, which json can hold."""
    numbers = {key: float(value) for key, value in metrics.items() if not isinstance(value, (str, dict, list))}
    return {key: value if math.isfinite(value) else None for key, value in numbers.items()}


def write_results(metrics: dict[str, Any], path: Path) -> None:
    """Flat json: metric key to number. The file is complete or absent."""
    from trecvit_dense.io.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(flat(metrics), indent=2) + '\n')
