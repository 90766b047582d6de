"""The project as a whole: what is imported, what is shipped, what agrees with what."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import trecvit_dense

ROOT = Path(__file__).parents[1]
SOURCES = [
    path for part in ('trecvit_dense', 'tools', 'configs', 'tests') for path in sorted((ROOT / part).rglob('*.py'))
]
TEXTS = [
    *SOURCES,
    *[path for path in ROOT.glob('*') if path.suffix in ('.md', '.toml', '.txt', '.cff', '.py', '.in')],
    *(ROOT / 'docs').rglob('*.md'),
    ROOT / '.ci/run',
]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def test_compiled_and_unsafe_modules_are_not_imported():
    for path in SOURCES:
        names = imported(path)
        assert not any(name.startswith(('mmcv.ops', 'torchvision')) for name in names), path
        if path.is_relative_to(ROOT / 'trecvit_dense'):
            text = path.read_text()
            assert 'weights_only=False' not in text and not re.search(r'allow_pickle\s*=\s*True', text), path
            assert not {'urllib.request.urlopen', 'requests', 'gdown'} & names, f'{path} downloads'


def test_no_machine_paths_or_registry_hosts():
    # Written in pieces, so that this file does not contain what it looks for.
    hosts = ['py' + 'pi.org', 'download.py' + 'torch']
    patterns = [*('/' + folder for folder in ('work/', 'root/', 'home/', 'tmp/', 'opt/')), *hosts]
    for path in TEXTS:
        text = path.read_text(encoding='utf-8')
        found = [pattern for pattern in patterns if pattern in text]
        assert not found, f'{path.relative_to(ROOT)} contains {found}'


def test_versions_agree():
    version = trecvit_dense.__version__
    assert re.search(rf'^version: {re.escape(version)}$', (ROOT / 'CITATION.cff').read_text(), re.M)
    assert f'## {version}' in (ROOT / 'CHANGELOG.md').read_text()


def test_constraints_cover_what_is_installed():
    pinned = set(re.findall(r'^([\w-]+)==', (ROOT / 'constraints.txt').read_text(), re.M))
    setup = (ROOT / 'setup.py').read_text()
    block = re.search(r'install_requires=\[(.*?)\]', setup, re.S).group(1)
    needed = set(re.findall(r"'([\w-]+)", block))
    assert needed <= pinned, needed - pinned


@pytest.mark.parametrize('module', ['layers', 'heads', 'backbones', 'losses'])
def test_models_import_without_the_runner(module):
    """With MMEngine's Runner gone the networks would still import: they know the registry and nothing else of it."""
    importlib.import_module(f'trecvit_dense.models.{module}')
    for path in (ROOT / 'trecvit_dense/models' / module).rglob('*.py'):
        names = {name for name in imported(path) if name.startswith('mmengine')}
        assert not names, f'{path.name} imports {names}; MMEngine stays at the rim'


def test_command_line_starts_without_heavy_imports():
    code = 'import sys, trecvit_dense.cli; print(*[n for n in ("torch", "cv2", "mmengine") if n in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == '', f'trecvit_dense.cli imports {done.stdout}'


@pytest.mark.slow
def test_wheel_carries_weights_and_recipes(tmp_path):
    """Built and unpacked outside the checkout, the package finds its recipes and weights by name."""
    build = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(tmp_path), '.']
    source = tmp_path / 'source'
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, timeout=60)
    if tracked.returncode != 0:
        pytest.skip('not a git checkout')
    for name in tracked.stdout.decode().split('\0'):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob('*.whl')
    unpacked = tmp_path / 'unpacked'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    recipes = sorted(path.stem for path in (source / 'configs').glob('*.py'))
    assert sorted(path.stem for path in (unpacked / 'trecvit_dense/configs').glob('*.py')) == recipes
    weights = [path.name for path in (source / 'trecvit_dense/weights').glob('*')]
    assert all((unpacked / 'trecvit_dense/weights' / name).is_file() for name in weights)
    code = (
        'from trecvit_dense.engine import config_names, load_config; '
        '[load_config(name) for name in config_names()]; print(*config_names())'
    )
    environment = {'PYTHONPATH': str(unpacked), 'PATH': str(Path(sys.executable).parent)}
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == recipes


def test_bootstrap_is_stdlib_only_and_explains_itself(tmp_path):
    path = ROOT / 'tools/bootstrap.py'
    assert all(name.partition('.')[0] in sys.stdlib_module_names for name in imported(path))
    done = subprocess.run(
        [sys.executable, str(path), 'trian'], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and 'wanted train, test or install' in done.stderr
