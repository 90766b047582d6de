"""README and docs do what they say: snippets run, and whatever a page names exists.

In a page, python blocks run from top to bottom in one namespace, in a scratch folder; ``file=NAME`` behind the language
writes the block to NAME and does not run it. A text block right behind a python block is what that block prints
(TRECVIT_UPDATE_DOCS=1 writes it into the page). ``<!-- not run: REASON -->`` before a block leaves it out.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.tiny import tiny_config, tiny_model
from trecvit_dense import cli
from trecvit_dense.checkpoints import io as checkpoint_io
from trecvit_dense.checkpoints import save_model
from trecvit_dense.cli import benchmark
from trecvit_dense.engine import find_config, load_config
from trecvit_dense.io import VideoWriter
from trecvit_dense.registry import DATASETS, MODELS, use_scope

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'data/README.md', *sorted((ROOT / 'docs').glob('*.md'))]
FENCE = re.compile(
    r'(?:<!-- (?P<note>[^>]*) -->\n)?(?P<fence>^```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<body>.*?)^```$)', re.M | re.S
)


@dataclass
class Block:
    language: str
    body: str
    fence: str
    file: str = ''
    skip: bool = False


def blocks(page: Path) -> list[Block]:
    found = []
    for match in FENCE.finditer(page.read_text()):
        file = re.search(r'file=(\S+)', match['info'])
        skip = (match['note'] or '').startswith('not run:')
        found.append(Block(match['language'], match['body'], match['fence'], file[1] if file else '', skip))
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


RUNNABLE = [page for page in PAGES if any(b.language == 'python' and not b.skip for b in blocks(page))]


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder with a video, recipes and small random weights in place of those in the box."""
    use_scope()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(ROOT / 'configs', tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__'))
    save_model(tiny_model('all'), tiny_config('all'), tmp_path / 'boxed.safetensors')
    monkeypatch.setattr(checkpoint_io, 'BOXED', tmp_path / 'boxed.safetensors')
    before, registered = set(sys.modules), set(MODELS._module_dict)
    yield tmp_path
    for name in set(MODELS._module_dict) - registered:  # heads that a page registered
        del MODELS._module_dict[name]
    for name in set(sys.modules) - before:  # modules that a page wrote
        if getattr(sys.modules[name], '__file__', None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]


def make_video(path: Path, frames: np.ndarray) -> None:
    with VideoWriter(path, 25.0) as writer:
        for frame in frames:
            writer.write(frame)


@pytest.mark.parametrize('page', RUNNABLE, ids=name_of)
def test_snippets_run(page, scratch):
    frames = np.random.default_rng(0).integers(0, 255, (6, 240, 320, 3), dtype=np.uint8)
    make_video(scratch / 'video.mp4', frames)
    namespace = dict(frames=frames, __name__='page')
    printed = ''
    for number, block in enumerate(blocks(page)):
        if block.language == 'text' and printed and block.body != printed:
            if os.environ.get('TRECVIT_UPDATE_DOCS'):
                page.write_text(page.read_text().replace(block.fence, f'```text\n{printed}```'))
            else:
                pytest.fail(f'{page.name} (TRECVIT_UPDATE_DOCS=1 writes it) should show:\n{printed}', pytrace=False)
        printed = ''
        if block.language != 'python' or block.skip:
            continue
        if block.file:
            (scratch / block.file).write_text(block.body)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(block.body, f'{page.name}[{number}]', 'exec'), namespace)
        printed = output.getvalue()


def test_new_head_is_short_and_learns(scratch):
    """At most 40 lines of Python make a head; it trains beside the point head, streams and is evaluated."""
    files = {block.file: block.body for block in blocks(ROOT / 'docs/new_head.md') if block.file}
    for name, body in files.items():
        (scratch / name).write_text(body)
    lines = [line for line in files['motion_head.py'].splitlines() if line.strip()]
    assert len(lines) <= 40, f'{len(lines)} lines'
    cfg = load_config(scratch / 'motion.py')
    cfg.model.heads.points.max_points = 8  # fewer empty slots to carry along
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    clips = DATASETS.build(
        dict(type='SyntheticVideoDataset', length=2, size=(32, 32), num_frames=3, num_points=4, split='train')
    )
    batch = [clips[0], clips[1]]
    batch = dict(inputs=[b['inputs'] for b in batch], data_samples=[b['data_samples'] for b in batch])
    optimiser = torch.optim.AdamW(model.heads['motion'].parameters(), lr=1e-3)
    seen = []
    for _ in range(2):
        data = model.data_preprocessor(dict(batch), True)
        losses = model(**data, mode='loss')
        assert {'points.loss_position', 'motion.loss_motion'} <= set(losses)
        seen.append(float(losses['motion.loss_motion'].detach()))
        optimiser.zero_grad()
        losses['motion.loss_motion'].backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.heads['motion'].parameters())
        optimiser.step()
    assert seen[1] < seen[0]
    (sample, _) = model.eval()(**model.data_preprocessor(batch), mode='predict')
    assert sample.predictions['motion'].shape == (3, 2) and sample.predictions['points'].xy_px.shape == (4, 3, 2)


