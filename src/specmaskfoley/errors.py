"""Errors as a user sees them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_line_errors(exit_code: int, advice: str = "") -> Iterator[None]:
    """End the program with one line on stderr where the user, a file or the system is at fault.

    These are `ValueError` and `OSError`; any other exception is a bug and keeps its traceback. With
    SPECMASKFOLEY_DEBUG=1 all do. A broken pipe (`| head`) is left to the caller. `advice` ends the line.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        if os.environ.get("SPECMASKFOLEY_DEBUG"):
            raise
        print(f"error: {error}{advice}", file=sys.stderr)
        raise SystemExit(exit_code) from None
