"""``trecvit benchmark recurrence``: the RG-LRU layer forward and backward, by every back end and as others write it.

Rows: the torch layer of the ``recurrentgemma`` package (the authors' own), a plain loop under autograd, and each back
end that runs here; same weights, same input, same loss, taking turns. Times are the shortest of the rounds, CPU time
with one thread. Memory is what the process came to hold above what it held before, input and weights not counted; the
backward pass and the gradients are in it. The last column is the largest difference of states and gradients from the
plain loop's, in parts of their largest value.

``recurrentgemma`` is optional: ``pip install --no-deps recurrentgemma jaxtyping wadler-lindig typeguard``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import check_out, make_parser, pick_device, say

NAME = 'recurrence'
PACKAGE = 'recurrentgemma'
SHAPES = ('197x32x1536', '64x128x768', '16x512x768')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--shapes', nargs='+', default=SHAPES, metavar='ROWSxFRAMESxWIDTH', help=f'default: {" ".join(SHAPES)}'
    )
    parser.add_argument('--heads', type=int, default=12, help='blocks of the gates')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--only', nargs='+', metavar='NAME', help='these rows, and the plain loop')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the rows as json')


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    from trecvit_dense.engine.measuring import counts_cpu_time
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.io.atomic import write_json

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    for name in ('heads', 'rounds', 'threads'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} {getattr(args, name)}: wanted at least 1')
    shapes = [parse_shape(text, args.heads) for text in args.shapes]
    check_out(args.out)
    torch.set_num_threads(args.threads)
    device, about = pick_device(args.device), versions()
    names = choose(args.only, device)
    clock = 'CPU time' if counts_cpu_time(device) else 'clock time'
    say(f'torch {about["torch"]}, {about["device"]}, running on {device}, {args.threads} threads, {clock}')
    rows = []
    for shape in shapes:
        runs = measure(shape, args, names, device)
        rows += [row(run, runs, shape) for run in runs]
    if args.out is not None:
        write_json(args.out, dict(about, heads=args.heads, threads=args.threads, clock=clock, rows=rows))
    print(table(rows))
    print(f'ratios: of the other to this row; {clock} of a forward and a backward pass, shortest of {args.rounds}')
    return 0


def parse_shape(text: str, heads: int) -> tuple[int, int, int]:
    """Rows, frames and width.

    Raises:
        ValueError: other words, or a width that does not divide into heads.
    """
    parts = text.split('x')
    if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
        raise ValueError(f"shape '{text}'; wanted ROWSxFRAMESxWIDTH, as in {SHAPES[0]}")
    rows, frames, width = map(int, parts)
    if width % heads:
        raise ValueError(f"shape '{text}': width {width} does not divide into {heads} heads; set --heads")
    return rows, frames, width


def choose(only: Sequence[str] | None, device: str) -> list[str]:
    """The rows that can be run, in the order of the table; what cannot is said."""
    import torch

    from trecvit_dense.models.layers.linear_recurrence import BACKENDS, why_not
    from trecvit_dense.models.layers.triton_support import interpreted

    known = (PACKAGE, 'loop', *BACKENDS)
    for name in only or ():
        if name not in known:
            raise ValueError(f'--only {name}: wanted some of {", ".join(known)}')
    chosen = []
    for name in known:
        if only and name not in only and name != 'loop':
            continue
        reason = ''
        if name == PACKAGE:
            reason = load_peer()[1]
        elif name in BACKENDS:
            reason = why_not(name, torch.device(device))
            if name == 'triton' and not reason and interpreted():
                reason = 'its interpreter is for tests'
        if reason:
            say(f'without {name}: {reason}')
        else:
            chosen.append(name)
    return chosen


def load_peer() -> tuple[Any, str]:
    """The module of the authors' torch layers, or None and why it is not there.

    The package's own entrance imports JAX, which its torch layers do not need; it is passed by.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None, f'pip install --no-deps {PACKAGE} jaxtyping wadler-lindig typeguard'
    folder = Path(spec.submodule_search_locations[0])
    entrances = {PACKAGE: folder, f'{PACKAGE}.torch': folder / 'torch'}
    before = set(sys.modules)
    try:
        for name, path in entrances.items():
            module = types.ModuleType(name)
            module.__path__ = [str(path)]  # type: ignore[attr-defined]
            sys.modules.setdefault(name, module)
        return importlib.import_module(f'{PACKAGE}.torch.layers'), ''
    except ImportError as error:
        return None, f'{error}; pip install --no-deps {PACKAGE} jaxtyping wadler-lindig typeguard'
    finally:
        for name in set(sys.modules) - before:
            if name.startswith(PACKAGE):
                del sys.modules[name]


