"""eval-depth on files: layouts, what is refused and how, and the same numbers as on arrays."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.evaluation.test_depth_metric import CLIP, make_sample
from trecvit_dense import cli
from trecvit_dense.cli import eval_depth
from trecvit_dense.evaluation import DepthMetric, depth_protocols
from trecvit_dense.evaluation.functional import depth_protocols as papers
from trecvit_dense.evaluation.functional import depth_time
from trecvit_dense.io import DepthNpzWriter, DepthPngWriter
from trecvit_dense.structures import DepthMap


@pytest.fixture
def clips():
    """Truth in whole millimetres and a noisy disparity of two clips."""
    found = {}
    for seed, name in enumerate(('attic', 'lab')):
        sample = make_sample(seed, name=name)
        depth_mm = np.where(sample.depth.valid, np.round(sample.depth.depth_m * 1000), 0).astype(np.uint16)
        noise = 0.1 * np.random.default_rng(seed).random(depth_mm.shape)
        found[name] = depth_mm, (sample.predictions['depth'].values + noise).astype(np.float32)
    return found


@pytest.fixture
def folders(tmp_path, clips):
    for name, (depth_mm, disparity) in clips.items():
        for kind in ('gt', 'pred'):
            (tmp_path / kind / name).mkdir(parents=True)
        for t, (frame, values) in enumerate(zip(depth_mm, disparity, strict=True)):
            cv2.imwrite(str(tmp_path / 'gt' / name / f'{t:04d}.png'), frame)
            np.save(tmp_path / 'pred' / name / f'{t:04d}.npy', values)
    return tmp_path / 'gt', tmp_path / 'pred'


@pytest.fixture
def evaluate(tmp_path, capsys, monkeypatch):
    """Run ``trecvit eval-depth`` in this process: exit code, numbers, standard error."""
    monkeypatch.delenv('TRECVIT_DEBUG', raising=False)

    def call(*arguments):
        out = tmp_path / 'results.json'
        out.unlink(missing_ok=True)
        code = cli.run(cli.main, ['eval-depth', *map(str, arguments), '--out', str(out)])
        err = capsys.readouterr().err
        return code, json.loads(out.read_text()) if out.exists() else None, err

    return call


def by_metric(clips, **options):
    metric = DepthMetric('depth', per_sequence=True, **options)
    samples = []
    for seed, (name, (depth_mm, disparity)) in enumerate(clips.items()):
        sample = make_sample(seed, name=name, poses=False)
        sample.depth = DepthMap((depth_mm / 1000).astype(np.float32), depth_mm > 0)
        sample.predictions['depth'].values[:] = disparity
        samples.append(sample)
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_depth_files_score_as_arrays(folders, evaluate, clips):
    code, metrics, err = evaluate(*folders, '--kind', 'disparity', '--cap', 4)
    assert code == 0, err
    assert metrics == pytest.approx(by_metric(clips, cap_m=4))


def test_depth_one_file_a_clip(tmp_path, folders, evaluate, clips):
    _, wanted, _ = evaluate(*folders, '--kind', 'disparity')
    (tmp_path / 'npz').mkdir()
    for name, (_, disparity) in clips.items():
        np.savez(tmp_path / 'npz' / f'{name}.npz', disparity=disparity, kind='disparity')
    assert evaluate(folders[0], tmp_path / 'npz')[1] == pytest.approx(wanted)
    (tmp_path / 'truth').mkdir()
    for name, (depth_mm, _) in clips.items():
        np.save(tmp_path / 'truth' / f'{name}.npy', depth_mm / 1000)
    assert evaluate(tmp_path / 'truth', tmp_path / 'npz')[1] == pytest.approx(wanted)


def test_depth_one_clip_alone(folders, evaluate, clips):
    code, metrics, err = evaluate(folders[0] / 'lab', folders[1] / 'lab', '--kind', 'disparity')
    assert code == 0, err
    wanted = by_metric({'lab': clips['lab']})
    assert metrics[f'depth/{CLIP}/AbsRel'] == pytest.approx(wanted[f'depth/{CLIP}/AbsRel'])


def test_depth_recording_has_tae(tmp_path, folders, evaluate):
    truth = folders[0] / 'lab'
    for part in ('images', 'depth'):
        (truth / part).mkdir()
    for path in sorted(truth.glob('*.png')):
        cv2.imwrite(str(truth / 'images' / path.name), np.zeros((24, 36, 3), np.uint8))
        path.rename(truth / 'depth' / path.name)
    np.savetxt(truth / 'K.txt', [[30, 0, 18], [0, 30, 12], [0, 0, 1]])
    np.savetxt(truth / 'poses.txt', np.tile(np.eye(4).reshape(1, 16), (5, 1)))
    code, metrics, err = evaluate(truth, folders[1] / 'lab', '--kind', 'disparity')
    assert code == 0, err
    assert {f'depth/{CLIP}/TAE', f'depth/{CLIP}/flicker'} <= set(metrics)


def make_list(tmp_path, clips, **more):
    """A JSON list as Video Depth Anything's scripts write it."""
    scenes = []
    for name, (depth_mm, disparity) in clips.items():
        frames = []
        for t, (frame, values) in enumerate(zip(depth_mm, disparity, strict=True)):
            image, truth = f'{name}/rgb/{t}.jpg', f'{name}/depth/{t}.png'
            (tmp_path / 'vda' / truth).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / 'vda' / truth), frame)
            target = tmp_path / 'out' / 'toy' / f'{name}/rgb/{t}.npy'
            target.parent.mkdir(parents=True, exist_ok=True)
            np.save(target, values)
            frames.append(dict(image=image, gt_depth=truth, factor=1000.0, **more))
        scenes.append({name: frames})
    path = tmp_path / 'vda' / 'toy.json'
    path.write_text(json.dumps({'toy': scenes}))
    return path, tmp_path / 'out'


