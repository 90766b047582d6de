"""TAPNext in both numerics flavours against the official programs: outputs, states, streaming, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.goldens import Golden, assert_close_max, golden_files
from trecvit_dense.checkpoints.official import tapnext_config
from trecvit_dense.checkpoints.tapnext_names import torch_rules
from trecvit_dense.checkpoints.trecvit_names import load_rules, save_rules
from trecvit_dense.models import VideoPerceiver
from trecvit_dense.models.heads.tapnext import position_encoding
from trecvit_dense.registry import MODELS

# Losses and metrics have files of their own, every other one is a model.
FILES = [file for file in golden_files('tapnext_') if not file.id.startswith(('tapnext_losses_', 'tapnext_metrics_'))]


def build(golden: Golden, numerics: str) -> VideoPerceiver:
    """The registered model that trains and streams, with the golden's sizes and weights and the official options."""
    config = golden.config
    model = MODELS.build(
        tapnext_config(
            embed_dim=config['width'],
            depth=config['depth'],
            num_heads=config['num_heads'],
            mlp_dim=golden['params/blocks.0.vit_block.mlp.0.weight'].shape[0],
            lru_width=config['lru_width'],
            patch_size=config['patch_size'],
            image_size=config['image_size'],
            num_bins=config['num_bins'],
            hidden_dim=golden['params/visible_head.0.weight'].shape[0],
            conv_width=golden['params/blocks.0.ssm_block.recurrent_block.conv_1d.w'].shape[0],
            numerics=numerics,
            head=dict(
                border='zero' if numerics == 'torch' else 'clamp',
                soft_argmax_threshold=config['soft_argmax_threshold'],
                softmax_temperature=config['softmax_temperature'],
                certainty_radius=config['certainty_radius'],
                official_certainty=True,
            ),
        )
    )
    arrays = golden.group('params/')
    arrays.pop('query_pos_embed', None)
    model.load_state_dict(load_rules(torch_rules(config['depth']), arrays))
    return model.eval()


def start(model: VideoPerceiver, query_tyx: Tensor, scale: float = 1.0):
    """State for queries ``(B, Q, 3)`` t, y, x of the position table's image; ``scale``: input pixels per its pixel."""
    query_txy = query_tyx[..., [0, 2, 1]] * query_tyx.new_tensor([1, scale, scale])
    return model.start(len(query_txy), points=dict(query_txy=query_txy))


def arrays_of(output) -> dict[str, Tensor]:
    """Output of the head in the official layout, coordinates in model space."""
    final = output.extras['estimates'][-1]
    size = output.xy_px.new_tensor(output.extras['input_size'])
    model_space = output.xy_px.flip(-1) * final['logits'].shape[-1] / size
    assert torch.allclose(model_space, final['yx'], atol=1e-3)
    return dict(
        tracks=final['yx'],
        track_logits=final['logits'].flatten(-2),
        visible_logits=output.visible_logits[..., None],
        certainty=None if output.certainty is None else output.certainty[..., None],
    )


def compare(golden: Golden, prefix: str, found: dict[str, Tensor]) -> None:
    for name in ('tracks', 'track_logits', 'visible_logits'):
        if f'{prefix}/{name}' in golden:
            wanted = golden[f'{prefix}/{name}']
            assert_close_max(found[name][:, :, : wanted.shape[2]], wanted, name=f'{prefix}/{name}')


def run(model: VideoPerceiver, video: Tensor, state, sizes: list[int]) -> tuple[dict[str, Tensor], object]:
    """Outputs of consecutive chunks, joined over time, and the last state."""
    parts = []
    for chunk in video.split(sizes, dim=1):
        outputs, state = model.step(chunk, state)
        parts.append(arrays_of(outputs['points']))
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}, state


def official_state(state, layer: int) -> dict[str, Tensor]:
    """``rg_lru_state (B*N, L)`` and ``conv1d_state (B*N, K-1, L)``, image tokens first."""
    found = {}
    for ours, theirs in (('rg_lru', 'rg_lru_state'), ('conv', 'conv1d_state')):
        keys = [f'backbone.blocks.{layer}.{group}.{ours}' for group in ('patch', 'prompt.points')]
        rows = torch.cat([state[key] for key in keys], dim=-2)
        found[theirs] = (rows.transpose(1, 2) if ours == 'conv' else rows).flatten(0, 1)
    return found


