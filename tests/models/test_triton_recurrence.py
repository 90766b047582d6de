"""Triton's kernels in its interpreter: the arithmetic of the GPU back end on a machine without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trecvit_dense.models.layers import triton_support

ROOT = Path(__file__).parents[2]


def errors(device: str, **variables: str) -> dict[str, float]:
    command = [sys.executable, '-m', 'tests.models.triton_recurrence', device]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=500
    )
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_kernels_in_the_interpreter() -> None:
    if triton_support.missing():
        pytest.skip(triton_support.missing())
    found = errors('cpu', TRITON_INTERPRET='1')
    assert len(found) == 11
    assert max(found.values()) < 3e-6, found
    assert found['layer float64'] < 1e-12, found


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here; the interpreter has covered the arithmetic')
def test_kernels_on_the_gpu() -> None:
    found = errors('cuda')
    assert max(found.values()) < 1e-5, found


def test_capability_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    if not triton_support.missing():
        assert triton_support.refuses(torch.device('cpu')) == 'it needs a CUDA or ROCm device and this is cpu'
    assert 'float16' in triton_support.refuses(torch.device('cpu'), torch.float16)
    monkeypatch.setattr(triton_support, 'missing', lambda: '')
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'an old card')
    for capability, refused in (((6, 1), True), ((7, 0), False)):
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device, found=capability: found)
        reason = triton_support.refuses(torch.device('cuda', 0))
        assert (reason == 'an old card has compute capability 6.1; wanted at least 7.0') is refused
