"""The camera's way and the depth of followed points: algebra against finite differences, results against truth."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from trecvit_dense.datasets import SyntheticSceneDataset
from trecvit_dense.models.layers import bundle_adjustment as ba
from trecvit_dense.models.layers.visual_odometry import Odometry, VisualOdometry

SIZE = (96, 128)


def bundle(*, frames: int = 4, points: int = 60, noise: float = 0.0, outliers: float = 0.0, seed: int = 0):
    """A camera that goes its way before random points: the bundle and the true solution."""
    rng = np.random.default_rng(seed)
    rays = np.concatenate([rng.uniform(-0.5, 0.5, (points, 2)), np.ones((points, 1))], 1)
    inverse = rng.uniform(0.3, 1.5, points)
    clock = np.arange(1, frames + 1)[:, None]
    rotation = ba.turned_by(clock * np.array([0.01, -0.02, 0.005]))
    travel = clock * np.array([0.05, -0.02, 0.03])
    there = np.einsum('kab,nb->nka', rotation, rays) + inverse[:, None, None] * travel
    moved = there[..., :2] / there[..., 2:] + noise / 300 * rng.standard_normal((points, frames, 2))
    wrong = rng.random(points) < outliers
    moved[wrong] += rng.uniform(0.05, 0.2, (wrong.sum(), frames, 2))
    scale = 300 / 0.3
    return ba.Bundle(rays, moved, np.ones((points, frames)), scale), ba.Solution(rotation, travel, inverse), wrong


@pytest.fixture
def camera():
    return VisualOdometry(SIZE, 1.05 * (SIZE[0] * SIZE[1]) ** 0.5)


def test_slopes_are_those_of_the_errors():
    problem, truth, _ = bundle(noise=1.0)
    error, by_pose, by_depth = ba._linearised(problem, truth)
    rng, small = np.random.default_rng(1), 1e-6
    poses, depths = rng.standard_normal((4, 6)), rng.standard_normal(60)
    moved = ba._moved(truth, (small * poses, small * depths), 0.0)
    found = (ba._linearised(problem, moved)[0] - error) / small
    wanted = np.einsum('nkia,ka->nki', by_pose, poses) + by_depth * depths[:, None, None]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-2)


def test_a_step_solves_the_normal_equations():
    """Eliminating the depths first changes nothing."""
    problem, truth, _ = bundle(points=20, frames=3, noise=1.0)
    normal = ba._normal_equations(problem, truth, 1.0, 1.0)
    poses, depths = ba._step(normal, 0.1)
    square = np.zeros((38, 38))
    for k in range(3):
        block = slice(6 * k, 6 * k + 6)
        square[block, block] = normal.by_pose[k] + 0.1 * np.diag(np.diag(normal.by_pose[k])) + 1e-6 * np.eye(6)
    square[18:, 18:] = np.diag(1.1 * normal.by_depth)
    square[:18, 18:], square[18:, :18] = normal.between.T, normal.between
    wanted = -np.linalg.solve(square, np.concatenate([normal.slope_pose, normal.slope_depth]))
    np.testing.assert_allclose(np.concatenate([poses.ravel(), depths]), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('outliers', [0.0, 0.2])
def test_adjustment_finds_ways_and_depths(outliers):
    """From rough depths and no motion at all; one length stays free."""
    problem, truth, wrong = bundle(noise=0.1, outliers=outliers)
    rough = truth.inverse * np.random.default_rng(2).uniform(0.8, 1.25, 60)
    still = ba.Solution(np.tile(np.eye(3), (4, 1, 1)), np.zeros((4, 3)), rough)
    found = ba.adjusted(problem, ba.poses_alone(problem, still), freedom=1e3, steps=20)
    ratio = np.median(found.inverse[~wrong] / truth.inverse[~wrong])
    np.testing.assert_allclose(found.inverse[~wrong], ratio * truth.inverse[~wrong], rtol=0.05)
    np.testing.assert_allclose(found.travel * ratio, truth.travel, atol=0.003)
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=0.003)


def test_two_frames_alone_are_a_start(camera):
    """From depths that are all wrong in the same way (near for far), where going on from them stays wrong."""
    problem, truth, _ = bundle(noise=0.2)
    hollow = ba.Solution(truth.rotation, -truth.travel, 1.8 - truth.inverse)
    stuck = ba.adjusted(problem, hollow)
    found = camera._fresh(problem, hollow, stuck, np.zeros(60, bool))
    assert found.cost < stuck.cost
    assert np.corrcoef(found.inverse, truth.inverse)[0, 1] > 0.95


# --------------------------------------------------------------------------------------------- on rendered clips


def watched(index: int, camera: VisualOdometry, frames: int = 10):
    """A clip with the memory after each of its frames."""
    options = dict(travel=0.8, movers=0.0, photometric=0.0, num_frames=frames, num_points=1, split='val')
    sample = SyntheticSceneDataset(8, SIZE, **options).sample(index)
    images = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in sample.video]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    memories = [camera.start(images[0])]
    for old, image in zip(images, images[1:], strict=False):
        memories.append(camera.step(memories[-1], old, image, search.calc(image, old, None)))
    return sample, memories


def test_way_and_depth_of_rendered_clips(camera):
    """Directions of travel, and depths in one unit from the first frames to the last."""
    turns, errors, spreads, units = [], [], [], []
    for index in range(6):
        sample, memories = watched(index, camera)
        poses, depth = sample.depth.camera_to_world, sample.depth.depth_m
        for t in range(4, 10):
            true = (np.linalg.inv(poses[t - 3]) @ poses[t])[:3, 3]
            way = memories[t].travel[2]
            if np.linalg.norm(true) * np.median(1 / depth[t][depth[t] > 0]) > 0.02:
                cosine = true @ way / np.linalg.norm(true) / max(np.linalg.norm(way), 1e-9)
                turns.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
            x, y = memories[t].places[memories[t].known, 0].astype(int).T
            there = sample.depth.valid[t][y, x]
            logs = np.log(memories[t].inverse[memories[t].known][there] * depth[t][y, x][there])
            if len(logs) > 12:
                errors.append(np.median(np.abs(logs - np.median(logs))))
                spreads.append(np.log(depth[t][y, x][there]).std())
                units.append((index, np.median(logs)))
    assert len(errors) > 15
    assert np.median(turns) < 15
    assert 2.5 * np.median(errors) < np.median(spreads)
    ends = [[unit for i, unit in units if i == index] for index in range(6)]
    assert np.median([np.ptp(end) for end in ends if len(end) > 3]) < 0.1


def test_memory_is_of_one_size_and_left_alone(camera):
    _, memories = watched(0, camera, frames=4)
    sizes = [{name: np.asarray(value).shape for name, value in vars(memory).items()} for memory in memories]
    assert all(size == sizes[0] for size in sizes)
    copy = replace(memories[1], places=memories[1].places.copy(), inverse=memories[1].inverse.copy())
    image = np.zeros(SIZE, np.uint8)
    camera.step(memories[1], image, image, np.zeros((*SIZE, 2), np.float32))
    assert np.array_equal(copy.places, memories[1].places) and np.array_equal(copy.inverse, memories[1].inverse)


def test_nothing_to_follow(camera):
    """Black frames: no points, a camera at rest, one unit."""
    image = np.zeros(SIZE, np.uint8)
    memory = camera.start(image)
    for _ in range(3):
        memory = camera.step(memory, image, image, np.zeros((*SIZE, 2), np.float32))
    assert not memory.alive.any() and not memory.travel.any() and memory.unit == 1
    np.testing.assert_array_equal(memory.rotation, np.tile(np.eye(3), (9, 1, 1)))
    assert memory.poses == 3


def test_a_lost_point_frees_its_place():
    memory = Odometry.empty(4, 3)
    assert not memory.alive.any() and not memory.known.any()
    memory.seen[1, 0], memory.information[1] = True, 100.0
    assert memory.known.tolist() == [False, True, False, False]
