"""Where the camera was over the last frames, and how far away the points are that were followed: a window of bundles.

Points are followed from frame to frame (pyramidal Lucas-Kanade). With every frame, its points' inverse depths and the
poses of all frames in the window are found together: bundle adjustment with the newest frame as reference (Triggs et
al., 2000), Levenberg-Marquardt on robust reprojection errors with the depths eliminated. Because old frames keep their
poses in one unit, so does depth, for as long as points live through several frames. It starts from nothing: with too
little motion depth stays what it is taken for, one unit; and as the first solution may be a wrong one, every frame also
tries a fresh two-frame solution (:func:`.ego_motion.relative_motion`) and takes it where it explains more.

All in float64 on the CPU, one clip at a time; nothing is learned and no gradient passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from .bundle_adjustment import Bundle, Solution, adjusted, poses_alone, rescaled
from .ego_motion import inverse_depth, relative_motion

_KNOWN = 25.0  # information on the logarithm of inverse depth: known to a fifth
_FEW = 8  # points; fewer say nothing about the camera


@dataclass
class Odometry:
    """What is remembered of one clip, all of constant size; index 0 of a window is the newest frame.

    Args:
        places: ``(N, W, 2)`` x, y in pixels of point n in frame w of the window.
        seen: ``(N, W)`` bool; a slot whose first entry is False is free.
        inverse: ``(N,)`` inverse depth in the newest frame.
        information: ``(N,)`` one over its variance, with the poses as they are.
        rotation: ``(W - 1, 3, 3)`` and
        travel: ``(W - 1, 3)`` take points of the newest frame to each older one.
        poses: How many of them there are.
        unit: Typical inverse depth.
        unrest: From 0 on: by what share depth has changed of late when it should not have.
    """

    places: np.ndarray
    seen: np.ndarray
    inverse: np.ndarray
    information: np.ndarray
    rotation: np.ndarray
    travel: np.ndarray
    poses: int = 0
    unit: float = 1.0
    unrest: float = 0.5

    @classmethod
    def empty(cls, points: int, window: int) -> Odometry:
        places, seen = np.zeros((points, window, 2)), np.zeros((points, window), bool)
        poses = np.tile(np.eye(3), (window - 1, 1, 1)), np.zeros((window - 1, 3))
        return cls(places, seen, np.ones(points), np.zeros(points), *poses)

    @property
    def alive(self) -> np.ndarray:
        """``(N,)`` bool: points that are seen in the newest frame."""
        return self.seen[:, 0]

    @property
    def known(self) -> np.ndarray:
        """``(N,)`` bool: points whose inverse depth is known to about a fifth."""
        return self.alive & (self.information * self.inverse**2 > _KNOWN)


class VisualOdometry:
    """Follows points and solves for camera and depth.

    Args:
        size: ``(H, W)`` of the frames.
        focal_px: Focal length.
        points: Most points that are followed.
        window: Frames that are solved together.
        noise_px: Standard deviation of a followed point.
        freedom: Standard deviation of inverse depth where nothing tells, as a share of the typical one.
    """

    def __init__(
        self,
        size: tuple[int, int],
        focal_px: float,
        *,
        points: int = 240,
        window: int = 10,
        noise_px: float = 0.3,
        freedom: float = 1.0,
    ) -> None:
        self.size, self.focal, self.points, self.window = size, focal_px, points, window
        self.noise, self.freedom = noise_px, freedom
        self.spacing = max(6, int(0.8 * (size[0] * size[1] / points) ** 0.5))
        self.middle = np.array([size[1] / 2, size[0] / 2])

    def start(self, image: np.ndarray) -> Odometry:
        """From a first frame, uint8 ``(H, W)``."""
        return self._replenish(Odometry.empty(self.points, self.window), image)

    def step(self, memory: Odometry, before: np.ndarray, image: np.ndarray, flow: np.ndarray) -> Odometry:
        """One frame on; ``flow (H, W, 2)`` leads from ``image`` to ``before``, roughly. ``memory`` stays as it was."""
        memory = self._solve(self._follow(memory, before, image, flow))
        return self._replenish(memory, image)

    # -------------------------------------------------------------------------------------------- following

    def _follow(self, memory: Odometry, before: np.ndarray, image: np.ndarray, flow: np.ndarray) -> Odometry:
        """Places in the new frame; a point that does not lead back to where it came from is lost."""
        places, seen = np.roll(memory.places, 1, axis=1), np.roll(memory.seen, 1, axis=1)
        seen[:, 0] = False
        index = np.flatnonzero(memory.alive)
        if len(index):
            old = (memory.places[index, :1] - 0.5).astype(np.float32)  # OpenCV counts from pixel centres; (n, 1, 2)
            guess = old.copy()
            for _ in range(4):  # the flow starts in the new frame: find the place that it leads here from
                away = cv2.remap(flow, guess[..., 0], guess[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                guess = old - away
            new, back, found = self._lucas_kanade(before, image, old, guess)
            inside = ((new > 1) & (new < np.array(self.size[::-1]) - 1)).all(-1)
            good = (found & inside & (np.linalg.norm(back - old, axis=-1) < 0.7))[:, 0]
            places[index, 0], seen[index, 0] = new[:, 0] + 0.5, good
        return replace(memory, places=places, seen=seen)

    @staticmethod
    def _lucas_kanade(
        before: np.ndarray, image: np.ndarray, old: np.ndarray, guess: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        options = dict(
            winSize=(15, 15),
            maxLevel=3,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01),
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        new, there, _ = cv2.calcOpticalFlowPyrLK(before, image, old, guess.copy(), **options)
        back, again, _ = cv2.calcOpticalFlowPyrLK(image, before, new, new + (old - guess), **options)
        return new, back, (there > 0) & (again > 0)

    def _replenish(self, memory: Odometry, image: np.ndarray) -> Odometry:
        """New points where there are none, as far away as their neighbours are."""
        places, seen, inverse, information = (
            part.copy() for part in (memory.places, memory.seen, memory.inverse, memory.information)
        )
        free, here = np.flatnonzero(~memory.alive), memory.places[memory.alive, 0]
        seen[free] = False
        mask = np.full(self.size, 255, np.uint8)
        for x, y in here:
            cv2.circle(mask, (int(x), int(y)), self.spacing, 0, -1)
        if len(free):
            corners = cv2.goodFeaturesToTrack(image, len(free), 0.005, self.spacing, mask=mask, blockSize=5)
            new = np.zeros((0, 2)) if corners is None else corners[:, 0].astype(np.float64) + 0.5
            slots = free[: len(new)]
            places[slots, 0], seen[slots, 0], information[slots] = new, True, 0.0
            inverse[slots] = self._like_neighbours(new, memory)
        return replace(memory, places=places, seen=seen, inverse=inverse, information=information)

    def _like_neighbours(self, new: np.ndarray, memory: Odometry) -> np.ndarray:
        known = memory.known
        if known.sum() < 2 * _FEW:
            return np.full(len(new), memory.unit)
        square = ((new[:, None] - memory.places[None, known, 0]) ** 2).sum(-1)
        near = np.exp(-square / (2 * (0.08 * self.size[1]) ** 2)) * memory.information[known] + 1e-9
        return near @ memory.inverse[known] / near.sum(1)

    # ---------------------------------------------------------------------------------------------- solving

    def _solve(self, memory: Odometry) -> Odometry:
        """Poses and inverse depths from all places in the window."""
        count = min(memory.poses + 1, self.window - 1)
        index = np.flatnonzero(memory.alive)
        if len(index) < _FEW:  # blind: as if the camera stood still
            rotation = np.concatenate([np.eye(3)[None], memory.rotation])[: self.window - 1]
            travel = np.concatenate([np.zeros((1, 3)), memory.travel])[: self.window - 1]
            return replace(memory, rotation=rotation, travel=travel, poses=count, unrest=0.5)
        bundle = self._bundle(memory, index, count)
        known = memory.known[index]
        predicted = self._predict(memory, index, bundle)
        solution = adjusted(bundle, predicted, freedom=self.freedom)
        solution = self._fresh(bundle, predicted, solution, known)
        if known.sum() >= _FEW:  # nothing says how large the world is, so it stays as large as it was
            drift = np.median(np.log(predicted.inverse[known] / solution.inverse[known]))
            solution = rescaled(solution, float(np.exp(drift)))
            change = np.median(np.abs(np.log(solution.inverse / predicted.inverse))[known])
        else:
            change = 0.5
        inverse, information = memory.inverse.copy(), memory.information.copy()
        inverse[index], information[index] = solution.inverse, solution.information
        rotation, travel = memory.rotation.copy(), memory.travel.copy()
        rotation[:count], travel[:count] = solution.rotation, solution.travel
        solved = replace(memory, inverse=inverse, information=information, rotation=rotation, travel=travel)
        unit = float(np.median(inverse[solved.known])) if solved.known.sum() >= _FEW else memory.unit
        return replace(solved, poses=count, unit=unit, unrest=float(max(change, 0.75 * memory.unrest)))

    def _bundle(self, memory: Odometry, index: np.ndarray, count: int) -> Bundle:
        rays = (memory.places[index, : count + 1] - self.middle) / self.focal
        first = np.concatenate([rays[:, 0], np.ones((len(index), 1))], 1)
        weight = memory.seen[index, 1 : count + 1].astype(np.float64)
        return Bundle(first, rays[:, 1:], weight, self.focal / self.noise)

    def _predict(self, memory: Odometry, index: np.ndarray, bundle: Bundle) -> Solution:
        """The newest pose from depths as they were, from rest and from going on as before; the older ones follow."""
        inverse = np.clip(memory.inverse[index], 0.05 * memory.unit, 20 * memory.unit)
        before = np.concatenate([bundle.moved[:, 0], np.ones((len(index), 1))], 1)
        forward = Bundle(before, bundle.rays[:, None, :2], np.ones((len(index), 1)), bundle.scale)
        starts = [(np.eye(3), np.zeros(3))]
        if memory.poses:
            starts.append((memory.rotation[0].T, -memory.rotation[0].T @ memory.travel[0]))
        tries = [poses_alone(forward, Solution(turn[None], way[None], inverse)) for turn, way in starts]
        best = min(tries, key=lambda found: found.cost)
        turn, way = best.rotation[0].T, -best.rotation[0].T @ best.travel[0]  # newest to last
        ahead = (before @ best.rotation[0].T + inverse[:, None] * best.travel[0])[:, 2]
        inverse = np.clip(inverse / ahead.clip(min=0.1), 0.02 * memory.unit, 30 * memory.unit)
        rotation = np.concatenate([turn[None], memory.rotation @ turn])[: bundle.weight.shape[1]]
        travel = np.concatenate([way[None], memory.rotation @ way + memory.travel])[: bundle.weight.shape[1]]
        return Solution(rotation, travel, inverse)

    def _fresh(self, bundle: Bundle, predicted: Solution, best: Solution, known: np.ndarray) -> Solution:
        """A solution from two frames alone, if it is better than ``best``."""
        enough = np.flatnonzero(bundle.weight.sum(0) >= max(1.5 * _FEW, 0.4 * len(bundle.rays)))
        if not len(enough):
            return best
        frame = enough[-1]
        shared = bundle.weight[:, frame] > 0
        turn, way, inverse = self._two_frames(bundle, frame, shared)
        middle = np.median(inverse[shared])
        lever = np.linalg.norm(np.cross(_homogeneous(bundle.moved[:, frame]), way), axis=1)
        if middle < 1e-4 or (shared & (lever * middle * bundle.scale > 2)).sum() < _FEW:
            return best  # a turn explains it as well
        told = known & shared
        if told.sum() >= _FEW:
            ratio = np.exp(np.median(np.log(predicted.inverse[told] / inverse[told].clip(min=0.05 * middle))))
        else:
            ratio = np.median(predicted.inverse[shared]) / middle
        inverse = np.where(shared, inverse.clip(0.1 * middle, 10 * middle) * ratio, predicted.inverse)
        rotation, travel = predicted.rotation.copy(), predicted.travel.copy()
        rotation[frame], travel[frame] = turn, way / ratio
        fresh = adjusted(bundle, poses_alone(bundle, Solution(rotation, travel, inverse)), freedom=self.freedom)
        return fresh if fresh.cost < 0.9 * best.cost else best

    def _two_frames(self, bundle: Bundle, frame: int, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Motion to an older frame, of length 1, and the inverse depths ``(n,)`` that follow from it."""
        rays, moved = (torch.from_numpy(part).float() for part in (bundle.rays, bundle.moved[:, frame]))
        chosen = (rays[None, shared, :2], moved[None, shared], torch.ones(1, int(shared.sum())))
        turn, way = relative_motion(*chosen, pixel=2 / bundle.scale)
        inverse = inverse_depth(rays[None] @ turn.mT, torch.from_numpy(_homogeneous(moved.numpy()))[None], way)
        turn, way, inverse = (part[0].double().numpy() for part in (turn, way, inverse))
        sign = 1.0 if np.median(inverse[shared]) >= 0 else -1.0
        return turn, sign * way, sign * inverse


def _homogeneous(places: np.ndarray) -> np.ndarray:
    return np.concatenate([places, np.ones_like(places[..., :1])], -1)
