"""``trecvit benchmark claims``: what the papers say about cost, beside what is found here.

Every line has the paper's figure, ours, and whether both were found in the same setting, and why not. Parameters and
operations (of matrix products and convolutions, two per multiply-add) are counted, memory is counted on tensors without
numbers: see trecvit_dense/engine/costs.py. Times are measured, on one clip in float32: take them from a machine that
does nothing else, or run with ``--threads 1``, where on a CPU the work of this process alone counts.

``--quick`` runs everything at small sizes, to see that it works; its figures say nothing about the papers.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import check_out, make_parser, pick_device, say

NAME = 'claims'
CLASSES = 174  # of Something-Something v2, on which the TRecViT paper's table 3 is
KEPT = 'one clip in float32, counted, with attention weights in memory; the paper does not say what it measures'


@dataclass
class Claim:
    """One line.

    Attributes:
        claim: What is compared.
        paper: The figure of the paper; '-' where it has none.
        ours: The figure found here.
        same: Whether the setting is that of the paper.
        why: What is different, or what makes it the same.
        numbers: Behind ``ours``.
    """

    claim: str
    paper: str
    ours: str
    same: bool
    why: str
    numbers: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--only', choices=list(PARTS), nargs='+', default=list(PARTS), help='these papers')
    parser.add_argument('--quick', action='store_true', help='small sizes: only to see that it works')
    parser.add_argument('--device', default='auto', help='for times; memory and operations are counted without one')
    parser.add_argument('--threads', type=int, help='CPU threads (default: as torch chooses)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='also write the lines as json')
    parser.add_argument('--plot', type=Path, metavar='FILE.png', help="draw TRecViT's and ViViT's cost against frames")


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    from trecvit_dense.engine import track
    from trecvit_dense.engine.runner import versions
    from trecvit_dense.io.atomic import write_json
    from trecvit_dense.registry import use_scope

    parser = make_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.threads is not None and args.threads < 1:
        raise ValueError(f'--threads {args.threads}: wanted at least 1')
    check_out(args.out)
    check_out(args.plot)
    if args.threads:
        torch.set_num_threads(args.threads)
    use_scope()
    device = pick_device(args.device)
    about = versions()
    say(f'torch {about["torch"]}, {about["device"]}, times on {device}')
    claims: list[Claim] = []
    for name in track(args.only, description='papers'):
        claims += PARTS[name](args.quick, device)
    for claim in claims if args.quick else ():
        claim.same, claim.why = False, '--quick: small models'
    curves = draw_curves(args.plot, args.quick) if args.plot is not None else {}
    if args.out is not None:
        write_json(args.out, dict(about, quick=args.quick, claims=[asdict(claim) for claim in claims], curves=curves))
    print(table(claims))
    return 0


def draw_curves(path: Path, quick: bool) -> dict[str, Any]:
    from trecvit_dense.cli.claims_curves import FRAMES, count_curves, plot_curves

    frames, size = (FRAMES[:2], 64) if quick else (FRAMES, 224)
    curves = count_curves(trecvit_and_vivit(quick), frames, size)
    plot_curves(curves, path, size)
    return curves


# -------------------------------------------------------------------------------------------------------- TRecViT


def classifier(backbone: dict, rep_size: int, classes: int = CLASSES) -> dict:
    head = dict(type='ClassificationHead', num_classes=classes, rep_size=rep_size)
    return dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head))


def trecvit_and_vivit(quick: bool) -> tuple[dict, dict]:
    """The two models of table 3; in both the width of the representation is inferred from the parameters."""
    names = ('mu/16', 'Ti/16x1') if quick else ('B/16', 'L/16x1')
    trecvit = dict(type='TRecViT', variant=names[0], state_multiplier=1, class_token=True)
    vivit = dict(type='ViViT', variant=names[1], fused=False, depth=2 if quick else None)
    return classifier(trecvit, 3072), classifier(vivit, 1024)


def trecvit_claims(quick: bool, device: str) -> list[Claim]:
    """TRecViT-B against ViViT-L with full attention (arXiv 2412.14294, table 3 and section 4)."""
    from trecvit_dense.engine.costs import count_classifier

    small, large = trecvit_and_vivit(quick)
    fused = dict(large, backbone=dict(large['backbone'], fused=True))
    size, lengths = (64, (2, 4)) if quick else (224, (32, 64))
    claims = []
    for index, frames in enumerate(lengths[:1] if quick else lengths):
        clip = (frames, size, size)
        title = f'TRecViT-B for ViViT-L, {frames} x {size} x {size}'
        step = [count_classifier(model, clip, train=True, fused=False) for model in (large, small)]
        call = [count_classifier(model, clip, fused=False) for model in (large, small)]
        lean = [count_classifier(model, clip, train=True) for model in (fused, small)]
        if not index:
            counts = [cost.parameters / 1e6 for cost in call]
            why = 'tubelets of one frame, and the widths of both representations, are inferred from these figures'
            claims.append(against(f'{title}: parameters', '3x (310.8 / 111.3 M)', counts, 'M', True, why))
        operations = [cost.flops / 1e12 for cost in call]
        why = 'matrix products and convolutions alone, two operations per multiply-add'
        paper = ('5x (7.75 / 1.44 T)', '8x')[index]
        claims.append(against(f'{title}: operations', paper, operations, 'T', True, why))
        activations = [cost.peak_bytes - 4 * cost.parameters for cost in call]
        memories = (
            ('peak memory, forward', ('3.4x (6.11 / 1.79 GB)', '-')[index], [cost.peak_bytes for cost in call], KEPT),
            ('activations, forward', ('12x', '24x')[index], activations, KEPT),
            ('peak memory, training step', ('12x', '24x')[index], [cost.peak_bytes for cost in step], KEPT),
            (
                'peak memory, training step, fused attention',
                '-',
                [cost.peak_bytes for cost in lean],
                'no attention weights are kept',
            ),
        )
        for name, paper, memory, why in memories:
            claims.append(against(f'{title}: {name}', paper, [value / 1e9 for value in memory], 'GB', False, why))
    return claims


def against(claim: str, paper: str, values: Sequence[float], unit: str, same: bool, why: str) -> Claim:
    """How many times the first value is the second."""
    ratio = values[0] / values[1]
    numbers = dict(theirs=values[0], ours=values[1], unit=unit, ratio=ratio)
    return Claim(claim, paper, f'{ratio:.3g}x ({values[0]:.4g} / {values[1]:.3g} {unit})', same, why, numbers)


# ----------------------------------------------------------------------------------------------------------- XViT


def xvit_claims(quick: bool, device: str) -> list[Claim]:
    """Linear in frames, where attention over all frames at once is quadratic (arXiv 2106.05968)."""
    claims = []
    for frames, paper in ((8, '141.7 G'), (16, '283.3 G')):
        cost = xvit_operations(frames, quick)
        why = "the paper's 425 and 850 GFLOPs are three views, in multiply-adds"
        numbers = dict(multiply_adds=cost, frames=frames)
        claims.append(Claim(f'XViT, {frames} frames: multiply-adds', paper, f'{cost / 1e9:.1f} G', True, why, numbers))
    lengths, size = ((2, 4, 8), 64) if quick else ((4, 8, 16, 32), 224)
    width = dict(embed_dim=192, depth=2 if quick else 4, num_heads=3, image_size=size)
    models = {
        'XViT': dict(type='XViT', patch_size=16, **width),
        'attention over all frames': dict(type='ViViT', tubelet_size=(1, 16, 16), num_frames=lengths[-1], **width),
    }
    what = f'{lengths[0]} to {lengths[-1]} frames of {size} px, {width["depth"]} blocks of 192 channels'
    for name, config in models.items():
        numbers = growth(config, lengths, size, device)
        ours = f'operations ~ T^{numbers["operations_exponent"]:.2f}, time ~ T^{numbers["time_exponent"]:.2f}'
        paper = 'linear: T^1' if name == 'XViT' else 'quadratic: T^2'
        why = f'{what}: smaller than the paper. The exponent is fitted; what is linear in attention lowers it there'
        claims.append(Claim(f'{name}: cost against frames T', paper, ours, False, why, numbers))
    return claims


def xvit_operations(frames: int, quick: bool) -> int:
    """Multiply-adds of the published model, with its head, for one view."""
    from trecvit_dense.engine.costs import count_classifier

    backbone = dict(type='XViT', variant='mu/16' if quick else 'B/16', num_segments=frames)
    head = dict(type='TemporalAggregationHead', num_classes=CLASSES, **(dict(num_heads=2) if quick else {}))
    config = dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head))
    return count_classifier(config, (frames, 224, 224)).flops // 2


def growth(config: dict, lengths: Sequence[int], size: int, device: str) -> dict[str, Any]:
    """Operations and seconds of a forward pass for every number of frames, and the powers of T that fit them."""
    import torch

    from trecvit_dense.cli.claims_vis4mer import seconds
    from trecvit_dense.engine.costs import count
    from trecvit_dense.engine.measuring import exponent
    from trecvit_dense.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(config).to(device).eval()
    operations, times = [], []
    for frames in lengths:
        video = torch.rand(1, frames, 3, size, size, device=device)
        cost = count(lambda: MODELS.build(config), lambda model, video=video: run_on(model, video.to('meta')))
        operations.append(cost.flops)
        with torch.no_grad():
            run_on(model, video)
            times.append(seconds(lambda video=video: run_on(model, video), device, repeats=3))
    return dict(
        frames=list(lengths),
        operations=operations,
        seconds=times,
        operations_exponent=exponent(lengths, operations),
        time_exponent=exponent(lengths, times),
    )


def run_on(model: Any, video: Any) -> Any:
    return model(video)[0].levels[-1].tokens


# -------------------------------------------------------------------------------------------------------- ViS4mer


def vis4mer_claims(quick: bool, device: str) -> list[Claim]:
    """The decoder against self-attention (arXiv 2204.01692, abstract)."""
    from trecvit_dense.cli.claims_vis4mer import Load, measure

    load = Load(4, 17, 64) if quick else Load(60, 197, 1024)
    found = measure(load, device)
    title = f'ViS4mer for self-attention, {load.frames} x {load.tokens} tokens'
    setting = "one clip in float32; the paper's batch, GPU, precision and attention could not be read"
    s4, claims = found['s4'], []
    for kind in ('materialised', 'fused'):
        other, paper = found[kind], '2.63x' if kind == 'materialised' else '-'
        why = f'{setting}. One head timed, times the heads' if kind == 'materialised' else setting
        for name, ours, theirs in (
            ('time of a training step', s4['train_s'], other['train_s']),
            ('time, forward, kernel made', s4['eval_s'], other['eval_s']),
            ('time, forward, kernel kept', s4['eval_kept_s'], other['eval_s']),
        ):
            claims.append(against(f'{title} ({kind}): {name}', paper, [theirs, ours], 's', False, why))
            paper = '-'
        paper = '8x' if kind == 'materialised' else '-'
        why = f'{setting}. Counted, attention without being run'
        for name, key in (('memory of a training step', 'train_bytes'), ('memory, forward', 'eval_bytes')):
            values = [other[key] / 1e9, s4[key] / 1e9]
            claims.append(against(f'{title} ({kind}): {name}', paper, values, 'GB', False, why))
            paper = '-'
    fft = found['fft']
    title = f'ViS4mer: transform of {fft["plain_points"]} points for {fft["chosen_points"]}'
    why = 'of the first stage; the authors transform 2 L points, ours is the next length with no prime above 5'
    claims.append(against(f'{title}, time', '-', [fft['plain_s'], fft['chosen_s']], 's', False, why))
    claims[0].numbers['measured'] = found
    return claims


# --------------------------------------------------------------------------------------------- Video Mobile-Former


def video_mobile_former_claims(quick: bool, device: str) -> list[Claim]:
    """A model under 1 GFLOP, and a range from 0.5 to 6 (arXiv 2208.12257, abstract)."""
    from trecvit_dense.engine.costs import count_classifier
    from trecvit_dense.models.backbones.mobile_former_sizes import SIZES
    from trecvit_dense.models.backbones.video_mobile_former import VARIANTS

    claims = []
    for size, (parent, frames, side) in VARIANTS.items():
        if quick and size != 'vmf_0.5g':
            continue
        dim = SIZES[parent].token_dim
        head = dict(type='MobileFormerClassifier', num_classes=400, rep_size=SIZES[parent].rep_size, token_dim=dim)
        backbone = dict(type='VideoMobileFormer', size=size)
        config = dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head))
        cost = count_classifier(config, (frames, side, side))
        paper = 'within 1 GFLOP' if cost.flops < 2e9 else '0.5 to 6 GFLOPs'
        ours = f'{cost.flops / 2e9:.2f} G multiply-adds ({cost.flops / 1e9:.2f} G operations)'
        why = (
            "the architecture is inferred, not the paper's; its parent counts a multiply-add as one FLOP. Counted as "
            'two operations, vmf_0.5g alone is under 1 G'
        )
        numbers = dict(multiply_adds=cost.flops // 2, parameters=cost.parameters, frames=frames, side=side)
        claims.append(Claim(f'{size}, {frames} x {side} x {side}', paper, ours, False, why, numbers))
    return claims


PARTS: dict[str, Callable[[bool, str], list[Claim]]] = dict(
    trecvit=trecvit_claims, xvit=xvit_claims, vis4mer=vis4mer_claims, video_mobile_former=video_mobile_former_claims
)


def table(claims: Sequence[Claim]) -> str:
    """Lines with the reason below each."""
    widths = [max(len(getattr(claim, name)) for claim in claims) + 2 for name in ('claim', 'paper', 'ours')]
    titles = ('claim', 'paper', 'here')
    lines = [''.join(f'{title:<{width}}' for title, width in zip(titles, widths, strict=True)) + 'same setting']
    why = ''
    for claim in claims:
        cells = ''.join(
            f'{value:<{width}}' for value, width in zip((claim.claim, claim.paper, claim.ours), widths, strict=True)
        )
        lines.append(cells + ('yes' if claim.same else 'no'))
        if claim.why != why:
            lines += textwrap.wrap(claim.why, 110, initial_indent='    ', subsequent_indent='    ')
        why = claim.why
    return '\n'.join(lines)
