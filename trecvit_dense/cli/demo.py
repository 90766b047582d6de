"""Predictions drawn over a video, and saved: ``trecvit demo points|segment|depth|classify|all VIDEO --out out.mp4``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from trecvit_dense.cli import demo_all, demo_classify, demo_depth, demo_points, demo_segment
from trecvit_dense.cli.options import Parser

DESCRIPTION = 'Draw predictions over a video, folder of images or camera, and save them.'
TASKS = dict(
    points=('follow points', demo_points.add_arguments, demo_points.run_points),
    segment=('segment objects', demo_segment.add_arguments, demo_segment.run_segment),
    depth=('estimate depth', demo_depth.add_arguments, demo_depth.run_depth),
    classify=('name what a video shows', demo_classify.add_arguments, demo_classify.run_classify),
    all=('points, objects and depth in one pass', demo_all.add_arguments, demo_all.run_all),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every task is a subcommand."""
    tasks = parser.add_subparsers(dest='task', required=True, metavar='TASK')
    for name, (text, add, function) in TASKS.items():
        add(tasks.add_parser(name, help=text, description=function.__doc__))


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog='trecvit demo', description=DESCRIPTION)
    add_arguments(parser)
    args = parser.parse_args(argv)
    return args.run(args)
