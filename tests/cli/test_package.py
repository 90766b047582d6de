"""``trecvit package``: what it writes is the same model, with the settings asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.inference.tiny import tiny_config, tiny_model
from trecvit_dense.checkpoints import load_model, save_model
from trecvit_dense.cli.package import main


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_model(tiny_model(), tiny_config(), tmp_path / 'trained.safetensors')


def test_same_weights_new_settings_and_a_card(checkpoint: Path, tmp_path: Path) -> None:
    card, out = tmp_path / 'card.json', tmp_path / 'shared.safetensors'
    card.write_text(json.dumps({'data': 'embedded'}))
    assert main([str(checkpoint), str(out), '--card', str(card), '--set', 'data_preprocessor.max_side=96']) == 0
    old, new = load_model(checkpoint), load_model(out)
    assert new.data_preprocessor.max_side == 96
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
    assert json.loads(out.with_suffix('.json').read_text())['data'] == 'embedded'


@pytest.mark.parametrize(('text', 'message'), [('{', 'is not json'), ('[]', 'wanted an object')])
def test_a_bad_card_writes_nothing(checkpoint: Path, tmp_path: Path, text: str, message: str) -> None:
    card, out = tmp_path / 'card.json', tmp_path / 'shared.safetensors'
    card.write_text(text)
    with pytest.raises(ValueError, match=message):
        main([str(checkpoint), str(out), '--card', str(card)])
    assert not out.exists()
