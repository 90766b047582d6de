"""Which exceptions are a user's mistake, and how to say one in a line."""

from __future__ import annotations

import re

USER_ERRORS = (ValueError, TypeError, KeyError, OSError, ImportError, NotImplementedError)

_LIBRARIES = 'libxcb|libGL|libgthread|libglib'
_OPENCV_HINT = (
    'OpenCV cannot start because a system library is missing; '
    'on Debian and Ubuntu: apt-get install --no-install-recommends libgl1 libglib2.0-0'
)


def is_user_error(error: BaseException) -> bool:
    """Mistakes a user can mend get exit code 2; anything else is a fault of the program, code 1."""
    return isinstance(error, USER_ERRORS)


def one_line(error: BaseException, *, limit: int = 500) -> str:
    """The message of ``error`` without line breaks, quotes of KeyError, or the traceback of a data loading worker."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, ImportError) and re.search(_LIBRARIES, text):
        return f'{_OPENCV_HINT} ({text})'
    if isinstance(error, OSError) and error.filename and error.strerror:
        missing = isinstance(error, FileNotFoundError)
        text = f'{error.filename}: {"no such file or folder" if missing else error.strerror.lower()}'
    if 'Original Traceback' in text:  # torch re-raises a worker's error with its whole traceback as the message
        last = [line for line in text.strip().splitlines() if line.strip()][-1]
        text = re.sub(r'^[\w.]+: ', '', last.strip())
    text = ' '.join(text.split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + '...'
