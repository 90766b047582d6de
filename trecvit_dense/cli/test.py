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

BASELINES = ('lucas_kanade', 'label_propagation')
PROPAGATION = dict(type='LabelPropagationHead')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_config_arguments(parser)
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help=".pth or .safetensors; 'boxed': the weights that come with the package"
    )
    parser.add_argument('--out', metavar='FILE', type=Path, help='write the metrics as flat json')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps')
    parser.add_argument(
        '--precision',
        choices=('fp32', 'bf16', 'int8'),
        help='linear layers of this precision, faster or not, wherever they agree with float32: what does it cost? '
        'fp32: by the fastest kernels (default: plain layers)',
    )
    parser.add_argument(
        '--reset-state',
        nargs='?',
        const='all',
        choices=('all', 'backbone'),
        help='also predict with the recurrent state cleared before every frame: what is the memory worth?',
    )
    parser.add_argument(
        '--baseline',
        choices=BASELINES,
        help='also evaluate a classic point tracker, or masks carried along by the features of the same backbone '
        '(zero motion and copying the first mask always are)',
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = options.make_parser(__doc__)
    add_arguments(parser)
    return test(parser.parse_args(argv))


def test(args: argparse.Namespace) -> int:
    from trecvit_dense.engine.check import check_parts
    from trecvit_dense.engine.config import load_config
    from trecvit_dense.evaluation.table import format_table
    from trecvit_dense.inference import speed_up
    from trecvit_dense.registry import use_scope

    use_scope()
    cfg = load_config(args.config, args.cfg_options)
    check_parts(cfg)
    options.check_out(args.out)
    device = options.pick_device(args.device)
    model = build_model(args.checkpoint, cfg.get('model_overrides'), device)
    model = choose_mask_head(model, cfg)
    if args.precision:
        speed_up(model, args.precision, at_least=0)
    loader = build_loader(cfg)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    options.say(f'{args.checkpoint}: {parameters / 1e6:.2f} M parameters on {device}')
    forget = args.reset_state or cfg.get('reset_state')
    baseline = args.baseline or cfg.get('baseline')
    metrics = evaluate(
        model, loader, cfg.test_evaluator, reset_state=forget, baseline=baseline, propagation=cfg.get('propagation')
    )
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


def choose_mask_head(model: Any, cfg: Any) -> Any:
    """``mask_head='propagation'`` in the config puts :class:`LabelPropagationHead` in the place of the model's own."""
    choice = cfg.get('mask_head', 'object')
    if choice not in ('object', 'propagation'):
        raise ValueError(f"head is '{choice}'; wanted 'object' (the model's own) or 'propagation'")
    return model if choice == 'object' else model.with_heads(dict(masks=dict(cfg.get('propagation') or PROPAGATION)))


def evaluate(
    model: Any,
    loader: Any,
    metrics: Any,
    *,
    reset_state: str | None = None,
    baseline: str | None = None,
    propagation: dict | None = None,
) -> dict[str, float]:
    """``metrics`` (config) of ``model`` over ``loader``; only heads that some metric looks at are run.

    Args:
        reset_state: Memory to clear before every frame in a second prediction, ``'all'`` or ``'backbone'``.
        baseline: One of ``BASELINES``.
        propagation: Config of the head of that name; None: its defaults.
    """
    import torch
    from mmengine.evaluator import Evaluator

    from trecvit_dense.engine import track
    from trecvit_dense.models.perceiver import only_tasks

    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
    model.eval()
    probe = model.with_heads(dict(masks=dict(propagation or PROPAGATION))) if baseline == 'label_propagation' else None
    with torch.inference_mode(), only_tasks(model, tasks_of(evaluator.metrics, model)):
        for batch in track(loader, description='test'):
            if reset_state:
                for sample in batch['data_samples']:
                    sample.meta['ablate'] = reset_state
            samples = model.test_step(batch)
            if baseline:
                add_baseline(baseline, batch, samples, probe)
            evaluator.process(data_samples=samples, data_batch=batch)
    return evaluator.evaluate(len(loader.dataset))


def tasks_of(metrics: Sequence[Any], model: Any) -> Sequence[str] | None:
    """The heads that ``metrics`` look at; None, which means all, when some metric does not say.

    Raises:
        ValueError: the model lacks such a head.
    """
    tasks = {getattr(metric, 'task', None) for metric in metrics}
    if None in tasks or not hasattr(model, 'heads'):
        return None
    for task in sorted(tasks - set(model.heads)):
        raise ValueError(f"the config's metric looks at a head named {task}; the model has {', '.join(model.heads)}")
    return tuple(tasks)


def add_baseline(name: str, batch: dict, samples: list, probe: Any) -> None:
    """Predictions of a baseline beside the model's."""
    from trecvit_dense.evaluation import lucas_kanade

    if name == 'lucas_kanade':
        for sample in samples:
            sample.predictions[f'points_{name}'] = lucas_kanade.track_sample(sample)
        return
    own = [dict(sample.predictions) for sample in samples]
    for sample, predictions in zip(probe.test_step(batch), own, strict=True):
        carried = sample.predictions['masks']
        sample.predictions = {**predictions, f'masks_{name}': carried}


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
