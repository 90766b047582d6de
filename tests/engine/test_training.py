"""Resume == straight, plain checkpoints, EMA, bf16, compile, curves: on a toy model."""

from __future__ import annotations

import pickle
import pickletools
import zipfile

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook

from tests.engine.toy import ToyDataset, ToyModel, toy_runner
from trecvit_dense.checkpoints import save_model
from trecvit_dense.engine import AutocastOptimWrapper
from trecvit_dense.engine.checkpoint_hook import from_plain, to_plain
from trecvit_dense.engine.sampler import DrawSampler

EMA = [dict(type='EMAHook', momentum=0.1)]


def weights(runner):
    return {key: value.clone() for key, value in runner.model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """Twelve iterations without interruption, with EMA; a checkpoint after six."""
    folder = tmp_path_factory.mktemp('straight')
    runner = toy_runner(folder, 'straight', custom_hooks=EMA)
    runner.train()
    return folder, runner


def resume(tmp_path, straight, name, **changes):
    runner = toy_runner(
        tmp_path, name, custom_hooks=EMA, resume=True, load_from=str(straight / 'iter_6.pth'), **changes
    )
    runner.train()
    return runner


def test_resume_is_bit_exact(straight, tmp_path):
    folder, runner = straight
    resumed = resume(tmp_path, folder, 'resumed')
    assert_same(weights(runner), weights(resumed))
    first = torch.load(folder / 'iter_12.pth', weights_only=True)
    second = torch.load(tmp_path / 'iter_12.pth', weights_only=True)
    assert_same(first['ema_state_dict'], second['ema_state_dict'])
    assert first['optimizer']['param_groups'] == second['optimizer']['param_groups']
    for key, value in first['optimizer']['state'].items():
        assert_same(value, second['optimizer']['state'][key])
    assert first['curves'] == second['curves']


def test_resume_loads_no_past_sample(straight, tmp_path):
    resumed = resume(tmp_path, straight[0], 'no_past')
    made = resumed.train_dataloader.dataset.made
    assert made == straight[1].train_dataloader.dataset.made[18:], 'six iterations of three samples are behind us'


def test_resume_with_workers_is_the_same(straight, tmp_path):
    resumed = resume(tmp_path, straight[0], 'workers', train_dataloader__num_workers=2)
    assert_same(weights(straight[1]), weights(resumed))


def test_validation_does_not_change_training(straight, tmp_path):
    runner = toy_runner(tmp_path, 'other_val', custom_hooks=EMA, train_cfg__val_interval=2)
    runner.train()
    assert_same(weights(straight[1]), weights(runner))


def test_checkpoint_names_no_class(straight):
    folder, _ = straight
    content = torch.load(folder / 'iter_12.pth', weights_only=True)
    assert content['meta']['model'] == dict(type='ToyModel')
    assert 'ToyModel' in content['meta']['cfg']
    with zipfile.ZipFile(folder / 'iter_12.pth') as archive:
        name = next(name for name in archive.namelist() if name.endswith('data.pkl'))
        names = {text for text in _globals(archive.read(name)) if not text.startswith(('torch', 'collections'))}
    assert not names, names


def _globals(data):
    strings: list[str] = []
    for code, argument, _ in pickletools.genops(data):
        if code.name == 'GLOBAL':
            yield argument.replace(' ', '.')
        elif code.name == 'STACK_GLOBAL':
            yield '.'.join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def test_evaluation_and_saved_weights_are_the_average(straight, tmp_path):
    """EMAHook: what is saved as ``state_dict`` is the average; the trained weights are in ``ema_state_dict``."""
    folder, runner = straight
    content = torch.load(folder / 'iter_12.pth', weights_only=True)
    trained = weights(runner)
    assert not torch.equal(content['state_dict']['tail.weight'], trained['tail.weight'])
    assert torch.equal(content['ema_state_dict']['module.tail.weight'], trained['tail.weight'])
    fresh = toy_runner(tmp_path, 'loaded', load_from=str(folder / 'iter_12.pth'))
    assert fresh.val()['toy/AJ'] == pytest.approx(runner.evaluate()['toy/AJ'], rel=1e-6)


def test_average_starts_from_loaded_safetensors(tmp_path):
    source = ToyModel()
    save_model(source, dict(type='ToyModel'), tmp_path / 'start.safetensors')
    runner = toy_runner(tmp_path, 'fine', custom_hooks=EMA, load_from=str(tmp_path / 'start.safetensors'))
    runner.call_hook('before_run')
    runner.load_or_resume()
    average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module.state_dict()
    assert_same(weights(runner), source.state_dict())
    assert_same(average, source.state_dict())


def test_last_validation_is_not_repeated(tmp_path, monkeypatch):
    runner = toy_runner(tmp_path, 'once', train_cfg__max_iters=2)
    runner.train()
    monkeypatch.setattr(type(runner.val_loop), 'run', lambda self: pytest.fail('evaluated twice'))
    assert set(runner.evaluate()) == {'toy/AJ'}


def test_files_of_a_run(straight):
    folder, _ = straight
    assert (folder / 'curves.png').read_bytes()[:4] == b'\x89PNG'
    assert not list(folder.glob('.*partial')) and not list(folder.glob('.*tmp'))
    assert (folder / 'last_checkpoint').read_text().endswith('iter_12.pth')


def test_bf16_on_this_device(tmp_path):
    runner = toy_runner(tmp_path, 'bf16', optim_wrapper__dtype='bfloat16', optim_wrapper__accumulative_counts=2)
    runner.train()
    assert torch.bfloat16 in runner.model.dtypes, 'the forward pass is not under autocast'
    assert all(parameter.dtype == torch.float32 for parameter in runner.model.parameters())
    assert np.isfinite(runner.val()['toy/AJ'])


@pytest.mark.parametrize('fast', [True, False])
def test_auto_precision_follows_the_hardware(fast, monkeypatch):
    monkeypatch.setattr('trecvit_dense.engine.optim_wrapper.bfloat16_is_fast', lambda device: fast)
    layer = torch.nn.Linear(2, 2)
    wrapper = AutocastOptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1), dtype='auto')
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1, 2)).dtype == (torch.bfloat16 if fast else torch.float32)


