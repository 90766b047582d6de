"""The back ends of the linear recurrence: one answer, exact gradients, time split over ranks, words for mistakes."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
import torch
from torch import Tensor

from tests.models import recurrence_reference as reference
from trecvit_dense import native
from trecvit_dense.models.layers import combine_chunks, linear_recurrence, summarise_chunk, use_backend
from trecvit_dense.models.layers.linear_recurrence import BACKENDS, choose_backend, why_not

CPU = torch.device('cpu')


def usable(backend: str, dtype: torch.dtype = torch.float32) -> None:
    reason = why_not(backend, CPU, dtype)
    if reason:
        pytest.skip(f'{backend}: {reason}')


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """``x``, ``a`` and ``h0``; some decays are 0, some 1, some so small that their products underflow."""
    x, a = torch.randn(shape, dtype=dtype), torch.rand(shape, dtype=dtype)
    h0 = torch.randn_like(x[:, 0])
    pick = torch.rand(shape)
    a = a.masked_fill(pick < 0.1, 0.0).masked_fill(pick > 0.9, 1.0).masked_fill((pick > 0.4) & (pick < 0.5), 1e-30)
    return x.requires_grad_(), a.requires_grad_(), h0.requires_grad_()


def run(function, x: Tensor, a: Tensor, h0: Tensor | None, reverse: bool) -> list[Tensor]:
    """States, last state and gradients of a loss in which all take part."""
    inputs = [x, a] if h0 is None else [x, a, h0]
    h, last = function(x, a, h0, reverse)
    weights = torch.linspace(-1, 1, h.numel(), dtype=h.dtype).view(h.shape)
    return [h, last, *torch.autograd.grad((h * weights).sum() + last.square().sum(), inputs)]


@pytest.mark.parametrize('reverse', [False, True], ids=['forward', 'reverse'])
@pytest.mark.parametrize('with_h0', [False, True], ids=['zero', 'h0'])
@pytest.mark.parametrize('shape', [(2, 1, 3), (3, 16, 5), (2, 17, 3, 2), (1, 11, 1100)], ids=str)
@pytest.mark.parametrize('backend', ['sequential', 'native', 'chunked'])
def test_back_ends_agree(backend: str, shape: tuple[int, ...], with_h0: bool, reverse: bool) -> None:
    usable(backend)
    torch.manual_seed(0)
    exact = draw(*shape)
    wanted = run(reference.scan, *exact[:2], exact[2] if with_h0 else None, reverse)
    x, a, h0 = (tensor.detach().float().requires_grad_() for tensor in exact)
    with use_backend(backend):
        found = run(linear_recurrence, x, a, h0 if with_h0 else None, reverse)
    for mine, its in zip(found, wanted, strict=True):
        assert mine.dtype == torch.float32 and mine.shape == its.shape
        assert reference.error(mine, its) < 1e-6


@pytest.mark.parametrize('backend', ['sequential', 'chunked'])
def test_gradcheck(backend: str) -> None:
    torch.manual_seed(0)
    inputs = draw(2, 7, 3)
    for reverse in (False, True):
        assert torch.autograd.gradcheck(lambda *t, r=reverse: linear_recurrence(*t, r, backend=backend), inputs)


@pytest.mark.parametrize('backend', ['sequential', 'native', 'chunked'])
def test_many_blocks_and_strange_strides(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transposed and expanded tensors, a loss that sends an expanded gradient, and blocks of two numbers."""
    usable(backend)
    monkeypatch.setattr(sys.modules[choose_backend.__module__], '_SLAB', 2)
    torch.manual_seed(0)
    x = torch.randn(5, 3, 4).transpose(0, 1)  # (3, 5, 4)
    a = torch.rand(3, 1, 1).expand(3, 5, 4)
    x, a = x.requires_grad_(), a.requires_grad_()
    grads = torch.autograd.grad(linear_recurrence(x, a, backend=backend)[0].sum(), (x, a))
    wanted = torch.autograd.grad(reference.scan(x, a, None)[0].sum(), (x, a))
    torch.testing.assert_close(grads, wanted)


