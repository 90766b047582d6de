"""Every recipe loads, its parts exist, and its model builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trecvit_dense.engine import config_names, load_config
from trecvit_dense.engine.check import check_parts
from trecvit_dense.registry import MODELS, use_scope

ROOT = Path(__file__).parents[2]
RECIPES = config_names()


def load(name):
    use_scope()
    return load_config(name)


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_names_registered_parts(name):
    check_parts(load(name))


@pytest.mark.parametrize('name', RECIPES)
def test_model_builds_without_memory(name):
    cfg = load(name)
    if not cfg.get('model'):
        pytest.skip(f'{name} takes its model from the checkpoint')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_starts_with_how_to_use_it(name):
    """One level of bases, and a header that says command, hardware and expected result."""
    path = ROOT / 'configs' / f'{name}.py'
    text = path.read_text()
    head = text.split('\n\n')[0].lower()
    assert name in head and ('trecvit ' in head or 'tools/' in head), 'the header gives the command'
    for base in (path.parent / '_base_').glob('*.py'):
        assert '_base_ =' not in base.read_text(), f'{base.name}: one level of bases is enough'


@pytest.mark.parametrize('name', RECIPES)
def test_every_preset_applies(name):
    for preset in load(name).get('presets') or {}:
        assert load_config(name, [f'preset={preset}']).preset == preset
