#!/usr/bin/env python3
"""From a fresh checkout to a result in one command, with the standard library alone.

    python3 tools/bootstrap.py train [arguments of `trecvit train`]   # installs, trains the default recipe, evaluates
    python3 tools/bootstrap.py test [arguments of pytest]             # installs, runs the tests
    python3 tools/bootstrap.py install                                # only installs

The environment is made in .venv of the checkout, once; it is renewed when setup.py or constraints.txt change.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = Path(os.environ.get('TRECVIT_VENV', ROOT / '.venv'))
BIN = VENV / ('Scripts' if os.name == 'nt' else 'bin')
PYTHON = BIN / ('python.exe' if os.name == 'nt' else 'python')
STAMP = VENV / 'trecvit_dense.stamp'
RECIPE = 'configs/point_track_trecvit.py'
OPENCV_HINT = (
    'OpenCV lacks a system library; on Debian and Ubuntu:\n'
    '  apt-get install --no-install-recommends libgl1 libglib2.0-0'
)
VENV_HINT = 'the venv module cannot make an environment here; on Debian and Ubuntu:\n  apt-get install python3-venv'


def stop(message):
    print('error: ' + message, file=sys.stderr)
    sys.exit(2)


def call(command, failure):
    """Run a command with its output shown; stop with `failure` when it does not succeed."""
    if subprocess.call([str(part) for part in command], cwd=ROOT) != 0:
        stop(failure)


def fingerprint():
    """What the installation depends on."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ('setup.py', 'pyproject.toml', 'constraints.txt'):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def install():
    if STAMP.is_file() and PYTHON.is_file() and STAMP.read_text() == fingerprint():
        return
    if not PYTHON.is_file():
        print(f'making an environment in {VENV}', flush=True)
        call([sys.executable, '-m', 'venv', VENV], VENV_HINT)
    # The tested versions are CPU builds; a GPU machine takes the torch of its own package index.
    constraints = [] if shutil.which('nvidia-smi') else ['-c', 'constraints.txt']
    print('installing (about a minute; torch is the large part)', flush=True)
    call(
        [PYTHON, '-m', 'pip', 'install', '-q', '-e', '.[test]', *constraints],
        'pip could not install: see its message above',
    )
    if subprocess.call([str(PYTHON), '-c', 'import cv2'], cwd=ROOT, stderr=subprocess.DEVNULL) != 0:
        stop(OPENCV_HINT)
    STAMP.write_text(fingerprint())


def main():
    if sys.version_info < (3, 10):  # noqa: UP036 (this file is run by whatever python3 is)
        stop('Python {}.{} is too old; wanted 3.10 or newer'.format(*sys.version_info[:2]))
    command, rest = (sys.argv[1:2] or [''])[0], sys.argv[2:]
    if command in ('-h', '--help'):
        print(__doc__.strip())
        return 0
    if command not in ('train', 'test', 'install'):
        stop(f"command is '{command}'; wanted train, test or install\n{__doc__.strip()}")
    install()
    if command == 'train':
        recipe = [] if rest and not rest[0].startswith('-') else [RECIPE]
        return subprocess.call([str(PYTHON), 'tools/train.py', *recipe, *rest], cwd=ROOT)
    if command == 'test':
        # Two processes with a thread each: with more, small models spend their time waiting for one another.
        environment = dict(os.environ, OMP_NUM_THREADS=os.environ.get('OMP_NUM_THREADS', '1'))
        return subprocess.call([str(PYTHON), '-m', 'pytest', *(rest or ['-n', '2', '-q'])], cwd=ROOT, env=environment)
    print(f'ready: source {BIN / "activate"}')
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
