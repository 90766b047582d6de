"""``trecvit benchmark peers``: TRecViT beside other models of the same width and depth, in the same run.

Beside it run: its own recurrence written plainly; causal attention over time with a cache of keys and values, in place
of the recurrence; ViViT with full attention and VideoMAE of the ``transformers`` package (random weights; left out with
a word when it is not installed). All get the same frames. They take turns, round by round, and the ratio is the median
over the rounds of their time to that of TRecViT. Operations and memory (of tensors, weights included) are counted.

Where a model streams, one more frame is timed after each number of frames of ``--past``, and the bytes are given that
it keeps of them. ``--train`` adds the forward and backward pass of a clip.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import check_out, make_parser, say

NAME = 'peers'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--variant', default='B/16', help='sizes of all models, and their patches')
    parser.add_argument('--frames', type=int, default=16)
    parser.add_argument('--size', type=int, default=224, help='pixels of a side')
    parser.add_argument('--tubelets', type=int, nargs='+', default=[1, 2], help='frames a token of ViViT and VideoMAE')
    parser.add_argument('--past', type=int, nargs='+', default=[16, 128], help='frames before the timed one')
    parser.add_argument('--train', action='store_true', help='also a training step')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=1, help='CPU threads; with one, times are CPU time')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the rows as json')


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    from trecvit_dense.cli.peer_models import Sizes, build_peers
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.io.atomic import write_json

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    check(args)
    torch.set_num_threads(args.threads)
    sizes = Sizes.of(args.variant, args.frames, args.size)
    peers, missing = build_peers(sizes, tuple(args.tubelets))
    about = versions()
    say(f'{args.variant}, {args.frames} frames of {args.size} px, torch {about["torch"]}, {about["device"]}')
    for line in missing:
        say(line)
    rows = measure(peers, sizes, args)
    if args.out is not None:
        write_json(args.out, dict(about, sizes=vars(sizes), left_out=missing, rows=rows))
    print(table(rows))
    return 0


def check(args: argparse.Namespace) -> None:
    least = dict(frames=1, size=1, tubelets=1, past=1, rounds=1, threads=1)
    for name, wanted in least.items():
        value = getattr(args, name)
        if min(value if isinstance(value, list) else [value]) < wanted:
            raise ValueError(f'--{name} {value}: wanted at least {wanted}')
    for tubelet in args.tubelets:
        if args.frames % tubelet:
            raise ValueError(f'--tubelets {tubelet}: {args.frames} frames do not divide into it')
    check_out(args.out)


def measure(peers: Sequence[Any], sizes: Any, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every model, the first of which is ours."""
    import torch

    video = torch.rand(1, sizes.frames, 3, sizes.side, sizes.side, generator=torch.Generator().manual_seed(0))
    rows = [count(peer, video, train=args.train) for peer in peers]
    with torch.no_grad():
        add_times(rows, 'clip', [lambda peer=peer: peer.clip(video) for peer in peers], args.rounds)
        for past in args.past:
            calls = [streaming(peer, video[:, :1], past) for peer in peers]
            add_times(rows, f'step_{past}', [call for call, _ in calls], args.rounds)
            for row, (_, nbytes) in zip(rows, calls, strict=True):
                row[f'state_{past}_mb'] = None if nbytes is None else nbytes / 2**20
    if args.train:
        calls = [lambda peer=peer: train_step(peer, video) for peer in peers]
        add_times(rows, 'train', calls, args.rounds)
    return rows


def count(peer: Any, video: Any, *, train: bool) -> dict[str, Any]:
    """Parameters, operations and memory of a clip."""
    import torch

    from trecvit_dense.engine.costs import count_flops

    with torch.no_grad():
        row = dict(
            model=peer.name,
            parameters=sum(parameter.numel() for parameter in peer.model.parameters()),
            gflop=count_flops(lambda: peer.clip(video)) / 1e9,
            clip_mb=peak(peer, lambda: peer.clip(video)) / 2**20,
        )
    if train:
        row['train_mb'] = peak(peer, lambda: train_step(peer, video)) / 2**20
    return row


