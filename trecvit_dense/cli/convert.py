"""``trecvit convert IN OUT``: official weights into ours, and back with ``--to-official``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import check_out, make_parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', metavar='IN', help='trecvit_B_k400.npz, bootstapnext_ckpt.npz, tapnextpp_ckpt.pt ...')
    parser.add_argument(
        'target', metavar='OUT', help='a .safetensors file; with --to-official a .npz (JAX) or .pt (torch)'
    )
    parser.add_argument('--arch', help='trecvit, tapnext, vivit ...: refuse another kind of file (default: detected)')
    parser.add_argument(
        '--numerics', choices=('jax', 'torch'), help='what the weights were trained in (default: by file)'
    )
    parser.add_argument(
        '--image-size', nargs=2, type=int, metavar=('H', 'W'), help='native image size, where the grid is not square'
    )
    parser.add_argument(
        '--input-size', nargs=2, type=int, metavar=('H', 'W'), help='size to which frames are resized (default: native)'
    )
    parser.add_argument('--config', metavar='CONFIG', help='fit the weights to the model of this config, or refuse')
    parser.add_argument('--to-official', action='store_true', help='IN is one of ours; write official names and layout')


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    check_arch(args.arch)
    check_target(args.target, ('.npz', '.pt', '.ckpt', '.pyth') if args.to_official else ('.safetensors',))
    return to_official(args) if args.to_official else from_official(args)


def check_arch(arch: str | None) -> None:
    """Refuse a kind of file that does not exist, with the nearest one."""
    if arch is None:
        return
    from trecvit_dense.checkpoints.official import OTHERS
    from trecvit_dense.registry import nearest

    known = ['trecvit', 'tapnext', *OTHERS]
    if arch not in known:
        raise ValueError(f"--arch is '{arch}'; wanted one of {', '.join(known)}{nearest(arch, known)}")


def check_target(target: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a name of another kind, and one that cannot be written, before any work is done."""
    path = Path(target)
    if path.suffix not in suffixes:
        raise ValueError(f"OUT is '{path.name}'; wanted a name ending in {' or '.join(suffixes)}")
    check_out(path)


def from_official(args: argparse.Namespace) -> int:
    from trecvit_dense.checkpoints import official
    from trecvit_dense.checkpoints.io import CheckpointError, save_weights

    file = official.read_official(args.source)
    if args.arch not in (None, file.arch):
        raise CheckpointError(f'wrong architecture: arch: file has {file.arch}, wanted {args.arch}')
    config = model_config(args, file)
    state, report = official.from_official(file, config)
    print(report)
    if report.missing:
        raise CheckpointError(
            f"{args.source} lacks {len(report.missing)} tensors, e.g. '{report.missing[0]}'; not written"
        )
    card = dict(
        source=Path(args.source).name,
        official=dict(layout=file.layout, prefix=file.prefix, container=file.container),
        unexpected=report.unexpected,
        resized=report.resized,
    )
    path = save_weights(state, config, args.target, card)
    size = config['data_preprocessor'].get('input_size')
    note = f'frames are resized to {size[0]}x{size[1]} px (--input-size changes it)' if size else 'it reads features'
    print(f'{file.layout} weights written to {path}; {note}')
    return 0


def model_config(args: argparse.Namespace, file: Any) -> dict[str, Any]:
    """The config of ``--config``, else what the shapes say."""
    from trecvit_dense.checkpoints.official import infer_config

    if args.config:
        from trecvit_dense.engine.config import load_config

        config = load_config(args.config)
        return config.model.to_dict() if hasattr(config.model, 'to_dict') else dict(config.model)
    sizes = dict(image_size=args.image_size, input_size=args.input_size, numerics=args.numerics)
    if '_512' in Path(args.source).stem and not args.input_size:
        sizes['input_size'] = (512, 512)  # tapnextpp_512.ckpt has the shapes of the 256 px model
    return infer_config(file, **{name: value for name, value in sizes.items() if value})


def to_official(args: argparse.Namespace) -> int:
    from trecvit_dense.checkpoints.io import CheckpointError, check_finite, read_checkpoint
    from trecvit_dense.checkpoints.official import OTHERS, write_official
    from trecvit_dense.checkpoints.official import to_official as official_arrays

    state, info = read_checkpoint(args.source)
    check_finite(state, args.source)
    arch = 'tapnext' if 'heads.points.point_query_token' in state else 'trecvit'
    arch = next((name for name, other in OTHERS.items() if other.ours(state)), arch)
    if args.arch not in (None, arch):
        raise CheckpointError(f'wrong architecture: arch: file has {arch}, wanted {args.arch}')
    in_numpy = args.target.endswith('.npz')
    if arch == 'trecvit' and not in_numpy:
        raise ValueError('TRecViT has no official torch file; give OUT a name ending in .npz')
    if arch in OTHERS and in_numpy:
        raise ValueError(f'{arch} has no official JAX file; give OUT a name ending in .pt')
    layout = f'tapnext-{"jax" if in_numpy else "torch"}' if arch == 'tapnext' else arch
    origin = info['card'].get('official', {})
    arrays, report = official_arrays(state, layout)
    print(report)
    same = origin.get('layout') == layout
    options = dict(prefix=origin['prefix'], container=origin['container']) if same else {}
    if arch in OTHERS:
        options.setdefault('container', OTHERS[arch].container)
    write_official(arrays, args.target, **options)
    print(f'{layout} weights written to {args.target}')
    return 0


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
