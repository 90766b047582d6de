"""The motion of the camera between two frames, from where points went; and how far away they are, from both.

A point seen along the ray ``p = (x, y, 1)`` at inverse depth ``w`` is seen from another frame along ``R p + w t``. The
direction of ``t`` is searched over a half sphere, where the best rotation has a closed form for each (the subspace
method: Heeger and Jepson, 1992), and then all five numbers are refined on the exact epipolar distance by Gauss-Newton
with robust weights (Hartley and Zisserman, 2003, section 11.4.3). The length of ``t`` cannot be seen and is 1.

Nothing here is learned, and no gradient passes.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DIRECTIONS = 48


def relative_motion(
    rays: Tensor, moved: Tensor, weight: Tensor, *, pixel: float | Tensor, steps: int = 6, starts: int = 2
) -> tuple[Tensor, Tensor]:
    """Rotation ``(N, 3, 3)`` and unit translation ``(N, 3)`` that take points of a frame to another frame.

    Args:
        rays: ``(N, M, 2)`` x, y of the rays at depth 1.
        moved: ``(N, M, 2)`` where they are in the other frame.
        weight: ``(N, M)``, not negative; 0 leaves a point out.
        pixel: Size of one pixel at depth 1, ``(N,)`` or one for all: the scale of what counts as an outlier.
        steps: Gauss-Newton steps.
        starts: Directions of the search that are refined.
    """
    pixel = torch.as_tensor(pixel, dtype=rays.dtype, device=rays.device).expand(len(rays)).view(-1, 1)
    translation, turn = _search(rays, moved, weight, pixel, starts)  # (N, K, 3) each
    count, ways = translation.shape[:2]
    rays, moved, weight, pixel = (part.repeat_interleave(ways, 0) for part in (rays, moved, weight, pixel))
    translation, rotation = translation.flatten(0, 1), turned_by(turn.flatten(0, 1))
    from_rays, to_rays = homogeneous(rays), homogeneous(moved)
    for step in range(steps):
        width = pixel * (2.0 if step < steps // 2 else 1.0)
        rotation, translation = _improve(from_rays, to_rays, weight, width, rotation, translation)
    distance = epipolar_distance(from_rays @ rotation.mT, to_rays, translation)
    cost = (weight * _robust_cost(distance, pixel)).sum(1).view(count, ways)
    best = cost.argmin(1) + torch.arange(count, device=cost.device) * ways
    return rotation[best], translation[best]


def inverse_depth(turned: Tensor, seen: Tensor, translation: Tensor) -> Tensor:
    """Least-squares ``w`` in ``seen ~ turned + w * translation``; ``(N, M, 3)`` rays, ``(N, 3)``; ``(N, M)``.

    Negative where a point would lie behind the camera, in units of one over the length of the translation.
    """
    along = torch.linalg.cross(seen, translation[..., None, :].expand_as(seen), dim=-1)
    across = torch.linalg.cross(seen, turned, dim=-1)
    return -(along * across).sum(-1) / along.square().sum(-1).clamp(min=1e-12)


def epipolar_distance(turned: Tensor, seen: Tensor, translation: Tensor) -> Tensor:
    """Distance from the epipolar line, in the units of the rays and with a sign; ``(N, M)`` (Sampson's form)."""
    line = torch.linalg.cross(translation[..., None, :].expand_as(turned), turned, dim=-1)
    return (seen * line).sum(-1) / line[..., :2].norm(dim=-1).clamp(min=1e-6)


def skew(vector: Tensor) -> Tensor:
    """``(..., 3)`` to ``(..., 3, 3)``: the matrix of the cross product."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def turned_by(vector: Tensor) -> Tensor:
    """Rotation vector ``(..., 3)`` to matrix ``(..., 3, 3)`` (Rodrigues); a tenth of the time of ``matrix_exp``."""
    angle = vector.norm(dim=-1).clamp(min=1e-8)[..., None, None]
    axis = skew(vector) / angle
    return torch.eye(3).to(vector) + angle.sin() * axis + (1 - angle.cos()) * (axis @ axis)


def _search(rays: Tensor, moved: Tensor, weight: Tensor, pixel: Tensor, starts: int) -> tuple[Tensor, Tensor]:
    """Best directions of travel and the rotation vector of each, ``(N, K, 3)``."""
    step = max(1, rays.shape[1] // 256)
    rays, moved, weight = rays[:, ::step], moved[:, ::step], weight[:, ::step]
    directions = half_sphere(_DIRECTIONS).to(rays)  # (D, 3)
    x, y = rays.unbind(-1)
    one = torch.ones_like(x)
    turn_x = torch.stack([-x * y, one + x * x, -y], -1)  # (N, M, 3): motion of a ray per radian about each axis
    turn_y = torch.stack([-one - y * y, x * y, x], -1)
    travel = directions[:, :2].view(1, -1, 1, 2) - rays[:, None] * directions[:, 2].view(1, -1, 1, 1)  # (N, D, M, 2)
    normal = torch.stack([-travel[..., 1], travel[..., 0]], -1) / travel.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    basis = normal[..., :1] * turn_x[:, None] + normal[..., 1:] * turn_y[:, None]  # (N, D, M, 3)
    target = (normal * (moved - rays)[:, None]).sum(-1)  # (N, D, M)
    weights = weight[:, None].expand_as(target)
    for width in (8.0, 3.0, 3.0):
        square = (basis.mT * weights[:, :, None]) @ basis + 1e-6 * torch.eye(3).to(rays)
        turn = torch.linalg.solve(square, (basis.mT @ (weights * target)[..., None]))  # (N, D, 3, 1)
        left = target - (basis @ turn)[..., 0]
        weights = weight[:, None] / (1 + (left / (width * pixel[:, None])).square()).square()
    cost = (weight[:, None] * _robust_cost(left, 3 * pixel[:, None])).sum(2)
    best = cost.topk(starts, dim=1, largest=False).indices  # (N, K)
    return directions[best], turn[..., 0].gather(1, best[..., None].expand(-1, -1, 3))


def _improve(
    rays: Tensor, seen: Tensor, weight: Tensor, width: Tensor, rotation: Tensor, translation: Tensor
) -> tuple[Tensor, Tensor]:
    """One weighted Gauss-Newton step on the epipolar distance."""
    turned = rays @ rotation.mT
    travel = translation[:, None].expand_as(turned)
    line = torch.linalg.cross(travel, turned, dim=-1)
    length = line[..., :2].norm(dim=-1, keepdim=True).clamp(min=1e-6)
    distance = (seen * line).sum(-1, keepdim=True) / length
    by_turn = seen * (travel * turned).sum(-1, keepdim=True) - travel * (seen * turned).sum(-1, keepdim=True)
    by_travel = torch.linalg.cross(turned, seen, dim=-1)
    plane = _tangent(translation)  # (N, 3, 2)
    slopes = torch.cat([by_turn, by_travel @ plane], -1) / length  # (N, M, 5)
    robust = weight / (1 + (distance[..., 0] / width).square()).square()
    square = (slopes.mT * robust[:, None]) @ slopes
    square = square + (1e-4 * square.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-12) * torch.eye(5).to(square)
    step = torch.linalg.solve(square, -(slopes.mT @ (robust[..., None] * distance)))[..., 0]  # (N, 5)
    step = step.clamp(-0.3, 0.3)
    rotation = turned_by(step[:, :3]) @ rotation
    translation = translation + (plane @ step[:, 3:, None])[..., 0]
    return rotation, translation / translation.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def _robust_cost(distance: Tensor, width: Tensor) -> Tensor:
    square = (distance / width).square()
    return square / (1 + square)


def _tangent(unit: Tensor) -> Tensor:
    """Two unit vectors across each ``(N, 3)``; ``(N, 3, 2)``."""
    axis = torch.zeros_like(unit).scatter_(1, unit.abs().argmin(1, keepdim=True), 1.0)
    first = torch.linalg.cross(unit, axis, dim=-1)
    first = first / first.norm(dim=-1, keepdim=True)
    return torch.stack([first, torch.linalg.cross(unit, first, dim=-1)], -1)


def homogeneous(rays: Tensor) -> Tensor:
    """``(..., 2)`` x, y at depth 1 to ``(..., 3)``."""
    return torch.cat([rays, torch.ones_like(rays[..., :1])], -1)


def half_sphere(count: int) -> Tensor:
    """``(count, 3)`` unit vectors, evenly over the half with z >= 0 (a Fibonacci spiral)."""
    index = torch.arange(count, dtype=torch.float32)
    z = (index + 0.5) / count
    angle = index * torch.pi * (3 - 5**0.5)
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
