"""Objects in a live session: any frame, corrected, retired, beside points; a mistake is one line and costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.inference.tiny import drifting_clip, square_mask, tiny_model
from trecvit_dense.inference import CapacityError, Predictor, Session

CLIP = drifting_clip()
ONE, TWO = square_mask(), square_mask(place=(20, 34), side=12)


@pytest.fixture(scope='module')
def model():
    return tiny_model('masks')


@pytest.fixture
def session(model) -> Session:
    return Session(model, max_objects=3, device='cpu')


def test_ids_are_the_values_of_the_map(session: Session) -> None:
    assert session.add_object(ONE) == 1 and session.add_object(TWO, id=40) == 40
    assert session.object_ids == [1, 40]
    for index, frame in enumerate(CLIP[:4]):
        result = session.step(frame)
        assert result.masks.shape == (40, 56) and result.masks.dtype == np.uint8 and result.frame == index
        assert set(np.unique(result.masks)) <= {0, 1, 40} and result.object_ids == [1, 40]
        assert result.scores.shape == (2,) and (result.scores >= 0).all() and (result.scores <= 1).all()
        assert result.ids.shape == (0,) and result.xy_px.shape == (0, 2)
        soft = np.stack([result.probability(identity) for identity in (1, 40)])
        assert soft.shape == (2, 40, 56) and (soft.sum(0) < 1.001).all()
        np.testing.assert_array_equal((result.masks == 40)[soft[1] > 0.51], True)
        if index == 0:  # the given masks, as well as the cells hold them
            assert ((result.masks == 1) == ONE).mean() > 0.95 and ((result.masks == 40) == TWO).mean() > 0.95
    with pytest.raises(ValueError, match='object 7 is not followed'):
        result.probability(7)


def test_same_schedule_as_the_clip(model, session: Session) -> None:
    masks = {0: ONE.astype(np.uint8) * 5, 3: TWO.astype(np.uint8) * 9, 6: np.roll(ONE, 8, axis=1).astype(np.uint8) * 5}
    whole = Predictor(model, device='cpu').masks(CLIP, masks, chunk=12)
    assert whole.ids == [5, 9] and whole.first_frame == [0, 3]
    for index, frame in enumerate(CLIP):
        if index in masks and index != 6:
            session.add_objects(masks[index])
        elif index == 6:
            session.correct(5, masks[6])
        np.testing.assert_array_equal(session.step(frame).masks, whole.labels[index])


def test_one_call_follows_many(model) -> None:
    """Twenty objects cost one step of the model a frame."""
    session = Session(model, max_objects=20, device='cpu')
    labels = np.kron(np.arange(1, 21, dtype=np.uint8).reshape(4, 5), np.ones((10, 11), np.uint8))
    assert session.add_objects(np.pad(labels, ((0, 0), (0, 1)))) == list(range(1, 21))
    assert len(session.step(CLIP[0]).object_ids) == 20
    with pytest.raises(CapacityError, match='1 objects to add, but 0 of 20 slots are free'):
        session.add_object(ONE)


def test_box_and_point_wait_for_their_frame(session: Session) -> None:
    picture = np.full((40, 56, 3), 30, np.uint8)
    picture[ONE] = (220, 60, 60)
    picture += np.random.default_rng(0).integers(0, 12, picture.shape, dtype=np.uint8)
    session.add_object(box=(8, 8, 28, 28))
    session.add_object(point=(46.5, 35))
    masks = session.step(picture).masks
    assert ((masks == 1) & ONE).sum() / ((masks == 1) | ONE).sum() > 0.6 and masks[35, 46] == 2


def test_retired_id_and_slot_are_free(model, session: Session) -> None:
    session.add_objects(ONE + 2 * TWO.astype(np.uint8))
    session.step(CLIP[0])
    session.remove_object(1)
    assert session.object_ids == [2]
    assert session.add_object(ONE) == 3  # numbers go on
    assert session.add_object(ONE, id=1) == 1  # unless one asks
    result = session.step(CLIP[1])
    assert result.object_ids == [2, 3, 1]
    session.retire_objects([2, 3, 1])
    assert not session.step(CLIP[2]).masks.any()
    for message, call in {
        'object 2 is not followed': lambda: session.retire_objects([2]),
        'object 9 is not followed': lambda: session.correct(9, ONE),
        'wanted a whole number from 1 to 254': lambda: session.add_object(ONE, id=255),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_others_do_not_feel_what_happens_to_one(model, session: Session) -> None:
    alone = Session(model, max_objects=3, device='cpu')
    for each in (session, alone):
        each.add_object(ONE)
    for index, frame in enumerate(CLIP):
        if index == 3:
            session.add_object(TWO)
        if index == 5:
            session.correct(2, np.roll(TWO, 3, 0))
        if index == 8:
            session.remove_object(2)
        one, same = session.step(frame), alone.step(frame)
    np.testing.assert_allclose(one.probability(1), same.probability(1), atol=1e-4)


def test_state_has_one_size_and_what_was_handed_out_stays(session: Session) -> None:
    session.add_object(ONE)
    sizes = {}
    for index in range(30):
        state = session.state
        before = {key: value.clone() for key, value in state.items()}
        if index == 12:
            session.add_object(TWO)
        if index == 14:
            session.remove_object(1)
        session.step(CLIP[index % 12])
        sizes[index] = session.state.nbytes
        for key, value in before.items():
            np.testing.assert_array_equal(state[key].numpy(), value.numpy())
    assert sizes[10] == sizes[29] and len(set(sizes.values())) == 1
    assert all(hasattr(value, 'dtype') for value in session.state.values())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mask=np.ones((20, 20), bool)), '20x20 px, the frame 56x40'),
        (dict(mask=np.zeros((40, 56), bool)), 'the mask is empty'),
        (dict(mask=np.zeros((40, 56, 3), np.uint8)), 'RGB'),
        (dict(box=(60, 5, 70, 9)), 'outside the frame of 56x40'),
        (dict(point=(5, 41)), 'outside the frame'),
        (dict(mask=ONE, id=1), r'already followed; correct\(1'),
        (dict(mask=ONE, box=(1, 1, 5, 5)), 'mask and box given'),
        (dict(), 'nothing given'),
    ],
)
def test_mistakes_change_nothing(session: Session, options: dict, message: str) -> None:
    session.add_object(ONE)
    session.step(CLIP[0])
    session.add_object(TWO)
    for call in (session.add_object, lambda **more: session.correct(1, **more)):
        if 'id' in options and call is not session.add_object:
            continue
        with pytest.raises(ValueError, match=message) as error:
            call(**options)
        assert '\n' not in str(error.value)
        assert session.object_ids == [1, 2] and session.frame == 1
    assert session.step(CLIP[1]).object_ids == [1, 2]


def test_mask_of_wrong_size_before_the_first_frame(session: Session) -> None:
    """It shows when the frame comes; the frame can be given again, and the other object waits."""
    session.add_object(np.ones((20, 20), bool))
    session.add_object(TWO)
    with pytest.raises(ValueError, match='object 1: the mask has 20x20 px, the frame 56x40'):
        session.step(CLIP[0])
    assert session.object_ids == [2] and session.frame == 0
    result = session.step(CLIP[0])
    assert result.object_ids == [2] and result.frame == 0 and (result.masks == 2).any()


def test_points_and_objects_share_a_stream() -> None:
    model = tiny_model('both')
    both, masks, points = (
        Session(model, max_points=points, max_objects=objects, device='cpu')
        for points, objects in ((4, 3), (0, 3), (4, 0))
    )
    for each in (both, masks):
        each.add_object(ONE)
    for each in (both, points):
        each.add_points([[10, 10]])
    for frame in CLIP[:5]:
        result = both.step(frame)
        np.testing.assert_array_equal(result.masks, masks.step(frame).masks)
        alone = points.step(frame)
        np.testing.assert_allclose(result.xy_px, alone.xy_px, atol=1e-3)
        assert alone.masks is None and alone.object_ids is None
    assert not any(key.startswith('heads.masks') for key in points.state)
    with pytest.raises(CapacityError, match='0 of 0 slots'):
        points.add_object(ONE)
    predictor = Predictor(model, device='cpu')
    np.testing.assert_array_equal(predictor.masks(CLIP[:5], ONE).labels[-1], result.masks)
    np.testing.assert_allclose(predictor.points(CLIP[:5], [[0, 10, 10]]).xy_px[:, -1], result.xy_px, atol=1e-3)


def test_a_model_without_the_head_says_so(session: Session) -> None:
    with pytest.raises(ValueError, match='the model does not track points; its heads are: masks'):
        session.add_points([[1, 1]])
    points = Session(tiny_model('volume'), device='cpu')
    for call in (lambda: points.add_object(ONE), lambda: points.add_objects(ONE), lambda: points.correct(1, ONE)):
        with pytest.raises(ValueError, match='the model does not segment objects; its heads are: points'):
            call()
    with pytest.raises(ValueError, match='does not segment objects'):
        Predictor(points.model, device='cpu').stream_masks(CLIP, ONE)
    with pytest.raises(ValueError, match='does not track points'):
        Predictor(session.model, device='cpu').stream_points(CLIP)


def test_reset(session: Session) -> None:
    session.add_object(ONE)
    first = [session.step(frame).masks for frame in CLIP[:3]]
    session.reset()
    assert session.object_ids == [] and session.frame == 0
    assert session.add_object(ONE) == 1
    np.testing.assert_array_equal([session.step(frame).masks for frame in CLIP[:3]], first)


# ------------------------------------------------------------------------------------------------ Predictor


@pytest.fixture(scope='module')
def predictor(model) -> Predictor:
    return Predictor(model, device='cpu')


def test_chunks_change_nothing(predictor: Predictor) -> None:
    asked = dict(masks={0: ONE, 4: TWO.astype(np.uint8) * 2}, boxes=[(30, 4, 44, 16)], points=[(5, 35)], frame=2)
    whole = predictor.masks(CLIP, **asked, chunk=12)
    assert whole.labels.shape == (12, 40, 56) and whole.labels.dtype == np.uint8
    assert whole.ids == [1, 2, 3, 4] and whole.first_frame == [0, 4, 2, 2]
    for identity, first in zip(whole.ids, whole.first_frame, strict=True):
        seen = (whole.labels == identity).any((1, 2))
        assert seen[first] and not seen[:first].any()
    for chunk in (1, 5, None):
        np.testing.assert_array_equal(predictor.masks(CLIP, **asked, chunk=chunk).labels, whole.labels)


@pytest.mark.parametrize('size', [(64, 64), (96, 128), (30, 100)])
def test_masks_have_the_size_of_the_video(predictor: Predictor, size: tuple[int, int]) -> None:
    results = list(predictor.stream_masks(drifting_clip(3, size), square_mask(size, (5, 7), 18)))
    assert [result.masks.shape for result in results] == [size] * 3 and results[1].image.shape == (*size, 3)
    given = square_mask(size, (5, 7), 18)
    assert ((results[0].masks == 1) & given).sum() / ((results[0].masks == 1) | given).sum() > 0.8


def test_equals_the_perceiver(predictor: Predictor) -> None:
    """The path of tools/test.py, which holds the clip, gives the masks of the path that streams."""
    import torch

    from trecvit_dense.structures import ObjectMasks, VideoSample

    labels = np.zeros((12, 40, 56), np.uint8)
    labels[0][ONE], labels[3][TWO] = 3, 8
    video, scale = predictor.model.data_preprocessor.prepare(torch.from_numpy(CLIP).permute(0, 3, 1, 2)[None])
    sample = VideoSample(CLIP, masks=ObjectMasks(labels, [3, 8], [0, 3]))
    expected = predictor.model.predict(video, [sample], scale)[0].predictions['masks']
    found = predictor.masks(CLIP, {0: labels[0], 3: labels[3]})
    assert (found.labels != expected.labels).mean() < 1e-3 and found.ids == expected.ids


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(), 'no object is given'),
        (dict(masks=np.ones((5, 5), bool)), '5x5 px, the frame 56x40'),
        (dict(masks={12: ONE}), 'given on frame 12; the video has frames 0 to 11'),
        (dict(masks={7: ONE}, max_frames=5), 'frames 0 to 4'),
        (dict(boxes=[(1, 2, 3)]), '4 numbers'),
        (dict(points=[(90, 2)]), 'point 90, 2 is outside the frame'),
        (dict(masks='no_such.png'), 'no_such.png'),
        (dict(masks=ONE, max_frames=0), 'max_frames is 0'),
    ],
)
def test_mistakes_come_before_the_first_frame(predictor: Predictor, options: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predictor.stream_masks(CLIP, **options)


def test_stream_that_ends_too_early(predictor: Predictor) -> None:
    from tests.inference.test_predictor import iter_only
    from trecvit_dense.io import FrameSource

    source = FrameSource.open(CLIP)
    source.num_frames = None  # as a camera
    with pytest.raises(ValueError, match='object 1 is given on frame 12; the video ended after 12 frames'):
        list(predictor.stream_masks(iter_only(source), {12: ONE}))
