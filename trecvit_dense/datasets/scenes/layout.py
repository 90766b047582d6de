"""Where things stand: what fits where, and rooms with furniture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import furniture
from .furniture import Kit, Piece
from .world import pose

_TRIES = 8


@dataclass
class Site:
    """The free space of a scene.

    Args:
        low, high: ``(2,)`` metres, the ground that may be built on and walked.
        ceiling: Height of the room; large outside.
        label: Last instance given away.
        limit: Instances there may be.
        taken: ``(x0, y0, x1, y1)`` of what stands on the ground.
    """

    low: np.ndarray
    high: np.ndarray
    ceiling: float
    label: int = 0
    limit: int = 0
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def free(self, x: float, y: float, half: np.ndarray, gap: float = 0.03) -> bool:
        """Whether a footprint fits; takes it if so."""
        x0, y0, x1, y1 = x - half[0], y - half[1], x + half[0], y + half[1]
        if x0 < self.low[0] or y0 < self.low[1] or x1 > self.high[0] or y1 > self.high[1]:
            return False
        for a0, b0, a1, b1 in self.taken:
            if x0 < a1 + gap and x1 > a0 - gap and y0 < b1 + gap and y1 > b0 - gap:
                return False
        self.taken.append((x0, y0, x1, y1))
        return True

    @property
    def full(self) -> bool:
        return self.label >= self.limit


def turned(half: tuple[float, float], yaw: float) -> np.ndarray:
    """Half size of the upright rectangle around a turned one."""
    cosine, sine = abs(np.cos(yaw)), abs(np.sin(yaw))
    return np.array([half[0] * cosine + half[1] * sine, half[0] * sine + half[1] * cosine])


def stand(
    kit: Kit, site: Site, make: Callable[[Kit, int], Piece], x: float, y: float, z: float, yaw: float
) -> tuple[Piece, int]:
    """A thing of its own instance at a place."""
    site.label += 1
    body = kit.world.body(pose(x, y, z, yaw=yaw), label=site.label)
    return make(kit, body), body


def place(
    kit: Kit, site: Site, make: Callable[[Kit, int], Piece], spot: Callable[[Piece], tuple[float, float, float]]
) -> Piece | None:
    """Put a thing where ``spot(piece)`` -> x, y, yaw says, if there is room; its size is known only once it is made."""
    world = kit.world
    mark = world.mark()
    piece, body = stand(kit, site, make, 0, 0, 0, 0)
    for _ in range(_TRIES):
        x, y, yaw = spot(piece)
        if site.free(x, y, turned(piece.half, yaw)):
            world.poses[body] = pose(x, y, yaw=yaw)
            load(kit, site, piece, world.poses[body])
            return piece
    world.undo(mark)
    site.label -= 1
    return None


def load(kit: Kit, site: Site, piece: Piece, base: np.ndarray) -> None:
    """Put small things on the free surfaces of a piece, side by side along them."""
    rng = kit.rng
    for x, y, z, half_x, half_y in piece.tops:
        left = -half_x + rng.uniform(0, half_x)
        while left < half_x and rng.random() < 0.8 and not site.full:
            make = furniture.ON_TOP[rng.integers(len(furniture.ON_TOP))]
            mark = kit.world.mark()
            thing, body = stand(kit, site, make, 0, 0, 0, 0)
            yaw = rng.normal(0, 0.3)
            half = turned(thing.half, yaw)
            if left + 2 * half[0] > half_x or half[1] > half_y:
                kit.world.undo(mark)
                site.label -= 1
                left += 0.1
                continue
            across = rng.uniform(-1, 1) * (half_y - half[1])
            kit.world.poses[body] = base @ pose(x + left + half[0], y + across, z, yaw=yaw)
            left += 2 * half[0] + rng.uniform(0.01, 0.3)


# ---- rooms


def build_room(kit: Kit, count: int) -> Site:
    """Floor, walls and ceiling with what hangs on them, and about ``count`` things inside."""
    rng = kit.rng
    size = np.exp(rng.uniform(np.log(3.0), np.log(10.0), 2))
    if rng.random() < 0.15:  # a corridor
        size[rng.integers(2)] = rng.uniform(1.6, 2.4)
    height = rng.uniform(2.3, 3.3)
    half = size / 2
    site = Site(-half + 0.02, half - 0.02, height, limit=count)
    shell = kit.world.body()
    floor = kit.paint('carpet', 'planks', 'planks', 'tiles', 'wood', 'plain', tile=(0.8, 3.0))
    wall = kit.paint('plain', 'plain', 'plain', 'tiles', 'carpet', tile=(1.0, 4.0))
    kit.world.rectangle(shell, pose(), tuple(half), floor)
    lid = pose(0, 0, height)
    lid[:3, :3] = np.diag([1.0, -1, -1])
    kit.world.rectangle(shell, lid, tuple(half), kit.paint('plain', 'plain', 'tiles', tile=(0.6, 3.0), fresh=0.9))
    skirting = kit.paint('plain', 'wood') if rng.random() < 0.6 else None
    for side in range(4):
        frame, reach = _wall(side, half, height)
        paint = (
            kit.paint('plain', 'tiles', 'busy', 'planks', tile=(1.0, 3.0), fresh=0.9) if rng.random() < 0.15 else wall
        )
        kit.world.rectangle(shell, frame, (reach, height / 2), paint)
        _hang(kit, shell, frame, reach, height)
        if skirting is not None:
            kit.world.box(
                shell,
                *_on_wall(frame, 0, 0.05 - height / 2, reach, 0.05, 0.008),
                skirting,
                turn=frame[:3, :3],
                faces=(2, 4),
            )
    for _ in range(int(rng.choice([0, 0, 1, 2]))):  # columns, chimneys, protruding corners
        wide = rng.uniform(0.1, min(0.6, 0.2 * size.min()), 2)
        corner = rng.choice([-1, 1], 2) * (half - wide)
        spot = (
            corner
            if rng.random() < 0.5
            else np.where(rng.permutation([True, False]), corner, rng.uniform(-0.5, 0.5, 2) * half)
        )
        if site.free(*spot, wide - 0.03):
            kit.world.box(shell, (*spot, height / 2), (*wide, height / 2), wall, faces=(0, 1, 2, 3))
    furnish(kit, site)
    return site


def _wall(side: int, half: np.ndarray, height: float) -> tuple[np.ndarray, float]:
    """Frame of a wall, x along it, y up, z into the room; and half its length."""
    yaw = side * np.pi / 2
    along, inward = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([-np.sin(yaw), np.cos(yaw), 0])
    frame = np.eye(4)
    frame[:3, :3] = np.stack([-along, [0, 0, 1], inward], axis=1)
    frame[:3, 3] = -inward * half[1 - side % 2]
    frame[2, 3] = height / 2
    return frame, float(half[side % 2])


def _on_wall(frame: np.ndarray, x: float, y: float, half_x: float, half_y: float, half_z: float) -> tuple[tuple, tuple]:
    """Centre and half size of a box on a wall, in the wall's axes."""
    centre = frame[:3, 3] + frame[:3, :3] @ [x, y, half_z]
    return tuple(centre), (half_x, half_y, half_z)