# ------------------------------------------------------------------------------------------------------ measuring


@dataclass
class Run:
    """One way to compute the layer.

    Attributes:
        forward: ``x`` to the states.
        x, targets: In the layout of this row, which is ``(B, T, N, L)``, as in TRecViT, or ``(rows, frames, width)``.
        seconds: Of every round.
        peak: Bytes that a step came to hold beyond what was there; None where the system cannot tell.
        difference: Largest from the plain loop.
    """

    name: str
    layer: Any
    forward: Callable[[Any], Any]
    x: Any
    targets: Any
    seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    difference: float | None = None

    def step(self) -> Any:
        """A forward and a backward pass, which leaves gradients; returns the states."""
        self.clear()
        h = self.forward(self.x)
        h.backward(self.targets)
        return h.detach()

    def clear(self) -> None:
        self.x.grad = None
        self.layer.zero_grad(set_to_none=True)

    def results(self) -> list[Any]:
        """States and all gradients, rows first; the parameters of both layers sort alike."""
        tensors = [self.step(), self.x.grad]
        if self.x.ndim == 4:
            tensors = [tensor[0].transpose(0, 1) for tensor in tensors]
        return tensors + [parameter.grad for _, parameter in sorted(self.layer.named_parameters())]


def measure(shape: tuple[int, int, int], args: argparse.Namespace, names: list[str], device: str) -> list[Run]:
    """All rows of a shape, taking turns."""
    import torch

    from trecvit_dense.engine import track
    from trecvit_dense.engine.measuring import seconds_of

    rows, frames, width = shape
    torch.manual_seed(0)
    x, targets = torch.randn(2, rows, frames, width, device=device)
    runs = [build(name, x, targets, args.heads) for name in names]
    check([run for run in runs if run.name != 'loop'], next(run for run in runs if run.name == 'loop'))
    for run in runs:
        run.peak = peak_of(run, device)
    for index in track(range(args.rounds), description='x'.join(map(str, shape))):
        turn = index % len(runs)
        for run in (*runs[turn:], *runs[:turn]):
            run.seconds.append(seconds_of(run.step, device))
            run.clear()
    return runs


def build(name: str, x: Any, targets: Any, heads: int) -> Run:
    """A row, with the weights that a seed draws."""
    import torch

    from trecvit_dense.models.layers import RGLRU, use_backend

    torch.manual_seed(1)
    layer = RGLRU(x.shape[-1], heads).to(x.device)
    if name == PACKAGE:
        peer = build_peer(layer, x.shape[-1], heads).to(x.device)
        positions = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        return Run(name, peer, lambda x: peer(x, positions)[0], x.clone().requires_grad_(), targets)

    def forward(x: Any) -> Any:
        if name == 'loop':
            return plain_loop(layer, x)
        with use_backend(name):
            return layer(x)[0]

    tokens, targets = (tensor.transpose(0, 1)[None].contiguous() for tensor in (x, targets))
    return Run(name, layer, forward, tokens.requires_grad_(), targets)


