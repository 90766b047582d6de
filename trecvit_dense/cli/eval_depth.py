"""``trecvit eval-depth TRUTH PRED``: score anybody's depth maps by the rules of a paper, or under named alignments.

TRUTH is a folder with a folder for each clip, or one clip: a file for each frame (16-bit PNG, .npy, .npz or .dpt, in
depth/ if there is such), or one .npz or .npy (T, H, W) for a clip; or an RGB-D recording (images/, depth/, poses.txt,
K.txt), which also gives TAE and flicker; or a JSON list of Video Depth Anything. PRED has the same names:
PRED/CLIP/FRAME.npy or PRED/CLIP.npz; for a JSON list those of its images. Predictions may be of any size. Nothing is
cached. What does not fit is refused, with the clip and the frame.

Without --protocol, errors are under --alignment, beside the best constant depth of each frame and of the clip.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecvit_dense.cli.options import check_out, make_parser, say, write_results

PROTOCOLS = (
    'vda', 'vda-tae', 'depthcrafter', 'monst3r', 'marigold', 'monodepth2', 'monodepth2-benchmark', 'bts', 'nvds',
)  # fmt: skip
DATASETS = ('kitti', 'sintel', 'nyuv2', 'bonn', 'scannet')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('truth', metavar='TRUTH', type=Path, help='folder with true depth, or a JSON list')
    parser.add_argument('predictions', metavar='PRED', type=Path, help='folder with the depth to score')
    parser.add_argument('--protocol', choices=PROTOCOLS, help='rules of a paper (default: none, see --alignment)')
    parser.add_argument(
        '--dataset', help=f'name in the keys; {", ".join(DATASETS)} also set the cap, crop, ... of a protocol'
    )
    parser.add_argument(
        '--alignment',
        nargs='+',
        metavar='NAME',
        default=['scale_shift_disparity_clip'],
        help='none, or {scale|scale_shift}_{depth|disparity}_{frame|clip} (default: %(default)s)',
    )
    parser.add_argument('--kind', choices=('disparity', 'depth'), help='what predictions are (default: what they say)')
    parser.add_argument('--cap', type=float, metavar='M', help='truth beyond it does not count, metres')
    parser.add_argument('--min', type=float, metavar='M', dest='least', help='truth below it does not count, metres')
    parser.add_argument(
        '--crop', help='garg, eigen_kitti, eigen_nyu, nvds_nyu, scannet, kb, or rows and columns a,b,c,d'
    )
    parser.add_argument('--max-frames', type=int, metavar='N', help='only the first N frames of a clip')
    parser.add_argument('--units', type=float, help='units per metre of true depth in 16-bit PNGs (default: 1000)')
    parser.add_argument('--prediction-units', type=float, metavar='UNITS', help='the same of predictions')
    parser.add_argument('--allow-missing', action='store_true', help='leave out frames without a prediction')
    parser.add_argument('--scale-fit', choices=('median', 'least_squares'), default='median', help='of scale_... alone')
    parser.add_argument(
        '--silog', choices=('kitti', 'marigold', 'depth_anything_v2'), default='kitti', help='definition of SILog'
    )
    parser.add_argument('--tae', choices=('sound', 'official'), default='sound', help='definition of TAE')
    parser.add_argument('--align', choices=('median', 'scale', 'lstsq', 'lad', 'lad2'), help='for monst3r')
    parser.add_argument('--hard-crop', action='store_true', help='for vda, vda-tae: predictions show the whole frame')
    parser.add_argument('--per-sequence', action='store_true', help='also print each clip')
    parser.add_argument('--out', metavar='FILE', type=Path, help='also write the numbers as flat json')


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    add_arguments(parser)
    return eval_depth(parser.parse_args(argv))


def eval_depth(args: argparse.Namespace) -> int:
    from trecvit_dense.evaluation.depth_files import find_clips
    from trecvit_dense.evaluation.table import format_table

    check_out(args.out)
    _check(args)
    score = _by_protocol if args.protocol else _by_alignment
    prefix, units, clip_metrics = score(args)
    files = find_clips(
        args.truth,
        args.predictions,
        units_per_metre=args.units or units,
        dataset=args.dataset,
        allow_missing=args.allow_missing,
    )
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter('always', UserWarning)
        metrics = {f'{prefix}/{key}': value for key, value in clip_metrics(files).items()}
    for remark in remarks:
        say(str(remark.message))
    if args.out is not None:
        write_results(metrics, args.out)
    shown = {key: value for key, value in metrics.items() if args.per_sequence or '/per_sequence/' not in key}
    print(format_table(shown))
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ('cap', 'units', 'prediction_units', 'max_frames'):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f'--{name.replace("_", "-")} {value:g}: wanted a number above 0')
    if args.crop is not None and any(character.isdigit() for character in args.crop):
        try:
            args.crop = [int(number) for number in args.crop.split(',')]
            assert len(args.crop) == 4
        except (ValueError, AssertionError):
            raise ValueError(f'--crop {args.crop}: wanted a name, or four whole numbers a,b,c,d') from None


def _by_protocol(args: argparse.Namespace) -> tuple[str, float, Any]:
    """Prefix of the keys, units of truth, and the function from files to metrics."""
    from trecvit_dense.evaluation import depth_protocols
    from trecvit_dense.evaluation.depth_files import read_clip, saved_kind
    from trecvit_dense.progress import track

    given = dict(cap_m=args.cap, crop=args.crop, max_frames=args.max_frames, min_depth_m=args.least, align=args.align)
    limits = depth_protocols.find_limits(args.protocol, args.dataset, **given, hard_crop=args.hard_crop or None)
    usual = depth_protocols.find_protocol(args.protocol).kinds[0]

    def scored(files: Sequence) -> dict[str, float]:
        rows = {}
        for one in track(files, len(files), 'eval-depth'):
            kind = args.kind or saved_kind(one) or usual
            clip = read_clip(one, kind=kind, prediction_units=args.prediction_units, max_frames=limits.max_frames)
            try:
                rows[one.name] = depth_protocols.score_clip(args.protocol, clip, limits)
            except ValueError as error:
                raise ValueError(f'clip {one.name}: {error}') from None
        return depth_protocols.report(rows)

    return f'{args.dataset or "depth"}/{args.protocol}', limits.units_per_metre, scored


def _by_alignment(args: argparse.Namespace) -> tuple[str, float, Any]:
    from trecvit_dense.evaluation.depth_clip import DepthRules
    from trecvit_dense.evaluation.depth_files import read_clip, saved_kind
    from trecvit_dense.evaluation.depth_scores import report, score_clip
    from trecvit_dense.evaluation.functional.depth_alignment import find_alignment
    from trecvit_dense.progress import track
    from trecvit_dense.structures import DepthMap, DepthPrediction

    rules = DepthRules(
        tuple(find_alignment(name) for name in args.alignment),
        cap_m=args.cap,
        min_depth_m=1e-3 if args.least is None else args.least,
        crop=args.crop,
        scale_fit=args.scale_fit,
        silog=args.silog,
        tae=args.tae,
    )

    def scored(files: Sequence) -> dict[str, float]:
        rows = []
        for one in track(files, len(files), 'eval-depth'):
            kind = args.kind or saved_kind(one)
            if kind is None:
                raise ValueError(f'clip {one.name}: are predictions disparity or depth? say it with --kind')
            clip = read_clip(one, kind=kind, prediction_units=args.prediction_units, max_frames=args.max_frames)
            valid = clip.truth_m > 0
            valid[list(clip.missing)] = False
            truth = DepthMap(clip.truth_m.astype('float32'), valid, clip.intrinsics, clip.camera_to_world)
            try:
                result = score_clip(truth, {'model': DepthPrediction(clip.values, kind)}, rules)
            except ValueError as error:
                raise ValueError(f'clip {one.name}: {error}') from None
            rows.append(dict(result, name=one.name))
        return report(rows, per_sequence=True)

    return args.dataset or 'depth', 1000.0, scored


if __name__ == '__main__':
    from trecvit_dense.cli import run

    sys.exit(run(main))
