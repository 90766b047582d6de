"""Points, masks and depth from one pass and one state: each head answers as if it were alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.equivalence.several import (
    DEPTH,
    FRAMES,
    MASK_SCHEDULE,
    MASKS,
    POINT_SCHEDULE,
    POINTS,
    SIZE,
    assert_same,
    build,
    clip,
    start,
    stream,
)
from trecvit_dense.structures import DepthMap, ObjectMasks, PointTracks, VideoSample

SMALL = (16, 24)  # pixels, where a thousand frames are run
EVENTS = dict(points=POINT_SCHEDULE, masks=MASK_SCHEDULE)


def heads(points: str = 'volume') -> dict[str, dict]:
    return dict(points=POINTS[points], masks=MASKS, depth=DEPTH['parallax'])


@pytest.fixture(scope='module', params=list(POINTS))
def model(request) -> nn.Module:
    return build(heads(request.param))


def single(model: nn.Module, task: str, points: str) -> nn.Module:
    """A model with one head and the weights that ``model`` has."""
    alone = build({task: heads(points)[task]})
    alone.backbone.load_state_dict(model.backbone.state_dict())
    alone.heads[task].load_state_dict(model.heads[task].state_dict())
    return alone


@pytest.mark.parametrize('sizes', [[FRAMES], [1, 4, 2, 3, 1], [5, 6]])
def test_step_is_chunk_is_clip(model, sizes) -> None:
    wanted, wanted_state = stream(model, [1] * FRAMES)
    found, state = stream(model, sizes)
    for task in model.heads:
        assert_same(found[task], wanted[task])
    assert_same(state, wanted_state)


def test_same_schedule_in_steps_and_chunks(model) -> None:
    wanted, wanted_state = stream(model, [1] * FRAMES, **EVENTS)
    found, state = stream(model, [3, 2, 3, 3], **EVENTS)
    for task in model.heads:
        assert_same(found[task], wanted[task])
    assert_same(state, wanted_state)


@pytest.mark.parametrize('points', list(POINTS))
@pytest.mark.parametrize('task', ['points', 'masks', 'depth'])
def test_together_is_alone(points: str, task: str) -> None:
    """To the last bit, answers and state, while points and objects come and go."""
    model = build(heads(points))
    together, state = stream(model, [1] * FRAMES, **EVENTS)
    alone, own = stream(single(model, task, points), [1] * FRAMES, **EVENTS)
    assert_same(together[task], alone[task], 0.0)
    assert_same({key: state[key] for key in own}, own, 0.0)
    assert any(key.startswith(f'heads.{task}') for key in own)


@torch.no_grad()
def test_a_head_that_is_switched_off_leaves_no_trace(model) -> None:
    together, _ = stream(model, [1] * FRAMES)
    model.tasks = ('depth',)
    output, state = model.step(clip(), model.start(1))
    model.tasks = None
    assert_same(dict(log_values=output['depth'].log_values), dict(log_values=together['depth']['log_values']))
    assert set(output) == {'depth'} and not any(key.startswith(('heads.points', 'heads.masks')) for key in state)


@pytest.mark.parametrize('points', list(POINTS))
def test_who_comes_and_goes_does_not_disturb_depth(points: str) -> None:
    model = build(heads(points))
    still, _ = stream(model, [1] * FRAMES)
    busy, _ = stream(model, [1] * FRAMES, **EVENTS)
    assert_same(busy['depth'], still['depth'], 0.0)
    only_objects, _ = stream(model, [1] * FRAMES, masks=MASK_SCHEDULE)
    assert_same(only_objects['points'], still['points'], 0.0)
    only_points, _ = stream(model, [1] * FRAMES, points=POINT_SCHEDULE)
    assert_same(only_points['masks'], still['masks'], 0.0)


def test_tokens_that_patches_see_do_disturb_depth() -> None:
    """Why read-only is the default of object tokens: the other choice is felt by every head."""
    seen = build(dict(masks=dict(MASKS, attention='full'), depth=DEPTH['parallax']))
    still, _ = stream(seen, [1] * FRAMES)
    busy, _ = stream(seen, [1] * FRAMES, masks=MASK_SCHEDULE)
    assert (busy['depth']['log_values'] - still['depth']['log_values']).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.slow
def test_state_has_one_size_for_ever(model) -> None:
    """Names, shapes, types and bytes at frame 10 and at frame 1000."""
    state, video, known = start(model, SMALL), clip(30, SMALL), {}
    for frame in (10, *range(40, 1001, 30)):
        outputs, state = model.step(video[:, : 10 if frame == 10 else 30], state)
        known[frame] = {key: (value.shape, value.dtype) for key, value in state.items()}, state.nbytes
    assert known[10] == known[1000]
    assert state['heads.masks.frame'] == 1000 and outputs['points'].xy_px.isfinite().all()
    assert outputs['masks'].probabilities.isfinite().all() and outputs['depth'].log_values.isfinite().all()


@torch.no_grad()
def test_forgetting_keeps_the_questions_and_drops_the_memory(model) -> None:
    _, state = stream(model, [FRAMES])
    forgotten = model.forget(state, 'all')
    assert not any(key.startswith(('backbone.', 'heads.depth')) for key in forgotten)
    for key in ('heads.points.query_txy', 'heads.points.active', 'heads.masks.active', 'heads.masks.given_masks'):
        assert torch.equal(forgotten[key], state[key]), key
    frame = clip()[:, 3:4]
    later, _ = model.step(frame, forgotten)
    fresh, _ = model.step(frame, start(model))
    assert torch.equal(later['depth'].log_values, fresh['depth'].log_values)
    assert (later['masks'].probabilities[:, :, 1:] > 0.5).any(), 'objects are still followed'
    assert later['points'].active[0, 0, :2].all()


PROGRAM = """
import re
from pathlib import Path
import torch
from tests.equivalence.several import build, clip, start
from tests.equivalence.test_several_heads import SMALL, heads