def test_threads_share_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    usable('native')
    torch.manual_seed(0)
    x, a, h0 = (tensor.detach().float().requires_grad_() for tensor in draw(2, 5, 70))
    alone = run(lambda *t: linear_recurrence(*t, backend='native'), x, a, h0, False)
    monkeypatch.setattr(native, '_LEAST', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    shared = run(lambda *t: linear_recurrence(*t, backend='native'), x, a, h0, False)
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


@pytest.mark.parametrize('reverse', [False, True], ids=['forward', 'reverse'])
def test_time_split_over_ranks(reverse: bool) -> None:
    """Every rank has a stretch of time: summaries gathered and combined give the states of the whole, and gradients."""
    torch.manual_seed(0)
    x, a, h0 = draw(2, 13, 4)
    wanted = run(reference.scan, x, a, h0, reverse)

    def split(x: Tensor, a: Tensor, h0: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        parts = list(zip(x.split([5, 1, 7], dim=1), a.split([5, 1, 7], dim=1), strict=True))
        summaries = [summarise_chunk(*part, reverse=reverse) for part in parts]
        decays, states = (torch.stack(gathered) for gathered in zip(*summaries, strict=True))
        entering, last = combine_chunks(decays, states, h0, reverse=reverse)
        hs = [linear_recurrence(*part, state, reverse)[0] for part, state in zip(parts, entering, strict=True)]
        return torch.cat(hs, dim=1), last

    torch.testing.assert_close(run(split, x, a, h0, reverse), wanted)


def test_choice_of_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 2, 3)
    monkeypatch.delenv('TRECVIT_NATIVE', raising=False)
    assert choose_backend(x) == 'sequential'  # nothing is compiled unasked
    monkeypatch.setenv('TRECVIT_NATIVE', '1')
    assert choose_backend(x.double()) == 'sequential'
    with use_backend('chunked'):
        assert choose_backend(x) == 'chunked' and choose_backend(x, 'sequential') == 'sequential'
        with use_backend('auto'):
            assert choose_backend(x) == ('sequential' if why_not('native', CPU) else 'native')
    monkeypatch.setenv('TRECVIT_NATIVE', '0')
    assert choose_backend(x) == 'sequential'
    with pytest.raises(ValueError, match="back end 'native' cannot be used here: TRECVIT_NATIVE=0"):
        linear_recurrence(x, x, backend='native')
    with pytest.raises(ValueError, match="no back end 'quick'; wanted 'auto', 'sequential', 'native'"):
        linear_recurrence(x, x, backend='quick')
    with pytest.raises(ValueError, match="no back end 'quick'"), use_backend('quick'):
        pass
    with pytest.raises(ValueError, match="back end 'triton' cannot be used here"):
        linear_recurrence(x.to(torch.int64), x.to(torch.int64), backend='triton')
    assert set(BACKENDS) == {'sequential', 'native', 'chunked', 'triton'}


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """None at all, and one that fails: torch does the work, and the reason is told."""
    monkeypatch.setenv('TRECVIT_CACHE', str(tmp_path))
    monkeypatch.delenv('TRECVIT_NATIVE', raising=False)
    monkeypatch.delenv('CC', raising=False)
    try:
        for compiler, reason in ((None, 'no C compiler found'), ('false', 'false did not build recurrence.c')):
            native._library.cache_clear()
            monkeypatch.setattr(native.shutil, 'which', lambda name, found=compiler: found)
            assert native.why_not().startswith(reason)
            assert choose_backend(torch.zeros(1, 2, 3)) == 'sequential'
    finally:
        native._library.cache_clear()
    assert not list(tmp_path.iterdir())


def test_a_compiler_without_openmp(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """It builds for one thread, which does the parts one after the other."""
    usable('native')
    real = os.environ.get('CC') or next(filter(None, map(shutil.which, ('cc', 'gcc', 'clang'))))
    compiler = tmp_path / 'compiler'
    compiler.write_text(f'#!/bin/sh\ncase " $* " in *" -fopenmp "*) exit 1;; esac\nexec {real} "$@"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv('CC', str(compiler))
    monkeypatch.setenv('TRECVIT_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(native, '_LEAST', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    x, a, h0 = draw(2, 5, 70, dtype=torch.float32)
    try:
        native._library.cache_clear()
        found, last = linear_recurrence(x, a, h0, backend='native')
    finally:
        native._library.cache_clear()
    assert len(list((tmp_path / 'cache').iterdir())) == 1
    wanted, end = linear_recurrence(x, a, h0, backend='sequential')
    torch.testing.assert_close((found, last), (wanted, end))
