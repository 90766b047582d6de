"""ViViT from Hugging Face's names: nothing left over, there and back, the same numbers by an independent reading."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trecvit_dense.checkpoints import CheckpointError, load_model
from trecvit_dense.checkpoints.official import read_official
from trecvit_dense.cli.convert import main

WIDTH, HEADS, DEPTH, MLP = 128, 2, 2, 160  # heads of 64 channels, as in every released model
TUBELET, FRAMES, SIDE, CLASSES = (2, 16, 16), 4, 32, 5
PLACES = (FRAMES // 2) * (SIDE // 16) ** 2


def named_shapes(width: int = WIDTH, depth: int = DEPTH, mlp: int = MLP, places: int = PLACES, classes: int = CLASSES):
    """``VivitForVideoClassification.state_dict()``, written out from the published class."""
    shapes = {
        'vivit.embeddings.cls_token': (1, 1, width),
        'vivit.embeddings.position_embeddings': (1, places + 1, width),
        'vivit.embeddings.patch_embeddings.projection.weight': (width, 3, *TUBELET),
        'vivit.embeddings.patch_embeddings.projection.bias': (width,),
        'vivit.layernorm.weight': (width,),
        'vivit.layernorm.bias': (width,),
        'classifier.weight': (classes, width),
        'classifier.bias': (classes,),
    }
    for layer in range(depth):
        block = f'vivit.encoder.layer.{layer}'
        for name in ('attention.attention.query', 'attention.attention.key', 'attention.attention.value'):
            shapes |= {f'{block}.{name}.weight': (width, width), f'{block}.{name}.bias': (width,)}
        shapes |= {f'{block}.attention.output.dense.weight': (width, width)}
        shapes |= {f'{block}.attention.output.dense.bias': (width,)}
        shapes |= {f'{block}.intermediate.dense.weight': (mlp, width), f'{block}.intermediate.dense.bias': (mlp,)}
        shapes |= {f'{block}.output.dense.weight': (width, mlp), f'{block}.output.dense.bias': (width,)}
        for name in ('layernorm_before', 'layernorm_after'):
            shapes |= {f'{block}.{name}.weight': (width,), f'{block}.{name}.bias': (width,)}
    return shapes


def arrays_like(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: (rng.standard_normal(shape) * 0.2).astype(np.float32) for name, shape in shapes.items()}


def write(arrays: dict[str, np.ndarray], path) -> str:
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return str(path)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return arrays_like(named_shapes())


SIZE = ['--image-size', str(SIDE), str(SIDE)]


def test_there_and_back(arrays, tmp_path, capsys) -> None:
    source, ours, back = write(arrays, tmp_path / 'pytorch_model.bin'), tmp_path / 'a.safetensors', tmp_path / 'b.pt'
    assert main([source, str(ours), *SIZE]) == 0
    assert f'loaded {len(arrays)}\nmissing 0\nunexpected 0\nresized 0\ndropped 0' in capsys.readouterr().out
    model = load_model(ours)
    assert sum(p.numel() for p in model.parameters()) == sum(array.size for array in arrays.values())
    assert main([str(ours), str(back), '--to-official', '--arch', 'vivit']) == 0
    found = torch.load(back, weights_only=True)
    assert sorted(found) == sorted(arrays)
    assert all(found[name].numpy().tobytes() == array.tobytes() for name, array in arrays.items())


def test_the_bare_model_and_its_pooler(arrays, tmp_path, capsys) -> None:
    """``VivitModel`` has no prefix and no classifier; its pooler is named as dropped."""
    bare = {name.removeprefix('vivit.'): array for name, array in arrays.items() if name.startswith('vivit.')}
    pooler = {'pooler.dense.weight': np.zeros((WIDTH, WIDTH), np.float32), 'pooler.dense.bias': bare['layernorm.bias']}
    source = write(bare | pooler, tmp_path / 'model.pt')
    assert main([source, str(tmp_path / 'a.safetensors'), *SIZE]) == 0
    printed = capsys.readouterr().out
    assert f'loaded {len(bare)}\nmissing 0\nunexpected 0\nresized 0\ndropped 2\n  pooler.dense.weight: ' in printed
    assert not load_model(tmp_path / 'a.safetensors').heads
    assert main([str(tmp_path / 'a.safetensors'), str(tmp_path / 'b.pt'), '--to-official']) == 0
    assert sorted(torch.load(tmp_path / 'b.pt', weights_only=True)) == sorted(bare)


def test_safetensors_are_read_too(arrays, tmp_path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, tmp_path / 'model.safetensors')
    assert main([str(tmp_path / 'model.safetensors'), str(tmp_path / 'a.safetensors'), *SIZE]) == 0


def test_the_released_size(tmp_path) -> None:
    """What the shapes of ``google/vivit-b-16x2-kinetics400`` say about the model (arrays of strides 0: no memory)."""
    from trecvit_dense.checkpoints.official import OfficialFile, infer_config
    from trecvit_dense.registry import MODELS, use_scope

    use_scope()
    shapes = named_shapes(768, 12, 3072, 3136, 400)
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    config = infer_config(OfficialFile('vivit', arrays))
    sizes = dict(embed_dim=768, depth=12, num_heads=12, mlp_dim=3072, num_frames=32, image_size=[224, 224])
    assert {name: config['backbone'][name] for name in sizes} == sizes
    assert config['data_preprocessor'] == dict(type='VideoPreprocessor', input_size=[224, 224], value_range='signed')
    with torch.device('meta'):
        model = MODELS.build(config)
    assert sum(p.numel() for p in model.parameters()) == sum(math.prod(shape) for shape in shapes.values())


def test_one_pass_by_hand(arrays, tmp_path) -> None:
    """Logits from the named arrays alone, in numpy: pre-norm blocks, eps 1e-6, tanh GELU, heads of 64 channels."""

    def linear(x, name):
        return x @ arrays[f'{name}.weight'].T.astype(np.float64) + arrays[f'{name}.bias']

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * arrays[f'{name}.weight'] + arrays[f'{name}.bias']

    def block(x, name):
        y = norm(x, f'{name}.layernorm_before')
        query, key, value = (linear(y, f'{name}.attention.attention.{part}') for part in ('query', 'key', 'value'))
        mixed = []
        for head in range(HEADS):
            part = slice(64 * head, 64 * head + 64)
            scores = np.exp(query[:, part] @ key[:, part].T / 8.0)
            mixed.append(scores / scores.sum(-1, keepdims=True) @ value[:, part])
        x = x + linear(np.concatenate(mixed, -1), f'{name}.attention.output.dense')
        y = linear(norm(x, f'{name}.layernorm_after'), f'{name}.intermediate.dense')
        y = 0.5 * y * (1 + np.tanh(0.7978845608 * y * (1 + 0.044715 * y * y)))
        return x + linear(y, f'{name}.output.dense')

    clip = np.random.default_rng(1).uniform(-1, 1, (FRAMES, 3, SIDE, SIDE))
    kernel = arrays['vivit.embeddings.patch_embeddings.projection.weight'].astype(np.float64)
    tokens = [arrays['vivit.embeddings.cls_token'][0, 0]]
    for t in range(0, FRAMES, 2):
        for y in range(0, SIDE, 16):
            for x in range(0, SIDE, 16):
                box = clip[t : t + 2, :, y : y + 16, x : x + 16].transpose(1, 0, 2, 3)
                tokens.append((kernel * box).sum((1, 2, 3, 4)))
    tokens = np.stack(tokens) + arrays['vivit.embeddings.position_embeddings'][0]
    tokens[1:] += arrays['vivit.embeddings.patch_embeddings.projection.bias']
    for layer in range(DEPTH):
        tokens = block(tokens, f'vivit.encoder.layer.{layer}')
    tokens = norm(tokens, 'vivit.layernorm')
    wanted = linear(tokens[0], 'classifier')

    assert main([write(arrays, tmp_path / 'model.pt'), str(tmp_path / 'ours.safetensors'), *SIZE]) == 0
    model = load_model(tmp_path / 'ours.safetensors')
    video = torch.from_numpy(clip).float()[None]
    with torch.no_grad():
        outputs, _ = model.step(video, model.start(1))
        level = model.backbone(video)[0].levels[-1].tokens[0]
    np.testing.assert_allclose(outputs['classification'].logits[0].numpy(), wanted, atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(level[0].numpy(), tokens[1:5], atol=2e-4, rtol=1e-4)  # frame 0 is tubelet 0's
    np.testing.assert_allclose(level[-1].numpy(), tokens[5:9], atol=2e-4, rtol=1e-4)


def test_errors(arrays, tmp_path) -> None:
    ours = str(tmp_path / 'ours.safetensors')
    with pytest.raises(CheckpointError, match='8 positions are no whole number of frames of 224x224 px; say --image'):
        main([write(arrays, tmp_path / 'model.pt'), ours])
    flat = arrays | {'vivit.embeddings.patch_embeddings.projection.weight': np.zeros((WIDTH, 3, 16, 16), np.float32)}
    with pytest.raises(CheckpointError, match='the patch projection has 4 dimensions; wanted the 5 of a video model'):
        main([write(flat, tmp_path / 'image.pt'), ours])
    short = {name: array for name, array in arrays.items() if 'layer.1.attention.attention.key.bias' not in name}
    with pytest.raises(CheckpointError, match="lacks 1 tensors, e.g. 'vivit.encoder.layer.1.attention.attention.key"):
        main([write(short, tmp_path / 'short.pt'), ours, *SIZE])
    with pytest.raises(ValueError, match="--arch is 'vivid'; wanted one of trecvit, tapnext, .*did you mean 'vivit'"):
        main([write(arrays, tmp_path / 'model.pt'), ours, '--arch', 'vivid'])
    assert read_official(write(arrays, tmp_path / 'model.pt')).arch == 'vivit'
