"""A small perceiver with up to three heads, a clip for it, and a stream in which points and objects come and go."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trecvit_dense.models.heads.mask_slots import retire_objects
from trecvit_dense.models.heads.point_slots import add_points, retire_points
from trecvit_dense.registry import MODELS, use_scope
from trecvit_dense.structures import RecurrentState

SIZE, FRAMES, CAPACITY = (40, 56), 11, 4
POINTS = dict(
    volume=dict(type='CostVolumePointHead', channels=8, hidden_dim=16, radius=2, num_levels=2, iterations=2),
    tokens=dict(type='TAPNextHead', image_size=SIZE, num_bins=32, attention='read_only'),
)
MASKS = dict(type='ObjectTokenHead', channels=8, fine_channels=4, hidden_dim=8, target_dim=8, window=2)
DEPTH = dict(
    plain=dict(type='DPTDepthHead', scales=(4, 8, 16), widths=(8, 12, 16), confidence=True),
    parallax=dict(
        type='DPTDepthHead', scales=(4, 8, 16), widths=(8, 12, 16), confidence=True,
        parallax=dict(window=3, points=60), steadiness=0.5,
    ),
    blocks=dict(
        type='DPTDepthHead', scales=(4, 8), widths=8, kind='depth', parallax=dict(window=3, points=60),
        context=dict(stride=8, depth=2, num_heads=2),
    ),
)  # fmt: skip
BACKBONES = dict(
    stem=dict(stem='conv', stem_channels=(8, 12, 16), stem_levels=(4,)),
    patches=dict(out_indices=(0, 1)),
)
NAMES = dict(
    points=('xy_px', 'visible_logits', 'active', 'certainty'),
    masks=('probabilities', 'active', 'given'),
    depth=('log_values', 'confidence_logits'),
)

# before frame: slots to retire, points (x, y) to add
POINT_SCHEDULE = {3: ([], [[5.0, 6.0]]), 8: ([1], [[20.0, 33.5]])}


def box(top: int, left: int, height: int = 14, width: int = 18) -> Tensor:
    mask = torch.zeros(SIZE)
    mask[top : top + height, left : left + width] = 1
    return mask


START = {0: box(4, 4), 2: box(20, 24)}
# before frame: slot to mask (a new object or a correction), or None to retire it
MASK_SCHEDULE = {3: {1: box(6, 30)}, 5: {0: box(5, 14), 2: None}, 8: {2: box(22, 6)}}


def build(heads: dict[str, dict], backbone: str = 'stem', **options) -> nn.Module:
    use_scope()
    torch.manual_seed(0)
    sizes = dict(type='TRecViT', embed_dim=16, depth=2, num_heads=2, mlp_dim=32, patch_size=8, image_size=48)
    model = MODELS.build(dict(type='VideoPerceiver', backbone=sizes | BACKBONES[backbone], heads=heads) | options)
    for name, parameter in model.heads.named_parameters():  # answers large enough to matter
        if parameter.ndim > 1 and ('refiner' in name or 'depth.out' in name):
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def clip(frames: int = FRAMES, size: tuple[int, int] = SIZE) -> Tensor:
    """Texture that moves to the right, with noise that differs from frame to frame."""
    generator = torch.Generator().manual_seed(1)
    texture = torch.rand(1, 3, size[0], size[1] + 64, generator=generator)
    moved = [texture[..., 64 - 2 * (t % 32) :][..., : size[1]] for t in range(frames)]
    return torch.stack(moved, 1) + 0.05 * torch.rand(1, frames, 3, *size, generator=generator)


def start(model: nn.Module, size: tuple[int, int] = SIZE) -> RecurrentState:
    """Points asked for on frames 0 and 4, objects given on frame 0, as far as the model has heads for them."""
    query = torch.tensor([[[0.0, 30.0, 14.0], [4.0, 30.5, 20.0]]])
    state = model.start(1, points=dict(query_txy=query, capacity=CAPACITY), masks=dict(capacity=CAPACITY))
    return give(model, state, START, size) if 'masks' in model.heads else state


def give(
    model: nn.Module, state: RecurrentState, events: dict[int, Tensor | None], size: tuple[int, int] = SIZE
) -> RecurrentState:
    masks, rows = torch.zeros(1, CAPACITY, *size), torch.zeros(1, CAPACITY, dtype=torch.bool)
    scope = state.scope('heads.masks')
    for slot, mask in events.items():
        if mask is None:
            retire_objects(scope, torch.tensor([slot]))
        else:
            masks[0, slot], rows[0, slot] = mask[: size[0], : size[1]], True
    model.heads['masks'].give(scope, masks, rows)
    return RecurrentState(state).put('heads.masks', scope)


def change_points(state: RecurrentState, retired: list[int], added: list[list[float]]) -> RecurrentState:
    scope = state.scope('heads.points')
    if retired:
        retire_points(scope, torch.tensor(retired))
    if added:
        add_points(scope, torch.tensor(added))
    return RecurrentState(state).put('heads.points', scope)


@torch.no_grad()
def stream(
    model: nn.Module, sizes: list[int], points: dict | None = None, masks: dict | None = None
) -> tuple[dict[str, dict[str, Tensor]], RecurrentState]:
    """Answers over all frames, by task, and the last state; ``points`` and ``masks`` are schedules."""
    video, state, frame = clip(), start(model), 0
    parts: dict[str, list] = {task: [] for task in model.heads}
    for size in sizes:
        if frame in (points or {}) and 'points' in model.heads:
            state = change_points(state, *points[frame])
        if frame in (masks or {}) and 'masks' in model.heads:
            state = give(model, state, masks[frame])
        before = state.clone()
        outputs, new_state = model.step(video[:, frame : frame + size], state)
        assert all(torch.equal(state[key], value) for key, value in before.items()), 'a step must not write into state'
        for task, output in outputs.items():
            parts[task].append(output)
        state, frame = new_state, frame + size
    return {task: joined(task, found) for task, found in parts.items()}, state


def joined(task: str, outputs: list) -> dict[str, Tensor]:
    """The tensors of a task's answers, frames one after another."""
    found = {name: [getattr(output, name) for output in outputs] for name in NAMES[task]}
    return {name: torch.cat(values, 1) for name, values in found.items() if values[0] is not None}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    """Equal up to ``tolerance`` of the largest value; to the last bit where it is 0."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        value, other = value.float(), found[name].float()
        assert (value - other).abs().max() <= tolerance * value.abs().max().clamp_min(1e-6), name
