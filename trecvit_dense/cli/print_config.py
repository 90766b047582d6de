"""``trecvit print-config CONFIG``: the config with everything merged, as it will be used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from trecvit_dense.cli.options import add_config_arguments, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)

    from trecvit_dense.engine.config import load_config
    from trecvit_dense.registry import use_scope

    use_scope()
    print(load_config(args.config, args.cfg_options).pretty_text)
    return 0


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
