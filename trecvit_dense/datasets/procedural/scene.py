"""From a random generator to a clip: build the scene, draw it frame by frame, track points through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from ...structures import DepthMap, ObjectMasks, VideoSample
from .layers import Layer
from .motion import Camera, affine, heavy_tailed, path, plane_pose, random_camera, random_warp
from .photometric import Photometric
from .shapes import SHAPES, relief, silhouette
from .textures import SurfaceBank, surface
from .tracks import sample_tracks

MOTIONS = ('drift', 'shake', 'spin', 'pulse')
_SEEN_BLUR = 0.7  # pixels; shorter motion blur is not worth drawing
CLASSES = tuple(f'{shape}/{motion}' for shape in SHAPES for motion in MOTIONS)
"""Names of the class labels: the silhouette of the subject (the largest object) and the way it moves."""


@dataclass(frozen=True)
class ClipSpec:
    """What a clip may contain; :class:`trecvit_dense.datasets.SyntheticVideoDataset` says what the fields mean."""

    size: tuple[int, int] = (128, 128)
    num_frames: int = 24
    num_points: int = 64
    num_objects: tuple[int, int] = (3, 10)
    motion: float = 1.0
    camera: float = 1.0
    nonrigid: float = 1.0
    photometric: float = 1.0
    query_mode: str = 'random'
    object_fraction: float = 0.6
    reference_frames: int | None = 24
    zoom: bool = True
    shared_surfaces: float = 0.0

    @property
    def clock(self) -> np.ndarray:
        """``(T,)`` time of each frame in reference frames: short clips are sampled at a lower frame rate."""
        rate = 1.0 if self.reference_frames is None else max(1.0, self.reference_frames / self.num_frames)
        return np.arange(self.num_frames) * rate

    @property
    def side(self) -> float:
        """Pixels; the unit of speeds and sizes."""
        return float(np.sqrt(self.size[0] * self.size[1]))


def render_clip(rng: Generator, spec: ClipSpec) -> VideoSample:
    """One clip with exact tracks, masks, depth and label; a pure function of ``rng`` and ``spec``."""
    camera, layers, label = build_scene(rng, spec)
    video, labels, depth = _draw(layers, Photometric(rng, spec.size, spec.clock, spec.photometric), spec)
    points = sample_tracks(rng, layers, labels, spec)
    seen = np.stack([np.bincount(frame.ravel(), minlength=256) for frame in labels]) > 0  # (T, 256)
    ids = [int(i) for i in np.flatnonzero(seen.any(axis=0)) if i]
    first = [int(seen[:, i].argmax()) for i in ids]
    return VideoSample(
        video=video,
        points=points,
        masks=ObjectMasks(labels, ids, first),
        depth=DepthMap(depth, np.ones(depth.shape, bool), camera.intrinsics, camera.camera_to_world),
        label=label,
        meta=dict(query_mode='first' if spec.query_mode == 'first' else 'any', class_name=CLASSES[label]),
    )


# ---- the scene


def build_scene(rng: Generator, spec: ClipSpec) -> tuple[Camera, list[Layer], int]:
    """Camera, layers from far to near, class label."""
    count = int(rng.integers(spec.num_objects[0], spec.num_objects[1] + 1))
    far = rng.uniform(4.0, 12.0)
    depths = np.sort(far / rng.uniform(1.15, 1.15 + rng.choice([0.4, 1.5, 4.0]), count))[::-1]
    camera = random_camera(
        rng, spec.size, spec.clock, spec.camera * spec.motion, np.array([far, *depths]), zooms=spec.zoom
    )
    paint = surface
    if spec.shared_surfaces and rng.random() < spec.shared_surfaces:
        paint = SurfaceBank(rng, int(spec.side * 1.3))
    layers = [_background(rng, spec, camera, far, paint)]
    radii = _radii(rng, count, spec.side)
    if count > 1 and rng.random() < 0.35:  # something large right before the camera, to look past
        radii[-1] = spec.side * rng.uniform(0.3, 0.6)
    kinds, motions = rng.integers(0, len(SHAPES), count), rng.integers(0, len(MOTIONS), count)
    subject = int(np.argmax(radii)) if count else 0
    parent: _Placed | None = None
    for i in range(count):
        if parent is not None and i != subject and rng.random() < 0.2:
            placed = _limb(rng, spec, camera, parent, SHAPES[kinds[i]], min(radii[i], parent.radius * 0.8), paint)
        else:
            strength = 1.0 if i == subject else 0.6 * rng.random()
            placed = _object(
                rng, spec, camera, depths[i], SHAPES[kinds[i]], MOTIONS[motions[i]], radii[i], strength, i + 1, paint
            )
        if rng.random() < 0.3 * spec.photometric:
            layers.append(_shadow(rng, placed.layer))
        layers.append(placed.layer)
        parent = placed
    label = int(kinds[subject] * len(MOTIONS) + motions[subject]) if count else 0
    return camera, layers, label


@dataclass
class _Placed:
    layer: Layer
    to_world: np.ndarray  # (T, 4, 3) bent rest pixels -> world
    radius: float


def _radii(rng: Generator, count: int, side: float) -> np.ndarray:
    """Pixels; one large subject, the rest power-law."""
    radii = np.clip(0.09 * side * rng.pareto(1.6, count) + 0.07 * side, None, 0.4 * side)
    if count:
        radii[rng.integers(count)] = side * rng.uniform(0.2, 0.42)
    return radii


def _background(rng: Generator, spec: ClipSpec, camera: Camera, depth_m: float, paint: Callable) -> Layer:
    height, width = spec.size
    texels = 1.0 if rng.random() < 0.7 else rng.uniform(0.6, 1.0)
    margin = rng.uniform(1.2, 1.5)
    rows, columns = int(height * margin * texels) + 2, int(width * margin * texels) + 2
    texture = np.full((rows, columns, 4), 255, np.uint8)
    texture[..., :3] = paint(rng, rows, columns, ground=True)
    # A slanted wall or floor: perspective and parallax inside one plane.
    tilt = np.zeros((spec.num_frames, 2)) + rng.uniform(-0.55, 0.55, 2) * (rng.random() < 0.6)
    homographies = camera.projection @ _slanted(camera, depth_m, tilt, spec.size)
    warp = None
    if rng.random() < 0.15 * spec.nonrigid:  # water, foliage, crowds
        warp = random_warp(
            rng, spec.clock, spec.side * rng.uniform(0.15, 0.5), 0.5 * spec.nonrigid * min(spec.motion, 1)
        )
    return Layer(texture, homographies, 0, texels, warp, endless=True)


def _slanted(camera: Camera, depth_m: float, tilt: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pose ``(T, 4, 3)`` of a plane straight ahead, with as much of ``tilt`` as keeps its horizon out of the frame."""
    height, width = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    for share in (1.0, 0.5, 0.0):
        pose = plane_pose(np.array([0, 0, depth_m]), tilt * share, depth_m / camera.intrinsics[0, 0, 0])
        inverse_depth = np.linalg.inv(camera.projection @ pose)[:, 2] @ corners.T
        if inverse_depth.min() > 0.15 / depth_m:
            break
    return pose


