"""Outputs are complete or absent, and what cannot be written is said before any work is done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trecvit_dense.io.atomic import atomic_path, check_target, write_json


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / 'out.json'
    write_json(target, {'a': 1})
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text('half')
        raise ZeroDivisionError
    assert json.loads(target.read_text()) == {'a': 1}
    assert [path.name for path in tmp_path.iterdir()] == ['out.json']


def test_targets_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match='none does not exist; create it first'):
        check_target(tmp_path / 'none/out.mp4')
    with pytest.raises(IsADirectoryError, match='is a folder'):
        check_target(tmp_path)
    target = tmp_path / 'out.mp4'
    target.write_text('kept')
    readonly = {target}
    # The superuser may write everywhere, so the answer of the system is made up.
    monkeypatch.setattr(os, 'access', lambda path, mode: path not in readonly)
    with pytest.raises(PermissionError, match='the file is read-only'):
        check_target(target)
    readonly.add(tmp_path)
    with pytest.raises(PermissionError, match='the folder .* is read-only'):
        check_target(tmp_path / 'new.mp4')