def test_depth_list_of_video_depth_anything(tmp_path, clips, evaluate):
    path, out = make_list(tmp_path, clips)
    code, metrics, err = evaluate(path, out, '--protocol', 'vda', '--dataset', 'toy', '--cap', 4, '--crop', '2,-2,3,36')
    assert code == 0, err
    wanted = {}
    for name, (depth_mm, disparity) in clips.items():
        truth = np.where(depth_mm > 0, depth_mm / 1000, -1)
        wanted[name] = papers.video_depth_anything(disparity, truth, cap_m=4, crop=(2, -2, 3, 36))
        assert metrics[f'toy/vda/per_sequence/{name}/AbsRel'] == wanted[name]['AbsRel']
    assert metrics['toy/vda/RMSE'] == pytest.approx(np.mean([one['RMSE'] for one in wanted.values()]), rel=1e-12)


def test_depth_missing_frames(tmp_path, clips, evaluate):
    path, out = make_list(tmp_path, clips)
    (out / 'toy/lab/rgb/2.npy').unlink()
    code, _, err = evaluate(path, out, '--protocol', 'vda', '--cap', 4)
    assert code == 2 and 'scene lab: no prediction of lab/rgb/2.jpg' in err
    code, metrics, err = evaluate(path, out, '--protocol', 'vda', '--cap', 4, '--allow-missing')
    assert code == 0, err
    depth_mm, disparity = clips['lab']
    truth = np.where(depth_mm > 0, depth_mm / 1000, -1)
    wanted = papers.video_depth_anything(disparity, truth, cap_m=4, missing=(2,))
    assert metrics['depth/vda/per_sequence/lab/AbsRel'] == wanted['AbsRel']


