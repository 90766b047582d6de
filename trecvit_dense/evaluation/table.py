"""Metrics as a plain text table: the model, and beside it what it must beat."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from .functional.tapvid import THRESHOLDS_PX

_COLUMNS = ('AJ', 'delta_avg', 'OA', *(f'delta_{threshold}' for threshold in THRESHOLDS_PX))
_ROWS = {'': 'model', 'zero_motion': 'zero motion', 'lucas_kanade': 'Lucas-Kanade', 'reset': 'state reset'}
_PER_VIDEO = 'per_video'
_HIDDEN = {'occluded': 'points that were hidden', 'reappear': 'points that were hidden and came back'}
_MASK_COLUMNS = tuple(
    'G J&F J&F_new J J_recall J_decay F F_recall F_decay F_new J_seen F_seen J_unseen F_unseen V V_seen V_unseen '
    'disappear_J disappear_F_new reappear_J reappear_F_new'.split()
)
_MASK_ROWS = {
    '': 'model',
    'copy_first': 'copy first mask',
    'label_propagation': 'label propagation',
    'reset': 'state reset',
}
_DEPTH_COLUMNS = tuple('AbsRel SqRel RMSE logRMSE SILog delta1 delta2 delta3 TAE OPW flicker'.split())
_DEPTH_ROWS = {
    '': 'model',
    'constant_frame': 'constant depth per frame',
    'constant_clip': 'constant depth per clip',
    'reset': 'state reset',
}
_CLASS_COLUMNS = ('top1', 'top5', 'mean_class_accuracy')
_CLASS_ROWS = {'': 'model', 'chance': 'chance', 'majority': 'most frequent class', 'reset': 'state reset'}
_VALUE_COLUMNS = ('MSE', 'MAE')
_VALUE_ROWS = {'': 'model', 'constant': 'best constant'}
_WORST_CLASSES = 12  # all are in results.json, if they were asked for
_PER_SEQUENCE = 'per_sequence'
_DETAIL = re.compile(r'/AJ_RD_D\d+_dmin\d+$')  # 25 bins: in results.json, too many to read here


def format_table(metrics: dict[str, float]) -> str:
    """One block per protocol, say ``tapvid/first/256`` or ``davis``: the model and what it must beat; then the rest.

    Args:
        metrics: Flat, as metrics return them. A value that is NaN or None prints as ``-``.
    """
    makers = {group: _point_block for group in _point_groups(metrics)}
    makers |= {group: _mask_block for group in _mask_groups(metrics)}
    makers |= {group: _depth_block for group in _depth_groups(metrics)}
    makers |= {group: _class_block for group in _groups(metrics, 'mean_class_accuracy', _CLASS_ROWS)}
    makers |= {group: _value_block for group in _groups(metrics, 'MSE', _VALUE_ROWS)}
    groups = sorted(makers)
    blocks = [makers[group](group, _below(group, metrics, groups)) for group in groups]
    rest = {key: value for key, value in metrics.items() if not any(key.startswith(f'{group}/') for group in groups)}
    rest = {key: value for key, value in rest.items() if not _DETAIL.search(key)}
    if rest:
        blocks.append('\n'.join(_grid([[key, _number(value)] for key, value in rest.items()])))
    return '\n\n'.join(blocks)


def _point_groups(metrics: dict[str, float]) -> set[str]:
    """Prefixes below which a point-tracking protocol reports: those of ``delta_avg`` of the model over all points."""
    heads = {key.rpartition('/')[0] for key in metrics if key.endswith('/delta_avg')}
    inner = (*_ROWS, *_HIDDEN)
    return {head for head in heads if head.rpartition('/')[2] not in inner and f'/{_PER_VIDEO}/' not in head}


def _mask_groups(metrics: dict[str, float]) -> set[str]:
    """Prefixes below which a segmentation protocol reports: those of ``J&F`` of the model over all objects."""
    heads = {key.rpartition('/')[0] for key in metrics if key.endswith('/J&F')}
    return {head for head in heads if head.rpartition('/')[2] not in _MASK_ROWS and f'/{_PER_SEQUENCE}/' not in head}


def _depth_groups(metrics: dict[str, float]) -> set[str]:
    """Prefixes below which an alignment of depth reports: those of ``AbsRel`` of the model over all clips."""
    heads = {key.rpartition('/')[0] for key in metrics if key.endswith('/AbsRel')}
    return {head for head in heads if head.rpartition('/')[2] not in _DEPTH_ROWS and f'/{_PER_SEQUENCE}/' not in head}


def _groups(metrics: dict[str, float], key: str, rows: dict[str, str]) -> set[str]:
    """Prefixes below which ``key`` of the model stands, and not of one of the other ``rows``."""
    heads = {name.rpartition('/')[0] for name in metrics if name.endswith(f'/{key}')}
    return {head for head in heads if head.rpartition('/')[2] not in rows}


def _below(group: str, metrics: dict[str, float], groups: Sequence[str]) -> dict[str, float]:
    """The metrics of a group without its prefix, and without those of groups inside it."""
    inner = tuple(f'{other}/' for other in groups if other.startswith(f'{group}/'))
    own = {key: value for key, value in metrics.items() if key.startswith(f'{group}/') and not key.startswith(inner)}
    return {key[len(group) + 1 :]: value for key, value in own.items()}


def _rows_of_methods(
    values: dict[str, float], all_columns: Sequence[str], methods: dict[str, str], key: str
) -> list[str]:
    """A line for each method that has ``key``, by its label, under the columns that the model has."""
    columns = [column for column in all_columns if column in values]
    rows = [['', *columns]]
    for method, label in methods.items():
        prefix = f'{method}/' if method else ''
        if prefix + key in values:
            rows.append([label, *(_number(values.get(prefix + column)) for column in columns)])
    return _grid(rows)


def _mask_block(group: str, values: dict[str, float]) -> str:
    title = group
    if 'num_objects' in values:
        title += f': {int(values["num_sequences"])} sequences, {int(values["num_objects"])} objects'
    return '\n'.join([title, *_rows_of_methods(values, _MASK_COLUMNS, _MASK_ROWS, 'J&F'), *_sequence_rows(values)])


def _depth_block(group: str, values: dict[str, float]) -> str:
    title = group
    if 'num_clips' in values:
        title += f': {int(values["num_clips"])} clips'
    if 'num_frames' in values:
        title += f', {int(values["num_frames"])} frames'
    return '\n'.join([title, *_rows_of_methods(values, _DEPTH_COLUMNS, _DEPTH_ROWS, 'AbsRel'), *_clip_rows(values)])


def _clip_rows(values: dict[str, float]) -> list[str]:
    """A line per clip: the model, and AbsRel of the constant per frame."""
    names = [
        key[len(_PER_SEQUENCE) + 1 : -len('/AbsRel')] for key in values if re.match(rf'{_PER_SEQUENCE}/.*/AbsRel$', key)
    ]
    names = [name for name in names if name.rpartition('/')[2] not in _DEPTH_ROWS]
    if not names:
        return []
    columns = {key: key for key in ('AbsRel', 'RMSE', 'delta1', 'TAE', 'flicker') if key in values}
    if any(key.endswith('/constant_frame/AbsRel') for key in values):
        columns['constant_frame/AbsRel'] = f'{_DEPTH_ROWS["constant_frame"]} AbsRel'
    rows = [['clip', *columns.values()]]
    rows += [[name, *(_number(values.get(f'{_PER_SEQUENCE}/{name}/{key}')) for key in columns)] for name in names]
    return ['', *_grid(rows)]


def _class_block(group: str, values: dict[str, float]) -> str:
    title = f'{group}: {int(values["num_videos"])} videos, {int(values["num_classes"])} classes'
    columns = (*_CLASS_COLUMNS, *(key for key in values if re.fullmatch(r'top\d+', key) and key not in _CLASS_COLUMNS))
    return '\n'.join([title, *_rows_of_methods(values, columns, _CLASS_ROWS, 'top1'), *_class_lines(values)])


def _class_lines(values: dict[str, float]) -> list[str]:
    """A line for each of the worst classes: its accuracy, and what it is mostly taken for."""
    found = [re.fullmatch(r'per_class/(.*)/accuracy', key) for key in values]
    names = sorted((match[1] for match in found if match), key=lambda name: values[f'per_class/{name}/accuracy'])
    if not names:
        return []
    rows = [['worst classes', 'accuracy', 'videos', 'taken for']]
    for name in names[:_WORST_CLASSES]:
        start = f'per_class/{name}/mistaken_for/'
        wrong = [f'{key[len(start) :]} {_number(value)}' for key, value in values.items() if key.startswith(start)]
        counts = [_number(values[f'per_class/{name}/accuracy']), str(int(values[f'per_class/{name}/num_videos']))]
        rows.append([name, *counts, ', '.join(wrong) or '-'])
    return ['', *_grid(rows)]


def _value_block(group: str, values: dict[str, float]) -> str:
    title = f'{group}: {int(values["num_videos"])} videos'
    return '\n'.join([title, *_rows_of_methods(values, _VALUE_COLUMNS, _VALUE_ROWS, 'MSE')])


def _sequence_rows(values: dict[str, float]) -> list[str]:
    """A line per sequence: the model, and J&F of the other methods."""
    names = [key[len(_PER_SEQUENCE) + 1 : -len('/J')] for key in values if re.match(rf'{_PER_SEQUENCE}/.*/J$', key)]
    names = [name for name in names if name.rpartition('/')[2] not in _MASK_ROWS]
    if not names:
        return []
    columns = {key: key for key in ('J&F', 'J', 'F')}
    others = {f'{method}/J&F': f'{label} J&F' for method, label in _MASK_ROWS.items() if f'{method}/J&F' in values}
    columns |= others
    rows = [['sequence', *columns.values()]]
    rows += [[name, *(_number(values.get(f'{_PER_SEQUENCE}/{name}/{key}')) for key in columns)] for name in names]
    return ['', *_grid(rows)]


def _point_block(group: str, values: dict[str, float]) -> str:
    lines = [_title(group, values), *_method_rows(values, '')]
    for subset, title in _HIDDEN.items():
        if f'{subset}/AJ' in values:
            lines += ['', f'{title} ({_count(values, f"{subset}/num_points")})', *_method_rows(values, f'{subset}/')]
            lines += _worth_of_memory(values, subset)
    lines += _video_rows(values)
    return '\n'.join(lines)


def _title(group: str, values: dict[str, float]) -> str:
    if 'num_videos' not in values:
        return group
    return f'{group}: {int(values["num_videos"])} videos, {_count(values, "num_points")}'


def _count(values: dict[str, float], key: str) -> str:
    return f'{int(values.get(key, 0))} points'


def _method_rows(values: dict[str, float], subset: str) -> list[str]:
    rows = [['', *_COLUMNS]]
    for method, label in _ROWS.items():
        prefix = f'{method}/{subset}' if method else subset
        if f'{prefix}AJ' in values:
            rows.append([label, *(_number(values.get(prefix + column)) for column in _COLUMNS)])
    return _grid(rows)


def _worth_of_memory(values: dict[str, float], subset: str) -> list[str]:
    kept, cleared = values[f'{subset}/AJ'], values.get(f'reset/{subset}/AJ')
    if cleared is None:
        return []
    return [f'clearing the state before every frame changes their AJ by {cleared - kept:+.3f}']


def _video_rows(values: dict[str, float]) -> list[str]:
    names = [
        key[len(_PER_VIDEO) + 1 : -len('/AJ')]
        for key in values
        if key.startswith(f'{_PER_VIDEO}/') and key.endswith('/AJ')
    ]
    names = [name for name in names if name.rpartition('/')[2] not in _ROWS]
    if not names:
        return []
    columns = ['AJ', 'delta_avg', 'OA']
    rows = [['video', *columns]]
    for method in ('zero_motion', 'lucas_kanade'):
        if f'{method}/delta_avg' in values:
            columns.append(f'{method}/delta_avg')
            rows[0].append(f'{_ROWS[method]} delta_avg')
    rows += [[name, *(_number(values.get(f'{_PER_VIDEO}/{name}/{column}')) for column in columns)] for name in names]
    return ['', *_grid(rows)]


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return '-'
    return str(int(value)) if float(value).is_integer() and abs(value) > 1 else f'{value:.3f}'


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        '  '.join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