def peak():
    return int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])

model = build(heads())
state, video, peaks = start(model, SMALL), clip(10, SMALL), []
with torch.no_grad():
    for index in range(100):
        outputs, state = model.step(video, state)
        if index in (0, 99):
            peaks.append(peak())
print(*peaks)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_peak_memory_does_not_grow() -> None:
    """In a process of its own, at frame 10 and at frame 1000."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    first, last = map(int, done.stdout.split()[-2:])
    assert last <= 1.02 * first, (first, last)


# ------------------------------------------------------------------------------------------------------ training


def sample(*, depth: bool = True, frames: int = 4) -> VideoSample:
    """A slanted floor on which a bright square moves; the camera moves to the right."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    video = np.repeat(rng.integers(90, 160, (1, *SIZE, 3), dtype=np.uint8), frames, 0)
    labels = np.zeros((frames, *SIZE), np.uint8)
    for t in range(frames):
        labels[t, 10:24, 8 + 2 * t : 24 + 2 * t] = 3
        labels[t, 26:38, 30:48] = 5 if t else 0
    video[labels == 3] = (220, 200, 60)
    xy = np.tile(np.array([[[14.0, 14.0]], [[30.0, 36.0]]], np.float32), (1, frames, 1))
    points = PointTracks(xy, np.ones((2, frames), bool), np.array([[0, 14, 14], [1, 30, 36]], np.float32))
    metres = np.broadcast_to(np.linspace(4, 1.5, height, dtype=np.float32)[None, :, None], (frames, *SIZE)).copy()
    matrix = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    camera = np.tile(np.eye(4), (frames, 1, 1))
    camera[:, 0, 3] = 0.05 * np.arange(frames)
    truth = DepthMap(metres, np.ones(metres.shape, bool), matrix, camera)
    masks = ObjectMasks(labels, [3, 5], [0, 1])
    return VideoSample(video, points, masks, truth if depth else None, name='square')


def losses_of(model: nn.Module, samples: list[VideoSample]) -> dict[str, torch.Tensor]:
    inputs = [torch.from_numpy(one.video).permute(0, 3, 1, 2) for one in samples]
    return model(**model.data_preprocessor(dict(inputs=inputs, data_samples=samples), True), mode='loss')


@pytest.mark.parametrize('known', [(True, True), (True, False), (False, False)], ids=['all', 'some', 'none'])
def test_clips_without_depth_train_the_other_heads(known) -> None:
    """One clip of the batch, or the whole batch, has no depth; every parameter has a gradient all the same."""
    model = build(heads()).train()
    losses = losses_of(model, [sample(depth=one) for one in known])
    assert {key.split('.')[0] for key in losses} == {'points', 'masks', 'depth'}
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    depth = sum(float(value.detach()) for key, value in losses.items() if key.startswith('depth.'))
    assert (depth > 0) == any(known)
    idle = {name for name, parameter in model.heads['depth'].named_parameters() if not parameter.grad.any()}
    assert not idle if any(known) else idle == {name for name, _ in model.heads['depth'].named_parameters()}


def test_a_clip_without_depth_changes_nothing_for_the_depth_of_the_other() -> None:
    model = build(heads()).train()
    both, one = (losses_of(model, batch) for batch in ([sample(), sample(depth=False)], [sample()]))
    for key, value in one.items():
        if key.startswith('depth.'):
            torch.testing.assert_close(both[key], value)


def test_every_head_answers_a_sample_and_shows_its_ablation() -> None:
    model, one = build(heads()), sample(frames=5)
    one.meta['ablate'] = 'all'
    data = dict(inputs=[torch.from_numpy(one.video).permute(0, 3, 1, 2)], data_samples=[one])
    model.test_step(data)
    assert set(one.predictions) == {f'{task}{end}' for task in ('points', 'masks', 'depth') for end in ('', '_reset')}
    assert one.predictions['depth'].values.shape == one.video.shape[:3]
    again = one.predictions['depth_reset'].values
    np.testing.assert_allclose(again[0], one.predictions['depth'].values[0], rtol=1e-5)
    assert np.abs(again[1:] - one.predictions['depth'].values[1:]).max() > 0
