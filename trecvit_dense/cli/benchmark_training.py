"""``trecvit benchmark training-memory``: peak memory of a training step against the frames of a clip.

For every value of TRecViT's ``checkpointing``, and for clips in chunks of time, three figures side by side: the sum
that is derived on paper (trecvit_dense/engine/training_memory.py, docs/performance.md), the peak counted on tensors
without numbers, and, for a narrow model, the peak counted while it runs on real tensors, and that of the process. A
step is one clip through the backbone, forward and backward, in float32; the optimiser is not in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import check_out, make_parser, say

NAME = 'training-memory'
MODES = (False, 'selective', 'block')  # of checkpointing
WITHIN = 0.15
_NARROW = dict(embed_dim=96, depth=4, num_heads=4, patch_size=8, image_size=96)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--variant', default='B/16', help='TRecViT that is counted')
    parser.add_argument('--size', type=int, default=224, help='pixels of a side')
    parser.add_argument('--frames', type=int, nargs='+', default=[8, 16, 32, 64])
    parser.add_argument(
        '--run-frames', type=int, nargs='*', default=[8, 16, 32], help='of the narrow model, which runs'
    )
    parser.add_argument(
        '--checkpointing', choices=[str(mode) for mode in MODES], nargs='+', help='these (default: all)'
    )
    parser.add_argument('--chunk', type=int, default=8, help='frames of a chunk of time')
    parser.add_argument('--chunked-frames', type=int, nargs='*', default=[64, 256, 1024], help='of clips cut in chunks')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the rows as json')


def main(argv: Sequence[str] | None = None) -> int:
    from trecvit_dense.engine import track
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.io.atomic import write_json

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    for name in ('size', 'frames', 'run_frames', 'chunk', 'chunked_frames'):
        value = getattr(args, name)
        if min(value if isinstance(value, list) else [value], default=1) < 1:
            raise ValueError(f'--{name.replace("_", "-")} {value}: wanted at least 1')
    check_out(args.out)
    about, modes = versions(), [mode for mode in MODES if not args.checkpointing or str(mode) in args.checkpointing]
    say(f'torch {about["torch"]}, {about["device"]}')
    wide = dict(variant=args.variant, image_size=args.size)
    narrow, chunk = _NARROW['image_size'], args.chunk
    alone = [mode for mode in modes if not mode]  # chunks of time take the place of checkpointing
    cases = [(wide, args.size, frames, mode, False) for mode in modes for frames in args.frames]
    cases += [(wide, args.size, frames, mode, False, chunk) for mode in alone for frames in args.chunked_frames]
    cases += [(_NARROW, narrow, frames, mode, True) for mode in modes for frames in args.run_frames]
    if args.chunked_frames:
        cases += [(_NARROW, narrow, frames, mode, True, chunk) for mode in alone for frames in args.run_frames]
    rows = [measure(*case) for case in track(cases, description='steps')]
    if args.out is not None:
        write_json(args.out, dict(about, within=WITHIN, rows=rows))
    print(table(rows))
    worst = max(abs(row['ratio'] - 1) for row in rows)
    print(f'derived and counted differ by at most {worst:.1%} (wanted: {WITHIN:.0%})')
    return 0


def measure(
    config: dict[str, Any], size: int, frames: int, mode: bool | str, run: bool, chunk: int | None = None
) -> dict[str, Any]:
    """Derived, counted and, with ``run``, measured bytes of one step."""
    from trecvit_dense.engine.costs import count
    from trecvit_dense.engine.training_memory import Widths, training_peak
    from trecvit_dense.registry import use_scope

    use_scope()
    config = dict(type='TRecViT', checkpointing=mode, **config)

    def build() -> Any:
        return build_reader(config, chunk)

    def forward(model: Any) -> Any:
        import torch

        video = torch.rand(1, frames, 3, size, size)
        steps = model.train_outputs(video, model.start(1, video.device), {0: {}})['tokens']
        return sum(tokens.sum() for tokens in steps)

    cost = count(build, forward, train=True)
    backbone = (model := build()).backbone
    derived = training_peak(Widths.of(backbone, (size, size)), frames, cost.parameters, mode, chunk)
    row = dict(
        model=config.get('variant') or f'{backbone.embed_dim} wide, {backbone.depth} blocks',
        checkpointing=mode,
        chunk=chunk,
        frames=frames,
        derived=derived.total,
        parts=vars(derived),
        counted=cost.peak_bytes,
        ratio=cost.peak_bytes / derived.total,
        tensors=None,
        process=None,
    )
    return row | (run_step(model.train(), forward) if run else {})


def build_reader(backbone: dict[str, Any], chunk: int | None) -> Any:
    """A perceiver whose one head reads the tokens of the last level as they are."""
    from trecvit_dense.models.heads import Head
    from trecvit_dense.registry import MODELS
    from trecvit_dense.structures import RecurrentState

    class Reader(Head):
        def forward(self, features: Any, state: Any, input_size: Any) -> tuple[Any, Any]:
            return features.levels[-1].tokens, RecurrentState()

    model = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads={}, train_chunk_frames=chunk))
    model.heads['tokens'] = Reader()
    return model


def run_step(model: Any, forward: Any) -> dict[str, int]:
    """Bytes of the tensors of a real step at its worst moment, and what the process came to hold for it."""
    from trecvit_dense.engine.costs import PeakMemory
    from trecvit_dense.engine.measuring import ProcessPeak

    with PeakMemory() as memory:
        memory.add([*model.parameters(), *model.buffers()])
        forward(model).sum().backward()
    model.zero_grad(set_to_none=True)
    process = ProcessPeak()
    before = process.nbytes
    forward(model).sum().backward()
    held = sum(parameter.nbytes for parameter in model.parameters())
    return dict(tensors=memory.peak, process=process.nbytes - before + held if process.exact else None)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In MB."""
    titles = ('derived', 'counted', 'ratio', 'run: tensors', 'process')
    lines = [
        f'{"model":<22}{"checkpointing":<15}{"frames":>7}{"chunk":>7}' + ''.join(f'{title:>14}' for title in titles)
    ]
    for row in rows:
        cells = [f'{row[key] / 1e6:.1f}' if row[key] is not None else '-' for key in ('derived', 'counted')]
        cells += [f'{row["ratio"]:.3f}']
        cells += [f'{row[key] / 1e6:.1f}' if row[key] is not None else '-' for key in ('tensors', 'process')]
        start = f'{row["model"]:<22}{row["checkpointing"]!s:<15}{row["frames"]:>7}{row["chunk"] or "-":>7}'
        lines.append(start + ''.join(f'{cell:>14}' for cell in cells))
    return '\n'.join(lines) + '\nMB of 10^6 bytes; ratio: counted over derived'
