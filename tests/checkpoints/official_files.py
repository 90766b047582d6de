"""Builds files with the key sets of the official checkpoints, written out from the published lists, random values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

Shapes = dict[str, tuple[int, ...]]


def trecvit_shapes(
    width: int = 768, *, depth: int = 12, heads: int = 12, classes: int = 400, rep: int = 3072
) -> Shapes:
    """``trecvit_B_k400.npz``."""
    lru, mlp, head = 2 * width, 4 * width, width // heads
    shapes = {
        'tokenizer/cls': (1, 1, width),
        'tokenizer/pos_embedding': (1, 196, width),
        'tokenizer/embedding/kernel': (1, 16, 16, 3, width),
        'tokenizer/embedding/bias': (width,),
        'encoder/encoder_norm/scale': (width,),
        'encoder/encoder_norm/bias': (width,),
        'decoder/pre_logits/kernel': (width, rep),
        'decoder/pre_logits/bias': (rep,),
        'decoder/cls_head/kernel': (rep, classes),
        'decoder/cls_head/bias': (classes,),
    }
    for layer in range(depth):
        block = f'encoder/residualblock_{layer:02d}'
        shapes[f'{block}/temporal_pre_norm/scale'] = (width,)
        shapes.update(_recurrent(f'{block}/recurrent_block', width, lru, heads))
        shapes.update(_vit(f'encoder/encoderblock_{layer}', width, mlp, heads, head))
    return shapes


def tapnext_jax_shapes(width: int = 768, *, depth: int = 12, heads: int = 12) -> Shapes:
    """``bootstapnext_ckpt.npz``."""
    mlp, head = 4 * width, width // heads
    shapes = {
        'backbone/embedding/kernel': (1, 8, 8, 3, width),
        'backbone/embedding/bias': (width,),
        'backbone/pos_embedding': (1, 1024, width),
        'backbone/mask_token': (1, 1, 1, width),
        'backbone/point_query_token': (1, 1, 1, width),
        'backbone/unknown_token': (1, 1, width),
        'backbone/Transformer/encoder_norm/scale': (width,),
        'backbone/Transformer/encoder_norm/bias': (width,),
    }
    for layer in range(depth):
        block = f'backbone/Transformer/encoderblock_{layer}'
        shapes[f'{block}/ssm_block/temporal_pre_norm/scale'] = (width,)
        shapes[f'{block}/ssm_block/channel_pre_norm/scale'] = (width,)
        shapes.update(_recurrent(f'{block}/ssm_block/recurrent_block', width, width, heads))
        shapes[f'{block}/ssm_block/mlp_block/ffw_up/w'] = (2, width, mlp)
        shapes[f'{block}/ssm_block/mlp_block/ffw_up/b'] = (2, 1, 1, mlp)
        shapes[f'{block}/ssm_block/mlp_block/ffw_down/kernel'] = (mlp, width)
        shapes[f'{block}/ssm_block/mlp_block/ffw_down/bias'] = (width,)
        shapes.update(_vit(f'{block}/vit_block', width, mlp, heads, head))
    for name, out in (('visible_head', 1), ('coordinate_head', 512)):
        for index, (fan_in, fan_out) in {0: (width, 256), 3: (256, 256), 6: (256, out)}.items():
            shapes[f'{name}/layers_{index}/kernel'] = (fan_in, fan_out)
            shapes[f'{name}/layers_{index}/bias'] = (fan_out,)
        for index in (1, 4):
            shapes[f'{name}/layers_{index}/scale'] = (256,)
            shapes[f'{name}/layers_{index}/bias'] = (256,)
    return shapes


def tapnext_torch_shapes(width: int = 768, *, depth: int = 12, heads: int = 12) -> Shapes:
    """``state_dict`` of ``tapnextpp_ckpt.pt``, without prefix and without the recomputable buffer."""
    mlp = 4 * width
    shapes = {
        'lin_proj.weight': (width, 3, 8, 8),
        'lin_proj.bias': (width,),
        'image_pos_emb': (1, 1024, width),
        'mask_token': (1, 1, 1, width),
        'point_query_token': (1, 1, 1, width),
        'unknown_token': (1, 1, width),
        'encoder_norm.weight': (width,),
        'encoder_norm.bias': (width,),
    }
    for layer in range(depth):
        ssm, vit = f'blocks.{layer}.ssm_block', f'blocks.{layer}.vit_block'
        jax = _recurrent('recurrent_block', width, width, heads)
        for name, shape in jax.items():
            kernel = name.endswith('/kernel')
            renamed = name.replace('/', '.').replace('.kernel', '.weight')
            shapes[f'{ssm}.{renamed}'] = shape[::-1] if kernel else shape
        shapes[f'{ssm}.temporal_pre_norm.scale'] = shapes[f'{ssm}.channel_pre_norm.scale'] = (width,)
        shapes[f'{ssm}.mlp_block.ffw_up.w'] = (2, width, mlp)
        shapes[f'{ssm}.mlp_block.ffw_up.b'] = (2, 1, 1, mlp)
        shapes[f'{ssm}.mlp_block.ffw_down.weight'] = (width, mlp)
        shapes[f'{ssm}.mlp_block.ffw_down.bias'] = (width,)
        for norm in ('ln_1', 'ln_2'):
            shapes[f'{vit}.{norm}.weight'] = shapes[f'{vit}.{norm}.bias'] = (width,)
        shapes[f'{vit}.self_attention.in_proj_weight'] = (3 * width, width)
        shapes[f'{vit}.self_attention.in_proj_bias'] = (3 * width,)
        shapes[f'{vit}.self_attention.out_proj.weight'] = (width, width)
        shapes[f'{vit}.self_attention.out_proj.bias'] = (width,)
        shapes[f'{vit}.mlp.0.weight'], shapes[f'{vit}.mlp.0.bias'] = (mlp, width), (mlp,)
        shapes[f'{vit}.mlp.3.weight'], shapes[f'{vit}.mlp.3.bias'] = (width, mlp), (width,)
    for name, out in (('visible_head', 1), ('coordinate_head', 512)):
        for index, (fan_in, fan_out) in {0: (width, 256), 3: (256, 256), 6: (256, out)}.items():
            shapes[f'{name}.{index}.weight'], shapes[f'{name}.{index}.bias'] = (fan_out, fan_in), (fan_out,)
        for index in (1, 4):
            shapes[f'{name}.{index}.weight'] = shapes[f'{name}.{index}.bias'] = (256,)
    return shapes


def _recurrent(block: str, width: int, lru: int, heads: int) -> Shapes:
    shapes = {
        f'{block}/linear_out/kernel': (lru, width),
        f'{block}/linear_out/bias': (width,),
        f'{block}/conv_1d/w': (4, lru),
        f'{block}/conv_1d/b': (lru,),
        f'{block}/rg_lru/a_param': (lru,),
    }
    for name in ('linear_x', 'linear_y'):
        shapes[f'{block}/{name}/kernel'], shapes[f'{block}/{name}/bias'] = (width, lru), (lru,)
    for gate in ('input_gate', 'a_gate'):
        shapes[f'{block}/rg_lru/{gate}/w'] = (heads, lru // heads, lru // heads)
        shapes[f'{block}/rg_lru/{gate}/b'] = (heads, lru // heads)
    return shapes


def _vit(block: str, width: int, mlp: int, heads: int, head: int) -> Shapes:
    attention = f'{block}/MultiHeadDotProductAttention_0'
    shapes = {f'{attention}/out/kernel': (heads, head, width), f'{attention}/out/bias': (width,)}
    for name in ('query', 'key', 'value'):
        shapes[f'{attention}/{name}/kernel'], shapes[f'{attention}/{name}/bias'] = (width, heads, head), (heads, head)
    for index, (fan_in, fan_out) in enumerate(((width, mlp), (mlp, width))):
        shapes[f'{block}/LayerNorm_{index}/scale'] = shapes[f'{block}/LayerNorm_{index}/bias'] = (width,)
        shapes[f'{block}/MlpBlock_0/Dense_{index}/kernel'] = (fan_in, fan_out)
        shapes[f'{block}/MlpBlock_0/Dense_{index}/bias'] = (fan_out,)
    return shapes


def random_arrays(shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray]:
    """Every value different, all finite: float32 from random bits with the exponent of [1, 2), less 1.5."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        bits = rng.integers(0, 1 << 23, size=shape, dtype=np.uint32) | np.uint32(0x3F800000)
        arrays[name] = (bits.view(np.float32) - np.float32(1.5)) * np.float32(0.1)
    return arrays


def write_lightning(arrays: dict[str, np.ndarray], path: Path, *, width: int) -> None:
    """A Lightning file as the released one: prefix, recomputable buffer, optimiser state."""
    weights = {f'tapnext.{name}': torch.from_numpy(array) for name, array in arrays.items()}
    weights['tapnext.query_pos_embed'] = torch.zeros(1, 64, width)
    optimiser = {'state': {0: {'exp_avg': torch.zeros(3)}}, 'param_groups': [{'lr': 1e-4}]}
    torch.save({'state_dict': weights, 'optimizer_states': [optimiser], 'epoch': 3, 'global_step': 7}, path)
