"""Mobile-Former files: recognised, converted there and back, their size read off, the video model started from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trecvit_dense.checkpoints import CheckpointError, load_model
from trecvit_dense.checkpoints.io import load_parts
from trecvit_dense.checkpoints.mobile_former_names import mobile_former_to_official
from trecvit_dense.cli.convert import main
from trecvit_dense.registry import MODELS, use_scope


def official_file(path, size: str = '26M', classes: int = 7) -> dict[str, np.ndarray]:
    """A file like the authors', with random weights."""
    use_scope()
    torch.manual_seed(0)
    fields = dict(token_dim=128, rep_size=1024, groups=4 if size == '26M' else 1)
    head = dict(type='MobileFormerClassifier', num_classes=classes, **fields)
    model = MODELS.build(
        dict(type='VideoPerceiver', backbone=dict(type='MobileFormer', size=size), heads=dict(classification=head))
    )
    arrays = mobile_former_to_official(model.state_dict())
    assert len(arrays) == len(model.state_dict())
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(dict(epoch=450, state_dict=tensors), path)
    return arrays


def test_there_and_back(tmp_path, capsys) -> None:
    arrays = official_file(tmp_path / 'mobile-former-26m.pth.tar')
    ours, back = tmp_path / 'a.safetensors', tmp_path / 'b.pt'
    assert main([str(tmp_path / 'mobile-former-26m.pth.tar'), str(ours)]) == 0
    printed = capsys.readouterr().out
    assert f'loaded {len(arrays)}\nmissing 0\nunexpected 0' in printed and 'mobile_former weights' in printed
    model = load_model(ours)
    assert model.backbone.size.groups == 4 and model.data_preprocessor.value_range == 'imagenet'
    assert main([str(ours), str(back), '--to-official', '--arch', 'mobile_former']) == 0
    content = torch.load(back, weights_only=True)
    found = content.get('state_dict', content)
    assert sorted(found) == sorted(arrays)
    assert all(found[name].numpy().tobytes() == array.tobytes() for name, array in arrays.items())


def test_video_model_starts_from_a_converted_file(tmp_path, capsys) -> None:
    """As ``pretrained=dict(backbone=FILE)`` does in a config."""
    arrays = official_file(tmp_path / 'in.pth', '52M')
    assert main([str(tmp_path / 'in.pth'), str(tmp_path / 'image.safetensors')]) == 0
    head = dict(type='ClassificationHead', num_classes=3, rep_size=None, pool='gap')
    backbone = dict(type='VideoMobileFormer', size='vmf_0.5g', causal=True)
    video = MODELS.build(dict(type='VideoPerceiver', backbone=backbone, heads=dict(classification=head)))
    report = load_parts(video, dict(backbone=tmp_path / 'image.safetensors'))['backbone']
    assert report.resized == ['tokens: 3 -> 6, 3 of them start afresh', '12 kernels: 1 -> 3 frames, centre']
    assert not report.missing and not report.unexpected
    kernel = video.backbone.blocks[0].depthwise.conv.weight
    assert torch.equal(kernel[:, :, -1], torch.from_numpy(arrays['features.0.conv.0.weight']))
    assert not kernel[:, :, :-1].any(), 'the past of a causal model starts at zero'


def test_a_file_of_no_known_size(tmp_path) -> None:
    arrays = official_file(tmp_path / 'in.pth')
    arrays['tokens.weight'] = arrays['tokens.weight'][:2]
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / 'in.pth')
    with pytest.raises(CheckpointError, match='2 tokens of width 128 and 4 groups are none of the sizes 508M, '):
        main([str(tmp_path / 'in.pth'), str(tmp_path / 'out.safetensors')])


def test_video_weights_have_no_official_form() -> None:
    state = {'backbone.stem.conv.weight': torch.zeros(8, 3, 3, 3, 3)}
    with pytest.raises(CheckpointError, match='spans 3 frames; only weights of an image model'):
        mobile_former_to_official(state)
