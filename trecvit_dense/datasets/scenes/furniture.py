"""Things to put into a scene, each built of a few solids in the coordinates of its own body.

A body stands at the origin, z up, its front towards -y. Every maker gives back a :class:`Piece`: how much floor it
takes and where something can be put on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from .materials import Materials
from .world import BOTTOM, Paint, World

_SIDES = (0, 1, 2, 3, 4)  # all faces but the bottom
_GLOSS = (0.0, 0.0, 0.0, 0.15, 0.5)


@dataclass
class Piece:
    """``half``: half of the floor it takes, x and y; ``tops``: ``(x, y, z, half_x, half_y)`` of its free surfaces."""

    half: tuple[float, float]
    tops: list[tuple[float, float, float, float, float]] = field(default_factory=list)


class Kit:
    """World, materials and random numbers of one clip, with the choices that makers share."""

    def __init__(self, rng: Generator, world: World, materials: Materials) -> None:
        self.rng, self.world, self.materials = rng, world, materials

    def paint(
        self, *families: str, tile: tuple[float, float] = (0.5, 2.0), fit: bool = False, fresh: float = 0.35
    ) -> Paint:
        """A material of one of the families, at a random scale."""
        rng = self.rng
        family = families[rng.integers(len(families))]
        gloss = _GLOSS[rng.integers(len(_GLOSS))] if family in ('plain', 'wood', 'panels') else 0.0
        scale = tile[0] * (tile[1] / tile[0]) ** rng.random()
        return Paint(self.materials(family, fresh=fresh), scale, fit, bool(rng.random() < 0.5), gloss)

    def sheet(self) -> Paint:
        """What furniture is made of."""
        return self.paint('plain', 'plain', 'wood', 'wood', 'carpet', 'busy', tile=(0.4, 1.5))


def table(kit: Kit, body: int) -> Piece:
    """Desk, dining or coffee table; a round one in five."""
    rng, world = kit.rng, kit.world
    x, y = rng.uniform(0.4, 1.0), rng.uniform(0.3, 0.5)
    height = rng.uniform(0.68, 0.78) if rng.random() < 0.75 else rng.uniform(0.35, 0.55)
    thick = rng.uniform(0.01, 0.03)
    board, frame = kit.sheet(), kit.sheet()
    if rng.random() < 0.2:
        x = y = rng.uniform(0.35, 0.65)
        world.column(body, (0, 0, height - thick), x, x, thick, board)
        world.column(body, (0, 0, height / 2), 0.06, 0.04, height / 2 - thick, frame, caps=False)
        world.column(body, (0, 0, 0.02), 0.3, 0.28, 0.02, frame)
        return Piece((x, x), [(0, 0, height, 0.6 * x, 0.6 * x)])
    world.box(body, (0, 0, height - thick), (x, y, thick), board)
    leg = rng.uniform(0.015, 0.045)
    if rng.random() < 0.25:  # closed sides
        for side in (-1, 1):
            world.box(
                body,
                (side * (x - leg), 0, height / 2 - thick),
                (leg, y * 0.95, height / 2 - thick),
                frame,
                faces=_SIDES,
            )
    else:
        for sx in (-1, 1):
            for sy in (-1, 1):
                centre = (sx * (x - 1.5 * leg), sy * (y - 1.5 * leg), height / 2 - thick)
                world.box(body, centre, (leg, leg, height / 2 - thick), frame, faces=(0, 1, 2, 3))
    if rng.random() < 0.3:  # a drawer unit below
        wide = min(0.25, 0.4 * x)
        half = (wide, y * 0.9, 0.42 * height)
        world.box(
            body, (x - wide - 2 * leg, 0, half[2]), half, frame, front=kit.paint('panels', fit=True), faces=_SIDES
        )
    return Piece((x, y), [(0, 0, height, x, y)])


def chair(kit: Kit, body: int) -> Piece:
    rng, world = kit.rng, kit.world
    half, seat, back = rng.uniform(0.19, 0.25), rng.uniform(0.42, 0.5), rng.uniform(0.75, 1.1)
    cloth, frame, leg = kit.sheet(), kit.sheet(), rng.uniform(0.012, 0.025)
    world.box(body, (0, 0, seat), (half, half, rng.uniform(0.015, 0.05)), cloth)
    low = seat + 0.05 + rng.uniform(0, 0.2)
    world.box(body, (0, half - 0.02, (low + back) / 2), (half, rng.uniform(0.01, 0.03), (back - low) / 2), cloth)
    if rng.random() < 0.3:  # an office chair
        world.column(body, (0, 0, seat / 2), 0.03, 0.03, seat / 2, frame, caps=False)
        world.column(body, (0, 0, 0.05), 0.28, 0.05, 0.05, frame)
        world.box(body, (0, half - 0.02, (seat + low) / 2), (0.03, 0.01, (low - seat) / 2 + 0.02), frame)
    else:
        for sx in (-1, 1):
            for sy in (-1, 1):
                tall = (back if sy > 0 else seat) / 2
                place = (sx * (half - leg), sy * (half - leg), tall)
                world.box(body, place, (leg, leg, tall), frame, faces=(0, 1, 2, 3))
    return Piece((half, half), [(0, -0.05, seat + 0.04, half * 0.7, half * 0.6)] if rng.random() < 0.3 else [])


def cabinet(kit: Kit, body: int) -> Piece:
    """Cupboard, sideboard, wardrobe, chest, fridge."""
    rng = kit.rng
    x, y = rng.uniform(0.25, 0.9), rng.uniform(0.18, 0.35)
    height = float(rng.choice([rng.uniform(0.45, 0.95), rng.uniform(0.95, 1.4), rng.uniform(1.7, 2.1)]))
    front = kit.paint('panels', 'panels', 'plain', 'wood', 'busy', fit=True)
    kit.world.box(body, (0, 0, height / 2), (x, y, height / 2), kit.sheet(), front=front, faces=_SIDES)
    if rng.random() < 0.4:  # a board on top
        kit.world.box(body, (0, 0, height + 0.015), (x + 0.015, y + 0.015, 0.015), kit.sheet())
        height += 0.03
    return Piece((x, y), [(0, 0, height, x, y)] if height < 1.6 else [])


def shelf(kit: Kit, body: int) -> Piece:
    """Open boards with books and boxes."""
    rng, world = kit.rng, kit.world
    x, y, height = rng.uniform(0.3, 0.7), rng.uniform(0.13, 0.22), rng.uniform(0.8, 2.1)
    wood, thick = kit.sheet(), rng.uniform(0.008, 0.018)
    for side in (-1, 1):
        world.box(body, (side * (x - thick), 0, height / 2), (thick, y, height / 2), wood, faces=(0, 1, 2, 3, 4))
    if rng.random() < 0.7:
        world.box(body, (0, y - 0.005, height / 2), (x, 0.004, height / 2), wood, faces=(2, 3))
    boards = int(np.clip(round(height / rng.uniform(0.28, 0.42)), 2, 6))
    levels = np.linspace(0.05, height - thick, boards + 1)
    for k, level in enumerate(levels):
        world.box(body, (0, 0, level), (x, y, thick), wood, faces=(3, 4, BOTTOM))
        if k == boards:
            break
        room, left = levels[k + 1] - level - 2.5 * thick, -x + 2.5 * thick
        while left < x - 0.1:
            wide = min(rng.uniform(0.06, 0.5), x - 2 * thick - left)
            if rng.random() < 0.75 and wide > 0.05:
                tall, deep = room * rng.uniform(0.4, 0.95) / 2, y * rng.uniform(0.5, 0.9)
                front = kit.paint('books', fit=True) if wide > 0.15 and rng.random() < 0.7 else None
                centre = (left + wide / 2, -y + deep + rng.uniform(0, 0.06), level + thick + tall)
                world.box(body, centre, (wide / 2, deep, tall), kit.sheet(), front=front, faces=(0, 1, 3, 4))
            left += wide + rng.uniform(0, 0.06)
    return Piece((x, y), [(0, 0, height, x, y)] if height < 1.5 else [])


def sofa(kit: Kit, body: int) -> Piece:
    rng, world = kit.rng, kit.world
    x, y, seat, back, arm = (
        rng.uniform(0.4, 1.1),
        rng.uniform(0.38, 0.48),
        rng.uniform(0.36, 0.46),
        rng.uniform(0.7, 0.95),
        rng.uniform(0.06, 0.14),
    )
    cloth = kit.paint('carpet', 'plain', 'busy', tile=(0.4, 1.5))
    world.box(body, (0, 0, seat / 2), (x, y, seat / 2), cloth, faces=_SIDES)
    world.box(body, (0, y - 0.1, back / 2), (x, 0.1, back / 2), cloth, faces=_SIDES)
    if rng.random() < 0.85:
        for side in (-1, 1):
            world.box(
                body,
                (side * (x - arm), 0, seat / 2 + 0.1),
                (arm + 0.01, y + 0.005, seat / 2 + 0.1),
                cloth,
                faces=_SIDES,
            )
    for _ in range(int(rng.integers(0, 4))):  # cushions
        place = (rng.uniform(-0.7, 0.7) * x, y - 0.28, seat + 0.17)
        world.box(
            body,
            place,
            (0.2, 0.05, 0.17),
            kit.paint('busy', 'carpet', 'plain', tile=(0.3, 0.8)),
            yaw=rng.normal(0, 0.2),
        )
    return Piece((x, y), [(0, -0.15, seat, x * 0.7, y * 0.4)])


def bed(kit: Kit, body: int) -> Piece:
    rng, world = kit.rng, kit.world
    x, y, height = rng.uniform(0.45, 0.9), 1.0, rng.uniform(0.35, 0.6)
    frame, cloth = kit.sheet(), kit.paint('busy', 'carpet', 'plain', tile=(0.8, 2.5))
    world.box(body, (0, 0, height / 3), (x, y, height / 3), frame, faces=_SIDES)
    world.box(body, (0, -0.02, height * 0.8), (x - 0.02, y - 0.03, height * 0.2), cloth, faces=_SIDES)
    world.box(body, (0, y - 0.03, height * 0.9), (x, 0.03, height * 0.9), frame, faces=_SIDES)
    pillow = kit.paint('plain', 'carpet', 'busy')
    for side in (-1, 1):
        world.box(body, (side * x * 0.48, y - 0.3, height + 0.06), (0.3 * x, 0.2, 0.06), pillow)
    return Piece((x, y), [(0, -0.3, height, x * 0.8, 0.4)])


def plant(kit: Kit, body: int) -> Piece:
    """A pot and a cluster of leaves."""
    rng, world = kit.rng, kit.world
    size = rng.uniform(0.12, 0.3)
    tall = size * rng.uniform(1.2, 3.5)
    world.column(body, (0, 0, 0.5 * size), 0.35 * size, 0.5 * size, 0.5 * size, kit.paint('plain', 'plain', 'tiles'))
    tint = np.array([rng.uniform(0.08, 0.3), rng.uniform(0.25, 0.5), rng.uniform(0.03, 0.2)])
    leaf = Paint(kit.materials(str(rng.choice(['carpet', 'tiles'])), tint=tint), rng.uniform(0.1, 0.4))
    world.column(body, (0, 0, size + tall / 3), 0.05 * size, 0.04 * size, tall / 3, leaf, caps=False)
    for _ in range(int(rng.integers(3, 8))):
        x, y = rng.normal(0, 0.35 * size, 2)
        radii = size * rng.uniform(0.15, 0.55, 3)
        world.ball(body, (x, y, size + tall * rng.uniform(0.35, 1.0)), tuple(radii), leaf)
    return Piece((0.8 * size, 0.8 * size))


def lamp(kit: Kit, body: int) -> Piece:
    rng, world = kit.rng, kit.world
    height, shade = rng.uniform(1.2, 1.7), rng.uniform(0.12, 0.25)
    metal, cloth = kit.paint('plain'), kit.paint('plain', 'carpet')
    cloth.glow = float(rng.choice([0.0, 0.5, 0.9]))
    world.column(body, (0, 0, 0.015), 0.15, 0.14, 0.015, metal)
    world.column(body, (0, 0, height / 2), 0.012, 0.012, height / 2, metal, caps=False)
    world.column(body, (0, 0, height), shade, shade * rng.uniform(0.5, 1), shade * 0.8, cloth)
    return Piece((0.2, 0.2))


def carton(kit: Kit, body: int) -> Piece:
    """Boxes, one on another now and then."""
    rng = kit.rng
    base = 0.0
    first = None
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        half = rng.uniform(0.1, 0.32, 3) * (0.8, 0.7, 0.7)
        if first is not None:
            half = np.minimum(half, (*first[:2], 1))
        tint = np.array([0.62, 0.46, 0.3]) * rng.uniform(0.5, 1.2) if rng.random() < 0.5 else None
        paint = Paint(kit.materials('carpet', tint=tint), 0.8) if tint is not None else kit.sheet()
        front = kit.paint('busy', fit=True) if rng.random() < 0.3 else None
        kit.world.box(
            body, (0, 0, base + half[2]), tuple(half), paint, front=front, yaw=rng.normal(0, 0.1) if base else 0.0
        )
        first = half if first is None else first
        base += 2 * half[2]
    return Piece((first[0], first[1]), [(0, 0, base, half[0], half[1])])


def small_box(kit: Kit, body: int) -> Piece:
    """Clutter: books, packets, devices."""
    rng = kit.rng
    half = np.array([rng.uniform(0.03, 0.16), rng.uniform(0.03, 0.12), rng.uniform(0.008, 0.14)])
    kit.world.box(body, (0, 0, half[2]), tuple(half), kit.paint('busy', 'plain', 'wood', 'carpet', tile=(0.1, 0.5)))
    return Piece((half[0], half[1]))


def bottle(kit: Kit, body: int) -> Piece:
    """Mugs, bottles, bins, pots."""
    rng = kit.rng
    radius, height = rng.uniform(0.025, 0.09), rng.uniform(0.05, 0.16)
    paint = kit.paint('plain', 'busy', tile=(0.1, 0.5))
    kit.world.column(body, (0, 0, height), radius, radius * rng.uniform(0.6, 1.2), height, paint)
    if rng.random() < 0.4:
        kit.world.column(body, (0, 0, 2 * height + 0.03), radius * 0.4, radius * 0.3, 0.03, paint)
    return Piece((radius, radius))


def ball(kit: Kit, body: int) -> Piece:
    radius = kit.rng.uniform(0.05, 0.16)
    kit.world.ball(body, (0, 0, radius), (radius,) * 3, kit.paint('busy', 'plain', 'tiles', tile=(0.2, 0.8)))
    return Piece((radius, radius))


def bin_(kit: Kit, body: int) -> Piece:
    rng = kit.rng
    radius, height = rng.uniform(0.12, 0.25), rng.uniform(0.15, 0.4)
    kit.world.column(body, (0, 0, height), radius * rng.uniform(0.6, 1), radius, height, kit.sheet())
    return Piece((radius, radius))


def cone(kit: Kit, body: int) -> Piece:
    radius = kit.rng.uniform(0.05, 0.2)
    kit.world.column(
        body, (0, 0, radius * 1.4), radius, radius * kit.rng.uniform(0, 0.4), radius * 1.4, kit.paint('plain', 'busy')
    )
    return Piece((radius, radius))


def monitor(kit: Kit, body: int) -> Piece:
    rng, world = kit.rng, kit.world
    x, z = rng.uniform(0.2, 0.36), rng.uniform(0.13, 0.21)
    dark = kit.paint('plain', fresh=0.8)
    picture = kit.paint('screen', fit=True)
    picture.glow = float(rng.choice([0.0, 0.4]))
    lift = rng.uniform(0.06, 0.15)
    world.box(body, (0, 0, lift + z), (x, 0.02, z), dark, front=picture)
    world.box(body, (0, 0.03, lift / 2 + 0.03), (0.03, 0.012, lift / 2 + 0.03), dark)
    world.box(body, (0, 0.02, 0.006), (0.1, 0.08, 0.006), dark, faces=_SIDES)
    return Piece((x, 0.1))


def laptop(kit: Kit, body: int) -> Piece:
    rng, world = kit.rng, kit.world
    dark, lean = kit.paint('plain', fresh=0.8), rng.uniform(0.1, 0.5)
    turn = np.array([[1, 0, 0], [0, np.cos(lean), np.sin(lean)], [0, -np.sin(lean), np.cos(lean)]])
    world.box(body, (0, 0, 0.01), (0.16, 0.11, 0.01), dark, faces=_SIDES)
    place = (0, 0.11 + 0.11 * np.sin(lean), 0.01 + 0.11 * np.cos(lean))
    world.box(body, place, (0.16, 0.006, 0.11), dark, front=kit.paint('screen', fit=True), turn=turn)
    return Piece((0.16, 0.2))


def person(kit: Kit, body: int) -> Piece:
    """Rounded torso, legs and head: no likeness, but the right size."""
    rng, world = kit.rng, kit.world
    size = rng.uniform(0.85, 1.1)
    cloth, legs, skin = kit.paint('carpet', 'plain', 'busy'), kit.paint('carpet', 'plain'), kit.paint('plain')
    for side in (-1, 1):
        world.column(
            body, (side * 0.1 * size, rng.normal(0, 0.08), 0.42 * size), 0.07 * size, 0.09 * size, 0.42 * size, legs
        )
        world.ball(
            body, (side * 0.25 * size, rng.normal(0, 0.06), 1.1 * size), (0.06 * size, 0.07 * size, 0.33 * size), cloth
        )
    world.ball(body, (0, 0, 1.12 * size), (0.22 * size, 0.14 * size, 0.36 * size), cloth)
    world.ball(body, (0, 0, 1.6 * size), (0.09 * size, 0.11 * size, 0.13 * size), skin)
    return Piece((0.3 * size, 0.2 * size))


AT_WALL: tuple[Callable[[Kit, int], Piece], ...] = (cabinet, cabinet, shelf, shelf, sofa, table, table, bed)
"""Stand with their back to a wall."""
ANYWHERE: tuple[Callable[[Kit, int], Piece], ...] = (
    table, table, chair, chair, chair, carton, carton, plant, lamp, ball, bin_, cabinet, sofa, person, cone,
)  # fmt: skip
ON_TOP: tuple[Callable[[Kit, int], Piece], ...] = (
    small_box, small_box, small_box, small_box, bottle, bottle, bottle, monitor, monitor, laptop, ball, plant, carton,
)  # fmt: skip
