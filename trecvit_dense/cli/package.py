"""``trecvit package CHECKPOINT OUT``: one safetensors file with model, settings and card, ready to share.

Leaves out what only training needs (optimiser, schedule, log). ``--set`` changes settings of the model that do not
touch its weights, e.g. ``--set data_preprocessor.min_side=384``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import check_out, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='.pth of a training, or .safetensors')
    parser.add_argument('target', metavar='OUT', type=Path, help='.safetensors file; the card goes beside it as .json')
    parser.add_argument('--card', metavar='FILE', type=Path, help='json: what a reader should know about the weights')
    parser.add_argument('--set', nargs='+', default=[], metavar='KEY=VALUE', help="settings of the model's config")


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    return package(parser.parse_args(argv))


def package(args: argparse.Namespace) -> int:
    from mmengine.config import Config

    from trecvit_dense.checkpoints import load_state, read_checkpoint, save_model
    from trecvit_dense.engine.config import parse_options, set_options
    from trecvit_dense.registry import MODELS, use_scope

    use_scope()
    check_out(args.target)
    state, info = read_checkpoint(args.checkpoint)
    if not info['config']:
        raise ValueError(f'{args.checkpoint} does not say how its model is built; wanted a checkpoint of trecvit train')
    cfg = Config(dict(model=info['config']))
    set_options(cfg, {f'+model.{key}': value for key, value in parse_options(args.set).items()})
    model = MODELS.build(cfg.model)
    load_state(model, state, name=args.checkpoint)
    save_model(model, cfg.model.to_dict(), args.target, read_card(args.card))
    size = args.target.stat().st_size / 2**20
    print(f'{args.target}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {size:.1f} MiB')
    return 0


def read_card(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        card = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'--card {path} is not json: {error}') from None
    if not isinstance(card, dict):
        raise ValueError(f'--card {path} holds a {type(card).__name__}; wanted an object with named entries')
    return card


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
