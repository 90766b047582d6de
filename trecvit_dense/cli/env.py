"""``trecvit env``: versions for a bug report, ready to paste."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata

from trecvit_dense.cli.options import make_parser

PACKAGES = ('mmcv-lite', 'mmcv', 'numpy', 'scipy', 'einops', 'opencv-python', 'av', 'safetensors', 'pycocotools')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    parser.parse_args(argv)
    from trecvit_dense.engine.runner import versions

    for name, version in {**versions(), **{name: installed(name) for name in PACKAGES}}.items():
        print(f'{name:<14}{version}')
    return 0


def installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return '-'


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
