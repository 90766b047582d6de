"""From a random generator to a clip of a scene: build, look, move, ray-cast, paint, track."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from ...structures import DepthMap, ObjectMasks, VideoSample
from ..procedural import ClipSpec
from ..procedural.photometric import Photometric
from .camera import CLEAR_M, keep_clear, orientation, random_intrinsics, random_trajectory
from .furniture import Kit
from .layout import Site, build_room
from .materials import Materials, pool_of
from .movers import add_movers
from .open_ground import build_open
from .raycast import View
from .shading import Light, Shader, Shadow, occlusion_map
from .tracks import scene_tracks
from .world import Scene, World, clearance

CLASSES = ('indoor', 'open')
_LOOKS = 10  # views that are tried
_JUDGES = (9, 12)  # rays that judge one
_SEEN_BLUR = 0.7  # pixels; shorter motion blur is not worth drawing


@dataclass(frozen=True)
class SceneSpec(ClipSpec):
    """What a clip may contain; :class:`trecvit_dense.datasets.SyntheticSceneDataset` says what the fields mean."""

    num_objects: tuple[int, int] = (6, 32)
    indoor: float = 0.75
    movers: float = 0.4
    travel: float | None = None
    split: int = 0


def render_scene_clip(rng: Generator, spec: SceneSpec) -> VideoSample:
    """One clip with exact depth, poses, tracks and masks; a pure function of ``rng`` and ``spec``."""
    scene, light, intrinsics, poses, label = build_scene(rng, spec)
    views = [View(scene, t, intrinsics, pose) for t, pose in enumerate(poses)]
    video, labels, depth = _draw(rng, scene, light, views, spec)
    points = scene_tracks(rng, scene, views, labels, depth > 0, spec)
    seen = np.stack([np.bincount(frame.ravel(), minlength=256) for frame in labels]) > 0  # (T, 256)
    ids = [int(i) for i in np.flatnonzero(seen.any(axis=0)) if i]
    first = [int(seen[:, i].argmax()) for i in ids]
    matrices = np.broadcast_to(intrinsics, (len(poses), 3, 3)).copy()
    return VideoSample(
        video=video,
        points=points,
        masks=ObjectMasks(labels, ids, first),
        depth=DepthMap(depth, depth > 0, matrices, poses),
        label=label,
        meta=dict(query_mode='first' if spec.query_mode == 'first' else 'any', class_name=CLASSES[label]),
    )


def build_scene(rng: Generator, spec: SceneSpec) -> tuple[Scene, Light, np.ndarray, np.ndarray, int]:
    """Scene, light, intrinsics ``(3, 3)``, camera to world ``(T, 4, 4)`` and class label."""
    world, materials = World(rng), Materials(rng, spec.split)
    kit = Kit(rng, world, materials)
    count = int(rng.integers(spec.num_objects[0], spec.num_objects[1] + 1))
    moving = int(rng.integers(1, 4)) if rng.random() < spec.movers * min(spec.motion, 1) else 0
    moving = min(moving, count)
    indoor = rng.random() < spec.indoor
    site = build_room(kit, count - moving) if indoor else build_open(kit, count - moving)
    intrinsics = random_intrinsics(rng, spec.size)
    still = world.freeze(1, materials.textures, materials.tints)
    poses = _camera(rng, world, still, site, intrinsics, spec)
    add_movers(kit, site, spec.clock, poses, moving, spec.motion)
    light = _light(rng, kit, still, site, poses[0, :3, 3], indoor)
    scene = world.freeze(len(poses), materials.textures, materials.tints)
    return scene, light, intrinsics, poses, 0 if indoor else 1


def _camera(
    rng: Generator, world: World, scene: Scene, site: Site, intrinsics: np.ndarray, spec: SceneSpec
) -> np.ndarray:
    """``(T, 4, 4)``: the first of a few random views that shows something, and a hand-held walk from there."""
    height, width = spec.size
    rows, columns = _JUDGES
    y, x = np.mgrid[0.5:rows, 0.5:columns]
    rays = np.stack([x.ravel() * width / columns, y.ravel() * height / rows], axis=1)
    things = [body_frame for body_frame in world.solids if world.labels[body_frame[0]]]
    wanted, wanted_spread = rng.integers(3, 12), rng.uniform(0.1, 0.5)
    best = (-np.inf, np.array([0, 0, min(site.ceiling - 0.4, 2.6)]), 0.0, -0.4, 2.0)  # the middle, above everything
    for _ in range(_LOOKS):
        if things and rng.random() < 0.35:
            place, yaw, pitch = _look_at(rng, world, things[rng.integers(len(things))], site)
        else:
            place, yaw, pitch = _look_around(rng, site)
        free = (np.abs(place[:2]) < site.high - 0.28).all() and 0.3 < place[2] < site.ceiling - 0.2
        if not free or clearance(world.solids, world.poses, place[None])[0] <= CLEAR_M + 0.05:
            continue
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = orientation(np.array([yaw]), np.array([pitch]), np.zeros(1))[0], place
        inverse, index = View(scene, 0, intrinsics, pose).cast(rays)
        hit = inverse > 0
        median = 1 / np.median(inverse[hit]) if hit.any() else 100.0
        variety = len(np.unique(scene.body[index[hit]])) + 0.5 * len(np.unique(index[hit]))
        # A wall seen from the front teaches little: natural views differ by a factor of e**0.5 or so in depth.
        spread = np.log(inverse[hit]).std() if hit.any() else 0.0
        score = min(variety - wanted, 0) - 10 * (hit.mean() < 0.35) - 5 * (median < 0.6) - 3 * (inverse.max() > 2.5)
        score -= 4 * (spread < wanted_spread)
        # Something large right before the camera hides the room; it may, but not in every other view.
        score -= 3 * ((inverse[hit] > 2.5 / median).mean() > 0.15 if hit.any() else 0)
        if score > best[0]:
            best = score, place, yaw, pitch, float(median)
        if score == 0:
            break
    _, place, yaw, pitch, median = best
    reach = float(np.clip(0.5 * median, 0.4, 4.0))
    strength, scale = spec.camera * spec.motion, float(np.clip(median, 0.8, 12))
    poses = random_trajectory(rng, spec.clock, strength, place, yaw, pitch, reach, scale, spec.travel)
    low, high = np.array([*(site.low + 0.25), 0.25]), np.array([*(site.high - 0.25), site.ceiling - 0.15])
    return keep_clear(world, poses, low, high)


def _look_around(rng: Generator, site: Site) -> tuple[np.ndarray, float, float]:
    """Place, yaw and pitch of a camera that somebody holds, anywhere."""
    indoor = site.ceiling < 10
    height = rng.uniform(1.1, min(1.9, site.ceiling - 0.3)) if rng.random() < 0.85 else rng.uniform(0.5, 1.0)
    place = np.array([*(rng.uniform(site.low, site.high) * (1.0 if indoor else 0.5)), height])
    pitch = np.clip(rng.normal(-13, 11), -40, 10) if indoor else np.clip(rng.normal(-6, 7), -30, 10)
    return place, float(rng.uniform(0, 2 * np.pi)), float(np.radians(pitch))


def _look_at(
    rng: Generator, world: World, thing: tuple[int, np.ndarray, np.ndarray], site: Site
) -> tuple[np.ndarray, float, float]:
    """The same, of a camera pointed at a thing."""
    body, frame, half = thing
    target = (world.poses[body] @ frame)[:3, 3]
    away = float(np.exp(rng.uniform(*np.log((0.6, 3.0) if site.ceiling < 10 else (2.0, 12.0))))) + 0.5 * half.max()
    turn = rng.uniform(0, 2 * np.pi)
    place = np.array([*(target[:2] + away * np.array([np.cos(turn), np.sin(turn)])), rng.uniform(1.0, 1.8)])
    toward = target - place
    yaw = np.arctan2(toward[1], toward[0]) + rng.normal(0, 0.25)
    pitch = np.arctan2(toward[2], np.hypot(*toward[:2])) + rng.normal(0, 0.12)
    return place, float(yaw), float(np.clip(pitch, -0.75, 0.17))


def _light(rng: Generator, kit: Kit, scene: Scene, site: Site, viewer: np.ndarray, indoor: bool) -> Light:
    maps, corner, cell = occlusion_map(kit.world, site.low, site.high, site.ceiling)
    cloud = 0 if indoor else kit.materials.pool.want('plain', int(rng.integers(8)))
    if indoor:
        count = int(rng.integers(1, 4))
        spots = rng.uniform(site.low, site.high, (count, 2)) * 0.9
        places = np.concatenate([spots, rng.uniform(0.75, 0.97, (count, 1)) * site.ceiling], axis=1)
        if rng.random() < 0.4:  # daylight from one side
            places[0] = [*(rng.choice([-1, 1], 2) * site.high * (1, rng.uniform(-1, 1))), rng.uniform(1, 2)]
        powers = np.sort(rng.dirichlet(np.ones(count)))[::-1] * rng.uniform(0.5, 1.5)
        reach, ambient = rng.uniform(2, 5), rng.uniform(0.25, 0.8)
        target, angle, haze, sky = np.array([0.0, 0, 0.3]), 1.2, None, None
    else:
        turn, up = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 1.3)
        sun = np.array([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), np.sin(up)])
        places, powers = viewer + 200 * sun[None], np.array([rng.uniform(0, 1.2)])
        reach, ambient = np.inf, rng.uniform(0.3, 0.8)
        target, angle, haze = viewer, 0.075, float(np.exp(rng.uniform(np.log(60), np.log(2000))))
        sky = np.clip(rng.uniform(140, 250) * np.array([1.0, 1.03, 1.08]) + rng.normal(0, 8, 3), 0, 255)
    shadow = None
    if rng.random() < 0.75:
        shadow = Shadow(scene, places[0], target, angle, float(np.exp(rng.uniform(0, np.log(5)))))
    return Light(places, powers, reach, ambient, maps, corner, cell, rng.uniform(0.1, 0.35), shadow, haze, sky, cloud)


def _draw(
    rng: Generator, scene: Scene, light: Light, views: list[View], spec: SceneSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(T, H, W, 3)`` uint8 video, ``(T, H, W)`` uint8 instance map, ``(T, H, W)`` float32 metres, 0 in the sky.

    One ray goes through the centre of every pixel and gives its depth and instance, one through every corner. Where a
    pixel's centre and corners meet different patches, its colour is half the centre's and half the corners', so that
    edges are soft; elsewhere it is the centre's.
    """
    height, width = spec.size
    shape = (len(views), height, width)
    video, labels, depth = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8), np.empty(shape, np.float32)
    x, y = (np.arange(side + 1) + np.array([[0.5], [0.0]]) for side in (width, height))  # (2, W + 1): centres, corners
    columns, rows = np.meshgrid(x[0, :-1], y[0, :-1])
    instances = np.append(scene.labels[scene.body], 0).astype(np.uint8)
    shader = Shader(scene, pool_of(spec.split).atlas, light, rng)
    photometric = Photometric(rng, spec.size, spec.clock, spec.photometric)
    exposure = rng.uniform(75, 150)
    for t, view in enumerate(views):
        both_inverse, both_index = view.raster(x, y)
        inverse, index = both_inverse[0, :-1, :-1], both_index[0, :-1, :-1]
        if t == 0:
            few = (slice(1, None, 4), slice(1, None, 4))
            shader.expose(view, columns[few], rows[few], inverse[few], index[few], exposure)
        mixed, wanted = _mixed(index, both_index[1])
        row, column = np.nonzero(wanted)
        samples = (
            np.append(columns, x[1, column]),
            np.append(rows, y[1, row]),
            np.append(inverse, both_inverse[1, row, column]),
            np.append(index, both_index[1, row, column]),
        )
        colours = shader(view, *(_in_rows(values) for values in samples)).reshape(-1, 3)
        image = colours[: height * width].reshape(height, width, 3)
        corners = np.zeros((height + 1, width + 1, 3), np.uint16)
        corners[row, column] = colours[height * width : height * width + len(row)]
        around = corners[:-1, :-1] + corners[:-1, 1:] + corners[1:, :-1] + corners[1:, 1:]
        image = np.where(mixed[..., None], (around + 4 * image.astype(np.uint16) + 4) >> 3, image).astype(np.uint8)
        image = _smear(image, _drift(views, t, inverse) * photometric.shutter)
        video[t] = photometric(image, t)
        labels[t] = instances[index]
        depth[t] = np.where(inverse > 0, 1 / np.maximum(inverse, 1e-4), 0)
    return video, labels, depth


