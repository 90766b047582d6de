"""Tracks on disk equal the tracks that were written."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from trecvit_dense.io import TrackWriter, track_writer


@pytest.mark.parametrize('block_bytes', [1, 8 << 20])
def test_npz_and_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(track_writer, '_BLOCK_BYTES', block_bytes)  # 1: a block per point
    rng = np.random.default_rng(0)
    tracks = rng.uniform(0, 50, (5, 9, 2)).astype(np.float32)
    visible = rng.random((5, 9)) > 0.5
    tracks[2, :4], visible[2, :4] = np.nan, False
    query = np.concatenate([np.zeros((5, 1)), tracks[:, 4]], axis=1).astype(np.float32)
    with TrackWriter(tmp_path / 'out', query, fps=12.5, size=(40, 60)) as writer:
        for index in range(9):
            writer.write(tracks[:, index], visible[:, index])
    with np.load(tmp_path / 'out.npz', allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved['tracks'], tracks)
        np.testing.assert_array_equal(saved['visible'], visible)
        np.testing.assert_array_equal(saved['query_txy'], query)
        assert saved['visible'].dtype == bool and saved['fps'] == 12.5 and saved['size'].tolist() == [40, 60]
    rows = list(csv.DictReader((tmp_path / 'out.csv').read_text().splitlines()))
    assert len(rows) == 5 * 9 - 4
    for row in rows:
        point, frame = int(row['id']), int(row['frame'])
        assert float(row['x']) == pytest.approx(tracks[point, frame, 0], abs=1e-3)
        assert float(row['y']) == pytest.approx(tracks[point, frame, 1], abs=1e-3)
        assert bool(int(row['visible'])) == visible[point, frame]
    assert sorted(file.name for file in tmp_path.iterdir()) == ['out.csv', 'out.npz']


def test_exception_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match='3 points; wanted 2'),
        TrackWriter(tmp_path / 'out', np.zeros((2, 3)), fps=1, size=(4, 4)) as writer,
    ):
        writer.write(np.zeros((2, 2)), np.ones(2, bool))
        writer.write(np.zeros((3, 2)), np.ones(3, bool))
    assert not list(tmp_path.iterdir())
