"""``trecvit test CONFIG CHECKPOINT``: evaluate a checkpoint on the test set of a config.

The model is rebuilt from the checkpoint alone; the config says which data and metrics. Changes to the model go through
the config key ``model_overrides``, e.g. ``--cfg-options +model_overrides.chunk_frames=1``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_config_arguments(parser)
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help=".pth or .safetensors; 'boxed': the weights that come with the package"
    )
    parser.add_argument('--out', metavar='FILE', type=Path, help='write the metrics as flat json')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps')
    parser.add_argument(
        '--reset-state',
        nargs='?',
        const='all',
        choices=('all', 'backbone'),
        help='also predict with the recurrent state cleared before every frame: what is the memory worth?',
    )
    parser.add_argument(
        '--baseline', choices=('lucas_kanade',), help='also evaluate a classic point tracker (zero motion always is)'
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = options.make_parser(__doc__)
    add_arguments(parser)
    return test(parser.parse_args(argv))


def test(args: argparse.Namespace) -> int:
    from trecvit_dense.engine.check import check_parts
    from trecvit_dense.engine.config import load_config
    from trecvit_dense.evaluation.table import format_table
    from trecvit_dense.registry import use_scope

    use_scope()
    cfg = load_config(args.config, args.cfg_options)
    check_parts(cfg)
    options.check_out(args.out)
    device = options.pick_device(args.device)
    model = build_model(args.checkpoint, cfg.get('model_overrides'), device)
    loader = build_loader(cfg)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    options.say(f'{args.checkpoint}: {parameters / 1e6:.2f} M parameters on {device}')
    forget = args.reset_state or cfg.get('reset_state')
    metrics = evaluate(model, loader, cfg.test_evaluator, reset_state=forget, baseline=args.baseline)
    if args.out is not None:
        options.write_results(metrics, args.out)
    print(format_table(metrics))
    return 0


def build_model(checkpoint: str, overrides: dict | None, device: str) -> Any:
    """The model of a checkpoint, with ``overrides`` merged into its own config."""
    from mmengine.config import Config

    from trecvit_dense.checkpoints import load_model, load_state, read_checkpoint
    from trecvit_dense.engine.config import set_options
    from trecvit_dense.registry import MODELS

    if not overrides:
        return load_model(checkpoint, device)
    state, info = read_checkpoint(checkpoint)
    if not info['config']:
        raise ValueError(f'{checkpoint} does not say how its model is built, so model_overrides cannot be applied')
    cfg = Config(dict(model=info['config']))
    set_options(cfg, {f'+model.{key}': value for key, value in flatten(overrides).items()})
    model = MODELS.build(cfg.model)
    load_state(model, state, name=str(checkpoint))
    return model.to(device).eval()


def flatten(tree: dict, prefix: str = '') -> dict[str, Any]:
    """Nested dictionaries to dotted keys."""
    leaves = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and 'type' not in value
        leaves.update(flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value})
    return leaves


def build_loader(cfg: Any) -> Any:
    """The loader of ``cfg.test_dataloader``, with at least one video in it."""
    from trecvit_dense.engine import TrecvitRunner

    for key in ('test_dataloader', 'test_evaluator'):
        if not cfg.get(key):
            raise ValueError(f'{cfg.filename} has no {key}: it cannot be used for testing')
    loader = TrecvitRunner.build_dataloader(cfg.test_dataloader, seed=cfg.get('randomness', {}).get('seed'))
    if len(loader.dataset) == 0:
        raise ValueError('the test set is empty; wanted at least one video')
    return loader


def evaluate(
    model: Any, loader: Any, metrics: Any, *, reset_state: str | None = None, baseline: str | None = None
) -> dict[str, float]:
    """``metrics`` (config) of ``model`` over ``loader``; ``baseline``: None or ``'lucas_kanade'``."""
    import torch
    from mmengine.evaluator import Evaluator

    from trecvit_dense.engine import track
    from trecvit_dense.evaluation import lucas_kanade

    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
    model.eval()
    with torch.inference_mode():
        for batch in track(loader, description='test'):
            if reset_state:
                for sample in batch['data_samples']:
                    sample.meta['ablate'] = reset_state
            samples = model.test_step(batch)
            if baseline:
                for sample in samples:
                    sample.predictions[f'points_{baseline}'] = lucas_kanade.track_sample(sample)
            evaluator.process(data_samples=samples, data_batch=batch)
    return evaluator.evaluate(len(loader.dataset))


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