def _mixed(centres: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels ``(H, W)`` of which a corner shows another patch than the centre, and the corners of such pixels."""
    mixed = np.zeros(centres.shape, bool)
    around = [(slice(i, i - 1 or None), slice(j, j - 1 or None)) for i in (0, 1) for j in (0, 1)]
    for window in around:
        mixed |= corners[window] != centres
    wanted = np.zeros(corners.shape, bool)
    for window in around:
        wanted[window] |= mixed
    return mixed, wanted


def _in_rows(values: np.ndarray, width: int = 256) -> np.ndarray:
    """A list as a picture, its first value repeated at the end: ``cv2.remap`` wants fewer than 32768 rows."""
    return np.append(values, np.full(-len(values) % width, values[0])).reshape(-1, width)


def _drift(views: list[View], t: int, inverse: np.ndarray) -> np.ndarray:
    """``(2,)`` pixels per frame by which a typical thing in the middle of the picture moves."""
    other = t + 1 if t + 1 < len(views) else max(t - 1, 0)
    here, there = views[t], views[other]
    centre, typical = here.intrinsics[:2, 2], float(np.median(inverse[::8, ::8]))
    world = here.origin + here.ray @ [*centre, 1.0] / max(typical, 0.01)
    x, y, depth = there.intrinsics @ ((world - there.origin) @ there.camera_to_world[:3, :3])
    return (np.array([x, y]) / depth - centre) * (1 if other > t else -1) if depth > 0.05 else np.zeros(2)


def _smear(image: np.ndarray, blur_px: np.ndarray) -> np.ndarray:
    """Motion blur: the average along ``blur_px`` ``(2,)``."""
    longest = 0.1 * max(image.shape[:2])
    length = float(np.abs(blur_px).max())
    if length < _SEEN_BLUR:
        return image
    half_x, half_y = (blur_px * (min(length, longest) / length) * 8).tolist()  # sixteenths of a pixel
    reach = int(np.ceil(min(length, longest) / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    middle = 16 * reach
    ends = [(round(middle + sign * half_x), round(middle + sign * half_y)) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 255, 1, cv2.LINE_AA, 4)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
