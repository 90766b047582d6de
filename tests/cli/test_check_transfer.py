"""check-transfer: consistency is measured on what went there and back, and says what it cannot show."""

import json

import numpy as np
import pytest

from tests.inference.tiny import drifting_clip, tiny_config, tiny_model
from trecvit_dense import cli
from trecvit_dense.checkpoints import save_model
from trecvit_dense.cli.check_transfer import round_trip
from trecvit_dense.inference.queries import grid_queries
from trecvit_dense.structures import PointTracks

QUERIES = grid_queries(3, (256, 256))


def constant(velocity, *, visible=True):
    """A tracker that moves every point by ``velocity`` px a frame, whatever the video."""

    def track(video, query):
        steps = np.arange(len(video))[None, :, None] * np.asarray(velocity, float)
        return PointTracks(query[:, None, 1:] + steps, np.full((len(query), len(video)), visible), query)

    return track


def test_round_trip_of_simple_trackers():
    video = np.zeros((5, 256, 256, 3), np.uint8)
    still = round_trip(constant((0, 0)), video, QUERIES)
    assert still == dict(visible_at_end=1, displacement_px=0, cycle_median_px=0, cycle_within_4=1)
    drift = round_trip(constant((3, 4)), video, QUERIES)  # 20 px out, and 20 more on the way back
    assert drift['displacement_px'] == pytest.approx(20) and drift['cycle_median_px'] == pytest.approx(40)
    assert drift['cycle_within_4'] == 0
    gone = round_trip(constant((0, 0), visible=False), video, QUERIES)
    assert gone['visible_at_end'] == 0 and np.isnan(gone['cycle_median_px'])
    assert round_trip(constant((20, 0)), video, QUERIES)['visible_at_end'] == pytest.approx(2 / 3)


@pytest.fixture
def files(tmp_path):
    import cv2

    (tmp_path / 'frames').mkdir()
    for index, frame in enumerate(drifting_clip(5)):
        cv2.imwrite(str(tmp_path / f'frames/{index}.png'), frame)
    save_model(tiny_model(), tiny_config(), tmp_path / 'tiny.safetensors', {})
    return tmp_path


def call(*arguments):
    return cli.run(cli.main, ['check-transfer', *map(str, arguments)])


def test_command_prints_both_trackers_and_the_caveat(files, capsys):
    options = ('--checkpoint', files / 'tiny.safetensors', '--grid', 3, '--out', files / 'r.json', '--device', 'cpu')
    assert call(files / 'frames', *options) == 0
    out = capsys.readouterr().out
    assert '9 points over 5 frames' in out and 'Lucas-Kanade' in out and 'never moves' in out
    results = json.loads((files / 'r.json').read_text())
    assert {'transfer/model/cycle_median_px', 'transfer/lucas_kanade/displacement_px'} <= set(results)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--start', 4), '5 frames; wanted at least 6'),
        (('--frames', 1), 'at least 2 frames'),
        (('--grid', 0), 'grid is 0'),
        (('--out', 'nowhere/r.json'), 'folder nowhere does not exist'),
    ],
)
def test_mistakes_are_one_line(files, capsys, options, message):
    assert call(files / 'frames', '--checkpoint', files / 'tiny.safetensors', *options) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
