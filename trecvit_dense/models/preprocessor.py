"""VideoPreprocessor: uint8 frames to the normalised, padded batch that a backbone reads, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from trecvit_dense.registry import MODELS

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, RGB in [0, 1]


@MODELS.register_module()
class VideoPreprocessor(BaseDataPreprocessor):
    """Resize, normalise and pad on the model's device.

    Args:
        input_size: ``(H, W)`` to which every frame is stretched, or None to keep the size (TAP-Vid: 256 x 256).
        max_side: Larger frames are reduced, in proportion, until neither side exceeds this; None: never.
        alone: Task to ``max_side`` where that task alone is asked for, ``dict(depth=224)``: what is learnt from small
            frames is best on such.
        beside: Task to the most that ``max_side`` may be where that task is asked for beside others: a compromise.
        min_side: Smaller frames are enlarged, in proportion, until the longer side reaches this; None: never.
        value_range: ``'unit'``: RGB in [0, 1] (TRecViT); ``'signed'``: [-1, 1] (TAPNext); ``'imagenet'``: [0, 1] less
            the mean of ImageNet's pixels, over their standard deviation (Mobile-Former).
        pad_multiple: Height and width are padded at the bottom and right, by repeating the edge, to a multiple of this.
        batch_augments: Configs of :mod:`trecvit_dense.models.batch_augment`, run in training on what is prepared.
    """

    def __init__(
        self,
        input_size: tuple[int, int] | None = None,
        *,
        max_side: int | None = None,
        min_side: int | None = None,
        alone: dict[str, int] | None = None,
        beside: dict[str, int] | None = None,
        value_range: str = 'unit',
        pad_multiple: int = 1,
        batch_augments: Sequence[dict] = (),
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        if value_range not in ('unit', 'signed', 'imagenet'):
            raise ValueError(
                f"value_range is '{value_range}'; wanted 'unit' ([0, 1]), 'signed' ([-1, 1]) or 'imagenet'"
            )
        self.input_size = tuple(input_size) if input_size is not None else None
        if min_side and max_side and min_side > max_side:
            raise ValueError(f'min_side {min_side} exceeds max_side {max_side}')
        for name, sides in (('alone', alone), ('beside', beside)):
            if sides and min(sides.values()) < 1:
                raise ValueError(f'{name} is {dict(sides)}; wanted pixels, at least 1, by task')
        self.max_side, self.min_side = max_side, min_side
        self.alone, self.beside = dict(alone or {}), dict(beside or {})
        self.value_range = value_range
        self.pad_multiple = pad_multiple
        self.batch_augments = [MODELS.build(augment) for augment in batch_augments]

    def prepare(self, video: Tensor, tasks: Sequence[str] = ()) -> tuple[Tensor, tuple[float, float]]:
        """``(B, T, 3, H, W)`` uint8 to normalised float ``(B, T, 3, h, w)`` and ``(w / W, h / H)`` before padding.

        ``tasks`` are those that will be asked for; none: whatever the model does.
        """
        batch, time, channels, height, width = video.shape
        frames = video.to(self.device).float().flatten(0, 1)  # (B*T, 3, H, W)
        size = self.input_size or self._proportional(height, width, tasks)
        if size != (height, width):
            # A fixed size: bilinear without antialias, half-pixel centres, as the authors of TAPNext do.
            smooth = self.input_size is None
            frames = F.interpolate(frames, size, mode='bilinear', align_corners=False, antialias=smooth)
        scale = (size[1] / width, size[0] / height)
        frames = frames / 127.5 - 1 if self.value_range == 'signed' else frames / 255
        if self.value_range == 'imagenet':
            frames = (frames - frames.new_tensor(_MEAN)[:, None, None]) / frames.new_tensor(_STD)[:, None, None]
        pad_y, pad_x = (-frames.shape[-2]) % self.pad_multiple, (-frames.shape[-1]) % self.pad_multiple
        if pad_y or pad_x:
            frames = F.pad(frames, (0, pad_x, 0, pad_y), mode='replicate')
        return frames.view(batch, time, channels, *frames.shape[-2:]), scale

    def grey(self, video: Tensor) -> Tensor:
        """Normalised ``(B, T, 3, H, W)`` to luma ``(B, T, H, W)`` in [0, 1] (ITU-R BT.601)."""
        if self.value_range == 'imagenet':
            video = video * video.new_tensor(_STD)[:, None, None] + video.new_tensor(_MEAN)[:, None, None]
        luma = torch.einsum('bcthw,c->bthw', video.transpose(1, 2), video.new_tensor([0.299, 0.587, 0.114]))
        return (luma + 1) / 2 if self.value_range == 'signed' else luma

    def _proportional(self, height: int, width: int, tasks: Sequence[str]) -> tuple[int, int]:
        longer = max(height, width)
        limit, least = self.max_side, max(longer, self.min_side or longer)
        if len(tasks) == 1 and tasks[0] in self.alone:
            limit, least = self.alone[tasks[0]], longer
        elif len(tasks) > 1:
            limit = min((side for side in (limit, *map(self.beside.get, tasks)) if side), default=None)
        wanted = min(least, limit or least)
        return max(round(height * wanted / longer), 1), max(round(width * wanted / longer), 1)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Stack the clips of a batch; ``data['tasks']`` may say what will be asked for (see :meth:`prepare`).

        Raises:
            ValueError: the clips of one batch differ in length or size.
        """
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            shapes = {tuple(clip.shape) for clip in inputs}
            if len(shapes) > 1:
                raise ValueError(
                    f'clips of one batch differ in shape: {sorted(shapes)}; crop or resize them, or use batch_size=1'
                )
            inputs = torch.stack(list(inputs))
        video, scale = self.prepare(inputs, data.get('tasks', ()))
        samples = data.get('data_samples')
        if training and self.batch_augments:
            # torch's generator is the one that training seeds for every iteration
            rng = np.random.default_rng(int(torch.randint(2**62, ())))
            for augment in self.batch_augments:
                video, samples = augment(video, samples, rng)
        return dict(inputs=video, data_samples=samples, scale=scale)