@pytest.mark.parametrize('path', FILES)
def test_tapnext(path) -> None:
    golden = Golden(path)
    video = golden.tensor('video').permute(0, 1, 4, 2, 3)  # (B, T, 3, H, W)
    with torch.no_grad():
        _check_torch(golden, video)
        _check_jax(golden, video)
    if golden.keys('grad/'):
        _check_gradients(golden, video)
    golden.assert_all_compared()


def _check_torch(golden: Golden, video: Tensor) -> None:
    model = build(golden, 'torch')
    config, frames = golden.config, video.shape[1]
    height, width = config['image_size']
    rows, columns = [0, 1, height // 2, height - 1], [0, 1, width // 2, width - 1]
    yx = torch.tensor([[[y + 0.5, x + 0.5] for x in columns] for y in rows])
    table = position_encoding(yx, (height, width), config['width'], border='zero')
    assert_close_max(table, golden['aux/query_pos_embed_rows'], name='query_pos_embed_rows')

    for queries, prefix in (('query_points', 'out_torch'), ('query_points_border', 'out_torch_border')):
        state = start(model, golden.tensor(queries))
        tokens = model.heads['points'].prompts(state.scope('heads.points'), frames, (height, width))[0].tokens
        assert_close_max(tokens, golden[f'{prefix}/point_tokens_in'], name=f'{prefix}/point_tokens_in')
        found, state = run(model, video, state, [frames])
        compare(golden, prefix, found)
        if f'{prefix}/certainty' in golden:
            assert_close_max(found['certainty'], golden[f'{prefix}/certainty'], name='certainty')
            estimate = dict(logits=found['track_logits'].unflatten(-1, (2, -1)), yx_bins=found['tracks'])
            sound = model.heads['points'].certainty(**estimate, official_transposed=False)[..., None]
            assert_close_max(sound, golden[f'{prefix}/certainty_jaxdef'], name='certainty_jaxdef')
        for layer in range(config['depth']):
            for name, rows_found in official_state(state, layer).items():
                key = f'{prefix}/state/{layer}/{name}'
                if key in golden:
                    assert_close_max(rows_found, golden[key], name=key)

    query = golden.tensor('query_points')
    compare(golden, 'stream_torch', run(model, video, start(model, query), [1] * frames)[0])
    sizes = golden['chunks_torch/chunk_sizes'].tolist()
    compare(golden, 'chunks_torch', run(model, video, start(model, query), sizes)[0])

    if 'altres/video' in golden:
        large = golden.tensor('altres/video').permute(0, 1, 4, 2, 3)
        state = start(model, golden.tensor('altres/query_points'), large.shape[-1] / width)
        compare(golden, 'altres', run(model, large, state, [large.shape[1]])[0])
        grid = (large.shape[-2] // config['patch_size'][0], large.shape[-1] // config['patch_size'][1])
        table = model.backbone.position(grid)
        wanted = golden['altres/image_pos_emb_interp']
        assert_close_max(table.reshape(wanted.shape), wanted, name='image_pos_emb_interp')


def _check_jax(golden: Golden, video: Tensor) -> None:
    model = build(golden, 'jax')
    for queries, prefix in (('query_points', 'out_jax'), ('query_points_border', 'out_jax_border')):
        compare(golden, prefix, run(model, video, start(model, golden.tensor(queries)), [video.shape[1]])[0])
    model.train()  # the estimates of every layer are made when there is a loss to read them
    outputs, _ = model.step(video, start(model, golden.tensor('query_points')))
    layers = outputs['points'].extras['estimates'][:-1]
    assert len(layers) == golden.config['depth']
    for index, layer in enumerate(layers):
        assert_close_max(layer['yx'], golden[f'out_jax/intermediate/{index}/tracks'], name=f'layer {index} tracks')
        wanted = golden[f'out_jax/intermediate/{index}/visible_logits']
        assert_close_max(layer['visible_logits'][..., None], wanted, name=f'layer {index} visible_logits')


def _check_gradients(golden: Golden, video: Tensor) -> None:
    model = build(golden, 'torch')
    outputs, _ = model.step(video, start(model, golden.tensor('query_points')))
    found = arrays_of(outputs['points'])
    names = ('track_logits', 'visible_logits')
    sum((found[name] * golden.tensor(f'grad/cotangent_{name}')).sum() for name in names).backward()
    rules = torch_rules(golden.config['depth'])
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    official = save_rules(rules, gradients, golden.config['num_heads'])
    for key in golden.keys('grad/params/'):
        name = key.removeprefix('grad/params/')
        assert name in official, f'no gradient for {name}'
        assert np.isfinite(official[name]).all()
        assert_close_max(official[name], golden[key], 1e-3, key)
