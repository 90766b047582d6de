"""Where things stand: rooms with furniture, and open ground with houses, trees and boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import furniture
from .furniture import Kit, Piece
from .world import Paint, pose

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
    size = np.exp(rng.uniform(np.log(2.6), np.log(8.0), 2))
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


# ---- open ground


def build_open(kit: Kit, count: int) -> Site:
    """Ground to the horizon with houses, trees, walls, posts and boxes."""
    rng = kit.rng
    reach = rng.uniform(8, 35)
    site = Site(np.full(2, -reach), np.full(2, reach), 100.0, limit=count)
    shell = kit.world.body()
    ground = kit.paint('carpet', 'carpet', 'tiles', 'planks', 'busy', tile=(1.0, 6.0))
    kit.world.rectangle(shell, pose(), (300.0, 300.0), ground)
    for _ in range(int(rng.integers(0, 3))):  # roads and lawns
        turn, spot = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5, 2) * reach
        paint = kit.paint('carpet', 'tiles', 'busy', tile=(1.0, 5.0), fresh=0.8)
        kit.world.rectangle(shell, pose(*spot, 0.02, yaw=turn), (200.0, rng.uniform(1, 4)), paint)
    for _ in range(int(rng.integers(2, 9))):  # far hills and blocks
        turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 6) * reach
        spot = away * np.array([np.cos(turn), np.sin(turn)])
        if rng.random() < 0.4:
            radii = (rng.uniform(0.3, 1) * away, rng.uniform(0.3, 1) * away, rng.uniform(0.05, 0.3) * away)
            if max(radii[:2]) < away - reach:
                kit.world.ball(shell, (*spot, -0.2 * radii[2]), radii, kit.paint('carpet', 'busy', tile=(4.0, 20.0)))
        else:
            half = rng.uniform(2, 12, 3)
            kit.world.box(
                shell,
                (*spot, half[2]),
                tuple(half),
                kit.paint('windows', 'tiles', tile=(4, 12)),
                yaw=turn,
                faces=(0, 1, 2, 3, 4),
            )

    def anywhere(piece: Piece) -> tuple[float, float, float]:
        away, turn = reach * rng.random() ** 0.8, rng.uniform(0, 2 * np.pi)
        return float(away * np.cos(turn)), float(away * np.sin(turn)), float(rng.uniform(0, 2 * np.pi))

    makers = (
        house,
        house,
        tree,
        tree,
        tree,
        post,
        wall,
        crate,
        crate,
        furniture.person,
        furniture.carton,
        furniture.cone,
        car,
        car,
    )
    for _ in range(3 * site.limit):
        if site.full:
            break
        place(kit, site, makers[rng.integers(len(makers))], anywhere)
    return site


def house(kit: Kit, body: int) -> Piece:
    rng, world = kit.rng, kit.world
    x, y, z = rng.uniform(2, 6), rng.uniform(2, 5), rng.uniform(1.3, 4)
    paint = kit.paint('windows', 'windows', 'tiles', 'plain', tile=(2.5, 6.0))
    paint.turned = False
    world.box(body, (0, 0, z), (x, y, z), paint, faces=(0, 1, 2, 3, 4))
    if rng.random() < 0.6:  # two slabs make a roof
        slope, roof = rng.uniform(0.3, 0.8), kit.paint('tiles', 'plain', 'planks', tile=(1.0, 4.0))
        for side in (-1, 1):
            turn = np.array(
                [[1, 0, 0], [0, np.cos(slope), side * np.sin(slope)], [0, -side * np.sin(slope), np.cos(slope)]]
            )
            half = (x + 0.3, (y + 0.3) / np.cos(slope) / 2, 0.06)
            place_ = (0, side * (y + 0.3) / 2, 2 * z + (y - 0.3) / 2 * np.tan(slope) + 0.06)
            world.box(body, place_, half, roof, turn=turn)
    return Piece((x + 0.3, y + 0.3))


def tree(kit: Kit, body: int) -> Piece:
    rng, world = kit.rng, kit.world
    tall = rng.uniform(1.5, 6)
    trunk = Paint(kit.materials('wood', tint=np.array([0.3, 0.22, 0.15])), 0.5)
    tint = np.array([rng.uniform(0.1, 0.4), rng.uniform(0.22, 0.5), rng.uniform(0.03, 0.2)])
    leaf = Paint(kit.materials(str(rng.choice(['carpet', 'tiles', 'busy'])), tint=tint), rng.uniform(0.5, 2))
    thick = 0.03 * tall * rng.uniform(0.6, 1.6)
    world.column(body, (0, 0, tall / 2), thick, 0.6 * thick, tall / 2, trunk, caps=False)
    if rng.random() < 0.25:
        world.column(body, (0, 0, tall), 0.4 * tall, 0.02, 0.7 * tall, leaf)
        return Piece((0.4 * tall, 0.4 * tall))
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.normal(0, 0.15 * tall, 2)
        world.ball(body, (x, y, tall * rng.uniform(0.8, 1.2)), tuple(tall * rng.uniform(0.15, 0.35, 3)), leaf)
    return Piece((0.3 * tall, 0.3 * tall))


def post(kit: Kit, body: int) -> Piece:
    rng = kit.rng
    tall, thick = rng.uniform(0.5, 3), rng.uniform(0.03, 0.1)
    kit.world.column(body, (0, 0, tall), thick, thick * 0.8, tall, kit.sheet())
    if rng.random() < 0.5:
        kit.world.box(body, (0, -thick, 2 * tall - 0.3), (0.3, 0.02, 0.25), kit.paint('busy', 'plain', fit=True))
    return Piece((0.3, 0.15))


def wall(kit: Kit, body: int) -> Piece:
    rng = kit.rng
    half = (rng.uniform(1, 5), rng.uniform(0.05, 0.2), rng.uniform(0.3, 1.2))
    kit.world.box(
        body, (0, 0, half[2]), half, kit.paint('tiles', 'planks', 'plain', 'busy', tile=(0.5, 3)), faces=(0, 1, 2, 3, 4)
    )
    return Piece(half[:2])


def crate(kit: Kit, body: int) -> Piece:
    half = kit.rng.uniform(0.2, 1.5, 3)
    kit.world.box(
        body,
        (0, 0, half[2]),
        tuple(half),
        kit.paint('planks', 'plain', 'busy', 'panels', tile=(0.5, 3)),
        faces=(0, 1, 2, 3, 4),
    )
    return Piece((half[0], half[1]))


def car(kit: Kit, body: int) -> Piece:
    """A body, a cabin and four wheels."""
    rng, world = kit.rng, kit.world
    x, y = rng.uniform(1.8, 2.3), rng.uniform(0.8, 0.95)
    paint, glass, tyre = (
        kit.paint('plain', fresh=0.9),
        kit.paint('plain'),
        Paint(kit.materials('plain', tint=np.full(3, 0.04))),
    )
    paint.gloss = glass.gloss = 0.4
    world.box(body, (0, 0, 0.65), (x, y, 0.35), paint)
    world.box(body, (rng.uniform(-0.4, 0.2), 0, 1.2), (0.55 * x, 0.9 * y, 0.22), glass, faces=(0, 1, 2, 3, 4))
    sideways = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    for sx in (-1, 1):
        for sy in (-1, 1):
            world.column(body, (sx * 0.62 * x, sy * (y - 0.08), 0.32), 0.32, 0.32, 0.1, tyre, turn=sideways)
    return Piece((x, y))
