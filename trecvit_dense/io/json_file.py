"""Reading JSON, with an error for users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def parse_json(path: Path) -> Any:
    """The content of a JSON file that exists.

    Raises:
        ValueError: not JSON; the message names the file and the place.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: not a JSON file ({" ".join(str(error).split())})') from None
