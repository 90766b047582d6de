"""Features of an encoder to disk, and a decoder that was trained on them together with its encoder again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trecvit_dense.checkpoints.io import CheckpointError, load_parts, read_checkpoint, save_weights
from trecvit_dense.datasets.feature_store import FeatureStore, feature_key
from trecvit_dense.models import VideoPerceiver
from trecvit_dense.models.perceiver import wants_whole_clips
from trecvit_dense.progress import track
from trecvit_dense.registry import DATASETS, MODELS, use_scope
from trecvit_dense.structures import Features


def build_encoder(
    encoder: dict, weights: str | Path | None, preprocessor: dict | None = None, device: str = 'cpu'
) -> tuple[VideoPerceiver, dict[str, Any]]:
    """An encoder that reads frames, in eval mode, and the key of its features.

    Args:
        encoder: Config of a backbone.
        weights: A checkpoint with that backbone, or ``'boxed'``; None: as it is initialised, for tests.
        preprocessor: Config of :class:`.VideoPreprocessor`.
    """
    use_scope()
    preprocessor = preprocessor or dict(type='VideoPreprocessor')
    model = MODELS.build(dict(type='VideoPerceiver', backbone=encoder, heads={}, data_preprocessor=preprocessor))
    if weights is not None:
        load_parts(model, dict(backbone=weights))
    key = feature_key(dict(encoder=encoder, preprocessor=preprocessor), model.backbone.state_dict())
    return model.to(device).eval(), key


@torch.no_grad()
def extract_features(
    dataset: dict | Dataset,
    encoder: dict,
    folder: str | Path,
    *,
    weights: str | Path | None = None,
    preprocessor: dict | None = None,
    dtype: str = 'float16',
    passes: int = 1,
    chunk_frames: int = 8,
    device: str = 'cpu',
) -> FeatureStore:
    """Write the last level of ``encoder`` for every item of ``dataset``; items that are complete are not made again.

    Args:
        dataset: Data set or its config; whole videos (LVU: ``window=None``). The config is part of the key.
        passes: Passes over a data set that draws other clips in each.
        chunk_frames: Frames that are encoded at once, in memory; causal encoders go on from their state.

    Raises:
        FeatureStoreError: the folder holds features of another encoder or of other data.
        ValueError: the encoder has no tokens of its own for each frame.
    """
    model, key = build_encoder(encoder, weights, preprocessor, device)
    if isinstance(dataset, dict):
        key = {**feature_key(dict(dataset=dataset), {}), **key}
        dataset = DATASETS.build(dataset)
    store = FeatureStore.resume(folder, key=key, dtype=dtype)
    for index in track(range(len(dataset) * passes), description='features'):
        if store is not None and index in store:
            continue
        item = dataset[index]
        parts = _encoded(model, item['inputs'], chunk_frames)
        if store is None:
            first = next(parts)
            store, parts = (
                FeatureStore.create(folder, key=key, layout=_layout(first), dtype=dtype),
                chain([first], parts),
            )
        frames = (_tokens(features)[0].float().cpu().numpy() for features in parts)
        store.write(index, item['data_samples'], frames, len(item['inputs']))
    if store is None:
        raise ValueError('the data set is empty; there is nothing to extract')
    return store


def _encoded(model: VideoPerceiver, frames: Tensor, chunk: int) -> Iterator[Features]:
    """Features of ``(T, 3, H, W)`` uint8 frames, a chunk at a time; whole clips where the encoder wants them."""
    state = None
    for part in frames.split(len(frames) if wants_whole_clips(model.backbone) else chunk):
        video, _ = model.data_preprocessor.prepare(part[None])
        features, state = model.backbone(video, state=state)
        yield features


def _tokens(features: Features) -> Tensor:
    """``(B, T, n, C)``, the class token first where there is one as wide as the patches."""
    patches, token = features.levels[-1].tokens, features.class_token
    if token is None or token.shape[-1] != patches.shape[-1]:
        return patches
    return torch.cat([token[:, :, None], patches], dim=2)


def _layout(features: Features) -> dict[str, Any]:
    level = features.levels[-1]
    return dict(
        embed_dim=level.tokens.shape[-1],
        grid=[int(side) for side in level.grid],
        stride=[int(side) for side in level.stride],
        class_token=_tokens(features).shape[2] > level.tokens.shape[2],
    )


def join_encoder(
    decoder: str | Path, folder: str | Path, out: str | Path, *, weights: str | Path | None, device: str = 'cpu'
) -> Path:
    """A checkpoint for video from one that was trained on the features in ``folder``, and from their encoder.

    Args:
        decoder: Checkpoint of a ViS4mer without encoder.
        weights: Those of the encoder, as they were given to :func:`extract_features`.

    Raises:
        CheckpointError: ``decoder`` has an encoder already, or is another model.
        FeatureStoreError: the weights are not those that made the features.
    """
    state, info = read_checkpoint(decoder)
    config = info['config'] or {}
    backbone = config.get('backbone', {})
    if backbone.get('type') != 'ViS4mer' or (backbone.get('encoder') or {}).get('type') not in (None, 'StoredFeatures'):
        raise CheckpointError(f'{decoder} is no ViS4mer that was trained on stored features; wanted encoder=None')
    store = FeatureStore(folder)
    model, key = build_encoder(store.key['encoder'], weights, store.key['preprocessor'], device)
    store.check(key)
    backbone = {name: value for name, value in backbone.items() if name != 'd_input'}
    config = dict(config, backbone=dict(backbone, encoder=key['encoder']), data_preprocessor=key['preprocessor'])
    encoder = {f'backbone.encoder.{name}': value for name, value in model.backbone.state_dict().items()}
    use_scope()
    MODELS.build(dict(config))  # the sizes fit
    return save_weights({**encoder, **state}, config, out, info['card'])
