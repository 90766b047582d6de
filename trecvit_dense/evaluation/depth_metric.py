"""MMEngine metric of depth: errors under named alignments, beside the best constants and the model without memory.

The key says it all: ``sintel/scale_shift_disparity_clip/AbsRel`` is the model; ``.../constant_frame/AbsRel`` the best
constant depth for each frame, ``.../constant_clip/AbsRel`` for the clip, ``.../reset/AbsRel`` the model with its state
cleared before every frame, when that was predicted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS
from ..structures import DepthPrediction, VideoSample
from .depth_clip import DepthRules
from .depth_scores import score_clip
from .functional.depth_alignment import find_alignment


@METRICS.register_module()
class DepthMetric(BaseMetric):
    """AbsRel, SqRel, RMSE, logRMSE, log10, iRMSE, SILog, delta1 to 3; with poses TAE and flicker, with flow OPW.

    Errors are means over the frames of a clip that have a valid pixel, then over clips. Predictions of another size
    than the truth are resized to it.

    Args:
        dataset_name: First part of every key.
        alignment: One name or several: ``'none'``, or ``'{scale|scale_shift}_{depth|disparity}_{frame|clip}'``: what
            is fitted by least squares, in which space, over what. Metres may be aligned in disparity and the other way
            round.
        cap_m: Truth beyond it does not count, and aligned depth is limited to it. None: all truth counts, aligned depth
            is limited to 1000 m.
        min_depth_m: Truth at or below it does not count; the lower limit of aligned depth.
        crop: ``'garg'``, ``'eigen_kitti'``, ``'eigen_nyu'``, ``'nvds_nyu'``, ``'scannet'``, ``'kb'``, or rows and
            columns (a, b, c, d) of the truth.
        scale_fit: Where the scale alone is fitted: ``'median'`` (ratio of the medians) or ``'least_squares'``.
        silog: Which of the three definitions, see :func:`.functional.depth.summarise`.
        temporal: Report TAE and flicker where the truth has poses and intrinsics.
        tae: ``'official'``: as Video Depth Anything's program, see docs/official_bugs.md.
        flow: ``'dis'``: compute optical flow for OPW; ``meta['flow_to_previous']`` of a sample is used in any case.
        per_sequence: Also report ``.../per_sequence/<name>/AbsRel`` and so on.

    Raises:
        ValueError: unknown name; later, a sample without truth or prediction, or that does not fit, or no valid pixel
            in any sample.
    """

    task = 'depth'

    def __init__(
        self,
        dataset_name: str = 'depth',
        alignment: str | Sequence[str] = 'scale_shift_disparity_clip',
        *,
        cap_m: float | None = None,
        min_depth_m: float = 1e-3,
        crop: str | Sequence[int] | None = None,
        scale_fit: str = 'median',
        silog: str = 'kitti',
        temporal: bool = True,
        tae: str = 'sound',
        flow: str | None = None,
        per_sequence: bool = False,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix=dataset_name, collect_dir=collect_dir)
        names = [alignment] if isinstance(alignment, str) else list(alignment)
        self.rules = DepthRules(
            tuple(find_alignment(name) for name in names),
            cap_m=cap_m,
            min_depth_m=min_depth_m,
            crop=crop,
            scale_fit=scale_fit,
            silog=silog,
            temporal=temporal,
            tae=tae,
        )
        if flow not in (None, 'dis'):
            raise ValueError(f"flow is '{flow}'; wanted 'dis' or None")
        self.flow, self.per_sequence = flow, per_sequence

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        """Score each clip; only its numbers are kept."""
        for sample in data_samples:
            predictions = depth_predictions(sample)
            flow = sample.meta.get('flow_to_previous', self.flow)
            try:
                result = score_clip(sample.depth, predictions, self.rules, video=sample.video, flow=flow)
            except ValueError as error:
                raise ValueError(f"video '{sample.name}': {error}") from None
            self.results.append(dict(result, name=sample.name))

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        return report(results, per_sequence=self.per_sequence)


def depth_predictions(sample: VideoSample) -> dict[str, DepthPrediction]:
    """``'model'`` and, if it was made, ``'reset'``.

    Raises:
        ValueError: truth or prediction is missing.
    """
    if sample.depth is None:
        raise ValueError(f"video '{sample.name}' has no depth; use a data set with depth")
    if 'depth' not in sample.predictions:
        raise ValueError(f"video '{sample.name}' has no predictions['depth']; does the model have a head named depth?")
    others = {'reset': sample.predictions['depth_reset']} if 'depth_reset' in sample.predictions else {}
    return {'model': sample.predictions['depth'], **others}


def report(results: Sequence[dict[str, Any]], *, per_sequence: bool = False) -> dict[str, float]:
    """Means over the clips of :func:`.depth_scores.score_clip`, each with its ``name``; keys as in a table.

    Raises:
        ValueError: no clip has a valid pixel.
    """
    scored = [result for result in results if result['rows']]
    empty = [f'{result["name"]} ({result["empty"]})' for result in results if not result['rows']]
    if results and not scored:
        raise ValueError(f'nothing to score: {"; ".join(empty[:3])}')
    if empty:
        warnings.warn(f'not scored: {"; ".join(empty)}', stacklevel=2)
    inverted = [f'{result["name"]} ({", ".join(result["inverted"])})' for result in scored if result['inverted']]
    if inverted:
        warnings.warn(
            'near and far are swapped, the best scale would be negative; taken as 0, which is a constant: '
            + ', '.join(inverted),
            stacklevel=2,
        )
    metrics: dict[str, float] = {}
    for alignment in dict.fromkeys(name for result in scored for name in result['rows']):
        metrics[f'{alignment}/num_clips'] = len(scored)
        metrics[f'{alignment}/num_frames'] = sum(result['num_frames'] for result in scored)
        rows = {result['name']: result['rows'][alignment] for result in scored}
        for method in dict.fromkeys(method for methods in rows.values() for method in methods):
            part = '' if method == 'model' else f'{method}/'
            values = _means([methods[method] for methods in rows.values() if method in methods])
            metrics.update({f'{alignment}/{part}{key}': value for key, value in values.items()})
        for name, methods in rows.items() if per_sequence else ():
            for method, values in methods.items():
                part = f'{alignment}/per_sequence/{name}/' + ('' if method == 'model' else f'{method}/')
                metrics.update({part + key: value for key, value in values.items()})
    return metrics


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Over the clips for which a value is defined: not every clip has poses, or overlapping frames."""
    means = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if key in row and not np.isnan(row[key])]
        means[key] = float(np.mean(values)) if values else float('nan')
    return means