def build_peer(layer: Any, width: int, heads: int) -> Any:
    """The authors' layer with the weights of ours."""
    peer = load_peer()[0].RGLRU(width, heads)
    state = {
        name.replace('.weight', '.w').replace('.bias', '.b'): tensor for name, tensor in layer.state_dict().items()
    }
    peer.load_state_dict(state)
    return peer


def plain_loop(layer: Any, x: Any) -> Any:
    """The layer as its equations say, for autograd to differentiate."""
    import torch
    import torch.nn.functional as F

    from trecvit_dense.models.layers.rg_lru import bounded_sqrt

    input_gate, decay_gate = torch.sigmoid(layer.input_gate(x)), torch.sigmoid(layer.a_gate(x))
    log_a = -8.0 * decay_gate * F.softplus(layer.a_param)
    a, multiplier = torch.exp(log_a), bounded_sqrt(1.0 - torch.exp(2.0 * log_a))
    first = torch.arange(x.shape[1], device=x.device).view(-1, 1, 1) == 0
    gated = multiplier.masked_fill(first, 1.0) * (input_gate * x)
    states = [gated[:, 0]]
    for t in range(1, x.shape[1]):
        states.append(a[:, t] * states[-1] + gated[:, t])
    return torch.stack(states, dim=1)


def check(runs: Sequence[Run], loop: Run) -> None:
    """Note how far every row is from the plain loop."""
    wanted = loop.results()
    for run in runs:
        pairs = zip(run.results(), wanted, strict=True)
        run.difference = max(((mine - its).abs().max() / its.abs().max()).item() for mine, its in pairs)
        run.clear()
    loop.clear()


def peak_of(run: Run, device: str) -> int | None:
    import torch

    from trecvit_dense.engine.measuring import ProcessPeak

    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run.step()
        found = torch.cuda.max_memory_allocated() - before
    else:
        process = ProcessPeak()
        before = process.nbytes
        run.step()
        found = process.nbytes - before if process.exact else None
    run.clear()
    return found


# ------------------------------------------------------------------------------------------------------- printing


def row(run: Run, runs: Sequence[Run], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Figures of one row, and ratios of the authors' layer and the plain loop to it."""
    seconds = {other.name: min(other.seconds) for other in runs}
    peaks = {other.name: other.peak for other in runs}
    found = dict(
        shape='x'.join(map(str, shape)),
        name=run.name,
        ms=1000 * seconds[run.name],
        peak_bytes=run.peak,
        difference=run.difference,
    )
    for other in (PACKAGE, 'loop'):
        known = other in seconds
        found[f'times_{other}'] = seconds[other] / seconds[run.name] if known else None
        found[f'memory_{other}'] = peaks[other] / run.peak if known and peaks[other] and run.peak else None
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    titles = ('ms', 'MB', f'{PACKAGE}: time', 'memory', 'loop: time', 'memory', 'difference')
    widths = (9, 9, 22, 9, 12, 9, 12)
    header = f'{"rows x frames x width":<23}{"":<16}'
    lines = [header + ''.join(f'{title:>{width}}' for title, width in zip(titles, widths, strict=True))]
    for entry in rows:
        peak = None if entry['peak_bytes'] is None else entry['peak_bytes'] / 1e6
        ratios = [entry[key] for key in (f'times_{PACKAGE}', f'memory_{PACKAGE}', 'times_loop', 'memory_loop')]
        cells = [number(entry['ms'], '.1f'), number(peak, '.0f'), *(number(ratio, '.2f', 'x') for ratio in ratios)]
        cells.append(number(entry['difference'], '.1e'))
        line = ''.join(f'{cell:>{width}}' for cell, width in zip(cells, widths, strict=True))
        lines.append(f'{entry["shape"].replace("x", " x "):<23}{entry["name"]:<16}{line}')
    return '\n'.join(lines)


def number(value: float | None, form: str, mark: str = '') -> str:
    return '-' if value is None else f'{mark}{value:{form}}'
