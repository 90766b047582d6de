"""How long does a video model remember? Small models, trained alike on synthetic video, are asked for past frames.

The task is that of TRecViT (arXiv 2412.14294, table 6: reconstruct a frame seen k frames ago, on longer videos than
those of training), at a size that trains in minutes; see :class:`trecvit_dense.models.heads.frame_recall.FrameRecall`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from trecvit_dense.datasets import SyntheticVideoDataset
from trecvit_dense.evaluation.functional.pixels import recall_errors
from trecvit_dense.evaluation.pixel_metrics import recall_scores
from trecvit_dense.progress import ProgressBar, track
from trecvit_dense.registry import MODELS, use_scope

MODEL_NAMES = ('trecvit', 'vivit')
QUESTIONS = ('ago', 'first')
_PEAK = 2.0  # models read RGB in [-1, 1]


@dataclass(frozen=True)
class Study:
    """What is trained and how; the same for all models.

    Args:
        steps: Of the optimiser, for each model and question.
        seconds: Train each for so long instead, by the clock; None: by steps.
        num_frames: Of training clips; tests are twice as long.
        size: Of square frames, pixels; a multiple of ``patch_size``.
        distances: Frames back that the question ``'ago'`` asks for.
        window: Frames that ViViT sees at a time.
        embed_dim, depth, patch_size: Of both models.
        batch_size, learning_rate, train_clips, test_clips, seed: As they say.
    """

    steps: int = 300
    seconds: float | None = None
    num_frames: int = 20
    size: int = 32
    distances: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    window: int = 8
    embed_dim: int = 96
    depth: int = 3
    patch_size: int = 8
    batch_size: int = 4
    learning_rate: float = 3e-3
    train_clips: int = 64
    test_clips: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict(steps=1, num_frames=2, window=1, train_clips=1, test_clips=1, batch_size=1, patch_size=1)
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f'{name} is {getattr(self, name)}; wanted at least {value}')
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f'seconds is {self.seconds}; wanted a time above 0')
        if self.size % self.patch_size or self.size < 8:
            raise ValueError(f'size is {self.size}; wanted a multiple of {self.patch_size} px, at least 8')
        if max(self.distances) >= self.num_frames:
            raise ValueError(
                f'clips of {self.num_frames} frames say nothing about {max(self.distances)} frames ago; wanted longer '
                f'clips (num_frames) or smaller distances'
            )


def model_config(study: Study, name: str, question: str) -> dict[str, Any]:
    """A perceiver around one backbone; ``'ago'`` asks at all distances, ``'first'`` for the first frame."""
    for given, known, what in ((name, MODEL_NAMES, 'model'), (question, QUESTIONS, 'question')):
        if given not in known:
            raise ValueError(f"{what} '{given}'; wanted some of {', '.join(known)}")
    sizes = dict(embed_dim=study.embed_dim, depth=study.depth, num_heads=4, image_size=study.size)
    if name == 'trecvit':
        backbone = dict(
            type='TRecViT', mlp_dim=2 * study.embed_dim, lru_width=study.embed_dim, patch_size=study.patch_size, **sizes
        )
    else:
        # The recurrence of TRecViT has about the parameters of the larger MLP here.
        tubelet = (1, study.patch_size, study.patch_size)
        backbone = dict(
            type='ViViT',
            mlp_dim=4 * study.embed_dim,
            tubelet_size=tubelet,
            num_frames=study.window,
            window=study.window,
            class_token=False,
            **sizes,
        )
    asked = dict(distances=study.distances) if question == 'ago' else dict(anchor=0)
    return dict(
        type='VideoPerceiver',
        data_preprocessor=dict(type='VideoPreprocessor', value_range='signed'),
        backbone=backbone,
        heads=dict(recall=dict(type='FrameRecall', **asked)),
        chunk_frames=2 * study.num_frames,
    )


def render_clips(study: Study, split: str, number: int) -> Tensor:
    """``(number, 2 * num_frames, 3, H, W)`` uint8: fast motion, so that the present frame says little of the past."""
    clips = SyntheticVideoDataset(
        length=number,
        size=(study.size, study.size),
        num_frames=2 * study.num_frames,
        num_points=1,
        split=split,
        seed=study.seed,
        motion=1.5,
        photometric=0.0,
        reference_frames=None,
    )
    return torch.stack([clips[index]['inputs'] for index in track(range(number), number, f'{split} clips')])


def train_model(model: nn.Module, clips: Tensor, study: Study, *, description: str = 'train') -> dict[str, float]:
    """Train on random pieces of ``clips``; returns ``steps`` and ``seconds``."""
    generator = torch.Generator().manual_seed(study.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=study.learning_rate, weight_decay=0.01)
    total, begun, step = 1.0 if study.seconds else study.steps, time.monotonic(), 0
    bar = ProgressBar(None if study.seconds else study.steps, description)
    model.train()
    while (done := (time.monotonic() - begun) / study.seconds if study.seconds else float(step)) < total:
        for group in optimiser.param_groups:
            group['lr'] = study.learning_rate * _rate(done / total)
        video, scale = model.data_preprocessor.prepare(_pick(clips, study, generator))
        loss = model(video, None, mode='loss', scale=scale)['loss_recall']
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        bar.update(note=f'loss {loss.item():.4f}')
    bar.close()
    return dict(steps=step, seconds=time.monotonic() - begun)


def _rate(done: float) -> float:
    """A tenth of the way up, then down a cosine to a hundredth."""
    return min(done / 0.1 + 0.01, 1.0) if done < 0.1 else 0.01 + 0.495 * (1 + np.cos(np.pi * (done - 0.1) / 0.9))


def _pick(clips: Tensor, study: Study, generator: torch.Generator) -> Tensor:
    """A batch of pieces as long as training asks, mirrored and reversed by chance."""
    rows = torch.randint(len(clips), (study.batch_size,), generator=generator)
    first, mirror, turn = (int(torch.randint(high, (1,), generator=generator)) for high in (study.num_frames + 1, 2, 2))
    video = clips[rows, first : first + study.num_frames]
    flipped = [dim for dim, wanted in ((-1, mirror), (1, turn)) if wanted]
    return video.flip(flipped) if flipped else video


@torch.no_grad()
def score_model(model: nn.Module, clips: Tensor) -> dict[int, dict[str, float]]:
    """Distance to scores (see :func:`.recall_scores`), means over all frames of ``clips``."""
    model.eval()
    found: list[dict[int, dict[str, float]]] = []
    for clip in clips:
        video, scale = model.data_preprocessor.prepare(clip[None])
        outputs, _ = model.step(video, model.start(1))
        recall = model.heads['recall'].predict([outputs['recall']], None, scale)
        found.append(recall_errors(recall.patches, recall.truth, recall.asked))
    means = {d: {k: float(np.mean([one[d][k] for one in found])) for k in found[0][d]} for d in found[0]}
    return {distance: recall_scores(errors, _PEAK) for distance, errors in means.items()}


def run_study(
    study: Study, *, models: tuple[str, ...] = MODEL_NAMES, questions: tuple[str, ...] = QUESTIONS
) -> dict[str, Any]:
    """Train and score every model on every question.

    Returns:
        ``settings``, and ``curves``: a list of dictionaries with ``model``, ``question``, ``parameters`` (of the
        backbone), ``state_bytes`` (of one stream), ``steps``, ``seconds`` and ``scores`` by distance.
    """
    use_scope()
    configs = {(q, m): model_config(study, m, q) for q in questions for m in models}
    train, test = render_clips(study, 'train', study.train_clips), render_clips(study, 'test', study.test_clips)
    curves = []
    for (question, name), cfg in configs.items():
        torch.manual_seed(study.seed)
        model = MODELS.build(cfg)
        spent = train_model(model, train, study, description=f'{name}, {question}')
        _, state = model.step(model.data_preprocessor.prepare(test[:1, :1])[0], model.start(1))
        size = dict(
            parameters=sum(parameter.numel() for parameter in model.backbone.parameters()),
            state_bytes=state.scope('backbone').nbytes,
        )
        curves.append(dict(model=name, question=question, **size, **spent, scores=score_model(model, test)))
    return dict(settings=asdict(study), curves=curves)


def plot_study(result: dict[str, Any]) -> Figure:
    """PSNR against distance, a panel for each question; dashed: answering with the mean frame, or with the present."""
    titles = dict(ago='every frame asks for the frame N frames ago', first='every frame asks for the first frame')
    questions = list(dict.fromkeys(curve['question'] for curve in result['curves']))
    figure = Figure(figsize=(5.5 * len(questions), 4), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, question in zip(figure.subplots(1, len(questions), squeeze=False)[0], questions, strict=True):
        curves = [curve for curve in result['curves'] if curve['question'] == question]
        for curve in curves:
            axes.plot(*_points(curve['scores'], 'PSNR'), marker='.', label=curve['model'])
        for key, label in (('mean_frame/PSNR', 'mean frame so far'), ('copy_current/PSNR', 'present frame')):
            axes.plot(*_points(curves[0]['scores'], key), '--', linewidth=1.0, label=label)
        axes.axvline(result['settings']['window'] - 0.5, color='0.7', linewidth=1.0)
        axes.set(title=titles[question], xlabel='distance N, frames', ylabel='PSNR, dB')
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return figure


def _points(scores: dict[int, dict[str, float]], key: str) -> tuple[list[int], list[float]]:
    rows = [(distance, score[key]) for distance, score in scores.items() if np.isfinite(score[key])]
    return [row[0] for row in rows], [row[1] for row in rows]
