"""Peak memory of the demo is the same on short and on long videos: points, objects, depth, and all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.inference.tiny import square_mask, tiny_config, tiny_model
from tests.io.videos import make_video
from trecvit_dense.checkpoints.io import save_model
from trecvit_dense.io import read_saved_depth, write_mask

# VmHWM, not ru_maxrss: that one starts with the peak of the process that called fork.
PROGRAM = """
import re, sys
from pathlib import Path
from trecvit_dense.cli.demo import main
code = main(sys.argv[1:])
print('peak', re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])
sys.exit(code)
"""


def peak_kilobytes(arguments: list[str]) -> int:
    root = Path(__file__).resolve().parents[2]
    # Images go back to the system when they are freed: glibc would keep them in arenas, some 3% more or less by chance.
    environment = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1', 'MALLOC_MMAP_THRESHOLD_': '65536'}
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_peak_memory_does_not_grow(tmp_path: Path) -> None:
    checkpoint = tmp_path / 'tiny.safetensors'
    save_model(tiny_model(), tiny_config(), checkpoint, {})
    peaks = {}
    for num_frames in (100, 1000):
        video, out = tmp_path / f'{num_frames}.mp4', tmp_path / f'out{num_frames}.mp4'
        make_video(video, num_frames, size=(96, 128))
        peaks[num_frames] = peak_kilobytes(
            ['points', str(video), '--checkpoint', str(checkpoint), '--grid', '8', '--out', str(out), '--device', 'cpu']
        )
        with np.load(out.with_suffix('.npz')) as saved:
            assert saved['tracks'].shape == (64, num_frames, 2)
    assert peaks[1000] <= 1.02 * peaks[100], peaks


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_peak_memory_of_segmentation_does_not_grow(tmp_path: Path) -> None:
    checkpoint = tmp_path / 'tiny.safetensors'
    save_model(tiny_model('masks'), tiny_config('masks'), checkpoint, {})
    write_mask(tmp_path / 'first.png', square_mask((96, 128), (20, 30), 40))
    peaks = {}
    for num_frames in (60, 300):
        video, out = tmp_path / f'{num_frames}.mp4', tmp_path / f'out{num_frames}.mp4'
        make_video(video, num_frames, size=(96, 128))
        words = ['--mask', str(tmp_path / 'first.png'), '--box', '5,5,25,25', '--out', str(out), '--device', 'cpu']
        peaks[num_frames] = peak_kilobytes(['segment', str(video), '--checkpoint', str(checkpoint), *words])
        assert len(list(out.with_suffix('').iterdir())) == num_frames
    assert peaks[300] <= 1.02 * peaks[60], peaks


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
@pytest.mark.parametrize('save', ['npz', 'png'])
def test_peak_memory_of_depth_does_not_grow(tmp_path: Path, save: str) -> None:
    checkpoint = tmp_path / 'tiny.safetensors'
    save_model(tiny_model('depth'), tiny_config('depth'), checkpoint, {})
    peaks = {}
    for num_frames in (100, 400):
        video, out = tmp_path / f'{num_frames}.mp4', tmp_path / f'out{num_frames}.mp4'
        make_video(video, num_frames, size=(96, 128))
        words = ['--checkpoint', str(checkpoint), '--save', save, '--out', str(out), '--device', 'cpu']
        peaks[num_frames] = peak_kilobytes(['depth', str(video), *words])
        saved = out.with_suffix('.npz' if save == 'npz' else '')
        assert sum(1 for _ in read_saved_depth(saved)) == num_frames
    assert peaks[400] <= 1.02 * peaks[100], peaks


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_peak_memory_of_all_tasks_does_not_grow(tmp_path: Path) -> None:
    checkpoint = tmp_path / 'tiny.safetensors'
    save_model(tiny_model('all'), tiny_config('all'), checkpoint, {})
    peaks = {}
    for num_frames in (40, 140):
        video, out = tmp_path / f'{num_frames}.mp4', tmp_path / f'out{num_frames}.mp4'
        make_video(video, num_frames, size=(96, 128))
        words = ['--box', '5,5,45,45', '--save', 'npz', '--out', str(out), '--device', 'cpu']
        peaks[num_frames] = peak_kilobytes(['all', str(video), '--checkpoint', str(checkpoint), *words])
        assert len(list(out.with_name(f'{out.stem}_masks').iterdir())) == num_frames
    assert peaks[140] <= 1.02 * peaks[40], peaks
