"""How patches and prompt groups travel through the blocks, and how their recurrent rows enter and leave a state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from trecvit_dense.structures import PromptGroup, RecurrentState

Layer = dict[str, Tensor]  # 'rg_lru' (B, N, L) and 'conv' (B, past, N, L) of one block


@dataclass
class TokenStream:
    """Token groups that go through the blocks as one tensor, side by side along N.

    The first stream holds the patches and the prompts that patches may see; every read-only group is a stream of its
    own, so that no patch number depends on it, not even through the order of a sum.

    Args:
        keys: State name of each group: ``patch`` or ``prompt.{name}``.
        sizes: Rows of each group.
        tokens: ``(B, T, N, C)``.
        reset, active: ``(B, T, N)`` bool or None, as in :class:`PromptGroup`.
        item_size: As in :class:`PromptGroup`; matters to read-only streams.
        hidden: ``(B, T, N)`` bool or None: rows that are not there on a frame, and wait (see ``hidden_patches``).
    """

    keys: list[str]
    sizes: list[int]
    tokens: Tensor
    reset: Tensor | None = None
    active: Tensor | None = None
    item_size: int = 1
    hidden: Tensor | None = None

    @property
    def present(self) -> Tensor | None:
        """``(B, T, N)`` bool: tokens that others may look at; None: all."""
        return self.active if self.hidden is None else ~self.hidden

    def hide(self, hidden: Tensor | None, reset: Tensor | None) -> None:
        """Leave rows out on some frames; ``reset`` names those that start, which may be later than the first frame."""
        self.hidden, self.reset = hidden, reset
        self.tokens = clear(self.tokens, self.present)

    def split(self, x: Tensor, *, dim: int = 2) -> dict[str, Tensor]:
        """Each group's part of a tensor that has the rows in ``dim``."""
        return dict(zip(self.keys, x.split(self.sizes, dim=dim), strict=True))


def clear(x: Tensor, active: Tensor | None) -> Tensor:
    """``x`` with inactive tokens zero."""
    return x if active is None else x.masked_fill(~active[..., None], 0.0)


def make_streams(patches: Tensor, prompts: list[PromptGroup], state: RecurrentState | None) -> list[TokenStream]:
    """Patches and full-attention prompts as one stream, then every read-only group as another.

    Raises:
        ValueError: a group's name, shape, attention, item size or mask does not fit.
    """
    _check_prompts(patches, prompts)
    groups = [PromptGroup('', patches)] + [group for group in prompts if group.attention == 'full']
    streams = [_join(groups, ['patch'] + [f'prompt.{group.name}' for group in groups[1:]], state)]
    for group in prompts:
        if group.attention == 'read_only':
            streams.append(_join([group], [f'prompt.{group.name}'], state))
    return streams


def prompt_tokens(streams: list[TokenStream], tokens: list[Tensor]) -> dict[str, Tensor]:
    """Prompt group name to its part of the streams' tokens."""
    found = {}
    for stream, x in zip(streams, tokens, strict=True):
        for key, rows in stream.split(x).items():
            if key != 'patch':
                found[key.removeprefix('prompt.')] = rows
    return found


# ------------------------------------------------------------------------------------------------------ state


def read_state(state: RecurrentState | None, layer: int, stream: TokenStream, *, width: int, past: int) -> Layer | None:
    """State of one block for all groups of a stream; None when the state knows none of them.

    A group that it does not know enters as zeros; :func:`make_streams` has given its first frame a reset.

    Raises:
        ValueError: an entry is missing or has other sizes than this call.
    """
    if state is None or not any(_known(state, key) for key in stream.keys):
        return None
    batch = stream.tokens.shape[0]
    parts: dict[str, list[Tensor]] = {'rg_lru': [], 'conv': []}
    for key, rows in zip(stream.keys, stream.sizes, strict=True):
        for name, shape in (('rg_lru', (batch, rows, width)), ('conv', (batch, past, rows, width))):
            if _known(state, key):
                parts[name].append(_take(state, _entry(layer, key, name), shape))
            else:
                parts[name].append(stream.tokens.new_zeros(shape, dtype=torch.float32))
    return {name: part[0] if len(part) == 1 else torch.cat(part, dim=-2) for name, part in parts.items()}


