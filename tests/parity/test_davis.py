"""J, F and every protocol of video object segmentation against the official evaluators."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.parity.goldens import Golden, golden_files
from trecvit_dense.evaluation.functional import davis, lvos, mose, vos

EXACT = 1e-12
GLOBAL = ('J&F', 'J', 'J_recall', 'J_decay', 'F', 'F_recall', 'F_decay')
PROTOCOLS = {'semi-supervised': vos.semi_supervised, 'unsupervised': vos.unsupervised}


def same(actual, expected, name):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=EXACT, equal_nan=True, err_msg=name)


# The ids of the tests contain the stem of the file, which starts with davis_jf.
@pytest.mark.parametrize('path', golden_files('davis_jf_'))
def test_davis(path):
    golden = Golden(path)
    kinds = dict(cases=functions, stats=series, sequences=protocols, lvos=lvos_videos, mosev2=mosev2_videos)
    roots = {key.split('/')[0] for key in golden.keys()} | {key.split('/')[-1] for key in golden.keys()}
    found = [check for kind, check in kinds.items() if kind in roots]
    assert found, f'{path.name}: not a known kind of file'
    for check in found:
        check(golden)
    golden.assert_all_compared()


def functions(golden: Golden) -> None:
    for case in golden['cases'].tolist():
        truth, prediction, bound_th = (golden[f'{case}/{key}'] for key in ('gt', 'pred', 'bound_th'))
        void = golden[f'{case}/void'] if f'{case}/void' in golden else None
        jaccard = davis.jaccard(truth, prediction, void)
        boundary = davis.boundary_f(truth, prediction, void, bound_th=bound_th.item())
        assert davis.bound_pixels(bound_th.item(), truth.shape) == golden[f'{case}/bound_pix']
        for version in ('', '_davis2016'):
            if not version or f'{case}/J{version}' in golden:
                same(jaccard, golden[f'{case}/J{version}'], f'{case} J{version}')
                same(boundary, golden[f'{case}/F{version}'], f'{case} F{version}')
        for name, mask in zip(('gt', 'pred'), davis.cleared(truth, prediction, void), strict=True):
            assert np.array_equal(davis.boundary_map(mask), golden[f'{case}/{name}_boundary']), case


def series(golden: Golden) -> None:
    names = sorted({key.split('/')[1] for key in golden.keys('stats/') if key.endswith('/values')})
    lengths = golden['stats/lengths'].tolist()
    assert {str(length) for length in lengths} <= set(names)
    for name in names:
        values = golden[f'stats/{name}/values']
        sound, official = davis.statistics(values), davis.statistics(values, decay='official')
        same(official, golden[f'stats/{name}/MRD'], name)
        assert sound[:2] == official[:2]
        assert np.isfinite(sound).all() or np.isnan(values).any(), name
        if len(values) <= 255:
            assert sound == official, name
        if f'stats/{name}/MRD_numpy1' in golden:
            same(davis.statistics(values, decay='official_numpy1'), golden[f'stats/{name}/MRD_numpy1'], name)


def protocols(golden: Golden) -> None:
    (prefix,) = {key.split('/')[0] for key in golden.keys() if key.endswith('/sequences')}
    sequences = golden[f'{prefix}/sequences'].tolist()
    for task, score in PROTOCOLS.items():
        if f'{prefix}/{task}/global' not in golden:
            continue
        objects, names = [], []
        for sequence in sequences:
            scores = one_sequence(golden, f'{prefix}/{sequence}', task, score)
            objects += scores
            names += [f'{sequence}_{i + 1}' for i in range(len(scores))]
        assert names == golden[f'{prefix}/{task}/object_names'].tolist()
        same([o.J.mean() for o in objects], golden[f'{prefix}/{task}/J_M_per_object'], task)
        same([o.F.mean() for o in objects], golden[f'{prefix}/{task}/F_M_per_object'], task)
        summary = vos.summarise(objects, decay='official')
        same([summary[key] for key in GLOBAL], golden[f'{prefix}/{task}/global'], task)


def one_sequence(golden: Golden, key: str, task: str, score) -> list[vos.ObjectScores]:
    truth, prediction = golden[f'{key}/gt'], golden[f'{key}/pred']
    if f'{key}/frames' in golden:
        assert len(golden[f'{key}/frames']) == len(truth)
    scores = score(truth, prediction)
    for measure in 'JF':
        values = [getattr(o, measure) for o in scores]
        same(values, golden[f'{key}/{task}/{measure}_per_frame'], f'{key} {measure}')
        rows = [davis.statistics(row, decay='official') for row in values]
        same(rows, golden[f'{key}/{task}/{measure}_MRD'], f'{key} {measure}_MRD')
    if f'{key}/{task}/vosbench_ids' in golden:
        bench = vos.vos_benchmark(truth, prediction, skip_first_last=task == 'semi-supervised')
        assert [o.object_id for o in bench] == golden[f'{key}/{task}/vosbench_ids'].tolist()
        for measure in 'JF':
            values = [100 * getattr(o, measure).mean() for o in bench]
            same(values, golden[f'{key}/{task}/vosbench_{measure}'], f'{key} vosbench')
    if f'{key}/davis2016/J' in golden:
        (merged,) = vos.merged(truth, prediction)
        same(merged.J, golden[f'{key}/davis2016/J'], f'{key} davis2016')
        same(merged.F, golden[f'{key}/davis2016/F'], f'{key} davis2016')
    return scores


def lvos_videos(golden: Golden) -> None:
    meta, unseen = json.loads(str(golden['lvos/meta_json']))['videos'], golden['lvos/unseen'].tolist()
    objects: dict[str, list] = {'all': [], 'seen': [], 'unseen': []}
    names: dict[str, list] = {'all': [], 'seen': [], 'unseen': []}
    for video, entry in meta.items():
        frames = {}
        for object_id, about in entry['objects'].items():
            numbers = lvos.object_frames(*(int(about['frame_range'][key]) for key in ('start', 'end', 'frame_nums')))
            frames[int(object_id)] = [(number - 1) // lvos.STEP for number in numbers]
        scores = lvos.score_sequence(golden[f'lvos/{video}/gt'], golden[f'lvos/{video}/pred'], frames)
        for group in ('all', 'unseen' if video in unseen else 'seen'):
            objects[group] += scores
            names[group] += [f'{video}_{o.object_id}' for o in scores]
        for o in scores:
            same(o.J[None], golden[f'lvos/{video}/obj{o.object_id}/J'], video)
            same(o.F[None], golden[f'lvos/{video}/obj{o.object_id}/F'], video)
    for group, chosen in objects.items():
        assert names[group] == golden[f'lvos/{group}/object_names'].tolist()
        for column, values in lvos.object_statistics(chosen, decay='official').items():
            key = f'lvos/{group}/{"V_per_object" if column == "V" else column}'
            same(values, golden[key], key)
    same(lvos.summarise(objects['seen'], objects['unseen'])['J&F'], golden['lvos/JF_mean'], 'J&F')


def mosev2_videos(golden: Golden) -> None:
    order = golden['mosev2/merged_names'].tolist()
    for video, entry in json.loads(str(golden['mosev2/meta_json'])).items():
        truth, prediction = golden[f'mosev2/{video}/gt'], golden[f'mosev2/{video}/pred']
        assert len(truth) == entry['length']
        for o in mose.mose_v2(truth, prediction, [int(object_id) for object_id in entry['objects']]):
            expected = golden.group(f'mosev2/{video}/obj{o.object_id}/')
            ours = dict(J=o.J, F=o.F, F_new=o.extra['F_new'], empty_gt=o.extra['absent'].astype(bool))
            ours['merged'] = [mose.merge(o)[name] for name in order]
            assert set(expected) == set(ours), video
            for name, value in expected.items():
                same(ours[name], value, f'{video} {name}')