# ------------------------------------------------------------------------------------- what pages name exists


COMMAND = re.compile(r'(?:^|[`\s])((?:trecvit|python3? tools/\w+\.py|tools/\w+\.py)\b[^`\n]*)', re.M)
FILE = re.compile(
    r'(?<![\w/.-])((?:configs|tools|tests|docs|trecvit_dense|\.ci)/[\w./-]+\w|[A-Z][A-Z_]+\.md|constraints\.txt)'
)


def prose_and_shell(page: Path) -> str:
    """The page without its python and text blocks, continued lines joined, comments of shell lines off."""
    text = page.read_text()
    for block in blocks(page):
        if block.language in ('python', 'text'):
            text = text.replace(block.fence, '')
    text = text.replace('\\\n', ' ')
    return re.sub(r'  +#.*', '', text)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r'^#+ (.*)$', page.read_text(), re.M)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if re.match(r'\w+:', target):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f'{name_of(page)} links to {target}, which does not exist'
        assert not anchor or anchor in anchors(file), f'{name_of(page)} links to {target}: no such heading'


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_named_files_exist(page):
    for name in set(FILE.findall(prose_and_shell(page))):
        assert any((base / name).exists() for base in (ROOT, page.parent)), f'{name_of(page)} names {name}'


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_named_commands_exist(page):
    use_scope()
    for command in COMMAND.findall(prose_and_shell(page)):
        try:
            check_command(command)
        except Exception as error:
            pytest.fail(f'{name_of(page)}: {command.strip()}: {error}', pytrace=False)


MEASUREMENTS = benchmark._OTHERS  # trecvit benchmark NAME has a parser of its own
TOOLS = {'convert_checkpoint': 'convert', 'env_report': 'env'}


def check_command(command: str) -> None:
    """Subcommand, options and recipe exist, and the recipe has the keys that are changed."""
    words = [word for word in shlex.split(command.replace("'", '')) if word not in ('python', 'python3', '...')]
    program = words.pop(0)
    if program == 'trecvit':
        name = words.pop(0) if words and re.fullmatch(r'[a-z][a-z-]*(\|.*)?', words[0]) else None
    else:
        assert (ROOT / program).is_file(), f'{program} does not exist'
        name = Path(program).stem
        name = TOOLS.get(name, name.replace('_', '-'))
    if name is None or '|' in name or name == 'bootstrap':
        return
    assert name in cli.COMMANDS, f'no subcommand {name}'
    measurement = words[0] if name == 'benchmark' and words else None
    known = options_of(MEASUREMENTS.get(measurement, name))
    for word in words:
        option = word.strip('[]')
        assert not option.startswith('--') or option.partition('=')[0] in known, f'{name} has no option {option}'
    if name in ('train', 'test', 'print-config') and words and not words[0].startswith('--') and not words[0].isupper():
        changes = [word.strip('[]') for word in words if re.match(r'\+?[\w.]+=', word.strip('[]'))]
        if find_page_config(words[0]):
            load_config(words[0], [change.partition('|')[0] for change in changes])


def find_page_config(name: str) -> bool:
    """Recipes must exist; a page may also name the file that it has just written."""
    written = {block.file for page in PAGES for block in blocks(page) if block.file}
    return name not in written and bool(find_config(name))


def options_of(name: str) -> set[str]:
    module = importlib.import_module(f'trecvit_dense.cli.{name.replace("-", "_")}')
    parser = argparse.ArgumentParser()
    if hasattr(module, 'add_arguments'):
        module.add_arguments(parser)
    parsers, known = [parser], {'--help'}
    for one in parsers:
        for action in one._actions:
            known.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return known


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_python_blocks_parse(page):
    for block in blocks(page):
        if block.language == 'python':
            ast.parse(block.body)
