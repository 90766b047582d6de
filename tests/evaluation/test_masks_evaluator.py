"""eval-masks on folders: layouts, what is refused and how, and the same numbers as on arrays."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.test_masks_functional import blobs
from trecvit_dense import cli
from trecvit_dense.evaluation import MaskMetric
from trecvit_dense.evaluation.functional import vos
from trecvit_dense.io import write_mask
from trecvit_dense.structures import ObjectMasks, VideoSample

ROOT = Path(__file__).parents[2]


def write(folder, labels, *, first=0, step=1, digits=5):
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(labels):
        write_mask(folder / f'{first + step * t:0{digits}d}.png', frame)


@pytest.fixture
def clips():
    """Truth and prediction of two sequences, three objects each in the first frame."""
    pairs = {}
    for k, name in enumerate(('bear', 'dog')):
        truth, prediction = blobs(k, frames=6), blobs(k + 10, frames=6)
        truth[0, :2, :6] = np.repeat([1, 2, 3], 2)
        pairs[name] = truth, prediction
    return pairs


@pytest.fixture
def folders(tmp_path, clips):
    for name, (truth, prediction) in clips.items():
        write(tmp_path / 'gt' / name, truth)
        write(tmp_path / 'pred' / name, prediction)
    return tmp_path / 'gt', tmp_path / 'pred'


@pytest.fixture
def evaluate(tmp_path, capsys, monkeypatch):
    """Run ``trecvit eval-masks`` in this process: exit code, numbers, standard error."""
    monkeypatch.delenv('TRECVIT_DEBUG', raising=False)

    def call(*arguments):
        out = tmp_path / 'results.json'
        out.unlink(missing_ok=True)
        code = cli.run(cli.main, ['eval-masks', *map(str, arguments), '--out', str(out)])
        err = capsys.readouterr().err
        return code, json.loads(out.read_text()) if out.exists() else None, err

    return call


def expected(clips):
    rows = [row for pair in clips.values() for row in vos.semi_supervised(*pair)]
    return {f'davis/{key}': value for key, value in vos.summarise(rows).items()}


@pytest.mark.parametrize('workers', [1, 2])
def test_folders_give_the_numbers_of_arrays(folders, clips, evaluate, workers):
    code, results, err = evaluate(*folders, '--workers', workers, '--per-sequence')
    assert code == 0, err
    for key, value in expected(clips).items():
        assert results[key] == value, key
    assert results['davis/num_objects'] == 6 and '100%' in err
    bear = np.mean([row.J.mean() for row in vos.semi_supervised(*clips['bear'])])
    assert results['davis/per_sequence/bear/J'] == bear


def test_davis_layout_lists_and_other_sequences(tmp_path, clips, evaluate):
    root = tmp_path / 'DAVIS'
    for name, (truth, prediction) in clips.items():
        write(root / 'Annotations/480p' / name, truth)
        write(root / 'Annotations_unsupervised/480p' / name, truth)
        write(tmp_path / 'pred/480p' / name, prediction)
    (root / 'ImageSets/2017').mkdir(parents=True)
    (root / 'ImageSets/2017/val.txt').write_text('dog\n')
    (root / 'ImageSets/2016').mkdir(parents=True)
    pairs = '/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n'
    (root / 'ImageSets/2016/val.txt').write_text(pairs * 2)
    code, results, _ = evaluate(root, tmp_path / 'pred')
    assert code == 0 and results['davis/num_sequences'] == 1 and 'davis/per_sequence/dog/J' in results
    code, results, _ = evaluate(root, tmp_path / 'pred', '--protocol', 'davis2016')
    (merged,) = vos.merged(*clips['bear'])
    assert code == 0 and results['davis2016/J'] == merged.J.mean()
    code, results, _ = evaluate(root, tmp_path / 'pred', '--protocol', 'davis2017-unsupervised')
    assert code == 0 and results['davis/unsupervised/num_sequences'] == 1
    (tmp_path / 'list.txt').write_text('bear\n')
    code, results, _ = evaluate(root, tmp_path / 'pred', '--sequences', tmp_path / 'list.txt')
    assert code == 0 and 'davis/per_sequence/bear/J' in results
    shutil.rmtree(root / 'ImageSets/2016')
    assert evaluate(root, tmp_path / 'pred', '--protocol', 'davis2016')[1]['davis2016/num_sequences'] == 1
    code, _, err = evaluate(root, tmp_path / 'pred', '--split', 'test-dev')
    assert code == 2 and '2017/val.txt' in err


def test_one_sequence_without_a_folder_around_it(folders, evaluate):
    code, results, _ = evaluate(folders[0] / 'bear', folders[1] / 'bear')
    assert code == 0 and results['davis/num_sequences'] == 1


def test_davis_2016_takes_colour_truth(tmp_path, clips, evaluate):
    truth, prediction = clips['bear']
    write(tmp_path / 'pred/bear', (prediction > 0).astype(np.uint8) * 255)
    (tmp_path / 'gt/bear').mkdir(parents=True)
    for t, frame in enumerate(truth):
        Image.fromarray((frame[..., None] > 0).repeat(3, 2).astype(np.uint8) * 255).save(
            tmp_path / f'gt/bear/{t:05d}.png'
        )
    code, results, err = evaluate(tmp_path / 'gt', tmp_path / 'pred', '--protocol', 'davis2016')
    assert code == 0, err
    assert results['davis2016/J'] == vos.merged(truth, prediction)[0].J.mean()


def test_youtube_vos_seen_and_unseen(tmp_path, clips, evaluate):
    truth, _ = clips['dog']
    write(tmp_path / 'valid/Annotations/dog', truth, step=5)
    write(tmp_path / 'pred/Annotations/dog', truth.repeat(5, axis=0))
    objects = {str(i): dict(category=name) for i, name in enumerate(('cat', 'cat', 'boat'), 1)}
    (tmp_path / 'valid/meta.json').write_text(json.dumps(dict(videos=dict(dog=dict(objects=objects)))))
    (tmp_path / 'unseen.txt').write_text('boat\n')
    arguments = (tmp_path / 'valid', tmp_path / 'pred', '--protocol', 'youtubevos')
    code, results, err = evaluate(*arguments, '--unseen', tmp_path / 'unseen.txt')
    assert code == 0, err
    assert results['youtubevos/G'] == 1 and results['youtubevos/J_unseen'] == 1
    code, results, _ = evaluate(*arguments)
    assert code == 0 and 'youtubevos/G' not in results and results['youtubevos/J'] == 1


def test_mose_and_lvos(tmp_path, clips, evaluate):
    truth, _ = clips['dog']
    write(tmp_path / 'gt/Annotations/dog', truth, first=1, step=5, digits=8)
    write(tmp_path / 'pred/dog', truth, first=1, step=5, digits=8)
    arguments = (tmp_path / 'gt', tmp_path / 'pred', '--protocol')
    for protocol, key in (('mose', 'mose/J&F'), ('mosev2', 'mosev2/J&F_new')):
        code, results, err = evaluate(*arguments, protocol)
        assert code == 0 and results[key] == 1, err
    code, _, err = evaluate(*arguments, 'lvos')
    assert code == 2 and '--meta FILE' in err
    objects = {str(i): dict(frame_range=dict(start='1', end='26', frame_nums='6')) for i in (1, 2, 3)}
    (tmp_path / 'gt/val_meta.json').write_text(json.dumps(dict(videos=dict(dog=dict(objects=objects)))))
    code, results, err = evaluate(*arguments, 'lvos')
    assert code == 0 and results['lvos/J&F'] == 1 and results['lvos/V'] == 0, err


def spoil_rgb(gt, pred):
    Image.fromarray(np.zeros((40, 53, 3), np.uint8)).save(pred / 'dog/00003.png')


def spoil_size(gt, pred):
    write_mask(pred / 'dog/00003.png', np.zeros((40, 52), np.uint8))


def spoil_id(gt, pred):
    labels = np.zeros((40, 53), np.uint8)
    labels[5, 5] = 9
    write_mask(pred / 'dog/00003.png', labels)


def spoil_large_id(gt, pred):
    Image.fromarray(np.full((40, 53), 300, np.uint16)).save(pred / 'dog/00003.png')


def spoil_empty_truth(gt, pred):
    write_mask(gt / 'dog/00000.png', np.zeros((40, 53), np.uint8))


def spoil_frame(gt, pred):
    (pred / 'dog/00003.png').unlink()


def spoil_extra(gt, pred):
    write_mask(pred / 'dog/00077.png', np.zeros((40, 53), np.uint8))


def spoil_bytes(gt, pred):
    (pred / 'dog/00003.png').write_bytes((pred / 'dog/00003.png').read_bytes()[:-40])


def spoil_sequence(gt, pred):
    for path in (pred / 'dog').iterdir():
        path.unlink()
    (pred / 'dog').rmdir()


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize(
    ('spoil', 'parts'),
    [
        (spoil_rgb, ('sequence dog, frame 00003', 'palette or grey')),
        (spoil_size, ('sequence dog, frame 00003', 'prediction is 40 x 52, truth 40 x 53')),
        (spoil_id, ('sequence dog, frame 00003', 'prediction holds the id 9; wanted 1, 2, 3')),
        (spoil_large_id, ('sequence dog, frame 00003', 'the object id 300')),
        (spoil_empty_truth, ('sequence dog, frame 00000', 'has no object')),
        (spoil_frame, ('sequence dog', '1 of 6 frames have no prediction: 00003')),
        (spoil_extra, ('sequence dog', 'frames that the truth does not have: 00077')),
        (spoil_bytes, ('dog', '00003', 'damaged')),
        (spoil_sequence, ('dog', 'missing')),
    ],
)
def test_what_does_not_fit_is_refused(folders, evaluate, spoil, parts, workers):
    spoil(*folders)
    code, results, err = evaluate(*folders, '--workers', workers)
    last = err.strip().splitlines()[-1]
    assert code == 2 and results is None and 'Traceback' not in err
    assert last.startswith('error: ') and all(part in last for part in parts), last


def test_frames_that_do_not_count_may_be_missing_on_request(folders, clips, evaluate):
    for name in clips:
        (folders[1] / name / '00000.png').unlink()
    assert evaluate(*folders)[0] == 2
    code, results, _ = evaluate(*folders, '--only-scored')
    assert code == 0 and results['davis/J'] == expected(clips)['davis/J']


def test_results_of_before_are_not_taken(folders, clips, evaluate):
    (folders[1] / 'global_results-val.csv').write_text('J&F-Mean\n0.99\n')
    assert evaluate(*folders)[1]['davis/J&F'] == expected(clips)['davis/J&F']
    write(folders[1] / 'bear', clips['bear'][0])
    assert evaluate(*folders)[1]['davis/J&F'] > expected(clips)['davis/J&F']


def test_saved_masks_get_the_score_of_the_metric(tmp_path, clips, evaluate):
    metric = MaskMetric('davis', save_dir=str(tmp_path / 'pred'))
    for name, (truth, prediction) in clips.items():
        sample = VideoSample(np.zeros((6, 40, 53, 3), np.uint8), masks=ObjectMasks(truth, [1, 2, 3]), name=name)
        sample.predictions['masks'] = ObjectMasks(prediction, [1, 2, 3])
        metric.process(None, [sample])
        write(tmp_path / 'gt' / name, truth)
    code, results, err = evaluate(tmp_path / 'gt', tmp_path / 'pred')
    assert code == 0, err
    for key, value in metric.evaluate(2).items():
        assert 'copy_first' in key or results[key] == value, key


def test_the_benchmark_measures_a_program_of_its_own(tmp_path, capsys):
    out = tmp_path / 'time.json'
    load = (
        '--videos',
        '2',
        '--frames',
        '4',
        '--size',
        '64',
        '96',
        '--workers',
        '2',
        '--repeats',
        '1',
        '--out',
        str(out),
    )
    assert cli.run(cli.main, ['benchmark', 'masks-evaluator', *load]) == 0
    assert 's of CPU' in capsys.readouterr().out and json.loads(out.read_text())['rows'][0]['cpu_s'] > 0
    assert cli.run(cli.main, ['benchmark', 'masks-evaluator', '--frames', '1']) == 2


def test_wrong_arguments(folders, evaluate, tmp_path):
    assert 'wanted the truth' in evaluate(tmp_path / 'none', folders[1])[2]
    assert 'wanted the predictions' in evaluate(folders[0], tmp_path / 'none')[2]
    assert 'wanted at least 1' in evaluate(*folders, '--workers', 0)[2]
    (tmp_path / 'empty').mkdir()
    assert 'no sequence in it' in evaluate(tmp_path / 'empty', folders[1])[2]
    assert 'no such list' in evaluate(*folders, '--sequences', tmp_path / 'none.txt')[2]
    (tmp_path / 'bad.json').write_text('{')
    assert 'not a JSON file' in evaluate(*folders, '--meta', tmp_path / 'bad.json')[2]


def test_it_starts_without_the_heavy_libraries(folders):
    program = (
        'import sys; from trecvit_dense import cli; cli.main(sys.argv[1:]); '
        'print([name for name in ("torch", "mmengine", "cv2", "av", "scipy", "PIL") if name in sys.modules])'
    )
    command = [sys.executable, '-c', program, 'eval-masks', *map(str, folders), '--workers', '1']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip().splitlines()[-1] == '[]', done.stdout + done.stderr
