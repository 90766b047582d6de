"""A step between buffers of fixed address: the same stream, the caller's state, and a way out where nothing can run."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.inference.tiny import drifting_clip, square_mask, tiny_model
from trecvit_dense.inference import Session, StaticStep
from trecvit_dense.inference.runtime import to_model
from trecvit_dense.inference.static_step import list_tensors, map_tensors
from trecvit_dense.models.heads.point_slots import add_points, retire_points
from trecvit_dense.structures import RecurrentState


def stream(model: nn.Module, step, frames: int = 8) -> tuple[list, RecurrentState]:
    """Points are known, come and go between frames; the outputs of every frame, and the last state."""
    video = to_model(model, drifting_clip(frames))[0]
    query = torch.tensor([[[0.0, 20.0, 20.0], [2.0, 40.0, 30.0]]])
    state, found = model.start(1, points=dict(query_txy=query, capacity=4)), []
    for index in range(frames):
        points = state.scope('heads.points')
        if index == 4:
            add_points(points, torch.tensor([[10.0, 50.0]]))
        if index == 6:
            retire_points(points, torch.tensor([0]))
        outputs, state = step(video[:, index : index + 1], RecurrentState(state).put('heads.points', points))
        found.append(outputs['points'])
    return found, state


@pytest.mark.parametrize('head', ['volume', 'tokens'])
@torch.no_grad()
def test_the_same_stream_between_buffers(head: str) -> None:
    model = tiny_model(head)
    wanted, last = stream(model, model.step)
    static = StaticStep(model, 'eager')
    found, state = stream(model, static)
    assert static.engine == 'eager'
    for one, other in zip(found, wanted, strict=True):  # outputs of early frames are still what they were
        assert torch.equal(one.xy_px, other.xy_px)
        assert torch.equal(one.visible_logits, other.visible_logits)
    assert state.keys() == last.keys()
    assert all(torch.equal(state[key], last[key]) for key in last)


@torch.no_grad()
def test_buffers_stay_where_they_are_and_hold_one_size() -> None:
    model = tiny_model('tokens')
    static, places = StaticStep(model, 'eager'), []
    video = to_model(model, drifting_clip(12))[0]
    state = model.start(1, points=dict(query_txy=torch.tensor([[[0.0, 20.0, 20.0]]])))
    for frame in video.split(1, dim=1):
        _, state = static(frame, state)
        places.append(({key: value.data_ptr() for key, value in state.items()}, state.nbytes))
    assert all(place == places[2] for place in places[2:])
    before = RecurrentState(state).clone()
    static(video[:, :1], state)
    assert any(not torch.equal(state[key], before[key]) for key in before), 'the state is the buffers'
    # an older state can be gone back to
    again, _ = static(video[:, :1], before)
    expected, _ = model.step(video[:, :1], before)
    assert torch.equal(again['points'].xy_px, expected['points'].xy_px)


@torch.no_grad()
def test_it_is_recorded_anew_for_another_shape() -> None:
    model = tiny_model('tokens', input_size=None)
    static = StaticStep(model, 'eager')
    for height in (32, 48, 32):
        state = model.start(1, points=dict(query_txy=torch.tensor([[[0.0, 5.0, 5.0]]])))
        plain = state
        for _ in range(4):
            video = torch.rand(1, 1, 3, height, 40)
            found, state = static(video, state)
            wanted, plain = model.step(video, plain)
            assert torch.equal(found['points'].xy_px, wanted['points'].xy_px)
        assert static._video.shape[-2] == height


@torch.no_grad()
def test_the_session_is_the_same_with_a_recorded_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from trecvit_dense.inference import session as module

    monkeypatch.setattr(module, 'StaticStep', lambda model: StaticStep(model, 'eager'))
    frames, results, states = drifting_clip(7), {}, {}
    for compiled in (False, True):
        live = Session(tiny_model('all'), max_points=3, max_objects=2, depth=True, device='cpu', compile=compiled)
        live.add_points([[5.0, 5.0], [30.0, 20.0]])
        live.add_object(square_mask())
        results[compiled], states[compiled] = [], []
        for index, frame in enumerate(frames):
            if index == 4:
                live.retire(0)
                live.add_points([[9.0, 9.0]])
            results[compiled].append(live.step(frame))
            states[compiled].append(live.state)
    for one, other in zip(results[True], results[False], strict=True):
        np.testing.assert_array_equal(one.xy_px, other.xy_px)
        np.testing.assert_array_equal(one.masks, other.masks)
        np.testing.assert_array_equal(one.depth, other.depth)
    for one, other in zip(states[True], states[False], strict=True):  # what was handed out stays
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_without_cuda_it_says_so_and_runs() -> None:
    model = tiny_model('tokens')
    with pytest.warns(UserWarning, match='not recorded, it runs as it is: a CUDA graph needs a model on a GPU'):
        static = StaticStep(model, 'graph')
    assert static.engine is None
    with torch.no_grad():
        found, _ = stream(model, static, 7)
        wanted, _ = stream(model, model.step, 7)
    assert torch.equal(found[-1].xy_px, wanted[-1].xy_px)
    with pytest.raises(ValueError, match="engine is 'gpu'; wanted one of auto, graph, compile, eager"):
        StaticStep(model, 'gpu')


def test_what_cannot_be_recorded_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError('InvalidCxxCompiler: no compiler\nlong story')

    monkeypatch.setattr(torch, 'compile', refuse)
    model = tiny_model('tokens')
    static = StaticStep(model)
    assert static.engine == 'compile'
    with torch.no_grad(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        found, _ = stream(model, static, 7)
        wanted, _ = stream(model, model.step, 7)
    assert [str(warning.message) for warning in said] == [
        'the step is not recorded, it runs as it is: InvalidCxxCompiler: no compiler'
    ]
    assert torch.equal(found[-1].xy_px, wanted[-1].xy_px)


def test_the_wiring_of_the_compiled_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors into and out of the compiled function are in the right places; the compiler itself is not run."""
    calls = []

    def compile(function, dynamic: bool):
        assert dynamic is False

        def run(*tensors: Tensor) -> object:
            calls.append(len(tensors))
            return function(*tensors)

        return run

    monkeypatch.setattr(torch, 'compile', compile)
    model = tiny_model('volume')
    with torch.no_grad():
        found, state = stream(model, StaticStep(model, 'compile'))
        wanted, last = stream(model, model.step)
    assert len(calls) == 7, 'one when it is recorded, on the second frame, and one for every later frame'
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.xy_px, other.xy_px)
        assert one.extras['limits'] == other.extras['limits']
    assert all(torch.equal(state[key], last[key]) for key in last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@torch.no_grad()
def test_a_cuda_graph_gives_the_same_stream() -> None:
    model = tiny_model('tokens').cuda()
    static, frames = StaticStep(model), torch.rand(8, 1, 1, 3, 64, 64, device='cuda')
    query = torch.tensor([[[0.0, 20.0, 20.0]]], device='cuda')
    state = plain = model.start(1, 'cuda', points=dict(query_txy=query))
    for frame in frames:
        found, state = static(frame, state)
        wanted, plain = model.step(frame, plain)
        torch.testing.assert_close(found['points'].xy_px, wanted['points'].xy_px, rtol=1e-4, atol=1e-2)
    assert static.engine == 'graph'


def test_tensors_anywhere_in_an_output_are_found_in_one_order() -> None:
    value = dict(a=torch.tensor(1.0), b=[torch.tensor(2.0), (3, torch.tensor(4.0))], c='text', d=None)
    assert [float(tensor) for tensor in list_tensors(value)] == [1.0, 2.0, 4.0]
    doubled = map_tensors(value, lambda x: 2 * x)
    assert [float(tensor) for tensor in list_tensors(doubled)] == [2.0, 4.0, 8.0]
    assert doubled['b'][1][0] == 3
    assert doubled['c'] == 'text'
