"""Session: live points equal the same schedule on the whole clip, and the state never grows."""

from __future__ import annotations

import numpy as np
import pytest

from tests.inference.tiny import HEADS, drifting_clip, tiny_model
from trecvit_dense.inference import CapacityError, Predictor, Session


@pytest.fixture(scope='module', params=list(HEADS))
def model(request: pytest.FixtureRequest):
    return tiny_model(request.param)


@pytest.fixture
def session(model) -> Session:
    return Session(model, max_points=4, device='cpu')


CLIP = drifting_clip()


def test_same_schedule_as_the_clip(model, session: Session) -> None:
    query = np.array([[0, 10, 10], [0, 30, 20], [3, 20.5, 30], [7, 5, 39]], np.float32)
    whole = Predictor(model, device='cpu').points(CLIP, query, live=True, chunk=12)
    for index, frame in enumerate(CLIP):
        session.add_points(query[query[:, 0] == index, 1:])
        result = session.step(frame)
        assert result.frame == index and result.ids.tolist() == np.flatnonzero(query[:, 0] <= index).tolist()
        np.testing.assert_allclose(result.xy_px, whole.xy_px[result.ids, index], atol=1e-3)
        np.testing.assert_array_equal(result.visible, whole.visible[result.ids, index])


def test_others_do_not_feel_adding_and_retiring(model, session: Session) -> None:
    alone = Session(model, max_points=4, device='cpu')
    for each in (session, alone):
        each.add_points([[10, 10]])
    other = None
    for index, frame in enumerate(CLIP):
        if index == 2:
            other = session.add_points([[30, 30], [20, 20]])
        if index == 5:
            session.retire(other)
        if index == 8:
            session.add_points([[40, 10]])
        one, same = session.step(frame), alone.step(frame)
        np.testing.assert_allclose(one.xy_px[0], same.xy_px[0], atol=1e-3)


def test_reused_slot_is_fresh(model, session: Session) -> None:
    """A point in a slot that another one left moves as in a session that never had the other one."""
    fresh = Session(model, max_points=4, device='cpu')
    old = session.add_points([[5, 5], [50, 20], [20, 20], [30, 35]])
    for index, frame in enumerate(CLIP):
        if index == 4:
            session.retire(old)
            for each in (session, fresh):
                each.add_points([[33, 12]])
        reused, expected = session.step(frame), fresh.step(frame)
        if index >= 4:
            np.testing.assert_allclose(reused.xy_px, expected.xy_px, atol=1e-3)
    assert reused.ids.tolist() == [4] and expected.ids.tolist() == [0]


def test_state_has_one_size(session: Session) -> None:
    session.add_points([[10, 10]])
    sizes = set()
    for index in range(30):
        if index == 5:
            session.add_points([[20, 20]])
        session.step(CLIP[index % 12])
        sizes.add(session.state.nbytes)
    assert len(sizes) == 1
    assert all(hasattr(value, 'dtype') for value in session.state.values())


def test_state_that_was_handed_out_stays(session: Session) -> None:
    session.add_points([[10, 10]])
    session.step(CLIP[0])
    state = session.state
    before = {key: value.clone() for key, value in state.items()}
    session.add_points([[20, 20]])
    session.retire(0)
    session.step(CLIP[1])
    for key, value in before.items():
        np.testing.assert_array_equal(state[key].numpy(), value.numpy())


def test_capacity(session: Session) -> None:
    ids = session.add_points([[1, 1], [2, 2], [3, 3]])
    with pytest.raises(CapacityError, match='2 points to add, but 1 of 4 slots are free'):
        session.add_points([[4, 4], [5, 5]])
    session.step(CLIP[0])
    session.retire(ids[0])
    assert session.add_points([[4, 4], [5, 5]]) == [3, 4]
    with pytest.raises(CapacityError):
        session.add_points([[6, 6]])
    assert session.step(CLIP[1]).ids.tolist() == [1, 2, 3, 4]


def test_no_points_is_fine(session: Session) -> None:
    result = session.step(CLIP[0])
    assert result.xy_px.shape == (0, 2) and result.visible.shape == (0,) and result.ids.shape == (0,)
    session.retire(session.add_points([[5, 5]]))
    assert not len(session.step(CLIP[1]).ids)


def test_mistakes(session: Session) -> None:
    with pytest.raises(ValueError, match='wanted a uint8 array'):
        session.step(CLIP[0].astype(np.float32))
    with pytest.raises(ValueError, match='smaller than one patch'):
        session.step(np.zeros((1, 1, 3), np.uint8))
    session.add_points([[5, 5], [500, 5]])
    with pytest.raises(ValueError, match='point 1 at x=500'):
        session.step(CLIP[0])
    assert session.ids == []
    session.step(CLIP[0])
    for points, message in (([[57, 5]], 'outside'), ([[np.nan, 5]], 'outside'), ([5, 5], r'wanted \(N, 2\)')):
        with pytest.raises(ValueError, match=message):
            session.add_points(points)
    with pytest.raises(ValueError, match='point 7 is not followed'):
        session.retire([7])
    with pytest.raises(ValueError, match='frame 1 has 20x20 px, the stream 56x40'):
        session.step(np.zeros((20, 20, 3), np.uint8))


def test_reset(session: Session) -> None:
    session.add_points([[5, 5]])
    first = [session.step(frame).xy_px for frame in CLIP[:3]]
    session.reset()
    assert session.ids == [] and session.frame == 0
    session.step(np.zeros((64, 64, 3), np.uint8))
    session.reset()
    assert session.add_points([[5, 5]]) == [1]
    np.testing.assert_array_equal([session.step(frame).xy_px for frame in CLIP[:3]], first)