def test_depth_tae_of_the_official_program(tmp_path, evaluate):
    sample = make_sample(frames=14)
    depth_mm = np.round(sample.depth.depth_m * 1000).astype(np.uint16)
    disparity = sample.predictions['depth'].values + np.random.default_rng(0).random((14, 24, 36), np.float32)
    camera = dict(K=sample.depth.intrinsics.tolist(), pose=np.eye(4).tolist())
    path, out = make_list(tmp_path, {'lab': (depth_mm, disparity)}, **camera)
    code, metrics, err = evaluate(path, out, '--protocol', 'vda-tae', '--cap', 10, '--crop', '2,-2,3,-3', '--hard-crop')
    assert code == 0, err
    poses = np.tile(np.eye(4), (4, 1, 1))
    wanted = depth_time.official_tae(
        disparity[10:], depth_mm[10:] / 1000, sample.depth.intrinsics, poses, crop=(2, -2, 3, -3), crop_prediction=True
    )
    assert metrics['depth/vda-tae/TAE'] == pytest.approx(wanted, rel=1e-12)


def test_depth_predictions_of_the_whole_frame_are_cropped(tmp_path, clips, evaluate):
    path, out = make_list(tmp_path, clips)
    options = ('--protocol', 'vda', '--cap', 4, '--crop', '6,20,3,30')
    _, of_the_crop, _ = evaluate(path, out, *options)
    _, whole, _ = evaluate(path, out, *options, '--hard-crop')
    assert whole['depth/vda/AbsRel'] < of_the_crop['depth/vda/AbsRel'] / 2


@pytest.mark.parametrize('protocol', eval_depth.PROTOCOLS)
def test_depth_every_protocol_runs(protocol, folders, evaluate):
    if protocol in ('vda-tae', 'nvds'):
        pytest.skip('needs poses or full-size images')
    options = ['--cap', 10, '--kind', 'disparity']
    if protocol in ('marigold', 'bts'):
        options[-1] = 'depth'
    code, metrics, err = evaluate(*folders, '--protocol', protocol, *options)
    assert code == 0, err
    assert 0 < metrics[f'depth/{protocol}/AbsRel'] < 5
    assert metrics[f'depth/{protocol}/num_clips'] == 2


def test_depth_protocols_of_the_command_are_those_of_the_library():
    assert eval_depth.PROTOCOLS == tuple(depth_protocols.PROTOCOLS)
    known = {name for protocol in depth_protocols.PROTOCOLS.values() for name in protocol.sets}
    assert known == set(eval_depth.DATASETS)


def test_depth_images_weigh_the_same():
    scored = [(dict(AbsRel=0.1), 3.0), (dict(AbsRel=0.5), 1.0), (dict(AbsRel=9.0), 0.0)]
    assert depth_protocols.mean_over_clips(scored) == dict(AbsRel=pytest.approx(0.2))


@pytest.mark.parametrize(
    ('spoil', 'options', 'message'),
    [
        (lambda gt, pred: None, [], 'clip attic: are predictions disparity or depth? say it with --kind'),
        (
            lambda gt, pred: np.save(pred / 'lab/0003.npy', np.full((24, 36), np.nan)),
            ['--kind', 'depth'],
            'clip lab, frame 3: 864 of 864 values are NaN or infinite',
        ),
        (
            lambda gt, pred: (pred / 'lab/0001.npy').unlink(),
            ['--kind', 'depth'],
            'clip lab: 1 of 5 frames have no prediction: 0001',
        ),
        (
            lambda gt, pred: np.save(pred / 'lab/0001.npy', np.ones((3, 4), np.float32)),
            ['--kind', 'depth'],
            'clip lab: prediction 0001.npy is (3, 4), 0000.npy (24, 36); wanted one size',
        ),
        (
            lambda gt, pred: (pred / 'lab/0001.npy').write_bytes(b'nothing'),
            ['--kind', 'depth'],
            '0001.npy: cannot be read',
        ),
        (
            lambda gt, pred: cv2.imwrite(str(gt / 'lab/0001.png'), np.ones((24, 36), np.uint8)),
            ['--kind', 'depth'],
            '0001.png: uint8 of shape (24, 36); wanted a 16-bit png',
        ),
        (lambda gt, pred: (pred / 'lab').rename(pred / 'elsewhere'), [], 'no prediction of clip lab'),
        (lambda gt, pred: None, ['--units', '1', '--cap', '80', '--kind', 'disparity'], 'are these millimetres?'),
        (lambda gt, pred: None, ['--protocol', 'vda'], "protocol 'vda' needs a cap in metres"),
        (lambda gt, pred: None, ['--protocol', 'bts', '--cap', '10', '--kind', 'disparity'], "'bts' wants depth"),
        (lambda gt, pred: None, ['--protocol', 'vda-tae', '--cap', '10'], 'no poses and intrinsics'),
        (lambda gt, pred: None, ['--crop', '1,2,3'], 'wanted a name, or four whole numbers'),
        (lambda gt, pred: None, ['--cap', '-1'], '--cap -1: wanted a number above 0'),
    ],
)
def test_depth_refusals_are_one_line(spoil, options, message, folders, evaluate):
    spoil(*folders)
    code, metrics, err = evaluate(*folders, *options)
    assert code == 2 and metrics is None
    assert message in err.splitlines()[-1]