def _hang(kit: Kit, shell: int, frame: np.ndarray, reach: float, height: float) -> None:
    """Door, windows, posters, boards on a wall, side by side."""
    rng = kit.rng
    left = -reach + rng.uniform(0.05, 0.8)
    while left < reach - 0.3:
        kind = rng.choice(['door', 'window', 'poster', 'poster', 'small', 'nothing'])
        thick, fit = rng.uniform(0.003, 0.03), True
        if kind == 'door':
            wide, tall = rng.uniform(0.38, 0.5), rng.uniform(0.95, 1.08)
            middle = tall - height / 2
            paint = kit.paint('panels', 'plain', 'wood', fit=True)
        elif kind == 'window':
            wide, tall = rng.uniform(0.4, 1.2), rng.uniform(0.4, 0.8)
            middle = rng.uniform(1.3, 1.6) - height / 2
            paint = kit.paint('outlook', fit=True)
            paint.glow = float(rng.uniform(0, 0.9))
        elif kind == 'poster':
            wide, tall = rng.uniform(0.15, 0.7, 2)
            middle = rng.uniform(1.2, 1.8) - height / 2
            paint = kit.paint('busy', 'busy', 'plain', 'screen', fit=True, fresh=0.7)
        elif kind == 'small':
            wide, tall = rng.uniform(0.03, 0.12, 2)
            middle = rng.uniform(0.2, 1.8) - height / 2
            paint = kit.paint('plain', 'busy', fit=fit)
        else:
            left += rng.uniform(0.3, 1.5)
            continue
        tall = min(tall, height / 2 - abs(middle) - 0.02)
        if left + 2 * wide > reach:
            break
        centre, half = _on_wall(frame, left + wide, middle, wide, tall, thick)
        kit.world.box(shell, centre, half, paint, turn=frame[:3, :3], faces=(0, 1, 2, 3, 4))
        left += 2 * wide + rng.uniform(0.05, 1.0)


def furnish(kit: Kit, site: Site) -> None:
    """Furniture along the walls first, then the middle, until there are enough things."""
    rng = kit.rng
    size = site.high - site.low

    def against_wall(piece: Piece) -> tuple[float, float, float]:
        side, yaw = int(rng.integers(4)), 0.0
        yaw = side * np.pi / 2  # its back, +y, to the wall
        half = turned(piece.half, yaw)
        toward = np.array([-np.sin(yaw), np.cos(yaw)])
        gap = float(rng.choice([0.0, rng.uniform(0, 0.15)]))
        spot = rng.uniform(site.low + half, np.maximum(site.high - half, site.low + half + 1e-3))
        spot = np.where(
            np.abs(toward) > 0.5,
            np.where(toward > 0, site.high - half - gap - 1e-3, site.low + half + gap + 1e-3),
            spot,
        )
        return float(spot[0]), float(spot[1]), yaw

    def anywhere(piece: Piece) -> tuple[float, float, float]:
        yaw = rng.integers(4) * np.pi / 2 + rng.normal(0, rng.choice([0.05, 0.5]))
        spot = site.low + rng.random(2) * size
        return float(spot[0]), float(spot[1]), yaw

    for _ in range(3 * site.limit):
        if site.full:
            break
        if rng.random() < 0.5:
            place(kit, site, furniture.AT_WALL[rng.integers(len(furniture.AT_WALL))], against_wall)
        else:
            place(kit, site, furniture.ANYWHERE[rng.integers(len(furniture.ANYWHERE))], anywhere)
