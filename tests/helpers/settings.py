"""params.yaml with changes."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from helpers import ROOT

RAW: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
MISSING = object()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """params.yaml with the settings of dotted names replaced, added, or taken away (MISSING)."""
    raw = copy.deepcopy(RAW)
    for name, value in changes.items():
        *path, last = name.split(".")
        section = raw
        for part in path:
            section = section[part]
        if value is MISSING:
            del section[last]
        else:
            section[last] = value
    return raw
