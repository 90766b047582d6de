"""What a sample says about depth, as the losses of a depth head want it."""

from __future__ import annotations

from trecvit_dense.structures import VideoSample


def truth_scale(sample: VideoSample, scale: tuple[float, float]) -> tuple[float, float]:
    """Model-input pixels per pixel of the truth, ``(x, y)``; ``scale`` is that per pixel of the video."""
    height, width = sample.depth.depth_m.shape[1:]
    return scale[0] * sample.size[1] / width, scale[1] * sample.size[0] / height


def focal_px(sample: VideoSample, scale: tuple[float, float]) -> float | None:
    """Mean focal length in pixels of the model input, or None when the sample does not say."""
    if sample.depth is None or sample.depth.intrinsics is None:
        return None
    ratio = truth_scale(sample, scale)
    matrices = sample.depth.intrinsics.reshape(-1, 3, 3)
    return float((matrices[:, 0, 0] * ratio[0] + matrices[:, 1, 1] * ratio[1]).mean() / 2)
