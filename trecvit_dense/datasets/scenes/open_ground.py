"""Open ground with houses, trees, cars, walls and boxes, under a sky."""

from __future__ import annotations

import numpy as np

from . import furniture
from .furniture import Kit, Piece
from .layout import Site, place
from .world import Paint, pose


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