def peak(peer: Any, call: Callable[[], Any]) -> int:
    """Bytes of tensors at the worst moment of a call, weights included."""
    from trecvit_dense.engine.costs import PeakMemory

    with PeakMemory() as memory:
        memory.add([*peer.model.parameters(), *peer.model.buffers()])
        call()
    return memory.peak


def train_step(peer: Any, video: Any) -> None:
    """Forward and backward; gradients do not stay."""
    peer.clip(video).sum().backward()
    peer.model.zero_grad(set_to_none=True)


def streaming(peer: Any, frame: Any, past: int) -> tuple[Callable[[], Any] | None, int | None]:
    """One frame after ``past`` others, and the bytes that are kept of those."""
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    if peer.start is None:
        return None, None
    state = peer.start(past)
    tensors = [
        leaf for leaf in tree_leaves(dict(state) if isinstance(state, dict) else state) if isinstance(leaf, Tensor)
    ]
    return lambda: peer.step(frame, state), sum(tensor.nbytes for tensor in tensors)


def add_times(rows: list[dict], name: str, calls: Sequence[Callable | None], rounds: int) -> None:
    """Median seconds of each call, and its median ratio to the first in the same round; None: there is no call."""
    from trecvit_dense.engine import track
    from trecvit_dense.engine.measuring import seconds_of

    times: list[list[float]] = [[] for _ in calls]
    for number in track(range(-1, rounds), description=name):
        for found, call in zip(times, calls, strict=True):
            if call is not None:
                seconds = seconds_of(call, 'cpu')
                if number >= 0:  # the round before is to warm up
                    found.append(seconds)
    for row, found in zip(rows, times, strict=True):
        row[f'{name}_s'] = statistics.median(found) if found else None
        row[f'{name}_ratio'] = (
            statistics.median(its / mine for its, mine in zip(found, times[0], strict=True)) if found else None
        )


# ------------------------------------------------------------------------------------------------------- printing


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What there is of columns, each with its ratio to the first row behind it."""
    pasts = [key[len('state_') : -len('_mb')] for key in rows[0] if key.startswith('state_')]
    columns = [('M param', 'parameters', 1e-6, '.1f', None), ('GFLOP', 'gflop', 1, '.1f', None)]
    columns += [('clip s', 'clip_s', 1, '.3f', 'clip_ratio'), ('MB', 'clip_mb', 1, '.0f', 'clip_mb')]
    for past in pasts:
        columns.append((f'ms after {past}', f'step_{past}_s', 1000, '.1f', f'step_{past}_ratio'))
        columns.append(('kept MB', f'state_{past}_mb', 1, '.1f', None))
    if 'train_s' in rows[0]:
        columns += [('train s', 'train_s', 1, '.3f', 'train_ratio'), ('MB', 'train_mb', 1, '.0f', 'train_mb')]
    width = max(len(row['model']) for row in rows) + 2
    lines = [' ' * width + ''.join(f'{title:>18}' if ratio else f'{title:>10}' for title, *_, ratio in columns)]
    for row in rows:
        cells = [_cell(row, rows[0], *column[1:]) for column in columns]
        lines.append(f'{row["model"]:<{width}}' + ''.join(cells))
    return '\n'.join(lines)


def _cell(row: dict, first: dict, key: str, factor: float, form: str, ratio: str | None) -> str:
    if row[key] is None:
        return f'{"-":>18}' if ratio else f'{"-":>10}'
    value = f'{factor * row[key]:{form}}'
    if ratio is None:
        return f'{value:>10}'
    times = row[ratio] if ratio.endswith('_ratio') else row[key] / first[key]
    return f'{value:>11}{f"x{times:.2f}":>7}'