def test_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype is 'float16'; wanted one of auto, bfloat16, float32"):
        toy_runner(tmp_path, 'fp16', optim_wrapper__dtype='float16').train()


def test_compile_hook_keeps_names_and_losses(straight, tmp_path):
    hook = dict(type='CompileHook', modules=['body'], options=dict(backend='eager'))
    runner = toy_runner(tmp_path, 'compiled', custom_hooks=[hook], train_cfg__max_iters=3)
    runner.train()
    assert weights(runner).keys() == weights(straight[1]).keys()
    with pytest.raises(ValueError, match="no part 'boddy'"):
        toy_runner(tmp_path, 'typo', custom_hooks=[dict(type='CompileHook', modules=['boddy'])]).train()


def test_to_plain_round_trip_and_refusal():
    from mmengine.logging import HistoryBuffer

    buffer = HistoryBuffer()
    buffer.update(3.0, 2)
    plain = to_plain(dict(a=np.float64(2.5), b=buffer, c=(np.arange(3),)))
    assert type(plain['a']) is float and torch.equal(plain['c'][0], torch.arange(3))
    back = from_plain(plain)['b']
    assert back.mean() == 3.0 / 2 and back.max_length == buffer.max_length
    with pytest.raises(TypeError, match='Unplain cannot be stored'):
        to_plain([Unplain()])


class Unplain:
    pass


def test_hostile_checkpoint_is_refused_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / 'ran'), 'w'))

    torch.save(dict(meta=Hostile()), tmp_path / 'bad.pth')
    with pytest.raises(pickle.UnpicklingError):
        toy_runner(tmp_path, 'hostile', load_from=str(tmp_path / 'bad.pth')).train()
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('shuffle', [True, False])
def test_sampler_covers_each_draw_once_and_skips_exactly(shuffle):
    def take(sampler, count):
        return [item for item, _ in zip(sampler, range(count), strict=False)]

    sampler = DrawSampler(ToyDataset(7), shuffle=shuffle, seed=3)
    items = take(sampler, 21)
    for draw in range(3):
        assert sorted(items[draw * 7 : draw * 7 + 7]) == list(range(draw * 7, draw * 7 + 7))
    again = DrawSampler(ToyDataset(7), shuffle=shuffle, seed=3)
    again.skip(9)
    assert take(again, 12) == items[9:]


def test_processes_share_each_draw(monkeypatch):
    whole = DrawSampler(ToyDataset(7), seed=1)
    parts = []
    for rank in range(2):
        monkeypatch.setattr('trecvit_dense.engine.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        parts.append(DrawSampler(ToyDataset(7), seed=1))
    merged = [item for pair, _ in zip(zip(*parts, strict=False), range(10), strict=False) for item in pair]
    assert merged == [item for item, _ in zip(whole, range(20), strict=False)]
