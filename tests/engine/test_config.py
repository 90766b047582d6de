"""Overrides: checked, typed, short names, presets; errors that name the nearest key."""

from __future__ import annotations

import pytest

from trecvit_dense.engine.config import find_config, load_config, parse_options, parse_value

TEXT = """
ann_file = None
query_mode = 'first'
presets = dict(gpu={'model.depth': 12, 'loader.batch_size': 8}, cpu={})
overrides = dict(ann_file='loader.dataset.ann_file', query_mode=['loader.dataset.mode', 'metrics.0.mode'])
model = dict(type='M', depth=4, deep=True, name='tiny', sizes=[1, 2, 3])
loader = dict(batch_size=2, dataset=dict(type='D', ann_file='a.pkl'))
metrics = [dict(type='X', mode='strided')]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'my_config.py'
    path.write_text(TEXT)
    return path


def test_options_reach_nested_keys_and_list_items(config):
    cfg = load_config(
        config, ['model.depth=7', 'metrics.0.type=Y', 'model.sizes=[4,5]', 'model.sizes.1=9', 'model.name=3']
    )
    assert (cfg.model.depth, cfg.metrics[0].type, cfg.model.sizes, cfg.model.name) == (7, 'Y', [4, 9], '3')


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.dept=7', "no key 'dept' in 'model'; did you mean 'depth'"),
        ('modle.depth=7', "no key 'modle'; did you mean 'model'"),
        ('model.depth.x=7', "'model.depth' is 4, which has no 'x'"),
        ('metrics.3.type=Y', "'metrics' is a list of 1; wanted an index, got '3'"),
    ],
)
def test_unknown_key_names_the_nearest(config, option, message):
    with pytest.raises(KeyError, match=message):
        load_config(config, [option])


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.depth=deep', 'wanted a number'),
        ('model.deep=maybe', 'wanted true or false'),
        ('model.depth', 'wanted key=value'),
    ],
)
def test_value_of_another_kind_is_refused(config, option, message):
    with pytest.raises(ValueError, match=message):
        load_config(config, [option])


def test_plus_adds_a_key(config):
    cfg = load_config(config, ['+model.extra.width=3', '+note=hello'])
    assert cfg.model.extra.width == 3 and cfg.note == 'hello'


def test_short_names_are_copied_to_their_places(config):
    cfg = load_config(config, ['query_mode=strided', 'ann_file=b.pkl'])
    assert cfg.loader.dataset.mode == cfg.metrics[0].mode == 'strided'
    assert cfg.loader.dataset.ann_file == 'b.pkl'
    assert load_config(config).loader.dataset.ann_file == 'a.pkl', 'None leaves the place alone'


def test_presets_come_before_options(config):
    cfg = load_config(config, ['preset=gpu', 'model.depth=3'])
    assert (cfg.model.depth, cfg.loader.batch_size) == (3, 8)
    assert load_config(config, ['preset=auto']).preset in ('cpu', 'gpu')
    with pytest.raises(KeyError, match="preset 'gpus' does not exist; did you mean 'gpu'"):
        load_config(config, ['preset=gpus'])


def test_compile_is_refused_with_the_way_out(config):
    with pytest.raises(ValueError, match='CompileHook'):
        load_config(config, ['+compile=True'])


def test_config_that_cannot_run_is_one_error(tmp_path):
    path = tmp_path / 'bad.py'
    path.write_text('a = 1 / 0\n')
    with pytest.raises(ValueError, match='cannot be loaded: ZeroDivisionError'):
        load_config(path)


def test_missing_config_lists_or_guesses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='neither a file nor the name of a recipe'):
        find_config('no_such_recipe_at_all')


def test_custom_modules_are_found_beside_the_config(config, tmp_path):
    (tmp_path / 'my_custom_part.py').write_text('loaded = True\n')
    config.write_text(TEXT + "custom_imports = dict(imports=['my_custom_part'])\n")
    load_config(config)
    config.write_text(TEXT + "custom_imports = dict(imports=['my_missing_part'])\n")
    with pytest.raises(ModuleNotFoundError, match="no module 'my_missing_part'"):
        load_config(config)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('1', 1),
        ('1e-3', 1e-3),
        ('true', True),
        ('None', None),
        ('1,2', [1, 2]),
        ('(1,2)', (1, 2)),
        ('[a,b]', ['a', 'b']),
        ('x,y', ['x', 'y']),
        ('/data/a,b.mp4', '/data/a,b.mp4'),
        ('{"a": 1}', {'a': 1}),
        ('', ''),
        ('[a', '[a'),
    ],
)
def test_values(text, value):
    assert parse_value(text) == value
    assert parse_options([f'k={text}']) == {'k': value}
