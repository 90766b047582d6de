"""``trecvit extract-features CONFIG OUT``: write the features of a frozen encoder to disk, to train on them.

The encoder is that of the config's ViS4mer, or the config's backbone; the videos are those of one of its data loaders.
Items that OUT has already, of the same encoder and data, are not made again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import add_cfg_options, make_parser, pick_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', metavar='CONFIG', help='path of a config, or name of a recipe')
    parser.add_argument('out', metavar='OUT', type=Path, help='folder of the features; one per data loader')
    parser.add_argument('--loader', choices=('train', 'val', 'test'), default='train', help='default: train')
    parser.add_argument(
        '--weights', metavar='FILE', help="a checkpoint with the encoder, or 'boxed' (default: pretrained)"
    )
    parser.add_argument('--dtype', choices=('float16', 'float32'), default='float16', help='default: float16')
    parser.add_argument('--passes', type=int, default=1, metavar='N', help='passes over data that is drawn (default 1)')
    parser.add_argument('--chunk', type=int, default=8, metavar='T', help='frames that are encoded at once (default 8)')
    parser.add_argument('--device', default='auto', help='cpu, cuda ... (default: auto)')
    add_cfg_options(parser)


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    for name, value in dict(passes=args.passes, chunk=args.chunk).items():
        if value < 1:
            raise ValueError(f'--{name} is {value}; wanted at least 1')
    from trecvit_dense.engine.config import load_config
    from trecvit_dense.inference.features import extract_features
    from trecvit_dense.registry import use_scope

    use_scope()
    config = load_config(args.config, args.cfg_options).to_dict()
    encoder, dataset = parts(config, args.loader)
    weights = args.weights or (config.get('pretrained') or {}).get('backbone')
    if weights is None:
        raise ValueError('no weights for the encoder; wanted --weights FILE, or pretrained = dict(backbone=FILE)')
    store = extract_features(
        dataset,
        encoder,
        args.out,
        weights=weights,
        preprocessor=config['model'].get('data_preprocessor'),
        dtype=args.dtype,
        passes=args.passes,
        chunk_frames=args.chunk,
        device=pick_device(args.device),
    )
    print(f'{args.out} holds features of {len(store)} videos, {store.dtype}; a model reads them with')
    print(f'encoder={dict(type="StoredFeatures", **store.layout)}')
    return 0


def parts(config: dict[str, Any], loader: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configs of the encoder and of the data set."""
    backbone = (config.get('model') or {}).get('backbone')
    dataset = (config.get(f'{loader}_dataloader') or {}).get('dataset')
    if backbone is None or dataset is None:
        missing = 'model with a backbone' if backbone is None else f'{loader}_dataloader with a data set'
        raise ValueError(f'the config has no {missing}; wanted one, to say what is encoded')
    encoder = backbone.get('encoder') if backbone['type'] == 'ViS4mer' else backbone
    if encoder is None or encoder['type'] == 'StoredFeatures':
        raise ValueError('the config reads stored features itself; wanted one whose ViS4mer has an encoder of video')
    return encoder, dataset


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