def test_depth_nothing_there(tmp_path, evaluate, folders):
    assert evaluate(tmp_path / 'no', folders[1])[0] == 2
    code, _, err = evaluate(folders[0], tmp_path / 'no')
    assert code == 2 and 'no such folder; wanted the predictions' in err
    (tmp_path / 'bad.json').write_text('{"toy": [1]}')
    code, _, err = evaluate(tmp_path / 'bad.json', folders[1])
    assert code == 2 and 'not a list of scenes' in err


def test_depth_clips_without_truth_are_left_out(folders, evaluate):
    for path in (folders[0] / 'lab').iterdir():
        cv2.imwrite(str(path), np.zeros((24, 36), np.uint16))
    code, metrics, err = evaluate(*folders, '--kind', 'disparity')
    assert code == 0 and 'not scored: lab (no pixel is valid)' in err
    assert metrics[f'depth/{CLIP}/num_clips'] == 1
    code, metrics, err = evaluate(*folders, '--protocol', 'vda', '--cap', 10)
    assert code == 0 and 'not scored, no pixel has valid depth: lab' in err


def test_depth_whole_numbers_need_their_unit(folders, evaluate, clips):
    for name, (_, disparity) in clips.items():
        for t, values in enumerate(disparity):
            (folders[1] / name / f'{t:04d}.npy').unlink()
            cv2.imwrite(str(folders[1] / name / f'{t:04d}.png'), np.round(values * 5000).astype(np.uint16))
    code, _, err = evaluate(*folders, '--kind', 'disparity')
    assert code == 2 and 'say what they count with --prediction-units' in err
    code, metrics, _ = evaluate(*folders, '--kind', 'disparity', '--prediction-units', 5000)
    assert metrics == pytest.approx(by_metric(clips), rel=1e-2, abs=1e-4)


def test_depth_of_the_demo_pairs_by_number(tmp_path, folders, evaluate, clips):
    """It counts frames from 0, whatever those of the video are called; the files say what they hold."""
    truth = folders[0] / 'lab'
    for place in sorted(truth.iterdir(), reverse=True):
        place.rename(place.with_name(f'{int(place.stem) + 3:05d}.png'))
    values, key = clips['lab'][1], f'depth/{CLIP}/AbsRel'
    wanted = by_metric({'lab': clips['lab']})[key]
    (tmp_path / 'whole').mkdir()
    about = dict(fps=25, size=values.shape[1:])
    for writer in (
        DepthNpzWriter(tmp_path / 'whole' / 'lab.npz', 'disparity', dtype='float32', **about),
        DepthPngWriter(tmp_path / 'frames', 'disparity', **about),
    ):
        with writer:
            for frame in values:
                writer.write(frame)
    for saved in ('whole', 'frames'):
        code, metrics, err = evaluate(truth, tmp_path / saved)
        assert code == 0, err
        assert metrics[key] == pytest.approx(wanted, rel=1e-3)
    (truth / '00003.png').unlink()
    code, _, err = evaluate(truth, tmp_path / 'frames', '--allow-missing')
    assert code == 2 and f'{len(values)} frames of prediction' in err and f'{len(values) - 1} of truth' in err
