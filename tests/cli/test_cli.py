"""The command line: train, resume and test end to end on a toy; every mistake is one line and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trecvit_dense import cli
from trecvit_dense.cli import errors, options

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=[{parts!r}])
_loader = dict(dataset=dict(type='ToyDataset'), batch_size=3, num_workers=0, collate_fn=dict(type='default_collate'))
model = dict(type='ToyModel', width=8)
train_dataloader = dict(**_loader, sampler=dict(type='DrawSampler'))
val_dataloader = dict(**_loader, sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
train_cfg = dict(type='FastResumeIterLoop', max_iters=4, val_interval=2)
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type='ToyMetric')
test_evaluator = dict(type='ToyMetric')
optim_wrapper = dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=0.01), dtype='float32')
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A user's folder outside the checkout: a config, and a module of their own beside it."""
    folder = tmp_path_factory.mktemp('user')
    base = str(ROOT / 'configs/_base_/default_runtime.py')
    (folder / 'own_parts.py').write_text(CONFIG.format(base=base, parts='toy_parts'))
    (folder / 'toy_recipe.py').write_text(CONFIG.format(base=base, parts='tests.engine.toy'))
    shutil.copy(ROOT / 'tests/engine/toy.py', folder / 'toy_parts.py')
    return folder


def tool(folder, name, *arguments, **environment):
    """A tool as a program of its own, in ``folder``."""
    command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, arguments)]
    env = dict(os.environ, OMP_NUM_THREADS='1', **environment)
    env.pop('PYTHONPATH', None)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope='module')
