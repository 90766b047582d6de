"""What a scene is made of: bodies that may move, and on them rectangles, discs and round surfaces.

World and body axes: x and y along the ground, z up, metres. A *patch* is one surface with a frame of its own: a
rectangle or disc lies in the frame's xy plane and is seen from +z; a round one is the set of points with
``x^2 + y^2 + k z^2 + l z + e = 0`` between two heights (spheres, cylinders, cones, in scaled coordinates).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

RECTANGLE, DISC, ROUND = 0, 1, 2


def _face_turns() -> np.ndarray:
    """``(6, 3, 3)``: frames of the faces +x -x +y -y +z -z of a box; columns u, v (up on the sides), outward normal."""
    x, y, z = np.eye(3)
    faces = [(y, z, x), (-y, z, -x), (-x, z, y), (x, z, -y), (x, y, z), (-x, y, -z)]
    return np.stack([np.stack(face, axis=1) for face in faces])


def _unit_faces() -> np.ndarray:
    """``(6, 4, 4)``: frames of the faces of a box of half size 1."""
    frames = np.tile(np.eye(4), (6, 1, 1))
    frames[:, :3, :3] = _face_turns()
    frames[:, :3, 3] = frames[:, :3, 2]
    return frames


_FACES = _unit_faces()
_SPANS = np.array(
    [[1, 2], [1, 2], [0, 2], [0, 2], [0, 1], [0, 1]]
)  # axes of the box that u and v of each face run along
BOTTOM = 5


def pose(
    x: float = 0.0, y: float = 0.0, z: float = 0.0, *, yaw: float = 0.0, turn: np.ndarray | None = None
) -> np.ndarray:
    """``(4, 4)``: a place and a turn about the vertical (or any other ``(3, 3)`` turn)."""
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    if turn is None:
        cosine, sine = np.cos(yaw), np.sin(yaw)
        matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    else:
        matrix[:3, :3] = turn
    return matrix


@dataclass
class Paint:
    """How a surface is textured.

    Args:
        material: Index into the clip's materials.
        tile_m: Metres that one texture covers.
        fit: The texture covers the surface exactly once instead (doors, posters, rows of books).
        turned: Swap the directions of the texture.
        gloss: 0 for dull, 1 for a mirror-like highlight.
        glow: Shines by itself (windows, screens, lamps): 0 to 1.
    """

    material: int
    tile_m: float = 1.0
    fit: bool = False
    turned: bool = False
    gloss: float = 0.0
    glow: float = 0.0


@dataclass
class World:
    """Collects bodies and patches; :meth:`freeze` makes them arrays."""

    rng: np.random.Generator
    poses: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    solids: list[tuple[int, np.ndarray, np.ndarray]] = field(default_factory=list)
    _patches: list[tuple] = field(default_factory=list)

    def body(self, poses: np.ndarray | None = None, *, label: int = 0) -> int:
        """A new body at ``(4, 4)``, or moving along ``(T, 4, 4)``; ``label`` is its instance, 0 for the background."""
        self.poses.append(np.eye(4) if poses is None else np.asarray(poses, float))
        self.labels.append(label)
        return len(self.poses) - 1

    def mark(self) -> tuple[int, int, int]:
        """What there is now, for :meth:`undo`."""
        return len(self.poses), len(self.solids), len(self._patches)

    def undo(self, mark: tuple[int, int, int]) -> None:
        """Forget everything made since ``mark``."""
        bodies, solids, patches = mark
        del self.poses[bodies:], self.labels[bodies:], self.solids[solids:], self._patches[patches:]

    # ---- surfaces

    def rectangle(self, body: int, frame: np.ndarray, half: tuple[float, float], paint: Paint) -> None:
        """``half``: half sizes along the frame's x and y."""
        self._patch(body, RECTANGLE, frame, (*half, 0.0), paint)

    def box(
        self,
        body: int,
        centre: tuple[float, float, float],
        half: tuple[float, float, float],
        paint: Paint,
        *,
        front: Paint | None = None,
        yaw: float = 0.0,
        turn: np.ndarray | None = None,
        faces: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
    ) -> None:
        """A closed box; ``front`` paints the face -y."""
        frame, half = pose(*centre, yaw=yaw, turn=turn), np.maximum(half, 1e-3)
        self.solids.append((body, frame, half))
        shift, spans = self.rng.random(2), half[_SPANS].tolist()
        local = _FACES.copy()
        local[:, :3, 3] *= half
        frames = frame @ local  # (6, 4, 4)
        for face in faces:
            look = front if front is not None and face == 3 else paint
            self._patch(body, RECTANGLE, frames[face], (*spans[face], 0.0), look, shift)

    def ball(
        self, body: int, centre: tuple[float, float, float], radii: tuple[float, float, float], paint: Paint
    ) -> None:
        """An ellipsoid."""
        frame = pose(*centre)
        self.solids.append((body, frame, np.array(radii)))
        self._patch(body, ROUND, frame, (1.0, 1.0, 1.0), paint, scale=radii, form=(1.0, 0.0, -1.0))

    def column(
        self,
        body: int,
        centre: tuple[float, float, float],
        bottom: float,
        top: float,
        half_height: float,
        paint: Paint,
        *,
        turn: np.ndarray | None = None,
        caps: bool = True,
    ) -> None:
        """A cylinder or (cut) cone about the local z axis; radii in metres."""
        frame, widest = pose(*centre, turn=turn), max(bottom, top)
        self.solids.append((body, frame, np.array([widest, widest, half_height])))
        middle, slope = (bottom + top) / 2, (top - bottom) / (2 * half_height)
        form = (-slope * slope, -2 * middle * slope, -middle * middle)
        self._patch(body, ROUND, frame, (widest, widest, half_height), paint, form=form)
        for sign, radius in ((1, top), (-1, bottom)):
            if caps and radius > 1e-3:
                lid = np.diag([1.0, sign, sign, 1.0])
                lid[2, 3] = sign * half_height
                self._patch(body, DISC, frame @ lid, (radius, radius, 0.0), paint)

    def _patch(
        self,
        body: int,
        kind: int,
        frame: np.ndarray,
        half: tuple[float, float, float],
        paint: Paint,
        shift: np.ndarray | None = None,
        *,
        scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
        form: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        shift = self.rng.random(2) if shift is None else shift
        if paint.fit and kind == RECTANGLE:
            texture = (0.5 / half[0], 0.5 / half[1], 0.5, 0.5)
        else:
            texture = (1 / paint.tile_m, 1 / paint.tile_m, *shift)
        self._patches.append((body, kind, frame, half, scale, form, paint, texture))

    def freeze(self, num_frames: int, textures: Sequence[int], tints: Sequence[np.ndarray]) -> Scene:
        """The arrays that the ray caster reads; ``textures`` and ``tints`` of the materials."""
        body, kind, frame, half, scale, form, paint, texture = zip(*self._patches, strict=True)
        poses = np.empty((num_frames, len(self.poses), 4, 4))
        for number, way in enumerate(self.poses):
            poses[:, number] = way
        body, material = np.array(body), [p.material for p in paint]
        return Scene(
            poses=poses,
            labels=np.array(self.labels, np.uint8),
            body=body,
            kind=np.array(kind),
            frame=np.stack(frame),
            half=np.array(half),
            scale=np.array(scale),
            form=np.array(form),
            picture=np.array(textures)[material],
            tint=np.array(tints)[material],
            texture=np.array(texture),
            turned=np.array([p.turned for p in paint]),
            gloss=np.array([p.gloss for p in paint]),
            glow=np.array([p.glow for p in paint]),
        )


@dataclass
class Scene:
    """Patches as arrays; P patches, B bodies, T frames.

    Args:
        poses: ``(T, B, 4, 4)`` body to world.
        labels: ``(B,)`` uint8 instance of each body.
        body, kind, picture: ``(P,)`` int; the picture is a texture of the pool.
        tint: ``(P, 3)`` what its colours are multiplied by.
        frame: ``(P, 4, 4)`` patch to body.
        half: ``(P, 3)`` half sizes in the patch's (scaled) frame.
        scale: ``(P, 3)`` metres per unit of the patch's frame; 1 but for ellipsoids.
        form: ``(P, 3)`` k, l, e of round patches.
        texture: ``(P, 4)`` textures per metre along x and y, and their shift.
        turned: ``(P,)`` bool.
        gloss, glow: ``(P,)``.
    """

    poses: np.ndarray
    labels: np.ndarray
    body: np.ndarray
    kind: np.ndarray
    frame: np.ndarray
    half: np.ndarray
    scale: np.ndarray
    form: np.ndarray
    picture: np.ndarray
    tint: np.ndarray
    texture: np.ndarray
    turned: np.ndarray
    gloss: np.ndarray
    glow: np.ndarray


def clearance(
    solids: list[tuple[int, np.ndarray, np.ndarray]], poses: list[np.ndarray], points: np.ndarray
) -> np.ndarray:
    """``(T,)`` metres from each of the points ``(T, 3)`` to the nearest bounding box at that time; 0 inside."""
    if not solids:
        return np.full(len(points), np.inf)
    to_world = np.empty((len(points), len(solids), 4, 4))
    for number, (body, frame, _) in enumerate(solids):
        to_world[:, number] = poses[body] @ frame
    half = np.stack([half for _, _, half in solids])
    away = points[:, None] - to_world[..., :3, 3]  # (T, S, 3)
    local = np.abs((to_world[..., :3, :3] * away[..., :, None]).sum(-2))
    return np.linalg.norm(np.maximum(local - half, 0), axis=-1).min(1)
