"""FeaturePreprocessor: batches of stored features, in place of frames."""

from __future__ import annotations

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from trecvit_dense.registry import MODELS


@MODELS.register_module()
class FeaturePreprocessor(BaseDataPreprocessor):
    """Stacks tokens ``(T, n, C)`` of any float type to ``(B, T, n, C)`` float32 on the model's device."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """Stack the features of a batch.

        Raises:
            ValueError: they differ in length or size, or are no features.
        """
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            shapes = sorted({tuple(features.shape) for features in inputs})
            if len(shapes) > 1:
                raise ValueError(
                    f'features of one batch differ in shape: {shapes}; set num_frames of the data set or batch_size=1'
                )
            inputs = torch.stack(list(inputs))
        if inputs.ndim != 4 or not inputs.is_floating_point():
            raise ValueError(
                f'inputs have shape {tuple(inputs.shape)} and are {inputs.dtype}; wanted features (T, tokens, C) as '
                f'StoredFeatureDataset gives them; video needs a VideoPreprocessor and an encoder'
            )
        features = inputs.to(self.device, non_blocking=True).float()
        return dict(inputs=features, data_samples=data.get('data_samples'), scale=(1.0, 1.0))
