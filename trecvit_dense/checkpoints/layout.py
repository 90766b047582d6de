"""What :mod:`official` must know of one kind of official torch file; one such description per published model.

A new kind is a module with its names (``vivit_names.py``), a :class:`Layout` in it, and a line in
``official.OTHERS``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .trecvit_names import Rule

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """One kind of official file.

    Args:
        name: Of the model and of its files, as ``--arch`` takes it.
        matches: Whether official names are of this kind.
        rules: From the official names of a file, every array that is read.
        rules_back: From the names of one of our state dicts, every array that is written.
        ours: Whether the names of one of our state dicts are of this model.
        config: Model config from the arrays of a file and from the options ``image_size``, ``input_size`` and
            ``numerics``, where they were given, and ``recipe``: the text of the training config in the file.
        unused: Regular expression of official names that no model of ours has a place for, to the reason.
        container: Key under which the authors' program looks for the weights, or an empty string.
    """

    name: str
    matches: Callable[[Collection[str]], bool]
    rules: Callable[[Collection[str]], list[Rule]]
    rules_back: Callable[[Collection[str]], list[Rule]]
    ours: Callable[[Collection[str]], bool]
    config: Callable[[Arrays, dict[str, Any]], dict[str, Any]]
    unused: Mapping[str, str] = field(default_factory=dict)
    container: str = ''

    def drop(self, arrays: dict[str, np.ndarray]) -> list[str]:
        """Take what is unused out of ``arrays``; returns ``'name: reason'`` of each."""
        dropped = []
        for name in list(arrays):
            for pattern, reason in self.unused.items():
                if name in arrays and re.fullmatch(pattern, name):
                    del arrays[name]
                    dropped.append(f'{name}: {reason}')
        return dropped

    def finish(self, arrays: dict[str, np.ndarray]) -> None:
        """Make what ``rules_back`` wrote whole, in place, where one array is made of several of ours."""