def write_state(state: RecurrentState, layer: int, streams: list[TokenStream], entries: list[Layer]) -> None:
    """Store the state of one block, each group under its own name."""
    for stream, entry in zip(streams, entries, strict=True):
        for name, tensor in entry.items():
            for key, rows in stream.split(tensor, dim=tensor.ndim - 2).items():
                state[_entry(layer, key, name)] = rows


def _entry(layer: int, key: str, name: str) -> str:
    return f'blocks.{layer}.{key}.{name}'


def _known(state: RecurrentState | None, key: str) -> bool:
    return state is not None and _entry(0, key, 'rg_lru') in state


def _take(state: RecurrentState, entry: str, shape: tuple[int, ...]) -> Tensor:
    tensor = state.get(entry)
    if tensor is None:
        raise ValueError(f"state has no entry '{entry}'; it comes from another model")
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"state '{entry}' has shape {tuple(tensor.shape)}, this call needs {shape}; "
            f'batch, frame size and number of prompts must stay as they were when the state was made'
        )
    return tensor


# ------------------------------------------------------------------------------------------------------ joining


def _join(groups: list[PromptGroup], keys: list[str], state: RecurrentState | None) -> TokenStream:
    resets = [group.reset for group in groups]
    known = [_known(state, key) for key in keys]
    if any(known) and not all(known):
        # some rows continue and some start: the latter need a reset of their own on the first frame
        resets = [group.reset if old else _reset_first(group) for group, old in zip(groups, known, strict=True)]
    reset = _join_masks(resets, groups, default=False)
    active = _join_masks([group.active for group in groups], groups, default=True)
    tokens = groups[0].tokens
    if can_look(tokens):  # most frames start and stop nothing, and are faster without masks
        reset = None if reset is None or not bool(reset.any()) else reset
        active = None if active is None or bool(active.all()) else active
    if len(groups) > 1:
        tokens = torch.cat([group.tokens.to(tokens.dtype) for group in groups], dim=2)
    sizes = [group.tokens.shape[2] for group in groups]
    return TokenStream(keys, sizes, clear(tokens, active), reset, active, groups[0].item_size)


def can_look(x: Tensor) -> bool:
    """Whether Python may branch on a tensor's numbers: on a GPU it would wait for them, and a graph has one branch."""
    return x.device.type == 'cpu' and not torch.compiler.is_compiling() and not is_in_torch_dispatch_mode()


def _reset_first(group: PromptGroup) -> Tensor:
    first = torch.zeros(group.tokens.shape[:3], dtype=torch.bool, device=group.tokens.device)
    first[:, 0] = True
    return first if group.reset is None else first | group.reset


def _join_masks(masks: list[Tensor | None], groups: list[PromptGroup], *, default: bool) -> Tensor | None:
    """``(B, T, N)`` over all groups, or None where no group has a mask."""
    if all(mask is None for mask in masks):
        return None
    filled = [
        torch.full(group.tokens.shape[:3], default, device=group.tokens.device) if mask is None else mask
        for mask, group in zip(masks, groups, strict=True)
    ]
    return filled[0] if len(filled) == 1 else torch.cat(filled, dim=2)


def _check_prompts(patches: Tensor, prompts: list[PromptGroup]) -> None:
    batch, time, _, channels = patches.shape
    names = [group.name for group in prompts]
    for group in prompts:
        shape, who = tuple(group.tokens.shape), f"prompts '{group.name}'"
        if names.count(group.name) > 1:
            raise ValueError(f"two prompt groups are named '{group.name}'; names must differ")
        if len(shape) != 4 or shape[:2] != (batch, time) or shape[3] != channels:
            raise ValueError(f'{who} have shape {shape}; wanted ({batch}, {time}, Q, {channels})')
        if group.attention not in ('full', 'read_only'):
            raise ValueError(f"{who} ask for attention '{group.attention}'; wanted 'full' or 'read_only'")
        if group.item_size < 1 or shape[2] % group.item_size:
            raise ValueError(f'{who}: {shape[2]} tokens do not divide into items of {group.item_size}')
        for field in ('active', 'reset'):
            mask = getattr(group, field)
            if mask is not None and (tuple(mask.shape) != shape[:3] or mask.dtype != torch.bool):
                raise ValueError(f'{who}: {field} is {mask.dtype} {tuple(mask.shape)}; wanted bool {shape[:3]}')
