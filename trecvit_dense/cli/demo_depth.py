"""``trecvit demo depth VIDEO --out out.mp4``: depth of every frame beside it, as numbers and as point clouds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trecvit_dense.cli.demo_output import Layer, add_video_arguments, record, total_frames
from trecvit_dense.cli.options import say

if TYPE_CHECKING:
    from trecvit_dense.inference import FrameResult, Predictor
    from trecvit_dense.io import FrameSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_video_arguments(parser, beside='numbers and point clouds go beside it')
    add_depth_arguments(parser, name='OUT')
    parser.set_defaults(run=run_depth)


def add_depth_arguments(parser: argparse.ArgumentParser, *, name: str) -> None:
    """``name``: of the files, for the help."""
    parser.add_argument(
        '--save',
        choices=('npz', 'png'),
        help=f'save the numbers: {name}.npz, or folder {name}/ of 16-bit png with depth.json that says what they mean '
        '(metric depth: millimetres)',
    )
    parser.add_argument(
        '--dtype', choices=('float16', 'float32'), default='float16', help='of --save npz (default float16)'
    )
    parser.add_argument(
        '--units-per-metre', type=float, default=1000.0, metavar='N', help='of --save png, metric depth (default 1000)'
    )
    parser.add_argument('--intrinsics', metavar='K.txt', help='3x3 matrix, or fx fy cx cy, in pixels of the video')
    parser.add_argument(
        '--ply', type=int, nargs='+', metavar='T', help=f'point clouds of these frames, {name}_00012.ply ...'
    )
    parser.add_argument(
        '--scale-shift',
        type=float,
        nargs=2,
        metavar=('S', 'B'),
        help='for --ply with relative disparity d: one over metres is S * d + B',
    )
    parser.add_argument(
        '--up-to-scale',
        action='store_true',
        help='for --ply with relative disparity: clouds without a unit, with a disparity of 0 at infinite distance',
    )


def check_depth_arguments(args: argparse.Namespace) -> None:
    """Raises ValueError for options that miss one another; what needs model and video comes later."""
    if args.ply and not args.intrinsics:
        raise ValueError('--ply needs --intrinsics K.txt: without the focal length a cloud has no shape')
    if not args.ply and (args.scale_shift or args.up_to_scale):
        raise ValueError('--scale-shift and --up-to-scale are for point clouds; wanted --ply FRAME, too')
    if args.scale_shift and args.up_to_scale:
        raise ValueError('both --scale-shift and --up-to-scale are given; wanted one of them')


class DepthLayer(Layer):
    """Depth in colour at the right of the picture; npz, png and ply.

    Args:
        stem: Path of what is saved, without suffix.
        intrinsics: ``(3, 3)``, or None.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        source: FrameSource,
        predictor: Predictor,
        stem: Path,
        intrinsics: np.ndarray | None,
    ) -> None:
        from trecvit_dense.visualization import DepthDrawer

        self._drawer, self._kind, self._numbers, self._clouds = DepthDrawer(), predictor.depth_kind, None, None
        if args.save:
            self._numbers = self._make_writer(args, stem, dict(fps=source.fps, size=source.size))
        if args.ply:
            self._clouds = self._make_clouds(args, stem, intrinsics, total_frames(source, args.max_frames))
        self.writers = [writer for writer in (self._numbers, self._clouds) if writer is not None]

    def _make_writer(self, args: argparse.Namespace, stem: Path, about: dict):
        from trecvit_dense.io import DepthNpzWriter, DepthPngWriter

        if args.save == 'npz':
            return DepthNpzWriter(stem.with_name(f'{stem.name}.npz'), self._kind, dtype=args.dtype, **about)
        return DepthPngWriter(stem, self._kind, units_per_metre=args.units_per_metre, replace=True, **about)

    def _make_clouds(self, args: argparse.Namespace, stem: Path, intrinsics: np.ndarray, total: int | None):
        from trecvit_dense.io import PlyWriter

        if self._kind == 'disparity' and not (args.scale_shift or args.up_to_scale):
            raise ValueError(
                f'{args.checkpoint} gives relative disparity, so a cloud has no unit; wanted --scale-shift S B (one '
                f'over metres is S * disparity + B) or --up-to-scale'
            )
        late = [frame for frame in args.ply if total is not None and frame >= total]
        if late:
            raise ValueError(f'--ply {late[0]}: the video has frames 0 to {total - 1}')
        return PlyWriter(
            stem, args.ply, intrinsics, kind=self._kind, scale_shift=args.scale_shift, up_to_scale=args.up_to_scale
        )

    def draw(self, picture: np.ndarray, result: FrameResult) -> np.ndarray:
        from trecvit_dense.visualization import side_by_side

        return side_by_side(picture, self._drawer.draw(result.depth, result.depth_kind))

    def save(self, result: FrameResult) -> None:
        if self._numbers is not None:
            self._numbers.write(result.depth)
        if self._clouds is not None:
            self._clouds.write(result.frame, result.depth, result.image)

    def check_all_came(self) -> None:
        if self._clouds is not None:
            self._clouds.check_all_came()

    @property
    def name(self) -> str:
        return 'depth in metres' if self._kind == 'depth' else 'relative disparity'

    @property
    def files(self) -> list[str]:
        numbers = [] if self._numbers is None else [str(self._numbers.path)]
        return numbers + ([] if self._clouds is None else self._clouds.written)


def read_camera(args: argparse.Namespace, source: FrameSource, predictor: Predictor) -> np.ndarray | None:
    """The matrix of ``--intrinsics``; says so where a model wants one that is not given."""
    from trecvit_dense.inference.runtime import canonical_focal
    from trecvit_dense.io import read_intrinsics

    focal = canonical_focal(predictor.model)
    if args.intrinsics:
        return read_intrinsics(args.intrinsics, source.size)
    if focal is not None:
        say(f'without --intrinsics metres are those of a camera with a focal length of {focal:g} px of the model input')
    return None


def run_depth(args: argparse.Namespace) -> int:
    """Depth of a video of any length and aspect ratio.

    OUT.mp4 shows the video and, at its right, depth in colour: near is warm, and the range of the colours follows the
    scene slowly. A model gives metres or relative disparity (one over depth, but for an unknown scale and shift that
    are the same in the whole video); --save writes these numbers. --ply writes point clouds, x right, y down, z
    forward. Ctrl-C ends a camera and keeps what was recorded.
    """
    check_depth_arguments(args)

    def prepare(source: FrameSource, predictor: Predictor) -> tuple[Iterator[FrameResult], list[Layer]]:
        stem = Path(args.out).with_suffix('')
        predictor.check('depth')
        camera = read_camera(args, source, predictor)
        results = predictor.stream_depth(source, intrinsics=camera, max_frames=args.max_frames)
        return results, [DepthLayer(args, source, predictor, stem, camera)]

    return record(args, prepare)
