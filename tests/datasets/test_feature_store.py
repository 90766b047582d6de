"""Features on disk: written once, read back, and refused when they are stale or damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.inference.tiny import BACKBONE, tiny_config, tiny_model
from trecvit_dense.checkpoints import load_model, save_model
from trecvit_dense.checkpoints.io import CheckpointError, load_parts
from trecvit_dense.cli import run
from trecvit_dense.cli.extract_features import main
from trecvit_dense.datasets.feature_store import FeatureStore, FeatureStoreError, feature_key
from trecvit_dense.inference.features import build_encoder, extract_features, join_encoder
from trecvit_dense.registry import DATASETS, MODELS, use_scope
from trecvit_dense.structures import VideoSample

use_scope()
DATA = dict(type='SyntheticMotionClassesDataset', length=3, size=(32, 32), num_frames=7)
PREPROCESSOR = dict(type='VideoPreprocessor', input_size=(32, 32), value_range='signed')
DECODER = dict(type='ViS4mer', d_input=32, d_model=16, l_max=112, d_state=8, dropout=0.0)
HEAD = dict(type='ClassificationHead', num_classes=12, pool='last', rep_size=None, token_dim=2)


def random_store(folder, frames=(5, 9), tokens: int = 4, width: int = 3) -> FeatureStore:
    layout = dict(embed_dim=width, grid=[2, 2], stride=[8, 8], class_token=False)
    store = FeatureStore.create(folder, key=dict(encoder='a', weights='b'), layout=layout, dtype='float32')
    rng = np.random.default_rng(0)
    for index, count in enumerate(frames):
        values = rng.standard_normal((count, tokens, width)).astype(np.float32)
        sample = VideoSample(np.zeros((count, 0, 0, 3), np.uint8), label=index, name=f'v{index}', meta=dict(target=0.5))
        store.write(index, sample, [values[:2], values[2:]], count)
    return store


@pytest.fixture
def weights(tmp_path):
    """A checkpoint whose backbone is the encoder."""
    save_model(tiny_model(), tiny_config(), tmp_path / 'encoder.safetensors')
    return tmp_path / 'encoder.safetensors'


def extract(tmp_path, weights, **options) -> FeatureStore:
    options = dict(weights=weights, preprocessor=PREPROCESSOR, chunk_frames=3, dtype='float32') | options
    return extract_features(DATA, BACKBONE, tmp_path / 'store', **options)


# --------------------------------------------------------------------------------------------------------- store


def test_features_come_back(tmp_path) -> None:
    store = random_store(tmp_path / 'store')
    again = FeatureStore(tmp_path / 'store')
    assert len(again) == 2 and 1 in again and 2 not in again
    assert isinstance(again.read(1), np.memmap) and not again.read(1).flags.writeable
    np.testing.assert_array_equal(again.read(1), store.read(1))
    facts = again.facts(1)
    assert (facts['name'], facts['label'], facts['shape'], facts['meta']) == ('v1', 1, [9, 4, 3], dict(target=0.5))
    assert sorted(path.name for path in (tmp_path / 'store').iterdir()) == [
        '000000.json', '000000.npy', '000001.json', '000001.npy', 'store.json'
    ]  # fmt: skip


def test_what_the_type_cannot_hold_is_refused_and_leaves_nothing(tmp_path) -> None:
    layout = dict(embed_dim=1, grid=[1, 1], stride=[8, 8], class_token=False)
    store = FeatureStore.create(tmp_path / 'store', key={}, layout=layout, dtype='float16')
    sample = VideoSample(np.zeros((2, 0, 0, 3), np.uint8), name='loud')
    with pytest.raises(FeatureStoreError, match="'loud' do not fit into float16"), np.errstate(over='ignore'):
        store.write(0, sample, [np.full((2, 1, 1), 1e6, np.float32)], 2)
    with pytest.raises(FeatureStoreError, match='has 1 frames of features; wanted 2'):
        store.write(0, sample, [np.ones((1, 1, 1), np.float32)], 2)
    assert [path.name for path in (tmp_path / 'store').iterdir()] == ['store.json']


def test_damage_is_named(tmp_path) -> None:
    random_store(tmp_path / 'store')
    file = tmp_path / 'store/000001.npy'
    content = file.read_bytes()
    file.write_bytes(content[:-8])
    with pytest.raises(FeatureStoreError, match='000001.npy has .* bytes, wanted .* truncated; delete 000001.json'):
        DATASETS.build(dict(type='StoredFeatureDataset', folder=tmp_path / 'store'))
    file.unlink()
    with pytest.raises(FeatureStoreError, match="features of 'v1' are missing"):
        FeatureStore(tmp_path / 'store').facts(1)
    file.write_bytes(b'x' * len(content))
    with pytest.raises(FeatureStoreError, match='cannot be read'):
        FeatureStore(tmp_path / 'store').read(1)
    (tmp_path / 'store/000001.json').write_text('{')
    with pytest.raises(FeatureStoreError, match='000001.json cannot be read'):
        FeatureStore(tmp_path / 'store').facts(1)


def test_folders_that_are_no_store(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match='no store.json'):
        FeatureStore(tmp_path)
    (tmp_path / 'other').write_text('')
    with pytest.raises(FeatureStoreError, match='not empty'):
        FeatureStore.resume(tmp_path, key={})
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        FeatureStore.resume(tmp_path, key={}, dtype='int8')
    random_store(tmp_path / 'store')
    index = json.loads((tmp_path / 'store/store.json').read_text())
    (tmp_path / 'store/store.json').write_text(json.dumps(dict(index, format=9)))
    with pytest.raises(FeatureStoreError, match='format 9'):
        FeatureStore(tmp_path / 'store')


def test_key_follows_weights_and_config() -> None:
    state = dict(a=torch.ones(2), b=torch.zeros(1))
    key = feature_key(dict(encoder=dict(size=(1, 2))), state)
    assert key == feature_key(dict(encoder=dict(size=[1, 2])), dict(reversed(state.items())))
    assert key['weights'] != feature_key(dict(encoder=dict(size=(1, 2))), dict(state, a=torch.zeros(2)))['weights']
    assert key['encoder'] != feature_key(dict(encoder=dict(size=(1, 3))), state)['encoder']


# ------------------------------------------------------------------------------------------------------- data set


def test_training_draws_windows_and_evaluation_takes_all(tmp_path) -> None:
    store = random_store(tmp_path / 'store')
    build = lambda **options: DATASETS.build(dict(type='StoredFeatureDataset', folder=tmp_path / 'store', **options))  # noqa: E731
    train = build(num_frames=4, random=True)
    assert len(train) == 2
    starts = {
        np.flatnonzero(store.read(1)[:, 0, 0] == train[1 + 2 * d]['inputs'][0, 0, 0].item())[0] for d in range(20)
    }
    assert starts <= set(range(6)) and len(starts) > 3
    np.testing.assert_array_equal(train[3]['inputs'], build(num_frames=4, random=True)[3]['inputs'])
    windows = build(num_frames=4, window_stride=2)
    assert [sample_of(windows, i).name for i in range(len(windows))] == ['v0@0', 'v1@0', 'v1@2', 'v1@4']
    assert sample_of(windows, 3).meta == dict(video='v1', target=0.5, seen_frames=4)
    np.testing.assert_array_equal(windows[3]['inputs'], store.read(1)[4:8])
    padded = build(num_frames=7)
    item = padded[0]
    assert item['inputs'].shape == (7, 4, 3) and not item['inputs'][5:].any()
    assert item['data_samples'].meta['seen_frames'] == 5 and item['data_samples'].num_frames == 7
    spread = build(num_frames=3, pick='spread')
    np.testing.assert_array_equal(spread[1]['inputs'], store.read(1)[[1, 4, 7]])
    drawn = build(num_frames=3, pick='spread', random=True)
    places = [np.flatnonzero(store.read(1)[:, 0, 0] == value)[0] for value in drawn[1]['inputs'][:, 0, 0].numpy()]
    assert places == sorted(set(places))
    assert [len(build()[i]['inputs']) for i in range(2)] == [5, 9]
    assert sample_of(build(), 0).label == 0 and sample_of(build(), 0).name == 'v0'


def sample_of(dataset, index: int) -> VideoSample:
    return dataset[index]['data_samples']


def test_wrong_arguments_of_the_data_set(tmp_path) -> None:
    random_store(tmp_path / 'store', frames=())
    with pytest.raises(ValueError, match='no video in the feature store'):
        DATASETS.build(dict(type='StoredFeatureDataset', folder=tmp_path / 'store'))
    for options, message in ((dict(num_frames=0), 'num_frames is 0'), (dict(pick='all'), "pick is 'all'")):
        with pytest.raises(ValueError, match=message):
            DATASETS.build(dict(type='StoredFeatureDataset', folder=tmp_path / 'store', **options))
    random_store(tmp_path / 'other')
    dataset = DATASETS.build(dict(type='StoredFeatureDataset', folder=tmp_path / 'other'))
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f'index is {index}'):
            dataset[index]


# ----------------------------------------------------------------------------------------------------- extraction


def test_features_are_those_of_the_encoder_and_made_once(tmp_path, weights, monkeypatch) -> None:
    store = extract(tmp_path, weights)
    assert len(store) == 3 and store.layout == dict(embed_dim=32, grid=[4, 4], stride=[8, 8], class_token=False)
    model, _ = build_encoder(BACKBONE, weights, PREPROCESSOR)
    item = DATASETS.build(DATA)[1]
    with torch.no_grad():  # in one piece, where the store was written in chunks
        wanted = model.backbone(model.data_preprocessor.prepare(item['inputs'][None])[0])[0].levels[-1].tokens[0]
    np.testing.assert_allclose(store.read(1), wanted.numpy(), atol=1e-5)
    assert store.facts(1)['label'] == item['data_samples'].label
    (tmp_path / 'store/000001.json').unlink()  # as after an interruption
    written = []
    write = FeatureStore.write
    monkeypatch.setattr(FeatureStore, 'write', lambda self, i, *rest: (written.append(i), write(self, i, *rest)))
    extract(tmp_path, weights)
    assert written == [1]


def test_another_encoder_is_noticed(tmp_path, weights) -> None:
    extract(tmp_path, weights)
    torch.manual_seed(5)
    with pytest.raises(FeatureStoreError, match='stale: its features were made with weights'):
        extract(tmp_path, None)
    with pytest.raises(FeatureStoreError, match='made with preprocessor {"value_range": "signed"}, now it is .*unit'):
        extract(tmp_path, weights, preprocessor=dict(PREPROCESSOR, value_range='unit'))
    with pytest.raises(FeatureStoreError, match='holds float32, not float16'):
        extract(tmp_path, weights, dtype='float16')
    with pytest.raises(FeatureStoreError, match='made with dataset {"length": 3}'):
        extract_features(dict(DATA, length=4), BACKBONE, tmp_path / 'store', weights=weights,
                         preprocessor=PREPROCESSOR, dtype='float32')  # fmt: skip


def test_a_decoder_trains_on_the_store_and_then_takes_video(tmp_path, weights) -> None:
    store = extract(tmp_path, weights)
    stored = DATASETS.build(dict(type='StoredFeatureDataset', folder=tmp_path / 'store', num_frames=7, random=True))
    config = dict(
        type='VideoPerceiver',
        data_preprocessor=dict(type='FeaturePreprocessor'),
        backbone=dict(DECODER, encoder=dict(type='StoredFeatures', **store.layout)),
        heads=dict(classification=HEAD),
    )
    torch.manual_seed(0)
    model = MODELS.build(config)
    batch = [stored[0], stored[1]]
    data = dict(inputs=[item['inputs'] for item in batch], data_samples=[item['data_samples'] for item in batch])
    loss = model(**model.data_preprocessor(data, True), mode='loss')['loss_cls']
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    save_model(model, config, tmp_path / 'decoder.safetensors')
    path = join_encoder(
        tmp_path / 'decoder.safetensors', tmp_path / 'store', tmp_path / 'whole.safetensors', weights=weights
    )
    item = DATASETS.build(DATA)[0]
    answers = []
    for one, inputs in ((model.eval(), stored[0]), (load_model(path), item)):
        data = one.data_preprocessor(dict(inputs=[inputs['inputs']], data_samples=[inputs['data_samples']]))
        answers.append(one(**data, mode='predict')[0].predictions['classification']['logits'])
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-4)
    with pytest.raises(CheckpointError, match='no ViS4mer that was trained on stored features'):
        join_encoder(path, tmp_path / 'store', tmp_path / 'again.safetensors', weights=weights)
    save_model(tiny_model('masks'), tiny_config('masks'), tmp_path / 'same.safetensors')  # the same seed, same backbone
    other = tiny_model()
    torch.nn.init.normal_(next(other.backbone.parameters()))
    save_model(other, tiny_config(), tmp_path / 'other.safetensors')
    with pytest.raises(FeatureStoreError, match='stale'):
        join_encoder(
            tmp_path / 'decoder.safetensors', tmp_path / 'store', tmp_path / 'x.safetensors',
            weights=tmp_path / 'other.safetensors',
        )  # fmt: skip


def test_weights_of_an_encoder_start_the_whole(weights) -> None:
    config = dict(type='VideoPerceiver', backbone=dict(type='ViS4mer', encoder=BACKBONE, l_max=64, d_state=8), heads={})
    model = MODELS.build(config)
    report = load_parts(model, dict(backbone=weights))['backbone']
    assert not report.missing and any('decoder starts afresh' in note for note in report.resized)
    wanted = tiny_model().backbone.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.backbone.encoder.state_dict().items())


def test_command(tmp_path, weights, capsys) -> None:
    (tmp_path / 'recipe.py').write_text(
        f'model = dict(type="VideoPerceiver", data_preprocessor={PREPROCESSOR},\n'
        f'             backbone=dict(type="ViS4mer", encoder={BACKBONE}, l_max=112), heads={{}})\n'
        f'val_dataloader = dict(dataset={DATA})\n'
    )
    arguments = [str(tmp_path / 'recipe.py'), str(tmp_path / 'out'), '--loader', 'val', '--device', 'cpu']
    assert run(main, arguments) == 2
    assert 'no weights for the encoder' in capsys.readouterr().err
    assert run(main, [*arguments, '--weights', str(weights)]) == 0
    assert '3 videos, float16' in capsys.readouterr().out
    assert run(main, [*arguments[:2], '--weights', str(weights)]) == 2
    assert 'no train_dataloader' in capsys.readouterr().err
