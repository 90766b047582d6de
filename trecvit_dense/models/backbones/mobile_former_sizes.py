"""The seven sizes of Mobile-Former (arXiv 2108.05895, table 1 and the authors' code), and how others are said."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trecvit_dense.registry import nearest

Row = tuple[str, int, int, int, int]  # kind, expansion, channels out, stride, second expansion of 'lite'
KINDS = ('first', 'lite', 'dna')


@dataclass(frozen=True)
class Size:
    """One size: channels of the stem, global tokens and their width, width of the classifier, groups, blocks."""

    stem_channels: int
    num_tokens: int
    token_dim: int
    rep_size: int
    rows: tuple[Row, ...]
    groups: int = 1


def _first(expand: int, channels: int, stride: int = 1) -> Row:
    return 'first', expand, channels, stride, 0


def _lite(channels: int) -> Row:
    return 'lite', 6, channels, 2, 4


def _dna(expand: int, channels: int) -> Row:
    return 'dna', expand, channels, 1, 0


# fmt: off
_ROWS_52M = (
    _first(3, 12, 2), _dna(3, 12), _lite(24), _dna(3, 24), _lite(48), _dna(4, 48), _dna(6, 64), _lite(96), _dna(6, 96),
)
# The authors' names: their multiply-adds at 224 x 224.
SIZES: dict[str, Size] = {
    '508M': Size(24, 6, 192, 1920, (
        _first(2, 24), _lite(40), _dna(3, 40), _lite(72), _dna(3, 72), _lite(128), _dna(4, 128), _dna(6, 176),
        _dna(6, 176), _lite(240), _dna(6, 240), _dna(6, 240))),
    '294M': Size(16, 6, 192, 1920, (
        _first(2, 16), _lite(24), _dna(4, 24), _lite(48), _dna(4, 48), _lite(96), _dna(4, 96), _dna(6, 128),
        _dna(6, 128), _lite(192), _dna(6, 192), _dna(6, 192))),
    '214M': Size(12, 6, 192, 1600, (
        _first(2, 12), _lite(20), _dna(3, 20), _lite(40), _dna(4, 40), _lite(80), _dna(4, 80), _dna(6, 112),
        _dna(6, 112), _lite(160), _dna(6, 160), _dna(6, 160))),
    '151M': Size(12, 6, 192, 1280, (
        _first(2, 12), _lite(16), _dna(3, 16), _lite(32), _dna(3, 32), _lite(64), _dna(4, 64), _dna(6, 88),
        _dna(6, 88), _lite(128), _dna(6, 128), _dna(6, 128))),
    '96M': Size(12, 4, 128, 1280, (
        _first(2, 12), _lite(16), _lite(32), _dna(3, 32), _lite(64), _dna(4, 64), _dna(6, 88), _lite(128),
        _dna(6, 128))),
    '52M': Size(8, 3, 128, 1024, _ROWS_52M),
    '26M': Size(8, 3, 128, 1024, _ROWS_52M, groups=4),
}
# fmt: on


def resolve_size(name: str | None, **fields: object) -> Size:
    """A named size with the fields that are not None in place of its own.

    Raises:
        ValueError: an unknown name; a field missing where there is no name; fields that do not fit each other.
    """
    if name is not None and name not in SIZES:
        raise ValueError(f"'{name}' is no size of Mobile-Former; known: {', '.join(SIZES)}{nearest(name, list(SIZES))}")
    fields = {key: value for key, value in fields.items() if value is not None}
    if 'rows' in fields:
        fields['rows'] = tuple(tuple(row) for row in fields['rows'])
    missing = [key for key in ('stem_channels', 'num_tokens', 'token_dim', 'rows') if key not in fields]
    if name is None and missing:
        raise ValueError(f"a Mobile-Former without a named size needs {', '.join(missing)}; or say size='96M'")
    size = replace(SIZES[name], **fields) if name else Size(rep_size=0, **fields)
    _check_size(size)
    return size


def _check_size(size: Size) -> None:
    for row in size.rows:
        if len(row) != 5 or row[0] not in KINDS:
            raise ValueError(f'{row} is no block; wanted (kind, expansion, channels, stride, second expansion), '
                             f'the kind one of {", ".join(KINDS)}')  # fmt: skip
        if row[3] not in (1, 2) or row[2] % 2 or row[2] % size.groups:
            raise ValueError(f'block {row}: wanted a stride of 1 or 2, and even channels that are a multiple of '
                             f'the {size.groups} groups')  # fmt: skip
    if not size.rows or size.num_tokens < 1 or size.token_dim % 4:
        raise ValueError(f'{len(size.rows)} blocks, {size.num_tokens} tokens of width {size.token_dim}; wanted at '
                         f'least one block and one token, of a width that is a multiple of 4')  # fmt: skip
