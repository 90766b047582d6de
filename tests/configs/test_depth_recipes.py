"""The depth recipes at full scale: their data sets take the arguments given, and only lack the data."""

from __future__ import annotations

import pytest
from torch.utils.data import Dataset

from trecvit_dense.engine import config_names, load_config
from trecvit_dense.registry import DATASETS, METRICS, TRANSFORMS, use_scope

RECIPES = [name for name in config_names() if name.startswith('depth_') and name != 'depth_trecvit']


def parts_of(cfg):
    """Configs of data sets and metrics in a recipe, mixtures taken apart."""
    loaders = [cfg[key] for key in ('train_dataloader', 'val_dataloader', 'test_dataloader') if cfg.get(key)]
    data = [loader['dataset'] for loader in loaders]
    data = [part for dataset in data for part in dataset.get('datasets', [dataset])]
    metrics = [cfg[key] for key in ('val_evaluator', 'test_evaluator') if cfg.get(key)]
    return data, [metric for part in metrics for metric in (part if isinstance(part, list) else [part])]


@pytest.mark.parametrize('name', RECIPES)
def test_depth_recipe_lacks_nothing_but_data(name, tmp_path, monkeypatch):
    use_scope()
    monkeypatch.chdir(tmp_path)
    for preset in [None, *(load_config(name).get('presets') or {})]:
        data, metrics = parts_of(load_config(name, [f'preset={preset}'] if preset else []))
        for metric in metrics:
            METRICS.build(metric)
        for dataset in data:
            for step in dataset.get('pipeline') or ():
                TRANSFORMS.build(step)
            if dataset['type'].startswith('Synthetic'):
                assert isinstance(DATASETS.build(dataset), Dataset)
                continue
            with pytest.raises(FileNotFoundError, match='data/'):
                DATASETS.build(dataset)


def test_depth_rgbd_recipe_has_short_names(tmp_path):
    options = dict(data_root='x', frame_stride=2, num_frames=7, alignment='none', cap_m=5.0, max_side=320)
    cfg = load_config('depth_trecvit_rgbd', options | dict(dataset_name='mine'))
    dataset, metric = cfg.test_dataloader.dataset, cfg.test_evaluator[0]
    assert (dataset.data_root, dataset.frame_step, dataset.max_frames, dataset.max_depth_m) == ('x', 2, 7, 5.0)
    assert (metric.alignment, metric.cap_m, metric.dataset_name) == ('none', 5.0, 'mine')
    assert cfg.model_overrides == dict(data_preprocessor=dict(alone=dict(depth=320)))
    assert not load_config('depth_trecvit_rgbd').model_overrides
