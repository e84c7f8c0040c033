"""The settings that a command is given."""

from __future__ import annotations

import os
from pathlib import Path

from specmaskfoley.settings import Params


def enter(params_file: Path, profile: str | None = None) -> Params:
    """Read params.yaml, and make its folder the current one: all paths in it count from there.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    params = Params.load(params_file, profile)
    os.chdir(params_file.absolute().parent)  # unresolved: in a model hub's cache the file is a link
    return params