def _object(
    rng: Generator,
    spec: ClipSpec,
    camera: Camera,
    depth_m: float,
    shape: str,
    motion: str,
    radius: float,
    strength: float,
    instance: int,
    paint: Callable,
) -> _Placed:
    """A free object. ``strength`` in [0, 1] is how much of the class's own motion it shows."""
    clock, pace, scale_m = spec.clock, spec.motion, depth_m / camera.intrinsics[0, 0, 0]
    offset, local = _wander(rng, spec, motion, strength)
    if rng.random() < 0.3:
        offset = offset - rng.uniform(0.5, 1.0) * _apparent(camera, depth_m)  # the camera follows it
    tilt = path(rng, clock, heavy_tailed(rng, 0.01, 1.0, 0.1) * pace, 2, bound=rng.uniform(0.1, 0.7))
    reach = 1.6 * radius
    corners = np.array([[-reach, -reach, 1], [reach, -reach, 1], [reach, reach, 1], [-reach, reach, 1]])
    for share in (1.0, 0.5, 0.0):  # a large thing close by is turned less: no part of it may pass behind the camera
        pose = plane_pose(np.array([0, 0, depth_m]), tilt * share, scale_m)
        to_world = pose @ local
        to_world[:, :2, 2] = offset * scale_m
        if ((camera.projection @ to_world)[:, 2] @ corners.T).min() > 0.15 * depth_m:
            break
    return _place(rng, spec, camera, to_world, shape, radius, instance, paint)


