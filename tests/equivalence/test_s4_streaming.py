"""S4 as convolution, as recurrence and in blocks; ViS4mer frame by frame, in chunks and as a clip; constant state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trecvit_dense.models.layers.s4 import S4Layer, causal_convolution, fft_length
from trecvit_dense.models.layers.s4_kernel import S4Kernel
from trecvit_dense.models.layers.s4_recurrence import BLOCKS
from trecvit_dense.registry import MODELS
from trecvit_dense.structures import RecurrentState

TOLERANCE = 1e-4  # of the largest value


def assert_same(found: Tensor, wanted: Tensor, tol: float = TOLERANCE) -> None:
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    assert (found - wanted).abs().max() <= tol * wanted.abs().max().clamp(min=1e-6)


def make_layer(length: int, channels: int = 3, *, seed: int = 0, d_state: int = 16, **options: object) -> S4Layer:
    """A layer whose p, q, b and w are moved off their initial values, per channel."""
    torch.manual_seed(seed)
    layer = S4Layer(channels, length, d_state=d_state, **options).eval()
    with torch.no_grad():
        for parameter in layer.kernel.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return layer


# --------------------------------------------------------------------------------------------------------- kernel


def slow_taps(kernel: S4Kernel, length: int) -> Tensor:
    """``C^* dA^t dB`` with dense matrices in float64 and a matrix inverse: an independent way."""
    dt = kernel.log_dt.double().exp()
    w, b, p, c, q = (
        torch.view_as_complex(x.double().contiguous())
        for x in (kernel.w, kernel.B[:, 0], kernel.B[:, 1], kernel.C[:, 0], kernel.C[:, 1])
    )
    w, b, p, c, q = (torch.cat([x, x.conj()], -1) for x in (w.expand_as(b), b, p, c, q))
    matrix = torch.diag_embed(w) - p[:, :, None] * q.conj()[:, None]
    one, half = torch.eye(w.shape[1], dtype=w.dtype), dt[:, None, None] / 2
    inverse = torch.linalg.inv(one - half * matrix)
    step, drive = inverse @ (one + half * matrix), (inverse @ (dt[:, None] * b)[..., None])[..., 0]
    whole = torch.linalg.matrix_power(step, kernel.length)
    readout = torch.linalg.solve((one - whole).mH, c)
    taps = []
    for _ in range(length):
        taps.append((readout.conj() * drive).sum(-1).real)
        drive = (step @ drive[..., None])[..., 0]
    return torch.stack(taps, dim=1)


@pytest.mark.parametrize('length', [1, 2, 3, 16, 21, 100])
@torch.no_grad()
def test_kernel_is_the_recurrence_of_dense_matrices(length: int) -> None:
    kernel = make_layer(length).kernel
    assert_same(kernel().double(), slow_taps(kernel, length), 1e-4)
    assert_same(kernel(2 * length + 1).double(), slow_taps(kernel, 2 * length + 1), 1e-4)  # longer: the same model
    assert_same(kernel.double()(), slow_taps(kernel, length), 1e-11)


@torch.no_grad()
def test_the_authors_odd_kernel_is_off_and_short() -> None:
    exact, official = (make_layer(21, official_odd_length=flag).kernel for flag in (False, True))
    assert exact.exact and not official.exact and not official()[:, -1].any()
    off = (official() - exact()).square().mean().sqrt() / exact().square().mean().sqrt()
    assert 1e-3 < off < 0.5
    even = make_layer(20, official_odd_length=True).kernel
    assert even.exact and torch.equal(even(), make_layer(20).kernel())


@torch.no_grad()
def test_the_authors_nodes_are_close_for_short_kernels() -> None:
    exact, official = (make_layer(64, official_nodes=flag).kernel() for flag in (False, True))
    assert_same(official, exact, 2e-4)
    assert not torch.equal(official, exact)


@torch.no_grad()
def test_length_correction_makes_c_what_reads_the_state() -> None:
    torch.manual_seed(3)
    plain = S4Kernel(2, 32, d_state=8)
    torch.manual_seed(3)
    corrected = S4Kernel(2, 32, d_state=8, length_correction=True)
    readout = corrected.recurrence().readout.unflatten(-1, (-1, 2)) / 2
    assert_same(readout, plain.C[:, 0])
    assert torch.equal(corrected.C[:, 1], plain.C[:, 1]) and not torch.equal(corrected.C[:, 0], plain.C[:, 0])


def test_gradients_of_the_kernel_are_those_of_dense_matrices() -> None:
    kernel = make_layer(14, 2, d_state=4).double().kernel
    weights = torch.randn(2, 14, dtype=torch.float64)
    wanted = torch.autograd.grad((slow_taps(kernel, 14) * weights).sum(), list(kernel.parameters()))
    found = torch.autograd.grad((kernel() * weights).sum(), list(kernel.parameters()))
    for (name, _), a, b in zip(kernel.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=name)


def test_many_channel_chunks_give_the_same(monkeypatch) -> None:
    layer, u = make_layer(24, 5), torch.randn(2, 24, 5)
    whole = {}
    for chunk in (1 << 20, 1):
        monkeypatch.setattr('trecvit_dense.models.layers.s4_kernel._CHUNK', chunk)
        monkeypatch.setattr('trecvit_dense.models.layers.s4._CHUNK', chunk)
        layer.zero_grad()
        y = layer(u)[0]
        y.square().sum().backward()
        whole[chunk] = [y.detach(), *(parameter.grad.clone() for parameter in layer.parameters())]
    for a, b in zip(*whole.values(), strict=True):
        assert_same(a, b, 1e-5)


# ---------------------------------------------------------------------------------------------------- convolution


@pytest.mark.parametrize(('least', 'wanted'), [(1, 2), (7, 8), (23, 24), (23639, 24000), (2 * 64 - 1, 128)])
def test_fft_length(least: int, wanted: int) -> None:
    assert fft_length(least) == wanted


@pytest.mark.parametrize('length', [1, 5, 12])
def test_convolution_and_its_gradients(length: int) -> None:
    kernel = make_layer(12).double().kernel
    u = torch.randn(2, 3, length, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, length, dtype=torch.float64)
    lag = torch.arange(length)[:, None] - torch.arange(length)
    toeplitz = kernel(length)[:, lag.clamp(min=0)] * (lag >= 0)
    wanted = torch.einsum('hts,bhs->bht', toeplitz, u)
    found = causal_convolution(u, kernel)
    torch.testing.assert_close(found, wanted)
    inputs = [u, *kernel.parameters()]
    gradients = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, wanted)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(causal_convolution(u, kernel), wanted.detach())


# ------------------------------------------------------------------------------------------------------ recurrence


CUTS = {'tokens': [1] * 30, 'blocks': [BLOCKS[0], BLOCKS[0] + BLOCKS[1] + 3, 1], 'late': [5, 2 * BLOCKS[0]]}


@pytest.mark.parametrize('cut', CUTS)
@pytest.mark.parametrize('length', [40, 41], ids=['even', 'odd'])
@torch.no_grad()
def test_chunks_equal_the_convolution(cut: str, length: int) -> None:
    layer = make_layer(length)
    u = torch.randn(2, sum(CUTS[cut]), 3, generator=torch.Generator().manual_seed(1))
    whole, final = layer(u)
    state, outputs = None, []
    for part in u.split(CUTS[cut], dim=1):
        y, state = layer(part, state)
        assert state['s4'].shape == (2, 3, 8, 2) and state['s4'].dtype == torch.float32
        outputs.append(y)
    assert_same(torch.cat(outputs, 1), whole)
    assert_same(state['s4'], final['s4'])


def test_going_on_in_training_makes_the_state_late_and_has_its_gradients() -> None:
    u = torch.randn(2, 20, 3)
    gradients = {}
    for kind, cuts in dict(whole=[20], parts=[12, 5, 3]).items():
        layer, state, outputs = make_layer(20).train(), None, []
        for part in u.split(cuts, dim=1):
            y, state = layer(part, state)
            assert set(state) == ({'s4'} if outputs else {'s4_inputs'})
            outputs.append(y)
        torch.cat(outputs, 1).square().sum().backward()
        gradients[kind] = [parameter.grad for parameter in layer.parameters()]
    for a, b in zip(gradients['parts'], gradients['whole'], strict=True):
        assert_same(a, b, 1e-3)


def test_the_authors_odd_kernel_does_not_stream() -> None:
    layer = make_layer(21, official_odd_length=True)
    _, state = layer(torch.randn(1, 21, 3))
    with pytest.raises(ValueError, match='official_odd_length'):
        layer(torch.randn(1, 1, 3), state)


# ---------------------------------------------------------------------------------------------------------- cache


@torch.no_grad()
def test_what_is_kept_in_eval_follows_the_parameters() -> None:
    layer, u = make_layer(16), torch.randn(1, 16, 3)
    kernel, first = layer.kernel, layer(u)[0]
    assert kernel() is kernel() or kernel().data_ptr() == kernel().data_ptr()
    assert kernel.recurrence() is kernel.recurrence()
    kernel.C.mul_(2)
    assert not torch.allclose(layer(u)[0], first)
    kernel.C.data.mul_(0.5)  # not seen by the version, but every evaluation begins with eval()
    assert torch.allclose(layer.eval()(u)[0], first, atol=1e-5)
    fresh = make_layer(16, cache=False)
    assert fresh.kernel.recurrence() is not fresh.kernel.recurrence()
    assert torch.allclose(fresh(u)[0], first, atol=1e-5)
    other = make_layer(16, seed=5)
    other(u)
    other.load_state_dict(layer.state_dict())
    assert torch.allclose(other(u)[0], first, atol=1e-5)


def test_nothing_is_kept_with_gradients() -> None:
    layer = make_layer(16)
    for _ in range(2):
        layer(torch.randn(1, 16, 3))[0].sum().backward()
    assert layer.kernel.C.grad.abs().sum() > 0


# --------------------------------------------------------------------------------------------------------- ViS4mer


ENCODER = dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, image_size=16, patch_size=8)
MODEL_CUTS = {'frames': [1] * 7, 'uneven': [2, 1, 4], 'late': [6, 1]}


def make_model(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {'encoder': dict(ENCODER, class_token=True), 'l_max': 35, **options}
    return MODELS.build(dict(type='ViS4mer', d_model=16, d_state=8, **options)).eval()


def stream(model: torch.nn.Module, video: Tensor, cuts: list[int]) -> tuple[dict[str, Tensor], RecurrentState]:
    state, parts = None, []
    for chunk in video.split(cuts, dim=1):
        features, state = model(chunk, state=state)
        parts.append(features)
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.then(part)
    found = {f'level{index}': level.tokens for index, level in enumerate(whole.levels)}
    return found | ({} if whole.class_token is None else {'class_token': whole.class_token}), state


@pytest.mark.parametrize('cut', MODEL_CUTS)
@pytest.mark.parametrize(
    'options',
    [
        dict(),  # 5 tokens a frame: pairs reach over frames
        dict(tokens='patches', l_max=13),  # more tokens than the kernel was made for
        dict(readout=False),
        dict(encoder=dict(ENCODER, stem='conv', stem_levels=(2, 4)), n_layers=2, freeze_encoder=False),
    ],
    ids=['class_token', 'long', 'dense', 'levels'],
)
@torch.no_grad()
def test_step_equals_clip_equals_chunks(cut: str, options: dict) -> None:
    model = make_model(**options)
    video = torch.rand(2, 7, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    whole, final = stream(model, video, [7])
    found, state = stream(model, video, MODEL_CUTS[cut])
    assert found.keys() == whole.keys() and state.keys() == final.keys()
    for name, tensor in whole.items():
        assert_same(found[name], tensor)
    for name, tensor in final.items():
        assert_same(state[name], tensor)


@torch.no_grad()
def test_state_has_one_size_from_the_first_frame_on() -> None:
    model = make_model(encoder=None, d_input=16)
    state, sizes = None, []
    for _ in range(9):
        _, state = model(torch.randn(1, 1, 1, 16), state=state)  # one token a frame: later stages wait for pairs
        sizes.append({name: (value.shape, value.dtype) for name, value in state.items()})
    assert all(size == sizes[0] for size in sizes)


def test_state_of_the_official_size_is_450_kib() -> None:
    with torch.device('meta'):
        model = MODELS.build(dict(type='ViS4mer', d_input=1024, l_max=64)).eval()
        _, state = model(torch.zeros(1, 1, 3, 1024))
    recurrences = RecurrentState({name: value for name, value in state.items() if name.endswith('.s4')})
    assert [value.shape[1] for value in recurrences.values()] == [1024, 512, 256]
    assert recurrences.nbytes == 458_752
    assert state.nbytes - recurrences.nbytes < 10_000  # half pairs, readout, count


@torch.no_grad()
def test_frames_of_the_future_change_nothing() -> None:
    model = make_model()
    video = torch.rand(1, 6, 3, 16, 16)
    other = video.clone()
    other[:, 4:] = torch.rand(1, 2, 3, 16, 16)
    first, second = (stream(model, clip, [6])[0] for clip in (video, other))
    for name, tensor in first.items():
        assert_same(second[name][:, :4], tensor[:, :4], 1e-5)
        assert not torch.allclose(second[name][:, 4:], tensor[:, 4:])