def trained(folder):
    done = tool(folder, 'train', 'own_parts.py', '--work-dir', 'out', '--seed', '3')
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def trecvit(folder, trained, monkeypatch, capsys):
    """Run a command in this process, in the user's folder: exit code, standard output, standard error."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv('TRECVIT_DEBUG', raising=False)

    def call(*arguments):
        capsys.readouterr()
        code = cli.run(cli.main, [str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_train_from_another_folder_ends_with_a_table(folder, trained):
    assert 'toy/AJ' in trained.stdout and 'iter_4.pth' in trained.stdout
    assert '100%' in trained.stderr
    assert 'mmengine' not in trained.stdout + trained.stderr, 'the console is ours'
    results = json.loads((folder / 'out/results.json').read_text())
    assert set(results) == {'toy/AJ'}
    assert (folder / 'out/curves.png').is_file()


def test_resume_goes_on_from_a_moved_folder(folder, trecvit):
    shutil.copytree(folder / 'out', folder / 'moved')
    options = ('--cfg-options', 'train_cfg.max_iters=6')
    code, _, err = trecvit('train', 'toy_recipe.py', '--work-dir', 'moved', '--resume', *options)
    assert code == 0, err
    assert 'moved/iter_4.pth' in err and (folder / 'moved/iter_6.pth').is_file()


def test_test_rebuilds_the_model_from_the_file_alone(folder, trecvit):
    options = ('--cfg-options', 'model.width=99')
    code, out, err = trecvit('test', 'toy_recipe.py', 'out/iter_4.pth', '--out', 'again.json', *options)
    assert code == 0, err
    first = json.loads((folder / 'out/results.json').read_text())
    assert json.loads((folder / 'again.json').read_text()) == pytest.approx(first)
    assert 'toy/AJ' in out


def spoil(source, target):
    """A checkpoint in which one weight is not a number."""
    content = torch.load(source, weights_only=True)
    next(iter(content['state_dict'].values())).view(-1)[0] = float('nan')
    torch.save(content, target)


def contents(folder):
    return sorted(path for path in folder.rglob('*') if '__pycache__' not in path.parts)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('train', 'no_such_config'), "config 'no_such_config' is neither a file nor the name of a recipe"),
        (
            ('train', 'toy_recipe.py', '--cfg-options', 'model.widht=3'),
            "no key 'widht' in 'model'; did you mean 'width'?",
        ),
        (
            ('train', 'toy_recipe.py', '--cfg-options', 'model.type=ToyModle'),
            "as model; did you mean 'ToyModel'?",
        ),
        (('train', 'toy_recipe.py', '--launcher', 'pytorch'), 'start with torchrun'),
        (('test', 'toy_recipe.py', 'missing.pth'), 'missing.pth does not exist'),
        (('test', 'toy_recipe.py', 'toy_recipe.py'), 'is not a torch checkpoint'),
        (('test', 'toy_recipe.py', 'out/iter_4.pth', '--out', 'nowhere/r.json'), 'folder nowhere does not exist'),
        (('test', 'toy_recipe.py', 'out/iter_4.pth', '--device', 'cuda:99'), "device 'cuda:99' cannot be used"),
        (('benchmark', 'boxed', '--steps', '0'), '--steps 0: wanted at least 1'),
        (('benchmark', 'boxed', '--queries', '4', '-1'), 'wanted at least 0'),
        (('benchmark', 'boxed', '--out', 'nowhere/r.json'), 'folder nowhere does not exist'),
        (('test', 'toy_recipe.py', 'nan.pth'), 'NaN'),
        (('train', 'toy_recipe.py', '--work-dir', 'new', '--cfg-options', '+load_from=nan.pth'), 'NaN'),
        (('train', 'toy_recipe.py', '--work-dir', 'new', '--cfg-options', '+load_from=own_parts.py'), 'another kind'),
        (('train', 'toy_recipe.py', '--work-dir', 'new', '--cfg-options', '+load_from=none.pth'), 'does not exist'),
        (('train', 'toy_recipe.py', '--work-dir', 'own_parts.py'), 'own_parts.py is a file; wanted a folder'),
        (('train', 'toy_recipe.py', '--work-dir', 'new', '--cfg-options', 'train_cfg.max_iters=0'), 'max_iters is 0'),
        (
            ('train', 'toy_recipe.py', '--work-dir', 'new', '--cfg-options', '+optim_wrapper.optimizer.foo=1'),
            "unexpected keyword argument 'foo'",
        ),
        (('package', 'out/iter_4.pth', 'nowhere/w.safetensors'), 'folder nowhere does not exist'),
    ],
)
def test_mistakes_are_one_line(folder, trecvit, arguments, message):
    spoil(folder / 'out/iter_4.pth', folder / 'nan.pth')
    before = contents(folder)
    code, out, err = trecvit(*arguments)
    lines = [line for line in err.splitlines() if line.startswith('error: ')]
    assert code == 2 and len(lines) == 1 and message in lines[0], err
    assert 'Traceback' not in err and out == '' and contents(folder) == before


def test_a_mistake_in_a_program_of_its_own(folder):
    done = tool(folder, 'print_config', 'no_such_config')
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


def test_debug_shows_the_traceback(trecvit, monkeypatch):
    monkeypatch.setenv('TRECVIT_DEBUG', '1')
    with pytest.raises(FileNotFoundError):
        trecvit('print-config', 'no_such_config')


def test_print_config_shows_the_merged_config(trecvit):
    code, out, _ = trecvit('print-config', 'toy_recipe.py', '--cfg-options', 'model.width=5')
    assert code == 0 and 'width=5' in out and 'CurvesHook' in out


def test_env_names_the_versions(trecvit):
    code, out, _ = trecvit('env')
    assert code == 0 and 'mmengine' in out and 'torch' in out


@pytest.mark.parametrize('path', sorted((ROOT / 'tools').glob('*.py')), ids=lambda path: path.stem)
def test_every_tool_answers_help(path, tmp_path):
    done = tool(tmp_path, path.stem, '--help')
    assert done.returncode == 0, done.stderr
    assert 'usage' in done.stdout or 'bootstrap.py train' in done.stdout


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_every_command_answers_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(cli.main, [command, '--help'])
    assert stop.value.code == 0 and 'usage' in capsys.readouterr().out


def test_arguments_of_the_wrong_kind_are_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(cli.main, ['test', 'a', 'b', '--baseline', 'magic'])
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 1
    assert lines[0].startswith('error: argument --baseline: invalid choice') and lines[0].endswith('--help says more')


def test_a_failed_start_keeps_earlier_runs(folder, trecvit):
    shutil.copytree(folder / 'out', folder / 'again')
    before = contents(folder / 'again')
    code, _, err = trecvit('train', 'toy_recipe.py', '--work-dir', 'again', '--cfg-options', 'train_cfg.max_iters=0')
    assert code == 2, err
    assert set(before) <= set(contents(folder / 'again'))
    assert not [path for path in set(contents(folder / 'again')) - set(before) if path.is_dir()]


def test_unknown_command_names_the_nearest(capsys):
    assert cli.run(cli.main, ['trian']) == 2
    assert "unknown command 'trian'; did you mean 'train'" in capsys.readouterr().err
    assert cli.run(cli.main, []) == 2
    assert cli.run(cli.main, ['--version']) == 0


@pytest.mark.parametrize(
    ('error', 'code', 'text'),
    [
        (ValueError('one\n two'), 2, 'error: one two'),
        (KeyError("no key 'a'"), 2, "error: no key 'a'"),
        (RuntimeError('inside'), 1, 'error: RuntimeError: inside (TRECVIT_DEBUG=1 shows where)'),
        (KeyboardInterrupt(), 130, 'interrupted'),
        (PermissionError(13, 'Permission denied', 'a.json'), 2, 'error: a.json: permission denied'),
        (ImportError('libGL.so.1: cannot open shared object file'), 2, 'apt-get install'),
    ],
)
def test_exceptions_become_exit_codes(error, code, text, capsys, monkeypatch):
    monkeypatch.delenv('TRECVIT_DEBUG', raising=False)

    def main(argv):
        raise error

    assert cli.run(main, []) == code
    assert text in capsys.readouterr().err


def test_error_of_a_data_worker_is_its_last_line():
    text = 'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  x\n'
    assert errors.one_line(ValueError(text + 'ValueError: bad clip\n')) == 'bad clip'


def test_results_are_flat_and_complete_or_absent(tmp_path):
    options.write_results({'a/b': 1, 'c': float('nan'), 'note': 'text'}, tmp_path / 'r.json')
    assert json.loads((tmp_path / 'r.json').read_text()) == {'a/b': 1.0, 'c': None}
    with pytest.raises(FileNotFoundError):
        options.write_results({'a': 1}, tmp_path / 'none/r.json')
