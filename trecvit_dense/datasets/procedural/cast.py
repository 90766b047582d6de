"""Motion classes: every clip shows the same cast in the same poses; the class is the order in which they come.

A clip has four actors. One goes along a horizontal line, one along a vertical line, one turns, one goes round a corner.
Each has a set of T poses, and in a neutral clip it takes them there and back: every second pose on the way out, the
others on the way home. A class changes the order of one actor and nothing else: through all poses one by one (slow), or
through every second one, twice (fast), in one direction or the other, or round the corner from one end alone.

So nothing but motion can tell classes apart, by construction:

* The poses of a clip are drawn before its class is looked at. The set of frames of an actor is the same in all classes,
  and with it the mean picture (but for what overlaps, and for light that changes in time).
* The frame is a torus, what leaves on one side comes back on the other, and each actor starts anywhere on it and, but
  for a small tilt of the line, at any angle: at each frame number, the first and the last included, a pose has one and
  the same distribution in all classes.
* There is no motion blur. The camera shakes by an independent amount on each frame.

Textures come from a fixed pool per split, drawn on first use; a clip cuts out, mirrors, turns and tints them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.random import Generator

from .layers import Layer
from .motion import affine
from .photometric import Photometric
from .shapes import SHAPES, relief, silhouette
from .textures import surface

_ROLES = ('horizontal', 'vertical', 'turning', 'corner')
_PARTS = {
    'left/slow': ('horizontal', 'slow', -1),
    'left/fast': ('horizontal', 'fast', -1),
    'right/slow': ('horizontal', 'slow', 1),
    'right/fast': ('horizontal', 'fast', 1),
    'up/slow': ('vertical', 'slow', -1),
    'up/fast': ('vertical', 'fast', -1),
    'down/slow': ('vertical', 'slow', 1),
    'down/fast': ('vertical', 'fast', 1),
    'turn/counterclockwise': ('turning', 'slow', -1),
    'turn/clockwise': ('turning', 'slow', 1),
    'order/upright-sideways': ('corner', 'once', -1),
    'order/sideways-upright': ('corner', 'once', 1),
}
MOTION_CLASSES = tuple(_PARTS)
"""Names of the class labels: direction and speed, sense of rotation, order of two movements."""
_SHEETS = 96  # textures of the ground in the pool of a split, and as many of actors
_LARGER = {'turning': 1.3, 'corner': 1.15}  # in all classes; what they do is harder to see
_TURNING_SHAPES = tuple(shape for shape in SHAPES if shape not in ('ring', 'ellipse'))
_TILT = 0.15  # radians, at most, by which lines are off the horizontal and the vertical


@dataclass(frozen=True)
class CastSpec:
    """What a clip may contain; :class:`trecvit_dense.datasets.SyntheticMotionClassesDataset` says what fields mean."""

    size: tuple[int, int] = (64, 64)
    num_frames: int = 8
    motion: float = 1.0
    shake: float = 1.0
    photometric: float = 1.0
    clutter: tuple[int, int] = (0, 3)
    split: int = 0

    @property
    def side(self) -> float:
        """Pixels; the unit of distances and sizes."""
        return float(np.sqrt(self.size[0] * self.size[1]))


@dataclass
class Actor:
    """One moving thing.

    Args:
        role: Which set of poses it has.
        xy_px: ``(T, 2)`` centre on each frame, without shake; not wrapped, the frame is a torus.
        angle: ``(T,)`` radians, clockwise on the screen.
        radius: Pixels.
    """

    role: str
    xy_px: np.ndarray
    angle: np.ndarray
    radius: float


# ---- poses and orders


def order(kind: str, sign: int, num_frames: int, phase: int) -> np.ndarray:
    """The order ``(T,)`` in which T poses are taken: a permutation.

    Args:
        kind: ``'slow'``: one after the other; ``'fast'``: every second one, then those left out; ``'neutral'``: every
            second one, then back over those left out; these three start anywhere. ``'once'``: as slow, from the end.
        sign: -1 takes them backwards.
        phase: Where to start.
    """
    poses = np.arange(num_frames)
    if kind == 'fast':
        poses = np.concatenate([poses[::2], poses[1::2]])
    elif kind == 'neutral':
        poses = np.concatenate([poses[::2], poses[1::2][::-1]])
    if kind != 'once':
        poses = np.roll(poses, phase)
    return poses[::sign]


def draw_cast(rng: Generator, spec: CastSpec, label: int) -> list[Actor]:
    """The actors, then the clutter, of class ``label``; the same generator gives the same poses in every class."""
    role, kind, sign = _PARTS[MOTION_CLASSES[label]]
    cast = [_actor(rng, spec, name) for name in _ROLES]
    for _ in range(int(rng.integers(spec.clutter[0], spec.clutter[1] + 1))):
        cast.append(_actor(rng, spec, 'clutter'))
    for actor in cast:
        phase, turn = int(rng.integers(spec.num_frames)), int(rng.choice([-1, 1]))
        chosen = (kind, sign) if actor.role == role else ('neutral', turn)
        taken = order(*chosen, spec.num_frames, phase)
        actor.xy_px, actor.angle = actor.xy_px[taken], actor.angle[taken]
    return cast


def _actor(rng: Generator, spec: CastSpec, role: str) -> Actor:
    """An actor whose poses are still in the order of their places."""
    steps = np.arange(spec.num_frames)
    reach = spec.side * rng.uniform(0.28, 0.42) * spec.motion
    along = steps / (spec.num_frames - 1) * reach
    offset, angle = np.zeros((spec.num_frames, 2)), np.zeros(spec.num_frames)
    tilt, flips = rng.uniform(-_TILT, _TILT), rng.choice([-1, 1], 2)
    size = rng.uniform(0.13, 0.2) * _LARGER.get(role, 1)
    if role == 'corner':
        bend = reach * (spec.num_frames // 2) / (spec.num_frames - 1)
        offset = 1.25 * flips * np.stack([np.minimum(along, bend), np.maximum(along - bend, 0)], axis=1)
    elif role == 'turning':
        angle = steps / spec.num_frames * np.pi * rng.uniform(1.0, 1.4) * min(spec.motion, 1.4)
    else:
        heading = {'horizontal': 0.0, 'vertical': np.pi / 2}.get(role, rng.uniform(0, np.pi))
        offset[:, 0], offset[:, 1] = along * np.cos(heading), along * np.sin(heading)
    if role == 'clutter':
        offset, size = offset * rng.uniform(0, 0.6), rng.uniform(0.04, 0.09)
    cosine, sine = np.cos(tilt), np.sin(tilt)
    offset = offset @ np.array([[cosine, sine], [-sine, cosine]])
    start = rng.uniform(0, 1, 2) * (spec.size[1], spec.size[0])
    radius = size * min(spec.side, 1.3 * min(spec.size))  # no larger than the torus, in long frames either
    return Actor(role, start + offset, rng.uniform(0, 2 * np.pi) + angle, radius)


# ---- pictures


def render_cast(rng: Generator, spec: CastSpec, cast: list[Actor]) -> np.ndarray:
    """``(T, H, W, 3)`` uint8 video of a cast before a textured ground."""
    height, width = spec.size
    shake = rng.standard_normal((spec.num_frames, 2)) * rng.uniform(0, 0.012) * spec.side * spec.shake
    ground = _ground(rng, spec, shake)
    sprites = [(cast[i], _sprite(rng, spec, cast[i])) for i in rng.permutation(len(cast))]
    photometric = Photometric(rng, spec.size, np.arange(spec.num_frames), spec.photometric)
    video = np.empty((spec.num_frames, height, width, 3), np.uint8)
    for t in range(spec.num_frames):
        canvas = ground.draw(t, (0, 0, width, height))
        for actor, sprite in sprites:
            _lay_over(canvas, sprite, actor.xy_px[t] + shake[t], actor.angle[t])
        video[t] = photometric(cv2.cvtColor(canvas, cv2.COLOR_RGBA2RGB), t)
    return video


def _ground(rng: Generator, spec: CastSpec, shake: np.ndarray) -> Layer:
    height, width = spec.size
    texture = np.full((height + 8, width + 8, 4), 255, np.uint8)
    texture[..., :3] = _material(rng, spec, (height + 8, width + 8), ground=True)
    still = np.zeros(len(shake))
    middle = np.array([width, height]) / 2
    return Layer(texture, affine(middle + shake, still, np.zeros_like(shake), still), endless=True)


def _sprite(rng: Generator, spec: CastSpec, actor: Actor) -> np.ndarray:
    """``(side, side, 4)`` uint8, colour premultiplied by alpha."""
    shapes = _TURNING_SHAPES if actor.role == 'turning' else SHAPES  # those that may be round do not show it
    alpha = silhouette(rng, shapes[rng.integers(len(shapes))], actor.radius)
    colour = _material(rng, spec, alpha.shape, ground=False) * relief(rng, alpha)[..., None]
    sprite = np.empty((*alpha.shape, 4), np.uint8)
    sprite[..., :3] = np.clip(colour, 0, 255) * (alpha * np.float32(1 / 255))[..., None]
    sprite[..., 3] = alpha
    return sprite


def _material(rng: Generator, spec: CastSpec, shape: tuple[int, int], *, ground: bool) -> np.ndarray:
    """A piece ``(h, w, 3)`` float32 in [0, 255] of a texture of the pool."""
    side = max(spec.size) + 24 if ground else int(0.6 * spec.side) + 12
    sheet = np.rot90(_sheet(spec.split, side, int(rng.integers(_SHEETS)), ground), int(rng.integers(4)))
    top, left = rng.integers(0, side - np.array(shape) + 1)
    piece = sheet[top : top + shape[0], left : left + shape[1]][:, :: int(rng.choice([-1, 1]))]
    tint = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.08, 3)).astype(np.float32)
    return np.minimum(piece * tint, 255)


@cache
def _sheet(split: int, side: int, number: int, ground: bool) -> np.ndarray:
    """Texture ``number`` of a pool, ``(side, side, 3)`` uint8."""
    rng = np.random.default_rng([split, side, number, ground])
    return surface(rng, side, side, ground=ground).astype(np.uint8)


def _lay_over(canvas: np.ndarray, sprite: np.ndarray, centre: np.ndarray, angle: float) -> None:
    """Draw a sprite over ``canvas`` ``(H, W, 4)`` in place; what reaches over an edge comes in at the opposite one."""
    height, width = canvas.shape[:2]
    side = min(int(np.ceil(len(sprite) * 1.42)) + 1, height, width)
    corner = np.floor(centre - side / 2)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    shift = centre - corner - 0.5 - turn @ np.full(2, (len(sprite) - 1) / 2)
    patch = cv2.warpAffine(sprite, np.column_stack([turn, shift]), (side, side), flags=cv2.INTER_LINEAR)
    rest = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(patch, 3)), cv2.COLOR_GRAY2BGRA)
    for rows, patch_rows in _wrapped(int(corner[1]), side, height):
        for columns, patch_columns in _wrapped(int(corner[0]), side, width):
            behind, part = canvas[rows, columns], (patch_rows, patch_columns)
            behind[:] = cv2.add(cv2.multiply(behind, rest[part], scale=1 / 255), patch[part])


def _wrapped(start: int, length: int, period: int) -> list[tuple[slice, slice]]:
    """``start .. start + length`` on a circle, ``length <= period``: places, and which part of the range goes there."""
    start %= period
    first = min(length, period - start)
    parts = [(slice(start, start + first), slice(first))]
    return parts if first == length else [*parts, (slice(length - first), slice(first, length))]