def _wander(rng: Generator, spec: ClipSpec, motion: str, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """``(T, 2)`` offset in pixels of frame 0 and ``(T, 3, 3)`` rotation, scale and shear about the object's centre."""
    clock, side, pace = spec.clock, spec.side, spec.motion
    height, width = spec.size
    speed = heavy_tailed(rng, 0.006, 1.0, 0.08) * side * pace * (rng.random() > 0.1)
    offset = rng.uniform(-0.42, 0.42, 2) * (width, height)
    offset = offset + path(rng, clock, speed, 2, bound=side * rng.uniform(0.2, 0.7))
    angle = path(rng, clock, heavy_tailed(rng, 0.012, 1.1, 0.2) * pace, 1)[:, 0]
    scale = path(rng, clock, heavy_tailed(rng, 0.006, 1.0, 0.06) * pace, 1, bound=rng.uniform(0.1, 0.6))
    scale = scale + path(rng, clock, heavy_tailed(rng, 0.002, 1.0, 0.03) * pace, 2, bound=0.15)
    shear = path(rng, clock, heavy_tailed(rng, 0.002, 1.0, 0.03) * pace, 1, bound=0.25)[:, 0]
    swing = np.sin(clock * (2 * np.pi / rng.uniform(7, 14)) + rng.uniform(0, 2 * np.pi)) * strength * pace
    if motion == 'shake':
        offset = offset + swing[:, None] * rng.uniform(-1, 1, 2) * side * 0.06
    elif motion == 'spin':
        angle = angle + clock * rng.choice([-1, 1]) * rng.uniform(0.05, 0.15) * strength * pace
    elif motion == 'pulse':
        scale = scale + 0.2 * swing[:, None]
    return offset, affine(np.zeros_like(offset), angle, scale, shear)


def _apparent(camera: Camera, depth_m: float) -> np.ndarray:
    """``(T, 2)`` pixels: how the camera's motion moves a thing straight ahead at that depth, seen from frame 0."""
    image = camera.projection @ np.array([0, 0, depth_m, 1.0])
    xy = image[:, :2] / image[:, 2:]
    return xy - xy[:1]


def _limb(
    rng: Generator, spec: ClipSpec, camera: Camera, parent: _Placed, shape: str, radius: float, paint: Callable
) -> _Placed:
    """A part hinged to a point of another object; it belongs to the same instance."""
    frames = np.arange(spec.num_frames)
    pivot = np.broadcast_to(rng.uniform(-0.5, 0.5, 2) * parent.radius, (len(frames), 2))
    if parent.layer.warp is not None:
        pivot = parent.layer.warp.bend(np.array(pivot), frames)
    angle = path(rng, spec.clock, heavy_tailed(rng, 0.04, 0.8, 0.25) * spec.motion, 1, bound=rng.uniform(0.3, 1.5))[
        :, 0
    ]
    hinge = affine(pivot, angle, np.zeros((len(frames), 2)), np.zeros(len(frames)))
    arm = affine(np.array([[radius * rng.uniform(0.3, 0.8), 0.0]]), np.zeros(1), np.zeros((1, 2)), np.zeros(1))
    return _place(rng, spec, camera, parent.to_world @ hinge @ arm, shape, radius, parent.layer.instance, paint)


def _place(
    rng: Generator,
    spec: ClipSpec,
    camera: Camera,
    to_world: np.ndarray,
    shape: str,
    radius: float,
    instance: int,
    paint: Callable,
) -> _Placed:
    texels = rng.uniform(0.8, 1.3)
    alpha = silhouette(rng, shape, radius * texels)
    colour = paint(rng, *alpha.shape)
    if rng.random() < 0.6:
        colour = colour * relief(rng, alpha)[..., None]
    texture = np.empty((*alpha.shape, 4), np.uint8)
    texture[..., :3] = np.clip(colour, 0, 255) * (alpha * np.float32(1 / 255))[..., None]
    texture[..., 3] = alpha
    warp = None
    if rng.random() < 0.55 * spec.nonrigid and spec.motion > 0:
        warp = random_warp(rng, spec.clock, radius, spec.nonrigid)
    return _Placed(Layer(texture, camera.projection @ to_world, instance, texels, warp), to_world, radius)


def _shadow(rng: Generator, layer: Layer) -> Layer:
    """A soft dark copy of a layer, thrown to one side; it hides nothing and belongs to nobody."""
    alpha = layer.texture[..., 3]
    pad = max(4, len(alpha) // 5)
    alpha = cv2.copyMakeBorder(alpha, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    alpha = cv2.GaussianBlur(alpha, (0, 0), pad * rng.uniform(0.1, 0.3))
    texture = np.zeros((*alpha.shape, 4), np.uint8)
    texture[..., 3] = alpha * rng.uniform(0.2, 0.6)
    throw = np.eye(3)  # in the image: the shadow falls the same way while its object turns
    throw[:2, 2] = rng.uniform(-0.35, 0.35, 2) * len(alpha) / layer.texels
    return Layer(texture, throw @ layer.homographies, 0, layer.texels, layer.warp, solid=False)


# ---- drawing


def _draw(layers: list[Layer], photometric: Photometric, spec: ClipSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(T, H, W, 3)`` uint8 video, ``(T, H, W)`` uint8 instance map, ``(T, H, W)`` float32 depth in metres."""
    height, width = spec.size
    shape = (spec.num_frames, height, width)
    video, labels, depth = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8), np.empty(shape, np.float32)
    instances = np.array([layer.instance for layer in layers], np.uint8)
    planes = np.stack([layer.inverses[:, 2] for layer in layers], axis=1).astype(np.float32)  # (T, L, 3)
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32)[:, None] + 0.5
    canvas, top = np.empty((height, width, 4), np.uint8), np.empty((height, width), np.uint8)
    for t in range(spec.num_frames):
        top[:] = 0  # index of the nearest layer at each pixel
        for index, layer in enumerate(layers):
            _paint(layer, t, canvas, top, index, photometric.shutter)
        video[t] = photometric(cv2.cvtColor(canvas, cv2.COLOR_RGBA2RGB), t)
        labels[t] = instances[top]
        g, h, i = planes[t].T  # the inverse depth of a plane is affine in the pixel
        depth[t] = 1 / np.maximum(g[top] * x + h[top] * y + i[top], 1e-3)
    return video, labels, depth


def _paint(layer: Layer, t: int, canvas: np.ndarray, top: np.ndarray, index: int, shutter: float) -> None:
    """Lay one layer over ``canvas`` ``(H, W, 4)``, and its index over ``top`` where it hides what is behind."""
    blur = layer.velocity[t] * shutter
    length = float(np.abs(blur).max())
    longest = 0.15 * max(top.shape)
    if length > longest:
        blur, length = blur * (longest / length), longest
    box = layer.box(t, top.shape, length / 2 if length > _SEEN_BLUR else 0.0)
    if box is None:
        return
    x0, y0, x1, y1 = box
    patch = layer.draw(t, box)
    if layer.solid and not layer.endless:
        np.copyto(top[y0:y1, x0:x1], index, where=patch[..., 3] > 127)
    if length > _SEEN_BLUR:
        patch = layer.smear(patch, blur)
    if layer.endless:
        canvas[:] = patch
        return
    region = canvas[y0:y1, x0:x1]
    rest = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(patch, 3)), cv2.COLOR_GRAY2BGRA)
    region[:] = cv2.add(cv2.multiply(region, rest, scale=1 / 255), patch)
