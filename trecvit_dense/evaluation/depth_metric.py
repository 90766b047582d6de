"""MMEngine metric of depth: errors under named alignments, beside the best constants and the model without memory.

The key says it all: ``sintel/scale_shift_disparity_clip/AbsRel`` is the model; ``.../constant_frame/AbsRel`` the best
constant depth for each frame, ``.../constant_clip/AbsRel`` for the clip, ``.../reset/AbsRel`` the model with its state
cleared before every frame, when that was predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS
from ..structures import DepthMap, DepthPrediction, VideoSample
from . import depth_protocols
from .depth_clip import DepthRules
from .depth_scores import report, score_clip
from .functional.depth_alignment import find_alignment
from .functional.depth_crops import resize_maps


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
        protocol: Also score by the rules of a paper, ``'vda'``, ``'depthcrafter'``, ``'monst3r'``, ``'marigold'``,
            ``'monodepth2'``, ``'bts'`` or ``'nvds'``: keys ``<dataset_name>/<protocol>/AbsRel``. Its cap, crop and
            length are those that it has for ``dataset_name``, where it knows it, unless ``cap_m`` or ``crop`` say
            otherwise. See docs/evaluate_depth.md.
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
        protocol: str | None = None,
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
        self.flow, self.per_sequence, self.protocol = flow, per_sequence, protocol
        if protocol is not None:
            given = dict(cap_m=cap_m, crop=crop, min_depth_m=min_depth_m if min_depth_m != 1e-3 else None)
            self.limits = depth_protocols.find_limits(protocol, dataset_name, **given, hard_crop=True)

    def process(self, data_batch: Any, data_samples: Sequence[VideoSample]) -> None:
        """Score each clip; only its numbers are kept."""
        for sample in data_samples:
            predictions = depth_predictions(sample)
            flow = sample.meta.get('flow_to_previous', self.flow)
            try:
                result = score_clip(sample.depth, predictions, self.rules, video=sample.video, flow=flow)
                if self.protocol is not None:
                    result['protocol'] = {
                        name: self._by_protocol(sample.depth, prediction) for name, prediction in predictions.items()
                    }
            except ValueError as error:
                raise ValueError(f"video '{sample.name}': {error}") from None
            self.results.append(dict(result, name=sample.name))

    def _by_protocol(self, depth: DepthMap, prediction: DepthPrediction) -> tuple[dict[str, float], float]:
        values = resize_maps(prediction.values, depth.depth_m.shape[1:])
        truth = np.where(depth.valid & np.isfinite(depth.depth_m), depth.depth_m, np.float32(-1))
        cameras = (None, None) if depth.camera_to_world is None else (depth.intrinsics, depth.camera_to_world)
        clip = depth_protocols.Clip(values, truth, (), prediction.kind, *cameras)
        return depth_protocols.score_clip(self.protocol, clip, self.limits)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        metrics = report(results, per_sequence=self.per_sequence)
        if self.protocol is None or not results:
            return metrics
        for method in dict.fromkeys(method for result in results for method in result['protocol']):
            rows = {r['name']: r['protocol'][method] for r in results if method in r['protocol']}
            part = f'{self.protocol}/' if method == 'model' else f'{self.protocol}/{method}/'
            values = depth_protocols.report(rows)
            keep = ('per_sequence/',) if not self.per_sequence or method != 'model' else ('/',)
            metrics.update({part + key: value for key, value in values.items() if not key.startswith(keep)})
        return metrics


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
