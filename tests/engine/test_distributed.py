"""Two processes over gloo, on a machine with or without CUDA, train what one process trains."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine.toy import toy_runner
from trecvit_dense.engine import distributed

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from tests.engine.toy import toy_config
from trecvit_dense.engine import distributed
from trecvit_dense.registry import RUNNERS, use_scope

use_scope()
distributed.setup('pytorch')
cfg = toy_config(sys.argv[1], 'ddp', model__drop=0.0, train_dataloader__batch_size=2, train_dataloader__num_workers=0)
cfg.launcher, cfg.model_wrapper_cfg = 'pytorch', distributed.model_wrapper_cfg()
runner = RUNNERS.build(cfg)
runner.train()
print('evaluated', runner.evaluate()) if runner.rank == 0 else runner.evaluate()
distributed.teardown()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_two_processes_train_the_same_weights(tmp_path):
    script = tmp_path / 'job.py'
    script.write_text(SCRIPT)
    port = str(free_port())
    jobs = []
    for rank in range(2):
        environment = dict(
            os.environ,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE='2',
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=port,
            PYTHONPATH=str(ROOT),
            CUDA_VISIBLE_DEVICES='',
            OMP_NUM_THREADS='1',
        )
        command = [sys.executable, str(script), str(tmp_path / 'ddp')]
        jobs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    outputs = [job.communicate(timeout=300)[0].decode() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs

    single = toy_runner(tmp_path / 'single', 'single', model__drop=0.0, train_dataloader__batch_size=4)
    single.train()
    expected = torch.load(tmp_path / 'single/iter_12.pth', weights_only=True)['state_dict']
    actual = torch.load(tmp_path / 'ddp/iter_12.pth', weights_only=True)['state_dict']
    assert expected.keys() == actual.keys()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_launcher_without_torchrun_says_how_to_start(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ValueError, match='torchrun --nproc_per_node'):
        distributed.setup('pytorch')
    with pytest.raises(ValueError, match="launcher is 'slurm'"):
        distributed.setup('slurm')
    assert distributed.setup('none') is False
