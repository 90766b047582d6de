"""ViS4mer as a backbone: what it takes and gives, gradients, dropout, parameter groups, errors; its heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper

from trecvit_dense.models import FeaturePreprocessor
from trecvit_dense.models.layers.s4 import ChannelDropout
from trecvit_dense.models.layers.s4_kernel import S4Kernel
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import PromptGroup, VideoSample

use_scope()
ENCODER = dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, image_size=16, patch_size=8, class_token=True)
HEAD = dict(pool='last', rep_size=None, token_dim=2)
# The groups of the authors; docs/vis4mer.md has the same lines.
PARAMWISE = dict(
    custom_keys={
        'kernel.log_dt': dict(decay_mult=0.0),
        'kernel.w': dict(decay_mult=0.0),
        'kernel.B': dict(decay_mult=0.0),
    }
)


def build(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(dict(type='ViS4mer', encoder=ENCODER, l_max=30, d_state=8), **options))


def video(batch: int = 2, frames: int = 4) -> torch.Tensor:
    return torch.rand(batch, frames, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_official_numbers_of_parameters() -> None:
    with torch.device('meta'):
        model = MODELS.build(dict(type='ViS4mer', d_input=1024, l_max=11820))
    used = sum(parameter.numel() for parameter in model.parameters()) + 128 * 10 + 10
    assert used == 2_534_474 and used + 1024 * 1024 + 1024 == 3_584_074  # with the input projection that is not used
    assert [stage.s4.kernel.length for stage in model.stages] == [11820, 5910, 2955]
    assert [stage.s4.kernel.channels for stage in model.stages] == [1024, 512, 256]


def test_what_it_says_of_itself_and_gives() -> None:
    model = build(d_model=24, encoder=dict(ENCODER, stem='conv', stem_channels=(4, 8, 16), stem_levels=(2, 4))).eval()
    assert model.out_channels == (4, 8, 24) and model.strides == ((2, 2), (4, 4), (8, 8))
    assert (model.embed_dim, model.class_token_dim, model.causal, model.delay_frames) == (24, 3, True, 0)
    features, state = model(video())
    assert [level.tokens.shape for level in features.levels] == [(2, 4, 64, 4), (2, 4, 16, 8), (2, 4, 4, 24)]
    assert features.levels[-1].grid == (2, 2) and features.class_token.shape == (2, 4, 3)
    spread = features.levels[-1].tokens.var(-1, unbiased=False)
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=1e-2, rtol=0)
    assert state['tokens'].tolist() == [20, 20] and 'encoder.blocks.0.patch.rg_lru' in state
    dense = build(readout=False).eval()
    assert dense.class_token_dim == 16 and len(dense.stages) == 1
    assert dense(video())[0].class_token.shape == (2, 4, 16)
    assert build(readout=False, tokens='patches').class_token_dim is None
    assert (
        build(encoder=dict(type='XViT', embed_dim=16, depth=1, num_heads=2, image_size=16, patch_size=8)).causal
        is False
    )


def test_tokens_are_those_of_the_encoder_in_order() -> None:
    model = build().eval()
    features, _ = model.encoder(video())
    tokens = torch.cat([features.class_token[:, :, None], features.levels[-1].tokens], dim=2)  # (B, T, 5, C)
    stored = build(encoder=None, d_input=16).eval()
    stored.load_state_dict({name: value for name, value in model.state_dict().items() if 'encoder.' not in name})
    torch.testing.assert_close(stored(tokens)[0].class_token, model(video())[0].class_token)
    named = dict(type='StoredFeatures', embed_dim=16, grid=(2, 2), stride=8, class_token=True)
    twin = build(encoder=named).eval()
    twin.load_state_dict(stored.state_dict())
    torch.testing.assert_close(twin(tokens)[0].levels[-1].tokens, model(video())[0].levels[-1].tokens)


def test_readout_is_the_mean_of_the_last_tokens_so_far() -> None:
    model = build().eval()
    with torch.no_grad():
        features, _ = model(video())
        for frames in (1, 2, 4):
            part, _ = model(video()[:, :frames])
            torch.testing.assert_close(part.class_token[:, -1], features.class_token[:, frames - 1])
    assert not features.class_token[:, 0].any()  # 5 tokens: the first of 8 is not whole
    assert features.class_token[:, 1].any()


@pytest.mark.parametrize('freeze', [True, False])
def test_gradient_reaches_every_parameter(freeze: bool) -> None:
    model = build(d_model=24, freeze_encoder=freeze, dropout=0.0).train()
    assert model.encoder.training is not freeze
    features, _ = model(video())
    (features.class_token.square().sum() + features.levels[-1].tokens.sin().sum()).backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith('encoder.') for name in trained) is not freeze
    assert not [
        name for name, p in model.named_parameters() if name in trained and (p.grad is None or not p.grad.any())
    ]


def test_dropout_takes_whole_channels_of_a_clip() -> None:
    torch.manual_seed(0)
    x = ChannelDropout(0.5).train()(torch.ones(4, 7, 50))
    assert ((x == 0).all(1) | (x == 2).all(1)).all() and 60 < (x[:, 0] == 0).sum() < 140
    values = ChannelDropout(0.5, whole=False).train()(torch.ones(4, 7, 50))
    assert not ((values == 0).all(1) | (values == 2).all(1)).all()
    assert (ChannelDropout(0.5).eval()(torch.ones(4, 7, 50)) == 1).all()
    model = build(dropout=0.5)
    assert not torch.equal(model.train()(video())[0].class_token, model(video())[0].class_token)
    assert torch.equal(model.eval()(video())[0].class_token, model(video())[0].class_token)


def test_parameter_groups_of_the_authors() -> None:
    model = build(encoder=None, d_input=16)
    optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.01)
    wrapper = build_optim_wrapper(model, dict(optimizer=optimizer, paramwise_cfg=PARAMWISE))
    decay = {id(p): group['weight_decay'] for group in wrapper.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        free = name.rpartition('.')[2] in S4Kernel.undecayed
        assert decay[id(parameter)] == (0.0 if free else 0.01), name
    assert all(group['lr'] == 1e-3 for group in wrapper.param_groups)


def test_runs_under_autocast() -> None:
    model = build(dropout=0.0).eval()
    with torch.no_grad():
        wanted = model(video())[0].class_token
        with torch.autocast('cpu', torch.bfloat16):
            features, state = model(video())
    assert state['stages.0.s4'].dtype == torch.float32
    assert (features.class_token - wanted).abs().max() < 0.1 * wanted.abs().max()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(encoder=None), 'neither encoder nor d_input'),
        (dict(d_input=8), 'the encoder gives 16 channels'),
        (dict(l_max=3), 'a token in the last'),
        (dict(n_layers=0), 'n_layers 0'),
        (dict(d_model=4), 'too small to halve it 3 times'),
        (dict(tokens='cls'), "'all'"),
        (dict(dropout=1.0), 'dropout is 1.0'),
        (dict(d_state=7), 'd_state is 7'),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_wrong_calls_are_named() -> None:
    model = build()
    _, state = model.eval()(video())
    with pytest.raises(ValueError, match='takes no prompt tokens'):
        model(video(), [PromptGroup('a', torch.zeros(2, 4, 1, 16))])
    with pytest.raises(ValueError, match='the batch has 1 videos'):
        model(video(1), state={} or type(state)(tokens=state['tokens']))
    stored = build(encoder=None, d_input=16).eval()
    with pytest.raises(ValueError, match='for video set encoder'):
        stored(video())
    with pytest.raises(ValueError, match='no grid of 2x2'):
        build(encoder=dict(type='StoredFeatures', embed_dim=16, grid=(2, 2)))(torch.zeros(1, 2, 5, 16))
    with pytest.raises(ValueError, match='state .s4. has shape'):
        build(d_state=16).eval()(video(), state=state)


def perceiver(head: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    backbone = dict(type='ViS4mer', d_input=16, l_max=64, d_state=8, dropout=0.0)
    return MODELS.build(
        dict(
            type='VideoPerceiver',
            data_preprocessor=dict(type='FeaturePreprocessor'),
            backbone=backbone,
            heads={head.pop('task', 'classification'): head},
        )
    )


def test_classification_and_regression_of_stored_features() -> None:
    tokens = torch.randn(2, 12, 4, 16)
    pixels = np.zeros((12, 0, 0, 3), np.uint8)
    samples = [VideoSample(pixels, label=index, meta=dict(target=0.5), name=str(index)) for index in range(2)]
    model = perceiver(dict(type='ClassificationHead', num_classes=3, **HEAD))
    model(tokens, samples, mode='loss')['loss_cls'].backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    model.eval()
    whole = model.step(tokens, model.start(2))[0]['classification'].logits
    torch.testing.assert_close(
        whole, model.heads['classification'].classifier(model.backbone(tokens)[0].class_token[:, -1])
    )
    state = model.start(2)
    for part in tokens.split([5, 1, 6], dim=1):
        outputs, state = model.step(part, state)
    torch.testing.assert_close(outputs['classification'].logits, whole, atol=1e-5, rtol=1e-4)
    predicted = model.predict(tokens, samples, (1.0, 1.0))[1].predictions['classification']['logits']
    torch.testing.assert_close(predicted, whole[1], atol=1e-5, rtol=1e-4)
    number = perceiver(dict(type='RegressionHead', task='regression', **HEAD))
    loss = number(tokens, samples, mode='loss')['loss_mse']
    value = number.step(tokens, number.start(2))[0]['regression'].logits[:, 0]
    torch.testing.assert_close(loss, (value - 0.5).square().mean())


def test_heads_that_do_not_fit_are_refused_when_built() -> None:
    with pytest.raises(ValueError, match='ClassificationHead.*class token of width 16.*ViS4mer'):
        perceiver(dict(type='ClassificationHead', num_classes=3, pool='tok'))


def test_feature_preprocessor() -> None:
    preprocessor = FeaturePreprocessor()
    features = [torch.ones(3, 4, 5, dtype=torch.float16)] * 2
    data = preprocessor(dict(inputs=features, data_samples=['a', 'b']))
    assert data['inputs'].shape == (2, 3, 4, 5) and data['inputs'].dtype == torch.float32
    assert data['data_samples'] == ['a', 'b'] and data['scale'] == (1.0, 1.0)
    with pytest.raises(ValueError, match='differ in shape'):
        preprocessor(dict(inputs=[torch.ones(3, 4, 5), torch.ones(2, 4, 5)]))
    with pytest.raises(ValueError, match='wanted features'):
        preprocessor(dict(inputs=[torch.zeros(3, 3, 8, 8, dtype=torch.uint8)]))
