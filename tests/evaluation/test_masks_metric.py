"""MaskMetric: keys, baselines, sizes, frames without truth, late objects, every protocol, saved files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.test_masks_functional import blobs
from trecvit_dense.evaluation import MaskMetric, format_table
from trecvit_dense.evaluation.functional import vos
from trecvit_dense.registry import METRICS, use_scope
from trecvit_dense.structures import ObjectMasks, VideoSample

SIZE = (40, 53)


def moving(frames=8, speed=3):
    """Two squares that move; nothing overlaps."""
    labels = np.zeros((frames, *SIZE), np.uint8)
    for t in range(frames):
        labels[t, 4:14, speed * t : speed * t + 10] = 1
        labels[t, 20:32, 4 + t : 20 + t] = 2
    return labels


def make_sample(name='clip', labels=None, prediction=None, first=None, annotated=None, **meta):
    labels = moving() if labels is None else labels
    ids = sorted(set(np.unique(labels).tolist()) - {0, 255})
    video = np.zeros((len(labels), *SIZE, 3), np.uint8)
    sample = VideoSample(video, masks=ObjectMasks(labels, ids, first, annotated), name=name, meta=meta)
    sample.predictions['masks'] = ObjectMasks(labels.copy() if prediction is None else prediction, ids)
    return sample


def run(metric, *samples):
    for sample in samples:
        metric.process(None, [sample])
    return metric.evaluate(len(samples))


def test_keys_and_rows():
    sample = make_sample()
    sample.predictions['masks_label_propagation'] = ObjectMasks(np.zeros_like(sample.masks.labels), [1, 2])
    metrics = run(MaskMetric('davis', per_sequence=True), sample)
    for key in ('J', 'F', 'J&F', 'J_recall', 'F_recall'):
        assert metrics[f'davis/{key}'] == 1
        assert metrics[f'davis/label_propagation/{key}'] == 0
        assert 0 <= metrics[f'davis/copy_first/{key}'] < 1
    assert metrics['davis/J_decay'] == 0 and metrics['davis/copy_first/J_decay'] > 0
    assert metrics['davis/num_sequences'] == 1 and metrics['davis/num_objects'] == 2
    assert metrics['davis/per_sequence/clip/J'] == 1 and 'davis/per_sequence/clip/copy_first/J&F' in metrics
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    table = format_table(metrics)
    assert 'davis: 1 sequences, 2 objects' in table and 'copy first mask' in table and 'label propagation' in table
    assert [line.split()[0] for line in table.splitlines() if line].count('clip') == 1


def test_mean_is_over_objects_and_equals_the_protocol():
    truth, prediction = blobs(1, SIZE, frames=7), blobs(2, SIZE, frames=7)
    truth[0, :3, :3], truth[0, 3:5, :3], truth[0, 5:8, :3] = 1, 2, 3
    metrics = run(MaskMetric('d'), make_sample('a', truth, prediction), make_sample('b'))
    rows = vos.semi_supervised(truth, prediction) + vos.semi_supervised(moving(), moving())
    for key, value in vos.summarise(rows).items():
        assert metrics[f'd/{key}'] == pytest.approx(value, abs=1e-12)


def test_predictions_of_another_size_are_brought_to_the_truth():
    labels = moving()
    double = labels.repeat(2, axis=1).repeat(2, axis=2)
    assert run(MaskMetric('d'), make_sample(prediction=double))['d/J&F'] == 1
    assert run(MaskMetric('d'), make_sample(labels=double, prediction=labels))['d/J&F'] == 1


def test_frames_without_truth_and_late_objects():
    labels = moving()
    labels[:4][labels[:4] == 2] = 0
    annotated = np.ones(len(labels), bool)
    annotated[[1, 5]] = False
    broken = labels.copy()
    broken[[1, 5]] = 0
    broken[:5][broken[:5] == 2] = 0
    broken[4][labels[4] == 2] = 0
    metrics = run(MaskMetric('d'), make_sample(labels=labels, prediction=broken, first=[0, 4], annotated=annotated))
    assert metrics['d/J'] == 1, 'neither frames without truth nor the frame of the given mask count'
    assert metrics['d/num_objects'] == 2
    # Object 2 is copied from frame 4 on.
    assert 0 < metrics['d/copy_first/J'] < 1


@pytest.mark.parametrize(
    ('protocol', 'key'),
    [
        ('davis2016', 'davis2016/J&F'),
        ('davis2017-unsupervised', 'davis/unsupervised/J&F'),
        ('youtubevos', 'youtubevos/G'),
        ('mose', 'mose/J&F'),
        ('mosev2', 'mosev2/J&F_new'),
        ('lvos', 'lvos/J&F'),
    ],
)
def test_every_protocol(protocol, key):
    meta = dict(categories={1: 'cat', 2: 'boat'}, unseen=False)
    meta['frame_names'] = [f'{1 + 5 * t:08d}' for t in range(8)]
    meta['frame_range'] = {1: (1, 36, 8), 2: (6, 36, 7)}
    metrics = run(MaskMetric(protocol=protocol, unseen=['boat']), make_sample(**meta))
    assert metrics[key] == 1 and key in metrics
    assert metrics[key.rpartition('/')[0] + '/copy_first/' + key.rpartition('/')[2]] < 1


def test_unseen_videos_of_lvos_come_from_the_samples():
    meta = dict(frame_names=[f'{1 + 5 * t:08d}' for t in range(8)], frame_range={1: (1, 36, 8), 2: (6, 36, 7)})
    empty = np.zeros_like(moving())
    metrics = run(
        MaskMetric('lvos', protocol='lvos'),
        make_sample('a', unseen=False, **meta),
        make_sample('b', prediction=empty, unseen=True, **meta),
    )
    assert metrics['lvos/J_seen'] == 1 and metrics['lvos/J_unseen'] == 0 and metrics['lvos/J&F'] == 0.5
    assert metrics['lvos/V_seen'] == 0


def test_masks_are_saved_as_palette_png_in_the_size_of_the_truth(tmp_path):
    double = moving().repeat(2, axis=1).repeat(2, axis=2)
    names = [f'{5 * t:05d}' for t in range(8)]
    sample = make_sample('a', prediction=double, frame_names=names, output_names=names[::2])
    run(MaskMetric('d', save_dir=str(tmp_path / 'out')), sample)
    files = sorted((tmp_path / 'out/a').iterdir())
    assert [path.stem for path in files] == names[::2]
    with Image.open(files[1]) as image:
        assert image.mode == 'P' and np.array_equal(np.asarray(image), moving()[2])


def test_videos_without_truth_are_named_and_still_saved(tmp_path):
    none = np.zeros(8, bool)
    metric = MaskMetric('d', save_dir=str(tmp_path / 'out'))
    with pytest.warns(UserWarning, match='not scored.*clip'):
        metrics = run(metric, make_sample(annotated=none))
    assert metrics == {'d/num_sequences': 0, 'd/num_objects': 0}
    assert len(list((tmp_path / 'out/clip').iterdir())) == 8


def test_mistakes_name_the_video():
    sample = make_sample()
    sample.predictions.clear()
    with pytest.raises(ValueError, match="video 'clip' has no predictions"):
        run(MaskMetric('d'), sample)
    with pytest.raises(ValueError, match="video 'clip': prediction has shape"):
        run(MaskMetric('d'), make_sample(prediction=moving()[1:]))
    strange = moving()
    strange[3, 0, 0] = 7
    with pytest.raises(ValueError, match="video 'clip': frame 3: prediction holds the id 7"):
        run(MaskMetric('d'), make_sample(labels=moving(), prediction=strange))
    with pytest.raises(ValueError, match='no object masks'):
        run(MaskMetric('d'), VideoSample(np.zeros((1, 2, 2, 3), np.uint8), name='x'))
    with pytest.raises(ValueError, match="did you mean 'davis2017-semi'"):
        MaskMetric('d', protocol='davis2017-sem')
    with pytest.raises(ValueError, match='decay'):
        MaskMetric('d', decay='wrong')


def test_the_registry_knows_it():
    use_scope()
    assert isinstance(METRICS.build(dict(type='MaskMetric', dataset_name='x')), MaskMetric)
